//! The files that a trial leaves in its folder and that are kept with its result.
//!
//! The program owns the folder and may put anything there. So nothing is followed: every folder and file is opened below one that
//! is open, without links, and nothing but a regular file is read.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use ergodic_common::Outcome;
use ergodic_common::ids::WeightsDigest;
use ergodic_common::program::Program;
use ergodic_common::program::bundle::{BundledFile, check_name};
use ergodic_common::program::kept_files::{
    FilePattern, MAX_KEPT_BYTES, MAX_KEPT_FILES, encode_kept_files,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat};

use crate::train::FinishedTrial;

/// How files and folders are opened: neither a link nor a pipe has the worker do anything else.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// The same for what must be a folder.
const FOLDER_FLAGS: OFlags = FILE_FLAGS.union(OFlags::DIRECTORY);
/// Files that only their owner may execute.
const EXECUTABLE: u32 = 0o100;
/// Most names that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Most folders in each other.
const MAX_DEPTH: usize = 64;
/// The folder in which Python keeps what it has compiled.
const PYTHON_CACHE: &str = "__pycache__";
/// The key of the digest of a result with its files.
const DIGEST_CONTEXT: &str = "ergodic 2026 program digest with kept files v1";

/// What is kept of an attempt.
pub(super) struct KeptFiles<'a> {
    /// The program.
    pub(super) program: &'a Program,
    /// The files of the sweep, which are in the folder, too.
    pub(super) inputs: &'a [BundledFile],
    /// The folder of the trial, opened before the program could replace it.
    pub(super) folder: BorrowedFd<'a>,
}

impl KeptFiles<'_> {
    /// The files of an attempt with this outcome as an archive; none if the program keeps none.
    ///
    /// A trial that diverged was ended at once: what it has written by then is kept, if it can be.
    ///
    /// # Errors
    /// A file cannot be kept, or a pattern has none: the failure of a trial that completed.
    pub(super) fn read_after(&self, outcome: &Outcome) -> Result<Option<Vec<u8>>, String> {
        if self.program.save.is_empty() {
            return Ok(None);
        }
        let is_complete = *outcome == Outcome::Completed;
        let read = FileSearch::new(&self.program.save, self.inputs).read(self.folder, is_complete);
        let archive = read.and_then(|files| match files.is_empty() {
            true => Ok(None),
            false => encode_kept_files(files).map(Some),
        });
        match archive {
            Err(why) if !is_complete => {
                tracing::warn!(why, "the files of a trial that diverged are not kept");
                Ok(None)
            }
            Err(why) => Err(format!("the files of save cannot be kept: {why}")),
            archive => archive,
        }
    }

    /// Names the archive in a result. Of a deterministic program that completed, the files are part of what is compared.
    pub(super) fn add_to_result(&self, finished: &mut FinishedTrial, archive: Vec<u8>) {
        let hash = blake3::hash(&archive);
        let result = &mut finished.result;
        if self.program.deterministic && result.outcome == Outcome::Completed {
            let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
            hasher.update(&result.digest.0).update(hash.as_bytes());
            result.digest = WeightsDigest(*hasher.finalize().as_bytes());
        }
        result.weights_hash = Some(hash.into());
        finished.weights = Some(archive);
    }
}

/// What is at a path.
enum EntryKind {
    /// A file of these patterns.
    File(Vec<usize>),
    /// A folder that may have some.
    Folder,
    /// Neither.
    Other,
}

/// A search for the files of some patterns.
struct FileSearch<'a> {
    patterns: &'a [FilePattern],
    /// Which patterns have a file.
    has_file: Vec<bool>,
    inputs: HashSet<&'a str>,
    files: Vec<BundledFile>,
    bytes: u64,
    /// Number of names that were looked at.
    entries: usize,
    /// A link on the way to what a pattern may mean.
    passed_link: Option<String>,
}

impl<'a> FileSearch<'a> {
    fn new(patterns: &'a [FilePattern], inputs: &'a [BundledFile]) -> Self {
        Self {
            patterns,
            has_file: vec![false; patterns.len()],
            inputs: inputs.iter().map(|file| file.name.as_str()).collect(),
            files: Vec::new(),
            bytes: 0,
            entries: 0,
            passed_link: None,
        }
    }

    /// Reads the files below a folder. If `needs_all`, each pattern must have one.
    fn read(mut self, folder: BorrowedFd<'_>, needs_all: bool) -> Result<Vec<BundledFile>, String> {
        self.enter_folder(folder, "", 0)?;
        let mut without = self.patterns.iter().zip(&self.has_file);
        match without.find(|(_, has_file)| needs_all && !**has_file) {
            Some((pattern, _)) => Err(self.explain_no_file(pattern)),
            None => Ok(self.files),
        }
    }

    fn explain_no_file(&self, pattern: &FilePattern) -> String {
        let text = pattern.as_str();
        let is_input = self.inputs.iter().any(|name| pattern.matches(name));
        if is_input {
            return format!(
                "{text:?} matches files of the sweep alone, which are not kept: let the program write files of other names"
            );
        }
        let link = match &self.passed_link {
            Some(link) => format!(" ({link:?} is a link, and links are not followed)"),
            None => String::new(),
        };
        format!(
            "no file matches {text:?}{link}: let the program write one in its folder, or remove the pattern"
        )
    }

    /// Looks at all names in a folder, whose path is `prefix` without its last character.
    fn enter_folder(
        &mut self,
        folder: BorrowedFd<'_>,
        prefix: &str,
        depth: usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "{prefix:?} has more than {MAX_DEPTH} folders in each other: write files into fewer"
            ));
        }
        for name in self.list_names(folder, prefix)? {
            let path = format!("{prefix}{name}");
            match self.look_at(folder, &path, &name)? {
                EntryKind::Other => {}
                EntryKind::File(matching) => {
                    self.add_file(folder, &path, &name)
                        .map_err(|why| format!("{path:?}: {why}"))?;
                    matching.into_iter().for_each(|at| self.has_file[at] = true);
                }
                EntryKind::Folder => {
                    let below = open_entry(folder, &name, FOLDER_FLAGS)
                        .map_err(|why| format!("{path:?}: {why}"))?;
                    self.enter_folder(below.as_fd(), &format!("{path}/"), depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// The names in a folder.
    fn list_names(&mut self, folder: BorrowedFd<'_>, prefix: &str) -> Result<Vec<String>, String> {
        let entries = Dir::read_from(folder).map_err(|error| error.to_string())?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| error.to_string())?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(format!(
                    "there are more than {MAX_ENTRIES} files and folders to look through: name their folders in the patterns, or write \
                     fewer"
                ));
            }
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                Err(_) => {
                    let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                    if self.patterns.iter().any(|known| known.matches(&path)) {
                        return Err(format!(
                            "the name {path:?} is not UTF-8: choose another one"
                        ));
                    }
                }
            }
        }
        Ok(names)
    }

    /// What is at a path; refuses what matches a pattern and is no file.
    fn look_at(
        &mut self,
        folder: BorrowedFd<'_>,
        path: &str,
        name: &str,
    ) -> Result<EntryKind, String> {
        let matching: Vec<usize> = (0..self.patterns.len())
            .filter(|at| self.patterns[*at].matches(path))
            .collect();
        let leads_on = self
            .patterns
            .iter()
            .any(|known| known.may_match_below(path));
        if matching.is_empty() && !leads_on || self.inputs.contains(path) {
            return Ok(EntryKind::Other);
        }

        let facts = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let facts = facts.map_err(|error| format!("{path:?}: it cannot be read ({error})"))?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory if leads_on && name != PYTHON_CACHE => Ok(EntryKind::Folder),
            FileType::Directory => Ok(EntryKind::Other),
            FileType::RegularFile if !matching.is_empty() => Ok(EntryKind::File(matching)),
            FileType::Symlink if matching.is_empty() => {
                self.passed_link.get_or_insert_with(|| path.to_owned());
                Ok(EntryKind::Other)
            }
            _ if matching.is_empty() => Ok(EntryKind::Other),
            FileType::Symlink => Err(format!(
                "{path:?}: it is a link, which is not kept: let the program write a file, or name others in the patterns"
            )),
            _ => Err(format!(
                "{path:?}: it is neither a file nor a folder: name others in the patterns"
            )),
        }
    }

    fn add_file(&mut self, folder: BorrowedFd<'_>, path: &str, name: &str) -> Result<(), String> {
        check_name(path)?;
        if self.files.len() == MAX_KEPT_FILES {
            return Err(format!(
                "there are more than {MAX_KEPT_FILES} files: write fewer, or name fewer in the patterns"
            ));
        }
        let file = open_entry(folder, name, FILE_FLAGS)?;
        let facts = fstat(&file).map_err(|error| error.to_string())?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err("it is no file any more".into());
        }
        let left = MAX_KEPT_BYTES - self.bytes;
        let size = u64::try_from(facts.st_size).unwrap_or(u64::MAX);
        let mut content = Vec::new();
        // What is known to be too large is not read.
        if size <= left {
            let read = File::from(file).take(left + 1).read_to_end(&mut content);
            read.map_err(|error| format!("it cannot be read ({error})"))?;
        }
        if size.max(content.len() as u64) > left {
            return Err(format!(
                "with it, the files have more than {MAX_KEPT_BYTES} bytes: write less, or name fewer in the patterns"
            ));
        }
        self.bytes += content.len() as u64;
        self.files.push(BundledFile {
            name: path.to_owned(),
            content,
            is_executable: facts.st_mode & EXECUTABLE != 0,
        });
        Ok(())
    }
}

fn open_entry(folder: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, String> {
    let opened = openat(folder, name, flags, Mode::empty());
    opened.map_err(|error| format!("it cannot be read ({error})"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, mkfifoat};

    use crate::program::kept_files::*;

    /// A folder with `a.pt`, `out/b.json`, `out/deep/c.json`, the input `in.py` and a pipe.
    fn make_folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, name).expect("a file");
        };
        for name in [
            "a.pt",
            "out/b.json",
            "out/deep/c.json",
            "in.py",
            "__pycache__/x.json",
        ] {
            write(name);
        }
        mkfifoat(CWD, dir.path().join("pipe"), Mode::RUSR | Mode::WUSR).expect("a pipe");
        dir
    }

    fn search(dir: &Path, patterns: &[&str], needs_all: bool) -> Result<Vec<String>, String> {
        let patterns: Vec<FilePattern> = patterns
            .iter()
            .map(|text| FilePattern::parse(text).expect("a pattern"))
            .collect();
        let inputs = [BundledFile {
            name: "in.py".into(),
            content: Vec::new(),
            is_executable: false,
        }];
        let folder = File::open(dir).expect("the folder");
        let found = FileSearch::new(&patterns, &inputs).read(folder.as_fd(), needs_all)?;
        let mut names: Vec<String> = found
            .into_iter()
            .map(|file| {
                assert_eq!(file.content, file.name.as_bytes());
                file.name
            })
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    #[test]
    fn files_of_the_patterns_are_found_and_nothing_else() {
        let dir = make_folder();
        for (patterns, found) in [
            (&["*.pt", "out/*.json"][..], &["a.pt", "out/b.json"][..]),
            (&["**/*.json"], &["out/b.json", "out/deep/c.json"]),
            (&["out/**"], &["out/b.json", "out/deep/c.json"]),
            (&["*.p?"], &["a.pt"]),
        ] {
            let names = search(dir.path(), patterns, true).expect("files");
            assert_eq!(names, found, "{patterns:?}");
        }
        assert_eq!(search(dir.path(), &["*.txt"], false), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        let dir = make_folder();
        symlink("/etc/passwd", dir.path().join("link.pt")).expect("a link");
        symlink(dir.path().join("out"), dir.path().join("linked")).expect("a link");
        let large = File::create(dir.path().join("large")).expect("a file");
        large.set_len(MAX_KEPT_BYTES + 1).expect("a sparse file");
        for (pattern, words) in [
            ("*.pt", "\"link.pt\": it is a link, which is not kept"),
            ("pipe", "\"pipe\": it is neither a file nor a folder"),
            (
                "linked/*",
                "no file matches \"linked/*\" (\"linked\" is a link",
            ),
            (
                "*.txt",
                "no file matches \"*.txt\": let the program write one",
            ),
            ("out", "no file matches \"out\""),
            ("*.py", "matches files of the sweep alone"),
            (
                "large",
                "\"large\": with it, the files have more than 1006632960 bytes",
            ),
        ] {
            let why = search(dir.path(), &[pattern], true).expect_err("nothing can be kept");
            assert!(why.contains(words), "{pattern}: {why}");
        }
    }

    #[test]
    fn folders_in_each_other_and_names_have_an_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let deep = (0..=MAX_DEPTH).fold(dir.path().to_owned(), |path, _| path.join("d"));
        std::fs::create_dir_all(&deep).expect("folders");
        let why = search(dir.path(), &["**/x"], true).expect_err("too deep");
        assert!(why.contains("folders in each other"), "{why}");
        let why = search(dir.path(), &["d/*"], true).expect_err("no file");
        assert!(why.contains("no file matches"), "{why}");
    }
}
