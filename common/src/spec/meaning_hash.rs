//! The meaning of a sweep file as a hash. Comments, the spelling of numbers, and the order of keys
//! where it has no meaning do not count.

use crate::grid::cases::CASE;
use crate::grid::is_axis_form;
use crate::ids::{ClaimsHash, FileHash, MeaningHash};
use crate::number_format::format_shortest;
use crate::quantity::{ClaimSection, FigureSection};
use crate::spec::source::SpecSource;
use crate::spec_file::node::{SpecTable, SpecValue};

impl SpecSource {
    /// The hash of everything that the file says but claims and figures, including its settings and the contents of the
    /// files that it names: two files with one meaning request the same sweep. `None` for a file
    /// that cannot be read; [`Spec::read_new`](crate::Spec::read_new) reports why.
    pub fn compute_meaning_hash(&self) -> Option<MeaningHash> {
        let mut document = self.read_document().ok()?;
        // What is claimed of the results, and shown of them, is no part of what is run.
        document.0.retain(|(key, _)| {
            !ClaimSection::KEYS.contains(&key.as_str()) && key != FigureSection::KEY
        });
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 sweep meaning v1");
        hash_document(&mut hasher, &document);

        // Another grammar may give the same words another meaning. Hashes of grammar 1 stay as they
        // were before there were versions.
        if self.grammar > 1 {
            hash_entry(&mut hasher, b'g', &self.grammar.to_string());
        }

        let mut files: Vec<(&str, FileHash)> = self
            .files
            .iter()
            .map(|pin| (pin.path.as_str(), pin.hash))
            .collect();
        files.sort_unstable();

        for (path, hash) in files {
            hash_entry(&mut hasher, b'f', path);
            hasher.update(&hash.0);
        }

        Some(hasher.finalize().into())
    }

    /// The hash of the quantities and claims of the file, which may be a file of claims alone. Comments, the spelling of numbers and
    /// the order of keys do not count; the order of claims does. `None` for a file that cannot be read.
    pub fn compute_claims_hash(&self) -> Option<ClaimsHash> {
        let claims = self.read_claims_tables()?;
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 claims v1");
        hash_document(&mut hasher, &claims);
        Some(hasher.finalize().into())
    }
}

/// Hashes a kind, a length and a text, so that different lists of entries have different hashes.
fn hash_entry(hasher: &mut blake3::Hasher, kind: u8, text: &str) {
    hasher
        .update(&[kind])
        .update(&(text.len() as u64).to_le_bytes())
        .update(text.as_bytes());
}

/// Whether the order of the keys of a table matters.
#[derive(Clone, Copy, PartialEq)]
enum KeyOrder {
    Ignored,
    /// The order matters: axes are numbered, and fields derived, in the order of the file.
    Significant,
    /// The order matters in the tables within, except those that generate the values of one axis.
    SignificantWithin,
    /// The order matters here, and not in the tables within: cases are numbered in the order of the file.
    SignificantHere,
}

fn hash_document(hasher: &mut blake3::Hasher, document: &SpecTable) {
    hash_entries(hasher, document, KeyOrder::Ignored, true);
}

fn hash_table(hasher: &mut blake3::Hasher, table: &SpecTable, order: KeyOrder) {
    hash_entries(hasher, table, order, false);
}

fn hash_entries(
    hasher: &mut blake3::Hasher,
    table: &SpecTable,
    order: KeyOrder,
    is_document: bool,
) {
    let mut entries: Vec<(&str, &SpecValue)> = table
        .0
        .iter()
        .map(|(key, node)| (key.as_str(), &node.value))
        .collect();
    let is_axis =
        order == KeyOrder::SignificantWithin && entries.iter().any(|(key, _)| is_axis_form(key));
    let order = if is_axis { KeyOrder::Ignored } else { order };
    if order == KeyOrder::Ignored {
        entries.sort_by_key(|(key, _)| *key);
    }

    hasher
        .update(b"t")
        .update(&(entries.len() as u64).to_le_bytes());
    let within = match order {
        KeyOrder::Significant => KeyOrder::SignificantWithin,
        KeyOrder::SignificantHere => KeyOrder::Ignored,
        other => other,
    };

    for (key, value) in entries {
        hash_entry(hasher, b'k', key);
        hash_value(
            hasher,
            value,
            match key {
                "grid" | "derive" => KeyOrder::Significant,
                CASE if is_document => KeyOrder::SignificantHere,
                _ => within,
            },
        );
    }
}

fn hash_value(hasher: &mut blake3::Hasher, value: &SpecValue, order: KeyOrder) {
    match value {
        SpecValue::Bool(flag) => hash_entry(hasher, b'b', if *flag { "true" } else { "false" }),
        // An integer that an `f64` cannot hold, such as a long seed, is hashed by its digits.
        SpecValue::Int(whole) if *whole as f64 as i64 != *whole => {
            hash_entry(hasher, b'i', &whole.to_string())
        }
        SpecValue::Int(whole) => hash_entry(hasher, b'n', &format_shortest(*whole as f64)),
        SpecValue::Float(x) => hash_entry(hasher, b'n', &format_shortest(*x)),
        SpecValue::Str(text) => hash_entry(hasher, b's', text),
        SpecValue::List(items) => {
            hasher
                .update(b"l")
                .update(&(items.len() as u64).to_le_bytes());
            items
                .iter()
                .for_each(|item| hash_value(hasher, &item.value, order));
        }
        SpecValue::Table(table) => hash_table(hasher, table, order),
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::meaning_hash::*;

    fn meaning(text: &str, settings: &[&str]) -> Option<MeaningHash> {
        let settings = settings
            .iter()
            .map(|setting| (*setting).to_owned())
            .collect();
        SpecSource {
            file: "f".into(),
            text: text.into(),
            settings,
            ..SpecSource::default()
        }
        .compute_meaning_hash()
    }

    #[test]
    fn the_version_of_the_grammar_is_part_of_the_meaning() {
        let in_grammar = |grammar| {
            SpecSource {
                text: "name = 'a'".into(),
                grammar,
                ..SpecSource::default()
            }
            .compute_meaning_hash()
        };
        assert!(in_grammar(1).is_some());
        assert_ne!(in_grammar(1), in_grammar(2));
    }

    #[test]
    fn claims_have_a_hash_of_their_own() {
        let claims = |text: &str| {
            SpecSource {
                text: text.into(),
                ..SpecSource::default()
            }
            .compute_claims_hash()
        };
        let alone =
            claims("[[claim]]\nname = 'c'\nof = 'x'\nabove = 0.5\n[quantity]\nx = 'step'\n");
        assert!(alone.is_some());
        let in_a_sweep = "name = 'a'\n[quantity]\nx = \"step\" # a comment\n[[claim]]\nof = 'x'\nname = 'c'\nabove = 5e-1\n\
                          [[figure]]\nname = 'f'\n";
        assert_eq!(claims(in_a_sweep), alone);
        assert_ne!(claims(&in_a_sweep.replace("5e-1", "0.6")), alone);
        assert_eq!(claims("name = "), None);
    }

    #[test]
    fn claims_and_figures_are_no_part_of_the_meaning() {
        let plain = meaning("name = 'a'\nseed = 1\n", &[]);
        let more = "name = 'a'\nseed = 1\n[quantity]\nx = '1'\n[[claim]]\nname = 'c'\n[[figure]]\nname = 'f'\n";
        assert_eq!(meaning(more, &[]), plain);
    }

    #[test]
    fn how_a_file_is_written_says_nothing() {
        let plain = meaning(
            "seed = 1\nname = 'a'\n[grid]\nlr = [0.1, 1]\nwd = [0.0]\n",
            &[],
        );

        for (text, settings) in [
            (
                "# a comment\nname = \"a\"\nseed = 1\n[grid]\nlr = [0.10, 1.0]\nwd = [0]\n",
                &[][..],
            ),
            (
                "name = 'a'\nseed = 2\n[grid]\nlr = [1e-1, 1]\nwd = [0.0]\n",
                &["seed=1"],
            ),
            (
                "name = 'a'\nseed = 1\ngrid = { lr = [0.1, 1], wd = [0] }\n",
                &[],
            ),
        ] {
            assert_eq!(meaning(text, settings), plain, "{text}");
        }

        for text in [
            "seed = 1\nname = 'b'\n[grid]\nlr = [0.1, 1]\nwd = [0.0]\n",
            "seed = 1\nname = 'a'\n[grid]\nlr = [1, 0.1]\nwd = [0.0]\n",
            // Other columns.
            "seed = 1\nname = 'a'\n[grid]\nwd = [0.0]\nlr = [0.1, 1]\n",
            "seed = 1\nname = 'a'\n[grid]\nlr = ['0.1', 1]\nwd = [0.0]\n",
            "seed = 1\nname = 'a'\n[grid]\nlr = [[0.1], 1]\nwd = [0.0]\n",
        ] {
            assert!(
                meaning(text, &[]).is_some() && meaning(text, &[]) != plain,
                "{text}"
            );
        }

        assert_eq!(meaning("name = ", &[]), None);
        assert_eq!(meaning("name = 'a'", &["name.x=1"]), None);
        assert_ne!(
            meaning("seed = 9007199254740992", &[]),
            meaning("seed = 9007199254740993", &[])
        );
    }

    #[test]
    fn order_says_something_where_it_numbers_cells_or_derives_fields() {
        for (one, other) in [
            (
                "grid.lr = [1, 2]\ngrid.wd = [0, 1]",
                "grid.wd = [0, 1]\ngrid.lr = [1, 2]",
            ),
            (
                "[grid.model]\nwidth = [1, 2]\ndepth = [8, 14]",
                "[grid.model]\ndepth = [8, 14]\nwidth = [1, 2]",
            ),
            (
                "[grid]\ntrain.loss.label_smoothing = [0, 0.1]\ntrain.lr = [1, 2]",
                "[grid]\ntrain.lr = [1, 2]\ntrain.loss.label_smoothing = [0, 0.1]",
            ),
            (
                "[derive]\nwd = '2 * x'\nlr = 'x + 1'",
                "[derive]\nlr = 'x + 1'\nwd = '2 * x'",
            ),
            // An axis of one's own that is called as a form of axes is.
            (
                "[grid]\nlr = [1, 2]\npoints = [1, 2]",
                "[grid]\npoints = [1, 2]\nlr = [1, 2]",
            ),
        ] {
            assert!(
                meaning(one, &[]).is_some() && meaning(one, &[]) != meaning(other, &[]),
                "{one}"
            );
        }

        for (one, other) in [
            (
                "[grid]\nlr = { log = [1, 2], points = 3 }",
                "[grid]\nlr = { points = 3, log = [1, 2] }",
            ),
            (
                "[grid.model]\nwidth = { linear = [1, 2], points = 2 }",
                "[grid.model.width]\npoints = 2\nlinear = [1, 2]",
            ),
            (
                "[data]\ntrain = 10\ntest = 5\n[derive]\nlr = 'x'",
                "[derive]\nlr = 'x'\n[data]\ntest = 5\ntrain = 10",
            ),
        ] {
            assert_eq!(meaning(one, &[]), meaning(other, &[]), "{one}");
        }
    }
}
