//! Compiles the .proto files with protox, so that no protoc has to be installed.

use std::path::PathBuf;

use prost::Message as _;

const FILES: &[&str] = &[
    "proto/netsplit/peer/v1/peer.proto",
    "proto/netsplit/node/v1/node.proto",
    "proto/netsplit/control/v1/control.proto",
    "proto/netsplit/agent/v1/agent.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("netsplit.descriptors.bin"), descriptors.encode_to_vec())?;
    // `bytes` fields as `Bytes`: a frame or a transaction is handed on without a copy.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
