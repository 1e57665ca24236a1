//! Reads the files of a program, and makes one bundle of them.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::Path;

use ergodic_common::ErrorCode;
use ergodic_common::program::bundle::{
    self, BundledFile, MAX_BUNDLE_BYTES, MAX_BUNDLED_FILES, check_name,
};
use ergodic_common::program::{PYTHON_HELPER, PYTHON_HELPER_FILE, PYTHON_HELPER_TEXT};
use ergodic_common::spec::SpecSource;
use ergodic_proto::limited_file::read_limited_file;
use ergodic_proto::status::UserError;

/// Folders that Python makes by itself: they would change the bundle with every run.
const LEFT_OUT: &str = "__pycache__";

/// Reads the files that `program.files` lists, below the folder of the sweep file; `None` if it lists none.
///
/// # Errors
/// A file is missing, is a link or no plain file, cannot be read, or there are too many.
pub(super) fn read_program_bundle(source: &SpecSource) -> Result<Option<Vec<u8>>, UserError> {
    let listed = source.program_files();
    // A wrong name is refused with its line when the sweep is read.
    let has_wrong_name = listed.iter().any(|entry| {
        let path = entry.strip_suffix('/').unwrap_or(entry);
        entry != PYTHON_HELPER && check_name(path).is_err()
    });
    if listed.is_empty() || has_wrong_name {
        return Ok(None);
    }

    let folder = Path::new(&source.file).parent().unwrap_or(Path::new(""));
    let read = read_bundle(folder, &listed);
    read.map(Some).map_err(|refused| {
        let error = source.program_file_error(&refused.entry, refused.why);
        UserError::new(ErrorCode::BadInput, error.to_string())
    })
}

/// Why files cannot be sent along.
#[derive(Debug)]
struct RefusedFile {
    /// The entry of the list; empty if it is the list as a whole.
    entry: String,
    why: String,
}

fn read_bundle(folder: &Path, listed: &[String]) -> Result<Vec<u8>, RefusedFile> {
    let mut found = FoundFiles {
        folder,
        files: BTreeMap::new(),
        bytes: 0,
    };
    let refuse = |entry: &str, why| RefusedFile {
        entry: entry.to_owned(),
        why,
    };
    for entry in listed {
        found.add_entry(entry).map_err(|why| refuse(entry, why))?;
    }
    bundle::encode(found.files.into_values().collect()).map_err(|why| refuse("", why))
}

/// The files found so far, by name.
struct FoundFiles<'a> {
    folder: &'a Path,
    files: BTreeMap<String, BundledFile>,
    bytes: u64,
}

impl FoundFiles<'_> {
    /// Adds what an entry of the list names.
    fn add_entry(&mut self, entry: &str) -> Result<(), String> {
        if entry == PYTHON_HELPER {
            self.add_helper();
            return Ok(());
        }
        let name = entry.strip_suffix('/').unwrap_or(entry);
        self.check_parents(name)?;
        let before = self.files.len();
        self.add_path(name)?;
        if self.files.len() == before && !self.has_files_at(name) {
            return Err(format!("the folder {entry:?} has no files: remove it"));
        }
        Ok(())
    }

    fn add_helper(&mut self) {
        let file = BundledFile {
            name: PYTHON_HELPER_FILE.to_owned(),
            content: PYTHON_HELPER_TEXT.into(),
            is_executable: false,
        };
        self.files.insert(file.name.clone(), file);
    }

    fn has_files_at(&self, name: &str) -> bool {
        let folder = format!("{name}/");
        let mut names = self.files.keys();
        names.any(|known| known == name || known.starts_with(&folder))
    }

    /// Checks that the folders above a path are no links.
    fn check_parents(&self, name: &str) -> Result<(), String> {
        for (at, _) in name.match_indices('/') {
            let parent = &name[..at];
            let kind = self.kind_of(parent)?;
            if !kind.is_dir() {
                return Err(describe_wrong_kind(parent, kind));
            }
        }
        Ok(())
    }

    fn kind_of(&self, name: &str) -> Result<FileType, String> {
        let path = self.folder.join(name);
        let data = fs::symlink_metadata(&path);
        data.map(|data| data.file_type()).map_err(|e| {
            let path = path.display();
            match e.kind() {
                ErrorKind::NotFound => format!(
                    "{name:?} is missing: write {path}, or remove it from the list; names are those below the folder of the sweep \
                     file"
                ),
                _ => format!("{name:?}: cannot read {path}: {e}"),
            }
        })
    }

    /// Adds a file, or all files of a folder.
    fn add_path(&mut self, name: &str) -> Result<(), String> {
        check_name(name)?;
        let kind = self.kind_of(name)?;
        if kind.is_file() {
            return self.add_file(name);
        }
        if !kind.is_dir() {
            return Err(describe_wrong_kind(name, kind));
        }

        let path = self.folder.join(name);
        let unreadable = |e: std::io::Error| format!("{name:?}: cannot read the folder: {e}");
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?.file_name();
            let entry = entry
                .to_str()
                .ok_or_else(|| format!("{name:?} has a file whose name is not UTF-8: rename it"))?;
            if entry != LEFT_OUT {
                self.add_path(&format!("{name}/{entry}"))?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, name: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let content = read_limited_file(&path, MAX_BUNDLE_BYTES as u64)
            .map_err(|e| format!("{name:?}: cannot read {}: {e}", path.display()))?;
        let is_executable = is_executable(&path);
        self.bytes += content.len() as u64;
        let file = BundledFile {
            name: name.to_owned(),
            content,
            is_executable,
        };
        self.files.insert(name.to_owned(), file);
        if self.files.len() > MAX_BUNDLED_FILES || self.bytes > MAX_BUNDLE_BYTES as u64 {
            return Err(format!(
                "the files are too many; at most {MAX_BUNDLED_FILES} with {MAX_BUNDLE_BYTES} bytes are possible"
            ));
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    false
}

fn describe_wrong_kind(name: &str, kind: FileType) -> String {
    match kind.is_symlink() {
        true => format!("{name:?} is a link: name the file itself, or copy it"),
        false => format!("{name:?} is neither a file nor a folder: remove it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, listed: &[&str]) -> Result<Vec<String>, String> {
        let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
        let bytes = read_bundle(folder, &listed).map_err(|refused| refused.why)?;
        let files = bundle::decode(&bytes).expect("a bundle");
        assert_eq!(bundle::check_listed(&files, &listed), Ok(()));
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn files_and_folders_are_bundled_in_one_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir_all(path.join("src/deep/__pycache__")).expect("folders");
        for name in [
            "b.py",
            "src/a.py",
            "src/deep/c.py",
            "src/deep/__pycache__/c.pyc",
        ] {
            fs::write(path.join(name), name).expect("a file");
        }

        let expected = ["b.py", "ergodic_trial.py", "src/a.py", "src/deep/c.py"];
        let listed = ["src/", "b.py", PYTHON_HELPER, "src/a.py"];
        assert_eq!(
            names(path, &listed),
            Ok(expected.map(String::from).to_vec())
        );
        let missing = names(path, &["c.py"]).expect_err("there is none");
        assert!(
            missing.starts_with("\"c.py\" is missing: write "),
            "{missing}"
        );
        assert!(missing.contains("or remove it from the list"), "{missing}");
        fs::create_dir(path.join("empty")).expect("a folder");
        let empty = names(path, &["empty"]).expect_err("there are no files");
        assert!(empty.contains("has no files"), "{empty}");
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_sent_is_refused_with_its_line_and_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("a.py"), "").expect("a file");
        std::os::unix::fs::symlink("a.py", path.join("link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket"));
        fs::create_dir(path.join("empty")).expect("a folder");
        let refusal = |last: &str| {
            let file = path.join("sweep.toml").to_string_lossy().into_owned();
            let source = SpecSource {
                text: format!(
                    "name = \"t\"\n[program]\nfiles = [\n  \"a.py\",\n  \"{last}\",\n]\n"
                ),
                file: file.clone(),
                ..SpecSource::default()
            };
            let error = read_program_bundle(&source).expect_err("a refusal").message;
            let place = format!("{file}:5: program.files: ");
            let why = error.strip_prefix(&place).map(str::to_owned);
            why.unwrap_or_else(|| panic!("{error}"))
        };
        assert!(refusal("b.py").starts_with("\"b.py\" is missing: write "));
        assert!(refusal("src/b.py").starts_with("\"src\" is missing: write "));
        assert!(refusal("link").starts_with("\"link\" is a link: name the file itself"));
        assert!(refusal("socket").ends_with("is neither a file nor a folder: remove it"));
        assert!(refusal("empty/").ends_with("has no files: remove it"));
    }

    #[cfg(unix)]
    #[test]
    fn wrong_links_are_refused_wherever_they_stand() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir(path.join("src")).expect("a folder");
        fs::write(path.join("a"), "").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", path.join("src/link")).expect("a link");
        std::os::unix::fs::symlink("src", path.join("other")).expect("a link");
        for listed in ["src", "src/link", "other", "other/link"] {
            let why = names(path, &[listed]).expect_err("there is a link");
            assert!(why.contains("is a link: name the file itself"), "{why}");
        }
    }
}
