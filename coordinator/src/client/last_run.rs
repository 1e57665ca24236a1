//! The place that a folder's last `ergodic run`, or the last launch after it, left its results in. It is remembered in the folder, in
//! the file `.ergodic/last-run`, so that commands that read find it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::render::write_atomic_file;

/// The folder for what is remembered, in the working directory.
const MEMORY_FOLDER: &str = ".ergodic";
const STORE_WORD: &[u8] = b"store ";
const COORDINATOR_WORD: &[u8] = b"coordinator ";

/// What was done last in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastRun {
    /// `ergodic run` with this store, as it was named there; a relative path is relative to the folder.
    Store(PathBuf),
    /// `ergodic launch` on the coordinator at the default address, after a run.
    Coordinator,
}

impl LastRun {
    /// What is remembered in a folder; `None` if nothing is, or if it cannot be read.
    pub fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(memory_path(folder)).ok()?;
        parse_last_run(&bytes)
    }

    /// Remembers a run with this store; returns whether it could. A folder that cannot be written remembers nothing.
    pub fn remember_store(folder: &Path, store: &Path) -> bool {
        let text = [STORE_WORD, store.as_os_str().as_bytes(), b"\n"].concat();
        let made = create_memory_folder(folder);
        made.is_ok() && write_atomic_file(&memory_path(folder), &text).is_ok()
    }

    /// Remembers that sweeps were launched on a coordinator since the last run, if there was a run.
    pub fn remember_coordinator(folder: &Path, url: &str) {
        if !matches!(Self::read(folder), Some(Self::Store(_))) {
            return;
        }
        let text = [COORDINATOR_WORD, url.as_bytes(), b"\n"].concat();
        // What is remembered only saves typing, so a launch does not fail for it.
        let _ = write_atomic_file(&memory_path(folder), &text);
    }
}

/// Creates the folder for what is remembered, with a file that keeps it out of git.
fn create_memory_folder(folder: &Path) -> io::Result<()> {
    let memory = folder.join(MEMORY_FOLDER);
    std::fs::create_dir_all(&memory)?;
    let ignored = memory.join(".gitignore");
    if ignored.exists() {
        return Ok(());
    }
    std::fs::write(ignored, "*\n")
}

fn memory_path(folder: &Path) -> PathBuf {
    folder.join(MEMORY_FOLDER).join("last-run")
}

fn parse_last_run(bytes: &[u8]) -> Option<LastRun> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if let Some(store) = line.strip_prefix(STORE_WORD) {
        return (!store.is_empty()).then(|| LastRun::Store(OsStr::from_bytes(store).into()));
    }
    line.starts_with(COORDINATOR_WORD)
        .then_some(LastRun::Coordinator)
}

#[cfg(test)]
mod tests {
    use crate::client::last_run::*;

    #[test]
    fn a_folder_remembers_its_last_run_and_a_launch_after_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let folder = dir.path();
        assert_eq!(LastRun::read(folder), None);
        LastRun::remember_coordinator(folder, "http://127.0.0.1:7700");
        assert_eq!(LastRun::read(folder), None, "there was no run");

        for store in [
            Path::new("ergodic-runs/lr"),
            Path::new(OsStr::from_bytes(b"/odd \xff\n")),
        ] {
            assert!(LastRun::remember_store(folder, store));
            assert_eq!(LastRun::read(folder), Some(LastRun::Store(store.into())));
        }

        LastRun::remember_coordinator(folder, "http://127.0.0.1:7700");
        assert_eq!(LastRun::read(folder), Some(LastRun::Coordinator));
        assert!(folder.join(".ergodic/.gitignore").exists());
    }

    #[test]
    fn what_something_else_wrote_is_as_nothing() {
        for bytes in [&b""[..], b"store ", b"stores x\n", b"\xff"] {
            assert_eq!(parse_last_run(bytes), None);
        }
    }
}
