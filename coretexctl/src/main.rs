//! The coretexctl binary.

fn main() {}
