//! Reading of whole files, up to a limit: a name may be that of a device or a pipe, which has no end.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// Maximum length of a token, a certificate with its chain, or a key, in bytes.
pub const MAX_CREDENTIAL_BYTES: u64 = 1 << 20;

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be read, or has more bytes, which is an error of the kind `FileTooLarge` whose text names the limit.
pub fn read_limited_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(limit) as usize;
    let mut bytes = Vec::with_capacity(expected);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("it has more than {limit} bytes, and no more are possible");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }

    Ok(bytes)
}

/// Reads a whole file of text in UTF-8, as [`read_limited_file`] does.
///
/// # Errors
/// As for [`read_limited_file`], or the file is no text, which is an error of the kind `InvalidData`.
pub fn read_limited_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read_limited_file(path, limit)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use crate::limited_file::*;

    #[test]
    fn a_file_beyond_the_limit_is_refused_and_one_without_an_end_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        std::fs::write(&path, "12345").expect("a file can be written");
        assert_eq!(read_limited_text(&path, 5).ok().as_deref(), Some("12345"));

        for (path, limit) in [(path.as_path(), 4), (Path::new("/dev/zero"), 1000)] {
            let error = read_limited_file(path, limit).expect_err("it is longer");
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
            let words = format!("more than {limit} bytes");
            assert!(error.to_string().contains(&words), "{error}");
        }

        std::fs::write(&path, [0xff]).expect("a file can be written");
        let error = read_limited_text(&path, 5).expect_err("it is no text");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
