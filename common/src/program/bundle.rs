//! The bundle of a program's files: one archive with the same bytes for the same files.

use std::collections::BTreeSet;

use super::{PYTHON_HELPER, PYTHON_HELPER_FILE};

/// Maximum number of files in a bundle.
pub const MAX_BUNDLED_FILES: usize = 10_000;

/// Maximum number of bytes of a bundle: 256 MiB.
pub const MAX_BUNDLE_BYTES: usize = 256 << 20;

/// Maximum number of bytes of a file's name.
const MAX_NAME_BYTES: usize = 1024;

/// The archive of a program's files.
const BUNDLE: ArchiveKind = ArchiveKind {
    name: "bundle",
    magic: b"ergodic bundle 1\n",
    max_bytes: MAX_BUNDLE_BYTES,
};

/// What tells an archive of files from others.
pub(super) struct ArchiveKind {
    /// The word for it in messages.
    pub(super) name: &'static str,
    /// The bytes that it begins with.
    pub(super) magic: &'static [u8],
    /// Most bytes of it.
    pub(super) max_bytes: usize,
}

/// A file of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundledFile {
    /// The path below the folder of the files, with `/` between folders.
    pub name: String,
    /// The bytes of the file.
    pub content: Vec<u8>,
    /// Whether the file may be executed.
    pub is_executable: bool,
}

/// Makes one archive of files, whatever their order.
///
/// # Errors
/// A name is refused, or there are too many files or bytes.
pub fn encode(files: Vec<BundledFile>) -> Result<Vec<u8>, String> {
    encode_archive(&BUNDLE, files)
}

/// Makes an archive of any kind. Each file is dropped as soon as it is in it.
pub(super) fn encode_archive(
    kind: &ArchiveKind,
    mut files: Vec<BundledFile>,
) -> Result<Vec<u8>, String> {
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    check_files(&files)?;
    let mut bytes = kind.magic.to_vec();
    bytes.extend((files.len() as u32).to_le_bytes());
    for file in files {
        bytes.extend((file.name.len() as u32).to_le_bytes());
        bytes.extend(file.name.as_bytes());
        bytes.push(u8::from(file.is_executable));
        bytes.extend((file.content.len() as u64).to_le_bytes());
        bytes.extend(&file.content);
    }

    if bytes.len() > kind.max_bytes {
        return Err(format!(
            "the files have {} bytes; at most {} are possible",
            bytes.len(),
            kind.max_bytes
        ));
    }
    Ok(bytes)
}

/// Reads the files of an archive, and checks their names again.
///
/// # Errors
/// The bytes are no bundle as [`encode`] makes it, or a name is refused.
pub fn decode(bytes: &[u8]) -> Result<Vec<BundledFile>, String> {
    decode_archive(&BUNDLE, bytes)
}

/// Reads the files of an archive of any kind.
pub(super) fn decode_archive(kind: &ArchiveKind, bytes: &[u8]) -> Result<Vec<BundledFile>, String> {
    let ArchiveKind {
        name, max_bytes, ..
    } = kind;
    if bytes.len() > *max_bytes {
        return Err(format!(
            "the {name} has {} bytes; at most {max_bytes} are possible",
            bytes.len()
        ));
    }
    let rest = bytes.strip_prefix(kind.magic);
    let mut rest = rest.ok_or_else(|| format!("the bytes are no {name}"))?;
    let count = u32::from_le_bytes(take_array(&mut rest)?) as usize;
    if count > MAX_BUNDLED_FILES {
        return Err(too_many_files(count));
    }
    let files = (0..count)
        .map(|_| decode_file(&mut rest))
        .collect::<Result<Vec<_>, _>>()?;
    if !rest.is_empty() {
        return Err(format!("the {name} goes on behind its last file"));
    }
    if !files.is_sorted_by(|a, b| a.name < b.name) {
        return Err(format!(
            "the files of the {name} are not in the order of their names"
        ));
    }

    check_files(&files)?;
    Ok(files)
}

/// Checks that the files of a bundle are those that a sweep file lists: each is one of them, the helper, or below a folder among
/// them, and each entry has a file.
///
/// # Errors
/// A file is not listed, or an entry has none.
pub fn check_listed(files: &[BundledFile], listed: &[String]) -> Result<(), String> {
    let path_of = |entry: &String| match entry.as_str() {
        PYTHON_HELPER => PYTHON_HELPER_FILE.to_owned(),
        entry => entry.strip_suffix('/').unwrap_or(entry).to_owned(),
    };
    let paths: Vec<String> = listed.iter().map(path_of).collect();
    let is_below = |file: &BundledFile, path: &String| {
        let rest = file.name.strip_prefix(path.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut names = files.iter();
    if let Some(file) = names.find(|file| !paths.iter().any(|path| is_below(file, path))) {
        return Err(format!("program.files does not list {:?}", file.name));
    }
    let mut entries = paths.iter().zip(listed);
    match entries.find(|(path, _)| !files.iter().any(|file| is_below(file, path))) {
        Some((_, entry)) => Err(format!("there is no file for {entry:?} of program.files")),
        None => Ok(()),
    }
}

fn decode_file(rest: &mut &[u8]) -> Result<BundledFile, String> {
    let length = u32::from_le_bytes(take_array(rest)?) as usize;
    let name = take_bytes(rest, length)?.to_vec();
    let name = String::from_utf8(name).map_err(|_| "the name of a file is not UTF-8")?;
    let [mode] = take_array(rest)?;
    if mode > 1 {
        return Err(format!("there is a wrong mode for {name:?}"));
    }
    let length = u64::from_le_bytes(take_array(rest)?);
    let length = usize::try_from(length).map_err(|_| "the files are cut")?;
    Ok(BundledFile {
        name,
        content: take_bytes(rest, length)?.to_vec(),
        is_executable: mode == 1,
    })
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, behind) = rest.split_at_checked(length).ok_or("the files are cut")?;
    *rest = behind;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, behind) = rest.split_first_chunk().ok_or("the files are cut")?;
    *rest = behind;
    Ok(*taken)
}

fn too_many_files(count: usize) -> String {
    format!("{count} files are too many; at most {MAX_BUNDLED_FILES} are possible")
}

/// Checks names and number of the files.
fn check_files(files: &[BundledFile]) -> Result<(), String> {
    if files.len() > MAX_BUNDLED_FILES {
        return Err(too_many_files(files.len()));
    }
    let mut names = BTreeSet::new();
    for file in files {
        check_name(&file.name)?;
        if !names.insert(file.name.as_str()) {
            return Err(format!("the file {:?} occurs twice", file.name));
        }
    }

    for name in &names {
        let mut folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(folder) = folders.find(|folder| names.contains(folder)) {
            return Err(format!("{folder:?} is a file and a folder"));
        }
    }
    Ok(())
}

/// Checks that a name stays in the folder of the files.
///
/// # Errors
/// The name is empty, absolute, has a `.` or `..` in it, a character that is none of paths, or is too long.
pub fn check_name(name: &str) -> Result<(), String> {
    let has_bad_part = name
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..");
    if has_bad_part {
        return Err(format!(
            "{name:?} is no path below the folder of the sweep file: write one without a leading '/', '.' or '..'"
        ));
    }
    if name.chars().any(|c| c.is_control() || c == '\\') {
        return Err(format!(
            "{name:?} has a control character or a backslash: rename the file"
        ));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "the name {name:?} has {} bytes; at most {MAX_NAME_BYTES} are possible",
            name.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::program::bundle::*;

    fn file(name: &str, content: &[u8]) -> BundledFile {
        BundledFile {
            name: name.into(),
            content: content.into(),
            is_executable: name.ends_with(".sh"),
        }
    }

    #[test]
    fn a_bundle_is_the_same_for_every_order_and_reads_back() {
        let files = vec![file("a.py", b"1"), file("b/c.sh", b""), file("b/d", b"22")];
        let bytes = encode(files.clone()).expect("a bundle");
        let reversed: Vec<_> = files.iter().rev().cloned().collect();
        assert_eq!(encode(reversed), Ok(bytes.clone()));
        assert_eq!(decode(&bytes), Ok(files));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn wrong_names_are_refused_by_both_sides() {
        for name in [
            "", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\nb", "a\\b",
        ] {
            assert!(encode(vec![file(name, b"")]).is_err(), "{name:?}");
            let mut bytes = BUNDLE.magic.to_vec();
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend([0; 9]);
            assert!(decode(&bytes).is_err(), "{name:?}");
        }

        assert!(encode(vec![file("a", b""), file("a", b"")]).is_err());
        assert!(encode(vec![file("a", b""), file("a/b", b"")]).is_err());
    }
}
