//! What restricts the figures of a table: notes on its rows, and losses that are no common quantity of several sweeps.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;

use super::{TextFormat, exact_value};

/// The axis that tells several sweeps apart.
pub const SWEEP_AXIS: &str = "sweep";
/// Why the cells of several sweeps have no common ranks; further reasons follow behind a semicolon.
pub const RANKED_APART: &str = "cells are ranked within a sweep";
/// Maximum number of different notes on the rows of a table.
const MAX_NOTES: usize = 3;

/// The notes on rows with at least two values, each once. Of several sweeps, a note that not all of them have begins with those that
/// do: `a: given the fixed init`.
pub fn collect_row_notes(table: &v1::TableResponse) -> Vec<String> {
    let sweep = table.axes.iter().position(|axis| axis == SWEEP_AXIS);
    let mut all = BTreeSet::new();
    let mut by_note: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for row in &table.rows {
        let label = sweep.map(|at| exact_value(&row.values[at]));
        all.extend(label.clone());
        if row.summary.is_some_and(|s| s.n > 1) && !row.note.is_empty() {
            by_note.entry(&row.note).or_default().extend(label);
        }
    }

    let notes = by_note.into_iter().map(|(note, sweeps)| {
        let labels: Vec<String> = sweeps.into_iter().collect();
        match labels.len() == all.len() {
            true => escape_line(note).into_owned(),
            false => escape_line(&format!("{}: {note}", labels.join(", "))).into_owned(),
        }
    });
    limit_notes(notes.collect())
}

/// The first notes, and how many more there are.
pub fn limit_notes(mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(MAX_NOTES);
    notes.truncate(MAX_NOTES);
    if more > 0 {
        notes.push(format!(
            "and {more} more, in the column note of --format csv"
        ));
    }
    notes
}

/// Says that a loss is another quantity in each sweep, if it is.
pub fn describe_mixed_losses(table: &v1::TableResponse) -> Option<&str> {
    table
        .unranked
        .strip_prefix(RANKED_APART)?
        .strip_prefix("; ")
}

/// Adds lines to a table: comments above one of LaTeX, paragraphs below one of Markdown. Other formats have no place for them.
pub fn add_lines(table: String, format: TextFormat, lines: &[String]) -> String {
    match format {
        TextFormat::Latex => {
            lines
                .iter()
                .map(|line| format!("% {line}\n"))
                .collect::<String>()
                + &table
        }
        TextFormat::Md => lines.iter().fold(table, |text, line| {
            text + "\n" + &escape_markdown(line) + "\n"
        }),
        TextFormat::Table | TextFormat::Json | TextFormat::Csv => table,
    }
}

/// Escapes characters with which Markdown would format a text, or take it for HTML.
pub(super) fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_within_word = out.ends_with(char::is_alphanumeric)
            && chars.peek().is_some_and(|next| next.is_alphanumeric());
        let is_markup = match c {
            '`' | '*' | '<' | '>' | '|' | '~' => true,
            // Before a letter, as in an escaped control character, a backslash is one.
            '\\' => chars.peek().is_none_or(char::is_ascii_punctuation),
            // An underscore within a word, as in test_acc, is one.
            '_' => !is_within_word,
            // A link has its address behind its text, and an entity its name behind the ampersand.
            ']' => chars
                .peek()
                .is_some_and(|next| *next == '(' || *next == '['),
            '&' => chars
                .peek()
                .is_some_and(|next| next.is_alphanumeric() || *next == '#'),
            _ => false,
        };
        if is_markup {
            out.push('\\');
        }
        out.push(c);
    }

    out
}

#[cfg(test)]
mod tests {
    use crate::client::render::row_notes::*;

    fn row(sweep: &str, n: u64, note: &str) -> v1::TableRow {
        v1::TableRow {
            values: vec![v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Text(sweep.to_owned())),
            }],
            summary: Some(v1::Summary {
                n,
                ..v1::Summary::default()
            }),
            note: note.to_owned(),
            ..v1::TableRow::default()
        }
    }

    fn notes(axis: &str, rows: Vec<v1::TableRow>) -> Vec<String> {
        collect_row_notes(&v1::TableResponse {
            axes: vec![axis.to_owned()],
            rows,
            ..v1::TableResponse::default()
        })
    }

    #[test]
    fn a_note_names_the_sweeps_that_have_it_unless_all_do() {
        let rows = || {
            vec![
                row("a", 2, "x"),
                row("b", 2, "y"),
                row("a", 2, "y"),
                row("b", 1, "z"),
            ]
        };
        assert_eq!(notes("sweep", rows()), ["a: x", "y"]);
        assert_eq!(notes("lr", rows()), ["x", "y"]);
        assert_eq!(notes("sweep", vec![row("a", 2, "")]), [""; 0]);

        let many = (0..5).map(|i| row("a", 2, &format!("n{i}"))).collect();
        assert_eq!(
            notes("lr", many),
            [
                "n0",
                "n1",
                "n2",
                "and 2 more, in the column note of --format csv"
            ]
        );
    }

    #[test]
    fn mixed_losses_are_told_whatever_else_is_known_of_ranks() {
        let of = |unranked: &str| {
            let table = v1::TableResponse {
                unranked: unranked.to_owned(),
                ..v1::TableResponse::default()
            };
            describe_mixed_losses(&table).map(str::to_owned)
        };
        assert_eq!(
            of(&format!("{RANKED_APART}; mixed")).as_deref(),
            Some("mixed")
        );
        assert_eq!(of(RANKED_APART), None);
        assert_eq!(of("the losses differ"), None);
    }

    #[test]
    fn markdown_shows_texts_as_they_are() {
        for (text, escaped) in [
            ("test_acc [8,16] a-b 5 % (x)", "test_acc [8,16] a-b 5 % (x)"),
            ("*a* _a_ `a` ~~a~~", "\\*a\\* \\_a\\_ \\`a\\` \\~\\~a\\~\\~"),
            (
                "<img src=x> a|b &lt; a & b",
                "\\<img src=x\\> a\\|b \\&lt; a & b",
            ),
            ("[a](b)", "[a\\](b)"),
            ("\\u001b \\* \\", "\\u001b \\\\\\* \\\\"),
        ] {
            assert_eq!(escape_markdown(text), escaped);
        }
    }

    #[test]
    fn lines_are_comments_of_latex_and_paragraphs_of_markdown() {
        let lines = ["note: given the fixed init".to_owned()];
        let with = |format| add_lines("table\n".to_owned(), format, &lines);
        assert_eq!(
            with(TextFormat::Latex),
            "% note: given the fixed init\ntable\n"
        );
        assert_eq!(
            with(TextFormat::Md),
            "table\n\nnote: given the fixed init\n"
        );
        assert_eq!(with(TextFormat::Csv), "table\n");
    }
}
