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
    let mut config = prost_build::Config::new();
    // Sorted maps: the same message is always the same bytes.
    config.btree_map(["."]);
    #[cfg(feature = "grpc")]
    grpc::add(&mut config, root)?;
    config.compile_fds(descriptors)?;
    Ok(())
}

#[cfg(feature = "grpc")]
mod grpc {
    use std::error::Error;
    use std::path::{Path, PathBuf};

    use prost::Message as _;
    use prost_build::{Config, Service, ServiceGenerator};

    /// Adds the safety kernel's server and client, and its description for those who ask over the wire.
    pub(super) fn add(config: &mut Config, root: &Path) -> Result<(), Box<dyn Error>> {
        let kernel = protox::compile(["coretex/agent/v1/safety.proto"], [root])?;
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        std::fs::write(out.join("safety_kernel.bin"), kernel.encode_to_vec())?;
        config.service_generator(Box::new(Kernel(tonic_prost_build::configure().service_generator())));
        Ok(())
    }

    /// Generates the one service that is spoken over gRPC.
    struct Kernel(Box<dyn ServiceGenerator>);

    impl ServiceGenerator for Kernel {
        fn generate(&mut self, service: Service, buf: &mut String) {
            if service.proto_name == "SafetyKernel" {
                self.0.generate(service, buf);
            }
        }

        fn finalize(&mut self, buf: &mut String) {
            self.0.finalize(buf);
        }
    }
}
