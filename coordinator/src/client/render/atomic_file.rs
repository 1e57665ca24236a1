//! Output files of commands, which appear under their names when they are complete. Pipes and
//! devices are written directly.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use ergodic_common::ErrorCode;
use ergodic_proto::atomic_file::{Durability, FileAccess, StagedFile};
use ergodic_proto::status::UserError;

/// A file that is being written. Finishing it renames it to its path, replacing a file there;
/// dropping it removes it. A pipe, a device or a file that the shell has opened is written
/// directly.
#[derive(Debug)]
pub struct AtomicFile {
    destination: Destination,
    bytes: u64,
}

/// Where the bytes go.
#[derive(Debug)]
enum Destination {
    /// Into a new file beside its target.
    Staged {
        file: StagedFile,
        target: PathBuf,
        /// The permissions of the file that is replaced, which the new one gets.
        permissions: Option<Permissions>,
    },
    /// Into a pipe, a device or a file that the shell has opened.
    Stream(File),
}

impl AtomicFile {
    /// Begins a file that replaces an existing one.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_with_access(path, FileAccess::AsUmask)
    }

    /// Begins a file that only its owner may read and that replaces an existing one.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create_private(path: &Path) -> io::Result<Self> {
        Self::create_with_access(path, FileAccess::OwnerOnly)
    }

    /// Begins a new file that only its owner may read.
    ///
    /// # Errors
    /// The file exists, or cannot be created.
    pub fn create_private_new(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Ok(old) if old.is_file() && open_inherited_file(path).is_none() => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            _ => Self::create_private(path),
        }
    }

    fn create_with_access(path: &Path, access: FileAccess) -> io::Result<Self> {
        if let Some(file) = open_inherited_file(path) {
            return Ok(Self::from_stream(file?));
        }

        // Follows symbolic links, so that the link stays and its target is replaced or created.
        let target = resolve_links(path)?;
        let old = match std::fs::metadata(&target) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(old) = &old {
            // Renaming needs only write access to the folder, so the file's own permission is
            // checked here.
            let file = OpenOptions::new().write(true).open(&target)?;
            if !old.is_file() {
                return Ok(Self::from_stream(file));
            }
        }

        let permissions = match access {
            FileAccess::AsUmask => old.map(|old| old.permissions()),
            FileAccess::OwnerOnly => None,
        };
        let file = StagedFile::create_beside(&target, access)?;
        Ok(Self {
            destination: Destination::Staged {
                file,
                target,
                permissions,
            },
            bytes: 0,
        })
    }

    fn from_stream(file: File) -> Self {
        Self {
            destination: Destination::Stream(file),
            bytes: 0,
        }
    }

    /// Renames the file to its path, with the permissions of the file that it replaces; returns its
    /// size in bytes.
    ///
    /// # Errors
    /// The file cannot be written to the disk in full, or cannot be renamed.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;

        if let Destination::Staged {
            file,
            target,
            permissions,
        } = self.destination
        {
            permissions.map_or(Ok(()), |old| file.set_permissions(old))?;
            file.persist(&target, Durability::File)?;
        }

        Ok(self.bytes)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.destination {
            Destination::Staged { file, .. } => file.write(bytes)?,
            Destination::Stream(file) => file.write(bytes)?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.destination {
            Destination::Staged { file, .. } => file.flush(),
            Destination::Stream(file) => file.flush(),
        }
    }
}

/// Whether a path is a pipe, a device or a file that the shell has opened.
pub fn is_stream(path: &Path) -> bool {
    open_inherited_file(path).is_some()
        || std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// Writes a whole file.
///
/// # Errors
/// The file cannot be written.
pub fn write_atomic_file(path: &Path, bytes: &[u8]) -> Result<(), UserError> {
    let written = AtomicFile::create(path)
        .and_then(|mut new| new.write_all(bytes).and_then(|()| new.finish()));
    written
        .map(|_| ())
        .map_err(|error| file_write_error(path, &error))
}

/// The error for a file that could not be written: the reason, and what to do.
pub fn file_write_error(path: &Path, error: &io::Error) -> UserError {
    // What is missing may be beside the file that a link leads to.
    let target = resolve_links(path).unwrap_or_else(|_| path.to_owned());
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .display();
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if is_stream(path) => {
            "there is no space left: free some space, or name another path".to_owned()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "there is no space left, and the incomplete file was removed: free some space, or name another path".to_owned()
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("there is no permission to write it, or a file beside it in {folder}: name another path")
        }
        io::ErrorKind::NotFound if target != path => {
            format!("it is a link to {}, and the directory {folder} does not exist: create it", target.display())
        }
        io::ErrorKind::NotFound => format!("the directory {folder} does not exist: create it"),
        io::ErrorKind::IsADirectory => "it is a directory: name a file in it".to_owned(),
        io::ErrorKind::AlreadyExists => "it exists already: name another file, or remove it".to_owned(),
        io::ErrorKind::BrokenPipe => "its reader closed it".to_owned(),
        _ => "name another path".to_owned(),
    };

    UserError::new(
        ErrorCode::BadInput,
        format!(
            "-o {}: cannot be written ({error}): {advice}",
            path.display()
        ),
    )
}

/// Maximum number of links that are followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// Follows all links of a path, whether a file exists at the end or not.
fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&at) {
            Ok(next) => at = at.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(at),
        }
    }
    Err(io::Error::other("too many symbolic links lead to it"))
}

/// Opens a file that this process inherited, if the path names one: `/dev/stdout`, or `/dev/fd/63`
/// of a shell's `>(…)`. Even a regular file is written from its current position on, because the
/// shell goes on writing to it.
fn open_inherited_file(path: &Path) -> Option<io::Result<File>> {
    let own = [
        PathBuf::from("/proc/self/fd"),
        PathBuf::from(format!("/proc/{}/fd", std::process::id())),
        "/dev/fd".into(),
    ];

    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        if at
            .parent()
            .is_some_and(|folder| own.iter().any(|own| own == folder))
        {
            return Some(open_descriptor(&at));
        }

        let next = std::fs::read_link(&at).ok()?;
        at = at.parent().unwrap_or(Path::new("")).join(next);
    }

    None
}

fn open_descriptor(path: &Path) -> io::Result<File> {
    let number = path.file_name().and_then(|name| name.to_str());
    match number {
        Some("1") => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some("2") => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        // Other descriptors cannot be duplicated without unsafe code, so the file is opened again
        // for appending.
        _ if std::fs::metadata(path)?.file_type().is_socket() => {
            Err(io::ErrorKind::Unsupported.into())
        }
        _ => OpenOptions::new().append(true).open(path),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::atomic_file::*;

    #[test]
    fn a_file_is_replaced_in_one_piece_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("rows.csv");
        let read = || std::fs::read_to_string(&path).expect("a file");
        let write = |text: &str| {
            let mut file = AtomicFile::create(&path).expect("a file can be begun");
            file.write_all(text.as_bytes())
                .map(|()| file)
                .expect("it can be written")
        };
        assert_eq!(write("first").finish().expect("it can be renamed"), 5);

        assert_eq!(read(), "first");
        let second = write("second");
        assert_eq!(read(), "first", "as long as the other one is not whole");
        drop(second);
        assert_eq!(
            (
                read().as_str(),
                std::fs::read_dir(dir.path()).expect("a directory").count()
            ),
            ("first", 1)
        );

        let link = dir.path().join("link");
        std::os::unix::fs::symlink("rows.csv", &link).expect("a link");
        let mut third = AtomicFile::create(&link).expect("a file can be begun");
        third
            .write_all(b"third")
            .and_then(|()| third.finish())
            .expect("it can be written");

        assert!(link.is_symlink() && read() == "third");
        assert!(AtomicFile::create(&dir.path().join("none/rows.csv")).is_err());
    }

    #[test]
    fn a_link_to_nothing_leads_to_the_file_that_is_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let link = dir.path().join("link");
        let target = dir.path().join("target");
        std::os::unix::fs::symlink("target", &link).expect("a link");
        write_atomic_file(&link, b"text").expect("it can be written");
        assert!(link.is_symlink() && !target.is_symlink());

        assert_eq!(std::fs::read(&target).expect("a file"), b"text");
        std::os::unix::fs::symlink("round", dir.path().join("round")).expect("a link");
        assert!(
            write_atomic_file(&dir.path().join("round"), b"")
                .is_err_and(|e| e.message.contains("links"))
        );
    }

    #[test]
    fn private_files_are_private_and_new_ones_new() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "old").expect("written");
        let refused = AtomicFile::create_private_new(&path).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);

        let mut new = AtomicFile::create_private(&path).expect("it can be replaced");
        new.write_all(b"new")
            .and_then(|()| new.finish())
            .expect("it can be written");
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(
            (mode & 0o777, std::fs::read(&path).expect("a file")),
            (0o600, b"new".to_vec())
        );

        let device =
            AtomicFile::create_private_new(Path::new("/dev/null")).expect("a device is no file");
        assert!(matches!(device.destination, Destination::Stream(_)));
    }

    #[test]
    fn what_is_missing_is_named_where_it_is_missing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let link = dir.path().join("link.csv");
        let target = dir.path().join("none/rows.csv");
        std::os::unix::fs::symlink("none/rows.csv", &link).expect("a link");
        for path in [&link, &target] {
            let refused = write_atomic_file(path, b"text").expect_err("there is no directory");
            let folder = format!(
                "the directory {} does not",
                dir.path().join("none").display()
            );
            assert!(refused.message.contains(&folder), "{refused}");
            assert_eq!(refused.message.contains("it is a link"), *path == link);
        }

        let full = Path::new("/dev/full");
        let refused = write_atomic_file(full, b"text").expect_err("it is full");
        assert!(refused.message.contains("no space left"), "{refused}");
        assert!(!refused.message.contains("removed"), "{refused}");
    }
}
