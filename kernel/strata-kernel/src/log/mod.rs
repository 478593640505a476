//! The log: the ordered record of all commits.
