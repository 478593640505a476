//! The one error type of the kernel. The binding maps each variant to one Python class.

use std::fmt;

use crate::seal::KeyId;

/// One place where a commit that came first touches what a transaction relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// A key that was read, written under snapshot isolation, or expected.
    Key { keyspace: u32, key: Vec<u8> },
    /// A path inside the value of a key; both sides as `Path::render` writes them.
    Path { keyspace: u32, key: Vec<u8>, ours: String, theirs: String },
    /// A range that was scanned: `start <= key < end`, `None` is unbounded.
    Range { keyspace: u32, start: Vec<u8>, end: Option<Vec<u8>> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Can never be accepted as given.
    InvalidInput(String),
    /// `what` is "branch", "space", ...; `near` are names that exist.
    NotFound {
        what: &'static str,
        name: String,
        near: Vec<String>,
    },
    AlreadyExists {
        what: &'static str,
        name: String,
    },
    Conflict(Vec<Clash>),
    HistoryTrimmed {
        requested: u64,
        oldest: u64,
    },
    LimitExceeded {
        what: &'static str,
        limit: u64,
        actual: u64,
    },
    Closed(&'static str),
    ReadOnly(String),
    /// The branch is sealed.
    Protected {
        branch: String,
        reason: String,
    },
    /// Another process, or another handle of this one, owns the directory.
    Locked {
        path: String,
        owner: String,
    },
    /// The disk said no; what was committed before is safe.
    Storage {
        operation: &'static str,
        path: String,
        errno: i32,
        message: String,
    },
    /// A checksum, a length or an order is wrong in `file` at byte `offset`.
    Corrupt {
        file: String,
        offset: u64,
        reason: String,
    },
    /// Written by a version that we do not know.
    TooNew {
        file: String,
        found: u32,
        known: u32,
    },
    /// The files are sealed with a key that is not among those given.
    NeedsKey {
        needed: KeyId,
        given: Vec<KeyId>,
    },
    /// Handed over and not confirmed; `transaction` can be asked for later.
    OutcomeUnknown {
        transaction: String,
        reason: String,
    },
    /// Our bug.
    Internal(String),
}

/// Why something cannot be read that is no fault of it: said where reasons are words, and told from damage by `damaged`.
pub const NO_MEMORY: &str = "there is no memory for it";

/// "Cannot allocate memory", by its number.
const ENOMEM: i32 = 12;

impl Error {
    /// What is in `file` at `offset` cannot be read, for `reason`: `Corrupt`, unless only memory was short.
    pub fn damaged(file: &str, offset: u64, reason: &str) -> Error {
        if reason == NO_MEMORY {
            let message = reason.to_owned();
            return Error::Storage { operation: "read", path: file.to_owned(), errno: ENOMEM, message };
        }
        Error::Corrupt { file: file.to_owned(), offset, reason: reason.to_owned() }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidInput(text) | Error::ReadOnly(text) | Error::Internal(text) => f.write_str(text),
            Error::NotFound { what, name, near } => {
                write!(f, "{what} '{name}' does not exist")?;
                match near.first() {
                    Some(near) => write!(f, "; did you mean '{near}'?"),
                    None => Ok(()),
                }
            }
            Error::AlreadyExists { what, name } => write!(f, "{what} '{name}' exists already"),
            Error::Conflict(clashes) => {
                write!(f, "a commit that came first changed what this transaction relied on ({} places)", clashes.len())
            }
            Error::HistoryTrimmed { requested, oldest } => {
                write!(f, "version {requested} is no longer kept; the oldest is {oldest}")
            }
            Error::Protected { branch, reason } => write!(f, "branch '{branch}' is sealed: {reason}"),
            Error::LimitExceeded { what, limit, actual } => write!(f, "{what} is {actual}, the limit is {limit}"),
            Error::Closed(what) => write!(f, "the {what} is closed"),
            Error::Locked { path, owner } => write!(f, "'{path}' is open elsewhere ({owner})"),
            Error::Storage { operation, path, message, .. } => write!(f, "{operation} '{path}': {message}"),
            Error::Corrupt { file, offset, reason } => write!(f, "{file} is damaged at byte {offset}: {reason}"),
            Error::TooNew { file, found, known } => {
                write!(f, "{file} has format version {found}; this build knows up to {known}")
            }
            Error::NeedsKey { needed, given } if given.is_empty() => {
                write!(f, "this is encrypted: it needs the key with the id {needed}, and none was given")
            }
            Error::NeedsKey { needed, given } => {
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                write!(f, "this is encrypted: it needs the key with the id {needed}; given was {}", given.join(", "))
            }
            Error::OutcomeUnknown { transaction, reason } => {
                write!(f, "the outcome of transaction {transaction} is unknown: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {}

/// For tools that judge in words.
impl From<Error> for String {
    fn from(error: Error) -> String {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read of a large value for which there was no memory said that the file was damaged, and people restore backups then.
    #[test]
    fn what_there_is_no_memory_for_is_not_damaged() {
        let no_memory = Error::damaged("DATA/run-000001.run", 64, NO_MEMORY);
        assert!(matches!(no_memory, Error::Storage { errno: ENOMEM, .. }), "{no_memory:?}");
        assert!(matches!(Error::damaged("a", 1, "it ends too early"), Error::Corrupt { offset: 1, .. }));
    }
}
