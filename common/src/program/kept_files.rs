//! `save` of `[program]`: patterns of the files that a trial leaves, and the archive in which they are kept.

use std::fmt;

use super::Program;
use super::bundle::{ArchiveKind, BundledFile, MAX_BUNDLED_FILES, decode_archive, encode_archive};
use super::list::read_items;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::SAVE_GRAMMAR;
use crate::spec_file::reader::{TableReader, quote_value};

/// Most bytes of the files that a trial keeps, with their names: 960 MiB.
pub const MAX_KEPT_BYTES: u64 = 960 << 20;

/// Most files that a trial keeps.
pub const MAX_KEPT_FILES: usize = MAX_BUNDLED_FILES;

/// Most patterns of a sweep.
const MAX_PATTERNS: usize = 100;

/// Most bytes of a pattern.
const MAX_PATTERN_BYTES: usize = 1024;

/// The part of a pattern that stands for any number of folders.
const ANY_FOLDERS: &str = "**";

/// The archive of the files of a trial.
const KEPT_FILES: ArchiveKind = ArchiveKind {
    name: "archive of kept files",
    magic: b"ergodic kept files 1\n",
    max_bytes: MAX_KEPT_BYTES as usize,
};

/// A pattern of files below the folder of a trial: `*` stands for any characters of a name, `?` for one, and `**` for any number of
/// folders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePattern {
    text: String,
    parts: Vec<String>,
}

impl FilePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The pattern leads out of the folder, or has characters that none has; says what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let leads_out = |part: &&str| part.is_empty() || *part == "." || *part == "..";
        if parts.iter().any(leads_out) {
            return Err(format!(
                "{text:?} is no pattern below the folder of the trial: write one without '.', '..', and a '/' at an end, such as \
                 \"out/*.json\""
            ));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "the pattern has {} bytes; at most {MAX_PATTERN_BYTES} are possible",
                text.len()
            ));
        }
        let is_special = |c: char| c.is_control() || "\\[]{}".contains(c);
        if let Some(c) = text.chars().find(|c| is_special(*c)) {
            return Err(format!(
                "{text:?} has {c:?}, which no pattern has: '*', '?' and '**' stand for other characters and folders"
            ));
        }
        let is_mixed = |part: &&&str| part.contains(ANY_FOLDERS) && **part != ANY_FOLDERS;
        if let Some(part) = parts.iter().find(is_mixed) {
            return Err(format!(
                "in {text:?}, '**' stands for whole folders: write '*' in {part:?}, or a '/' beside '**'"
            ));
        }

        let mut parts: Vec<String> = parts.into_iter().map(str::to_owned).collect();
        // All files below a folder, at any depth.
        if parts.last().is_some_and(|last| last == ANY_FOLDERS) {
            parts.push("*".to_owned());
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the file at a path is one of the pattern.
    pub fn matches(&self, path: &str) -> bool {
        self.follow(path)[self.parts.len()]
    }

    /// Whether a file below the folder at a path may be one of the pattern.
    pub fn may_match_below(&self, folder: &str) -> bool {
        let reached = self.follow(folder);
        reached[..self.parts.len()].contains(&true)
    }

    /// Which parts of the pattern may come next after a path; the last place stands for its end.
    fn follow(&self, path: &str) -> Vec<bool> {
        let mut reached = vec![false; self.parts.len() + 1];
        reached[0] = true;
        self.skip_empty(&mut reached);
        for name in path.split('/') {
            let mut next = vec![false; reached.len()];
            for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| reached[*at]) {
                match part.as_str() {
                    ANY_FOLDERS => next[at] = true,
                    part => next[at + 1] |= matches_name(part, name),
                }
            }
            self.skip_empty(&mut next);
            reached = next;
        }
        reached
    }

    /// `**` also stands for no folder.
    fn skip_empty(&self, reached: &mut [bool]) {
        for (at, part) in self.parts.iter().enumerate() {
            if reached[at] && part == ANY_FOLDERS {
                reached[at + 1] = true;
            }
        }
    }
}

impl fmt::Debug for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// Whether a name is one of a pattern without folders.
fn matches_name(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut from) = (0, 0);
    // Where the last `*` stands, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(c), _) if *c == '?' || *c == name[from] => {
                at += 1;
                from += 1;
            }
            (_, Some((place, end))) => {
                star = Some((place, end + 1));
                at = place + 1;
                from = end + 1;
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

impl Program {
    /// The earliest version of the grammar that has what the section says.
    pub(crate) fn min_grammar(&self) -> u32 {
        if self.save.is_empty() {
            1
        } else {
            SAVE_GRAMMAR
        }
    }

    /// Adds the patterns to a hash of what decides the results; nothing without any. Their order means nothing.
    pub(super) fn hash_save(&self, hasher: &mut blake3::Hasher) {
        if self.save.is_empty() {
            return;
        }
        let mut patterns: Vec<&str> = self.save.iter().map(FilePattern::as_str).collect();
        patterns.sort_unstable();
        hasher.update(b"save");
        for pattern in patterns {
            hasher.update(&(pattern.len() as u64).to_le_bytes());
            hasher.update(pattern.as_bytes());
        }
    }
}

/// Reads `save = ["*.pt", "out/*.json"]`.
pub(super) fn read_save(r: &TableReader<'_>) -> Result<Vec<FilePattern>, SpecError> {
    let Some(node) = r.read_node("save") else {
        return Ok(Vec::new());
    };
    let path = r.path_to("save");
    r.reading_mode()
        .require_grammar(SAVE_GRAMMAR, &node.origin, &path)?;
    let items = read_items(r, "save", "*.pt")?;
    if items.is_empty() || items.len() > MAX_PATTERNS {
        let message = format!(
            "expected 1 to {MAX_PATTERNS} patterns of files, found {}: write save = [\"*.pt\"], or remove it",
            items.len()
        );
        return Err(r.error_at("save", message));
    }

    let mut patterns: Vec<FilePattern> = Vec::new();
    for item in items {
        let error = |message: String| SpecError::new(item.origin.clone(), path.clone(), message);
        let text = item.value.as_str().ok_or_else(|| {
            error(format!(
                "expected a pattern of files, such as \"*.pt\", found {}",
                quote_value(&item.value)
            ))
        })?;
        let pattern = FilePattern::parse(text).map_err(error)?;
        if patterns.contains(&pattern) {
            return Err(error(format!("{text:?} is listed twice: remove one")));
        }
        patterns.push(pattern);
    }
    Ok(patterns)
}

/// Makes one archive of files, with the same bytes for the same files.
///
/// # Errors
/// A name is refused, or there are too many files or bytes.
pub fn encode_kept_files(files: Vec<BundledFile>) -> Result<Vec<u8>, String> {
    encode_archive(&KEPT_FILES, files)
}

/// Reads the files of an archive, and checks their names again.
///
/// # Errors
/// The bytes are no archive as [`encode_kept_files`] makes it, or a name is refused.
pub fn decode_kept_files(bytes: &[u8]) -> Result<Vec<BundledFile>, String> {
    decode_archive(&KEPT_FILES, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::program::kept_files::*;

    fn pattern(text: &str) -> FilePattern {
        FilePattern::parse(text).expect("a pattern")
    }

    #[test]
    fn patterns_match_names_and_folders() {
        for (text, hits, misses) in [
            (
                "*.pt",
                &["a.pt", ".pt", "ä.pt"][..],
                &["a.ptx", "b/a.pt", "pt"][..],
            ),
            (
                "out/*.json",
                &["out/1.json"],
                &["1.json", "out/a/1.json", "out2/1.json"],
            ),
            ("a?c", &["abc", "aäc"], &["ac", "abbc"]),
            ("*a*b*", &["ab", "xaxbx", "aabb"], &["ba", "a", "b"]),
            (
                "**/*.log",
                &["x.log", "a/x.log", "a/b/x.log"],
                &["x.txt", "a/x.log/y"],
            ),
            ("out/**", &["out/a", "out/a/b"], &["out", "a/out"]),
            (
                "a/**/b/**/c",
                &["a/b/c", "a/x/b/y/z/c", "a/b/b/c"],
                &["a/c", "a/b", "b/c"],
            ),
            ("plain", &["plain"], &["plain/", "plai", "plainer"]),
        ] {
            for hit in hits {
                assert!(pattern(text).matches(hit), "{text} {hit}");
            }
            for miss in misses {
                assert!(!pattern(text).matches(miss), "{text} {miss}");
            }
        }
    }

    #[test]
    fn only_folders_that_may_hold_a_match_are_entered() {
        for (text, folder, may) in [
            ("out/*.json", "out", true),
            ("out/*.json", "in", false),
            ("out/*.json", "out/deep", false),
            ("**/x", "any/where", true),
            ("*.pt", "x.pt", false),
            ("a/**", "a/b/c", true),
            ("o*/x", "out", true),
        ] {
            assert_eq!(
                pattern(text).may_match_below(folder),
                may,
                "{text} {folder}"
            );
        }
    }

    #[test]
    fn patterns_that_lead_out_or_mean_something_else_are_refused() {
        for (text, words) in [
            ("", "below the folder"),
            ("/etc/passwd", "below the folder"),
            ("../x", "below the folder"),
            ("a/../../x", "below the folder"),
            ("./a", "below the folder"),
            ("a//b", "below the folder"),
            ("a/", "below the folder"),
            ("a\\b", "which no pattern has"),
            ("a\nb", "which no pattern has"),
            ("[ab]", "which no pattern has"),
            ("{lr}.pt", "which no pattern has"),
            ("a**", "stands for whole folders"),
            (&"x".repeat(2000), "at most 1024"),
        ] {
            let why = FilePattern::parse(text).expect_err("a pattern that is wrong");
            assert!(why.contains(words), "{text:?}: {why}");
        }
    }

    #[test]
    fn an_archive_is_no_bundle_and_reads_back() {
        let files = vec![BundledFile {
            name: "out/a.pt".into(),
            content: vec![0, 255],
            is_executable: false,
        }];
        let bytes = encode_kept_files(files.clone()).expect("an archive");
        assert_eq!(decode_kept_files(&bytes), Ok(files.clone()));
        assert!(crate::program::bundle::decode(&bytes).is_err());
        let bundle = crate::program::bundle::encode(files).expect("a bundle");
        let why = decode_kept_files(&bundle).expect_err("another kind");
        assert!(why.contains("no archive of kept files"), "{why}");
        let outside = BundledFile {
            name: "../a".into(),
            content: Vec::new(),
            is_executable: false,
        };
        assert!(encode_kept_files(vec![outside]).is_err());
    }

    /// By the definition, with every way to cut the path.
    fn matches_by_definition(parts: &[String], names: &[&str]) -> bool {
        match (parts.split_first(), names.split_first()) {
            (None, None) => true,
            (Some((part, rest)), _) if part == ANY_FOLDERS => {
                (0..=names.len()).any(|taken| matches_by_definition(rest, &names[taken..]))
            }
            (Some((part, rest)), Some((name, others))) => {
                let pattern: Vec<char> = part.chars().collect();
                let name: Vec<char> = name.chars().collect();
                name_by_definition(&pattern, &name) && matches_by_definition(rest, others)
            }
            _ => false,
        }
    }

    fn name_by_definition(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => {
                (0..=name.len()).any(|taken| name_by_definition(rest, &name[taken..]))
            }
            Some((c, rest)) => {
                let first = name.first();
                first.is_some_and(|x| *c == '?' || c == x) && name_by_definition(rest, &name[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_defined(
            parts in prop::collection::vec("\\*\\*|[ab*?]{1,4}", 1..5),
            names in prop::collection::vec("[ab]{1,4}", 1..5),
        ) {
            if let Ok(pattern) = FilePattern::parse(&parts.join("/")) {
                let path = names.join("/");
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let is_match = matches_by_definition(&pattern.parts, &names);
                prop_assert_eq!(pattern.matches(&path), is_match);
                if is_match {
                    for (at, _) in path.match_indices('/') {
                        prop_assert!(pattern.may_match_below(&path[..at]));
                    }
                }
            }
        }
    }
}
