//! Compiles the `.proto` files without a system `protoc`.

use tonic_prost_build::configure;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ergodic");
    let files =
        ["admin", "analysis", "common", "files", "worker", "sweep"].map(|name| format!("ergodic/v1/{name}.proto"));
    configure().compile_fds(protox::compile(files, ["."])?)?;
    Ok(())
}
