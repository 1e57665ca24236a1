//! The list of kept weights that the trials of a cell start from: for each repeat, the files and the moments in them.
//!
//! The list is a file of its own, whose hash is part of the cell's identity. As text, it has a first line that says what it is, and
//! a line for each repeat, in which stand the hashes of files, each with `@300` behind it for the weights after 300 steps, and
//! without for the last ones. The order is that in which the weights are added up: by cell, then by repeat, then by step.

use hex::FromHex as _;

use crate::dataset::DataError;
use crate::ids::{FileHash, Repeat};

/// The weights that a trial kept at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeptPart {
    /// BLAKE3 of the file of all weights that the trial kept.
    pub file: FileHash,
    /// The number of steps after which they were kept; `None` for the last ones.
    pub step: Option<u64>,
}

/// The weights that each repeat starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultsManifest {
    repeats: Vec<Vec<KeptPart>>,
}

const FIRST_LINE: &str = "ergodic results 1";

impl ResultsManifest {
    /// Creates the list for repeats from 0 on.
    pub fn new(repeats: Vec<Vec<KeptPart>>) -> Self {
        Self { repeats }
    }

    /// Number of repeats.
    pub fn repeat_count(&self) -> usize {
        self.repeats.len()
    }

    /// The weights that a repeat starts from; `None` if the list does not have it.
    pub fn parts_of(&self, repeat: Repeat) -> Option<&[KeptPart]> {
        self.repeats.get(repeat.0 as usize).map(Vec::as_slice)
    }

    /// Encodes the list as a file.
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for parts in &self.repeats {
            let words: Vec<String> = parts.iter().map(format_part).collect();
            text += &words.join(" ");
            text.push('\n');
        }
        text
    }

    /// Decodes a file.
    ///
    /// # Errors
    /// The bytes are no such file.
    pub fn decode(bytes: &[u8]) -> Result<Self, DataError> {
        let text = str::from_utf8(bytes).ok();
        let rest = text.and_then(|text| text.strip_prefix(FIRST_LINE)?.strip_prefix('\n'));
        let damaged =
            || DataError("this is no list of kept weights, or one of a later version".into());
        let lines = rest.ok_or_else(damaged)?.lines();
        let repeats = lines.map(|line| line.split(' ').map(parse_part).collect());
        let repeats: Option<Vec<Vec<KeptPart>>> = repeats.collect();
        repeats.map(Self::new).ok_or_else(damaged)
    }
}

fn format_part(part: &KeptPart) -> String {
    match part.step {
        Some(step) => format!("{}@{step}", part.file),
        None => part.file.to_string(),
    }
}

fn parse_part(word: &str) -> Option<KeptPart> {
    let (hash, step) = match word.split_once('@') {
        Some((hash, step)) => (hash, Some(step.parse().ok()?)),
        None => (word, None),
    };
    let file = FileHash(<[u8; 32]>::from_hex(hash).ok()?);
    Some(KeptPart { file, step })
}

#[cfg(test)]
mod tests {
    use crate::results_manifest::*;

    #[test]
    fn a_list_comes_back_from_its_file_and_nothing_else_is_one() {
        let part = |byte, step| KeptPart {
            file: FileHash([byte; 32]),
            step,
        };
        let list = ResultsManifest::new(vec![
            vec![part(1, None), part(2, Some(300))],
            vec![part(3, Some(0))],
        ]);
        let text = list.encode();
        let found = ResultsManifest::decode(text.as_bytes()).expect("a list");
        assert_eq!(found, list);
        assert_eq!(list.parts_of(Repeat(1)), Some(&[part(3, Some(0))][..]));
        assert_eq!(list.parts_of(Repeat(2)), None);

        for wrong in [
            "",
            "ergodic results 2\n",
            &text[..text.len() - 5],
            &text.replace('@', "#"),
        ] {
            assert!(
                ResultsManifest::decode(wrong.as_bytes()).is_err(),
                "{wrong}"
            );
        }
    }
}
