//! Comments of the production code: finds doc comments without a subject, and draws `//` comments at random, so that a person can
//! judge whether they say why.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::Visit;

/// The number of comments that are drawn.
const DRAWN: usize = 50;
/// The number of lines that are printed below a comment.
const LINES_BELOW: usize = 2;

/// Words that stand for a subject that a doc comment has to name.
const PRONOUNS: [&str; 5] = ["It", "Its", "They", "These", "Those"];

/// Finds the paragraphs of doc comments that begin with a pronoun.
pub(crate) fn find_missing_subjects(root: &Path, files: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(root.join(file)).expect("a source file can be read");
        let mut follows_text = false;
        for (at, line) in text.lines().enumerate() {
            let doc = doc_text(line);
            if !follows_text && begins_with_pronoun(doc) {
                found.push(format!("{file}:{} {doc}", at + 1));
            }
            follows_text = !doc.is_empty() && !doc.starts_with('#');
        }
    }
    found
}

/// The text of a line of a doc comment; empty for any other line.
fn doc_text(line: &str) -> &str {
    let line = line.trim_start();
    let text = line
        .strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"));
    text.unwrap_or_default().trim()
}

fn begins_with_pronoun(text: &str) -> bool {
    let word = text.split(|c: char| !c.is_alphabetic()).next();
    word.is_some_and(|word| PRONOUNS.contains(&word))
}

/// A block of consecutive `//` lines, and the lines below it.
struct Comment {
    file: String,
    /// The number of its first line, from 1.
    line: usize,
    text: String,
}

/// Prints [`DRAWN`] comments of `files`, in an order that depends on `seed` alone.
#[expect(
    clippy::print_stdout,
    reason = "the comments are what a person asks for"
)]
pub(crate) fn print_drawn_comments(root: &Path, files: &BTreeSet<String>, seed: u64) {
    let mut comments: Vec<Comment> = files
        .iter()
        .flat_map(|file| find_comments(root, file))
        .collect();
    let found = comments.len();
    let mut random = SplitMix64(seed);

    let drawn = DRAWN.min(found);
    for at in 0..drawn {
        let other = at + (random.next_number() % (found - at) as u64) as usize;
        comments.swap(at, other);
    }

    println!("{drawn} of {found} comments, drawn with seed {seed}:\n");
    for Comment { file, line, text } in &comments[..drawn] {
        println!("{file}:{line}\n{text}\n");
    }
}

fn find_comments(root: &Path, file: &str) -> Vec<Comment> {
    let text = std::fs::read_to_string(root.join(file)).expect("a source file can be read");
    let syntax = syn::parse_file(&text).expect("a source file can be parsed");
    let lines: Vec<&str> = text.lines().collect();
    let skipped = find_skipped_lines(&syntax);

    let is_comment: Vec<bool> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| {
            has_comment(line) && !skipped.iter().any(|lines| lines.contains(&(at + 1)))
        })
        .collect();

    let mut comments = Vec::new();
    let mut start = 0;
    for block in is_comment.chunk_by(|one, next| one == next) {
        let end = start + block.len();
        if block[0] {
            let shown = &lines[start..lines.len().min(end + LINES_BELOW)];
            comments.push(Comment {
                file: file.to_owned(),
                line: start + 1,
                text: shown.join("\n"),
            });
        }
        start = end;
    }
    comments
}

/// Whether a line is a comment from its first character on, and no doc comment.
fn has_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
}

/// Line numbers of tests, and of literals of several lines, in which `//` is text.
fn find_skipped_lines(file: &syn::File) -> Vec<RangeInclusive<usize>> {
    let mut tests = TestItems(Vec::new());
    tests.visit_file(file);
    add_long_literals(file.to_token_stream(), &mut tests.0);
    tests.0
}

struct TestItems(Vec<RangeInclusive<usize>>);

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if super::is_for_tests(&item.attrs) {
            self.0.push(line_range(item.span()));
        } else {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if super::is_for_tests(&item.attrs) {
            self.0.push(line_range(item.span()));
        }
    }
}

fn add_long_literals(stream: TokenStream, found: &mut Vec<RangeInclusive<usize>>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => add_long_literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                let lines = line_range(literal.span());
                if lines.start() < lines.end() {
                    found.push(lines);
                }
            }
            _ => {}
        }
    }
}

fn line_range(span: proc_macro2::Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

/// The generator of the same name, which needs one word of state.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
