//! The folder of one attempt, which is removed when the attempt is over.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ergodic_common::program::bundle::BundledFile;
use ergodic_proto::identity::random_hex;
use rustix::fs::{CWD, Mode, mkfifoat};

/// The folder of an attempt, and the paths in it.
#[derive(Debug)]
pub(super) struct AttemptFolder {
    /// All of the attempt.
    pub(super) root: PathBuf,
    /// The folder that the program starts in, with the files of the sweep.
    pub(super) work_dir: PathBuf,
    /// The description of the trial.
    pub(super) trial_file: PathBuf,
    /// The pipe for metrics.
    pub(super) metrics_pipe: PathBuf,
    /// The folder of checkpoints.
    pub(super) checkpoint_dir: PathBuf,
}

impl AttemptFolder {
    /// Creates the folder, which only this user may enter, with the files of the program.
    ///
    /// # Errors
    /// The system refuses it: the disk may be full.
    pub(super) fn create(files: &[BundledFile]) -> io::Result<Self> {
        let root = std::env::temp_dir().join(format!("ergodic-trial-{}", random_hex::<8>()));
        DirBuilder::new().mode(0o700).create(&root)?;
        let folder = Self {
            work_dir: root.join("work"),
            trial_file: root.join("trial.json"),
            metrics_pipe: root.join("metrics"),
            checkpoint_dir: root.join("checkpoint"),
            root,
        };

        std::fs::create_dir(&folder.work_dir)?;
        std::fs::create_dir(&folder.checkpoint_dir)?;
        mkfifoat(CWD, &folder.metrics_pipe, Mode::RUSR | Mode::WUSR)?;
        for file in files {
            write_file(&folder.work_dir, file)?;
        }
        Ok(folder)
    }
}

impl Drop for AttemptFolder {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.root) {
            // A supervisor that lost the worker's pipes has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.root.display(), %error, "the folder of a trial cannot be removed");
            }
            _ => {}
        }
    }
}

/// Writes a file that may only be read. Its name was checked when the bundle was decoded.
fn write_file(folder: &Path, file: &BundledFile) -> io::Result<()> {
    let path = folder.join(&file.name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&path, &file.content)?;
    let mode = if file.is_executable { 0o555 } else { 0o444 };
    std::fs::set_permissions(&path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use crate::program::folder::*;

    #[test]
    fn an_attempt_has_read_only_files_and_leaves_nothing() {
        let files = [("a.py", false, 0o444), ("src/deep/run.sh", true, 0o555)];
        let bundled = files.map(|(name, is_executable, _)| BundledFile {
            name: name.into(),
            content: name.into(),
            is_executable,
        });
        let folder = AttemptFolder::create(&bundled).expect("a folder");
        let mode = |path: &Path| {
            let facts = std::fs::metadata(path).expect("it is there");
            facts.permissions().mode() & 0o777
        };
        for (name, _, expected) in files {
            let path = folder.work_dir.join(name);
            assert_eq!(std::fs::read(&path).expect("a file"), name.as_bytes());
            assert_eq!(mode(&path), expected);
        }
        assert_eq!(mode(&folder.root), 0o700);
        let pipe = std::fs::metadata(&folder.metrics_pipe).expect("it is there");
        assert!(pipe.file_type().is_fifo());

        let root = folder.root.clone();
        drop(folder);
        assert!(!root.exists());
    }
}
