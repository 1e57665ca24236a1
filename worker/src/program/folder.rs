//! The folder of one attempt, which is removed when the attempt is over.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ergodic_common::program::bundle::BundledFile;
use ergodic_proto::identity::random_hex;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::getuid;

/// Begins the names of such folders.
const PREFIX: &str = "ergodic-trial-";
/// The file in it that the worker holds locked.
const LOCK: &str = "lock";
/// Age at which a folder that nobody has locked is not just being made.
const MIN_ABANDONED_AGE: Duration = Duration::from_secs(60);

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
    /// Locked as long as this worker has the folder.
    _lock: File,
}

impl AttemptFolder {
    /// Creates the folder, which only this user may enter, with the files of the program.
    ///
    /// # Errors
    /// The system refuses it: the disk may be full.
    pub(super) fn create(files: &[BundledFile]) -> io::Result<Self> {
        let root = std::env::temp_dir().join(format!("{PREFIX}{}", random_hex::<8>()));
        DirBuilder::new().mode(0o700).create(&root)?;
        let lock = File::create(root.join(LOCK))?;
        lock.lock()?;
        let folder = Self {
            work_dir: root.join("work"),
            trial_file: root.join("trial.json"),
            metrics_pipe: root.join("metrics"),
            checkpoint_dir: root.join("checkpoint"),
            _lock: lock,
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
        match remove_tree(&self.root) {
            // A supervisor that lost the worker's pipes has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.root.display(), %error, "the folder of a trial cannot be removed");
            }
            _ => {}
        }
    }
}

/// Removes a folder with all that is in it, also where a program took away the right to do so.
///
/// # Errors
/// The system refuses it, or the folder is gone.
pub(super) fn remove_tree(root: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(root).or_else(|_| {
        allow_removal(root);
        std::fs::remove_dir_all(root)
    })
}

/// Lets this user change all folders of a tree.
fn allow_removal(root: &Path) {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let _ = std::fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        // A link to a folder is none.
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(folders.map(|entry| entry.path()));
    }
}

/// Removes the folders of attempts whose worker has died together with the supervisor.
pub(super) fn remove_abandoned_folders(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let attempts = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for path in attempts.map(|entry| entry.path()) {
        if is_abandoned(&path) {
            let removed = remove_tree(&path);
            tracing::info!(folder = %path.display(), ?removed, "the worker of this trial has died");
        }
    }
}

/// Whether a folder is this user's and nobody holds it.
fn is_abandoned(root: &Path) -> bool {
    let Ok(facts) = std::fs::symlink_metadata(root) else {
        return false;
    };
    let age = facts.modified().ok().and_then(|at| at.elapsed().ok());
    let is_old = age.is_some_and(|age| age >= MIN_ABANDONED_AGE);
    if !facts.is_dir() || facts.uid() != getuid().as_raw() || !is_old {
        return false;
    }
    let lock = root.join(LOCK);
    // A program may have put a pipe in its place, on which opening would wait.
    let is_file = std::fs::symlink_metadata(&lock).is_ok_and(|facts| facts.is_file());
    !is_file || File::open(lock).is_ok_and(|lock| lock.try_lock().is_ok())
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

        let locked = folder.work_dir.join("a/b");
        std::fs::create_dir_all(&locked).expect("a folder");
        std::fs::write(locked.join("c"), "").expect("a file");
        for folder in [&locked, &folder.work_dir.join("a"), &folder.work_dir] {
            let none = Permissions::from_mode(0o500);
            std::fs::set_permissions(folder, none).expect("a folder");
        }
        let root = folder.root.clone();
        drop(folder);
        assert!(!root.exists());
    }

    #[test]
    fn only_folders_that_nobody_holds_are_removed() {
        let parent = tempfile::tempdir().expect("a folder");
        let make = |name: &str, has_lock: bool, seconds: u64| {
            let root = parent.path().join(name);
            std::fs::create_dir_all(root.join("work")).expect("a folder");
            if has_lock {
                std::fs::write(root.join(LOCK), "").expect("a file");
            }
            let opened = File::open(&root).expect("it is there");
            let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
            opened.set_modified(then).expect("it is mine");
            root
        };
        let dead = make("ergodic-trial-dead", true, 3600);
        let halfway = make("ergodic-trial-halfway", false, 3600);
        let new = make("ergodic-trial-new", false, 1);
        let foreign = make("other-trial", false, 3600);
        let held = make("ergodic-trial-held", true, 3600);
        let lock = File::open(held.join(LOCK)).expect("a file");
        lock.try_lock().expect("nobody else has it");

        remove_abandoned_folders(parent.path());
        let left = [dead, halfway, new, foreign, held].map(|root| root.exists());
        assert_eq!(left, [false, false, true, true, true]);
    }
}
