//! The coretexd binary.

fn main() {}
