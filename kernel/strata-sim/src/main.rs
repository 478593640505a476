//! Seeded crash histories of the whole store over a simulated disk.

fn main() {}
