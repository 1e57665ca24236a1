//! Stamps the crate with a hash of the sources that coordinator and worker share, so that `ergodic run` can refuse
//! a worker of another build.

use std::path::{Path, PathBuf};

fn main() {
    let mut files = Vec::new();
    // A package from a registry comes without the folder of another one; its version tells builds apart.
    let folders = ["src", "../proto/src", "../proto/ergodic"];
    for dir in folders.into_iter().filter(|dir| Path::new(dir).exists()) {
        println!("cargo:rerun-if-changed={dir}");
        collect(Path::new(dir), &mut files);
    }

    files.sort();
    // FNV-1a: told apart, not protected.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;

    for file in &files {
        for byte in std::fs::read(file).unwrap_or_default() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    println!("cargo:rustc-env=ERGODIC_SOURCE_HASH={:08x}", hash >> 32);
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
