//! Files that appear under their names when they are whole: written beside the target, and renamed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::{Builder, NamedTempFile, TempPath};

/// Begins the names of files that are being written.
const STAGED_PREFIX: &str = ".ergodic-";
/// Ends the names of files that are being written.
pub const STAGED_SUFFIX: &str = ".part";
/// Random characters of such a name. Processes on several machines may share a folder.
const STAGED_RANDOM_LEN: usize = 12;
/// Age from which a file that is being written has lost its writer.
const ABANDONED_AFTER: Duration = Duration::from_secs(6 * 3600);

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Whom the umask lets.
    AsUmask,
    /// The owner of the file alone.
    OwnerOnly,
}

impl FileAccess {
    fn mode(self) -> u32 {
        match self {
            Self::AsUmask => 0o666,
            Self::OwnerOnly => 0o600,
        }
    }
}

/// What of a new file outlives a power cut, once it has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing for certain, and the file may be torn: for what is checked when it is read, and can be had again.
    None,
    /// The content: whatever has the name is whole.
    File,
    /// The content and the name.
    FileAndDirectory,
}

/// A file that is being written under another name. Persisting it gives it its name; dropping it before removes it.
#[derive(Debug)]
pub struct StagedFile {
    part: NamedTempFile,
}

impl StagedFile {
    /// Begins a file in a folder, under a name that no other file has.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create_in(folder: &Path, access: FileAccess) -> io::Result<Self> {
        let part = Builder::new()
            .prefix(STAGED_PREFIX)
            .suffix(STAGED_SUFFIX)
            .rand_bytes(STAGED_RANDOM_LEN)
            .make_in(folder, |path| create_new_file(path, access))?;
        Ok(Self { part })
    }

    /// Begins a file in the folder of its target.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create_beside(target: &Path, access: FileAccess) -> io::Result<Self> {
        Self::create_in(folder_of(target), access)
    }

    /// Begins a file under this very name. What a crash left there is removed, so one process at a time may do this.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create_at(path: &Path, access: FileAccess) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let file = create_new_file(path, access)?;
        let path = TempPath::try_from_path(path)?;
        Ok(Self {
            part: NamedTempFile::from_parts(file, path),
        })
    }

    /// Gives the file these permissions instead of those it began with.
    ///
    /// # Errors
    /// The permissions cannot be set.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.part.as_file().set_permissions(permissions)
    }

    /// Gives the file its name, over a file that has it.
    ///
    /// # Errors
    /// The file cannot be written to the disk in full, or cannot be renamed.
    pub fn persist(self, target: &Path, durability: Durability) -> io::Result<()> {
        if durability != Durability::None {
            // Some file systems report a full disk only on sync.
            self.part.as_file().sync_all()?;
        }

        self.part.persist(target).map_err(|refused| refused.error)?;

        match durability {
            Durability::FileAndDirectory => File::open(folder_of(target))?.sync_all(),
            Durability::None | Durability::File => Ok(()),
        }
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The file itself: errors of a `NamedTempFile` name the temporary path.
        self.part.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.as_file_mut().flush()
    }
}

/// Writes a whole file, over a file of that name.
///
/// # Errors
/// The file cannot be written.
pub fn replace_file(
    target: &Path,
    bytes: &[u8],
    access: FileAccess,
    durability: Durability,
) -> io::Result<()> {
    let mut staged = StagedFile::create_beside(target, access)?;
    staged.write_all(bytes)?;
    staged.persist(target, durability)
}

/// Removes what writers left in a folder that ended hours ago without finishing or removing it, as far as it can be removed.
pub fn remove_abandoned_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(STAGED_PREFIX) || !name.ends_with(STAGED_SUFFIX) {
            continue;
        }

        let written_at = entry.metadata().and_then(|found| found.modified()).ok();
        let age = written_at.and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age >= ABANDONED_AFTER) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn create_new_file(path: &Path, access: FileAccess) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(path)
}

/// The folder that a file is in; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use crate::atomic_file::*;

    fn names(folder: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn a_file_has_its_name_when_it_is_persisted_and_leaves_nothing_otherwise() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("target");

        for durability in [
            Durability::None,
            Durability::File,
            Durability::FileAndDirectory,
        ] {
            let mut staged =
                StagedFile::create_beside(&target, FileAccess::AsUmask).expect("it is begun");
            staged.write_all(b"text").expect("written");
            assert!(!target.exists());

            staged.persist(&target, durability).expect("renamed");
            assert_eq!(names(dir.path()), std::slice::from_ref(&target));
            std::fs::remove_file(&target).expect("removed");
        }

        let staged = StagedFile::create_beside(&target, FileAccess::AsUmask).expect("it is begun");
        assert!(names(dir.path()).iter().all(|path| {
            let name = path.to_string_lossy();
            name.contains(STAGED_PREFIX) && name.ends_with(STAGED_SUFFIX)
        }));
        let nowhere = dir.path().join("none/target");
        let refused = staged
            .persist(&nowhere, Durability::None)
            .expect_err("there is no such folder");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert!(!refused.to_string().contains("none"), "{refused}");
        assert_eq!(names(dir.path()), Vec::<PathBuf>::new());
    }

    #[test]
    fn files_are_as_the_umask_has_them_and_secrets_are_their_owners() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").expect("written");

        let write = |name: &str, access| {
            let path = dir.path().join(name);
            replace_file(&path, b"text", access, Durability::None).expect("written");
            mode(&path)
        };
        assert_eq!(write("ordinary", FileAccess::AsUmask), mode(&plain));
        assert_eq!(write("secret", FileAccess::OwnerOnly), 0o600);
    }

    #[test]
    fn what_a_crash_left_is_replaced_or_removed_when_it_is_old() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let part = dir.path().join("tokens.part");
        std::fs::write(&part, "half of another text").expect("written");
        let mut staged = StagedFile::create_at(&part, FileAccess::OwnerOnly).expect("it is begun");
        staged.write_all(b"text").expect("written");
        let target = dir.path().join("tokens.json");
        staged
            .persist(&target, Durability::FileAndDirectory)
            .expect("renamed");

        assert_eq!(std::fs::read(&target).expect("a file"), b"text");
        assert_eq!(names(dir.path()), std::slice::from_ref(&target));

        let old = SystemTime::now() - 2 * ABANDONED_AFTER;
        let under_way = dir.path().join(".ergodic-b.part");
        for (path, is_old) in [
            (&target, true),
            (&dir.path().join(".ergodic-a.part"), true),
            (&under_way, false),
        ] {
            let file = File::create(path).expect("written");
            if is_old {
                file.set_modified(old).expect("its time can be set");
            }
        }

        remove_abandoned_files(dir.path());
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [under_way, target]);
    }
}
