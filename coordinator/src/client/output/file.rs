//! Files that are there when they are whole.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is being written: it gets its name, in place of what is there, when it is finished, and is removed when it is dropped
/// before. A pipe or a device is written to.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Where it is meanwhile, and where it will be.
    names: Option<(PathBuf, PathBuf)>,
    /// What is there.
    old: Option<Metadata>,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let old = std::fs::metadata(path).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Ok(Self { file: OpenOptions::new().write(true).open(path)?, names: None, old: None });
        }
        // A link stays one: what it leads to is replaced.
        let target = if old.is_some() { path.canonicalize()? } else { path.to_owned() };
        let mut part = target.as_os_str().to_owned();
        part.push(format!(".{}.part", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&part)?;
        Ok(Self { file, names: Some((part.into(), target)), old })
    }

    /// Gives it its name, and the permissions of what was there.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(old) = &self.old {
            self.file.set_permissions(old.permissions())?;
        }
        let Some((part, target)) = &self.names else { return Ok(()) };
        std::fs::rename(part, target)?;
        self.names = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.names {
            let _ = std::fs::remove_file(part);
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_in_one_piece_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("rows.csv");
        let read = || std::fs::read_to_string(&path).expect("a file");
        let write = |text: &str| {
            let mut file = NewFile::begin(&path).expect("a file can be begun");
            file.write_all(text.as_bytes()).map(|()| file).expect("it can be written")
        };
        write("first").finish().expect("it can be renamed");
        assert_eq!(read(), "first");
        let second = write("second");
        assert_eq!(read(), "first", "as long as the other one is not whole");
        drop(second);
        assert_eq!((read().as_str(), std::fs::read_dir(dir.path()).expect("a directory").count()), ("first", 1));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let mut third = NewFile::begin(&link).expect("a file can be begun");
        third.write_all(b"third").and_then(|()| third.finish()).expect("it can be written");
        assert!(link.is_symlink() && read() == "third");
        assert!(NewFile::begin(&dir.path().join("none/rows.csv")).is_err());
    }
}
