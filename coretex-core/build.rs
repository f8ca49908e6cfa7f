//! Compiles `proto/` with a pure-Rust compiler, so that no `protoc` is needed.

use std::error::Error;
use std::path::Path;

const FILES: [&str; 7] = [
    "coretex/agent/v1/alert.proto",
    "coretex/agent/v1/heartbeat.proto",
    "coretex/agent/v1/job.proto",
    "coretex/agent/v1/buspacket.proto",
    "coretex/agent/v1/safety.proto",
    "coretex/v1/api.proto",
    "coretex/v1/context.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [root])?;
    prost_build::Config::new()
        // Sorted maps: the same message is always the same bytes.
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
