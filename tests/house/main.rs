//! How the code reads, measured: sizes of files and functions, names of functions and types, doc comments, import cycles. The test
//! holds them to limits.
//!
//! `cargo test --workspace --locked --test house -- --nocapture` prints the table; with `HOUSE_LIST=1` also each place that counts
//! towards a limit, and with `HOUSE_COMMENTS=SEED` 50 comments drawn at random.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::imports::ImportGraph;

mod comments;
mod imports;
mod messages;

const MAX_LONG_FILES: f64 = 0.0;
const MAX_LONG_FUNCTIONS: f64 = 0.0;
const MAX_P90_TOKENS: f64 = 250.0;
const MAX_CLOSURE_SHARE: f64 = 2.0;
const MAX_IN_CYCLES: f64 = 0.0;

/// A function of the production code.
struct Function {
    name: String,
    file: String,
    line: usize,
    /// From the first line of its signature to its closing brace.
    lines: usize,
    blank_lines: usize,
    /// A group's two delimiters count as two tokens.
    tokens: usize,
}

/// What the production code of the workspace consists of.
#[derive(Default)]
struct House {
    /// Lines of production code of each file, by its path from the workspace's root.
    files: BTreeMap<String, usize>,
    functions: Vec<Function>,
    /// The places where a type of this name is defined.
    types: BTreeMap<String, Vec<String>>,
    lets: usize,
    closures: Vec<String>,
    tuples: Vec<String>,
}

impl House {
    fn measure(root: &Path) -> Self {
        let mut house = Self::default();

        for krate in ["common", "proto", "coordinator", "worker"] {
            for path in source_files(&root.join(krate).join("src")) {
                house.measure_file(root, &path);
            }
        }
        house
    }

    fn measure_file(&mut self, root: &Path, path: &Path) {
        let name = path
            .strip_prefix(root)
            .expect("files lie below the root")
            .display()
            .to_string();
        if is_test_file(&name) {
            return;
        }

        let text = std::fs::read_to_string(path).expect("a source file can be read");
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let lines: Vec<&str> = text.lines().collect();
        let mut visitor = Visitor {
            house: self,
            file: name.clone(),
            lines: &lines,
            test_lines: 0,
        };
        visitor.visit_file(&file);

        let production = lines.len() - visitor.test_lines;
        self.files.insert(name, production);
    }
}

struct Visitor<'a> {
    house: &'a mut House,
    file: String,
    lines: &'a [&'a str],
    /// Lines of `#[cfg(test)]` modules.
    test_lines: usize,
}

impl Visitor<'_> {
    fn add_function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let last = body.span().end().line;
        let blank_lines = self.lines[first - 1..last]
            .iter()
            .filter(|line| line.trim().is_empty())
            .count();

        self.house.functions.push(Function {
            name: signature.ident.to_string(),
            file: self.file.clone(),
            line: first,
            lines: last - first + 1,
            blank_lines,
            tokens: count_tokens(signature.to_token_stream())
                + count_tokens(body.to_token_stream()),
        });
    }

    fn add_type(&mut self, name: &syn::Ident) {
        let place = self.place(name.span());
        self.house
            .types
            .entry(name.to_string())
            .or_default()
            .push(place);
    }

    fn place(&self, span: proc_macro2::Span) -> String {
        format!("{}:{}", self.file, span.start().line)
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            self.test_lines += item.span().end().line - item.span().start().line + 1;
        } else {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.add_function(&item.sig, &item.block);
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.add_function(&item.sig, &item.block);
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.add_function(&item.sig, body);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add_type(&item.ident);
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add_type(&item.ident);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add_type(&item.ident);
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add_type(&item.ident);
        syn::visit::visit_item_type(self, item);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.house.lets += 1;
        let value = local.init.as_ref().map(|init| &*init.expr);
        match (&local.pat, value) {
            (_, Some(syn::Expr::Closure(_))) => {
                let place = self.place(local.span());
                self.house.closures.push(place);
            }
            (syn::Pat::Tuple(_), Some(syn::Expr::Tuple(_))) => {
                let place = self.place(local.span());
                self.house.tuples.push(place);
            }
            _ => {}
        }
        syn::visit::visit_local(self, local);
    }
}

/// Whether an item has `#[cfg(test)]` or `#[test]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.meta.to_token_stream().to_string();
        text == "test" || text == "cfg (test)" || text == "cfg(test)"
    })
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("_tests.rs")
}

fn count_tokens(stream: TokenStream) -> usize {
    let mut count = 0;
    for token in stream {
        count += match token {
            TokenTree::Group(group) => 2 + count_tokens(group.stream()),
            _ => 1,
        };
    }
    count
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of a folder of sources").path();
        if path.is_dir() {
            found.extend(source_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn quantile(sorted: &[usize], q: f64) -> usize {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

fn has_one_word(name: &str) -> bool {
    !name.trim_matches('_').contains('_')
}

/// One line of the table: what was measured, and the most or least that is allowed.
struct Line {
    what: &'static str,
    value: f64,
    limit: Limit,
    places: Vec<String>,
}

enum Limit {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Line {
    fn is_kept(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.value <= limit,
            Limit::AtLeast(limit) => self.value >= limit,
            Limit::None => true,
        }
    }

    fn describe(&self) -> String {
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("at most {limit}"),
            Limit::AtLeast(limit) => format!("at least {limit}"),
            Limit::None => String::new(),
        };
        format!("{:<62} {:>9.1}  {limit}", self.what, self.value)
    }
}

fn table(root: &Path, house: &House) -> Vec<Line> {
    let files = house.files.keys().cloned().collect::<BTreeSet<_>>();
    let imports = ImportGraph::read(root, &files);
    let unclear = comments::find_missing_subjects(root, &files);

    let mut lines = file_lines(house);
    lines.extend(function_lines(house));
    lines.extend(name_lines(house));
    lines.push(Line {
        what: "doc comments that begin with a pronoun",
        value: unclear.len() as f64,
        limit: Limit::AtMost(0.0),
        places: unclear,
    });
    lines.push(cycle_line("files in import cycles", imports.file_cycles()));
    lines.push(cycle_line(
        "rooms of the coordinator in import cycles",
        imports.room_cycles(),
    ));
    lines
}

fn cycle_line(what: &'static str, cycles: Vec<Vec<String>>) -> Line {
    Line {
        what,
        value: cycles.iter().map(Vec::len).sum::<usize>() as f64,
        limit: Limit::AtMost(MAX_IN_CYCLES),
        places: cycles.into_iter().map(|cycle| cycle.join(" ")).collect(),
    }
}

fn file_lines(house: &House) -> Vec<Line> {
    let mut sizes: Vec<usize> = house.files.values().copied().collect();
    sizes.sort_unstable();
    let long = house.files.iter().filter(|(_, lines)| **lines > 500);
    let long: Vec<String> = long
        .map(|(file, lines)| format!("{file} {lines}"))
        .collect();

    vec![
        Line {
            what: "files",
            value: sizes.len() as f64,
            limit: Limit::None,
            places: vec![],
        },
        Line {
            what: "lines",
            value: sizes.iter().sum::<usize>() as f64,
            limit: Limit::None,
            places: vec![],
        },
        Line {
            what: "lines of a file: median",
            value: quantile(&sizes, 0.5) as f64,
            limit: Limit::None,
            places: vec![],
        },
        Line {
            what: "files over 500 lines",
            value: long.len() as f64,
            limit: Limit::AtMost(MAX_LONG_FILES),
            places: long,
        },
    ]
}

fn function_lines(house: &House) -> Vec<Line> {
    let all = &house.functions;
    let mut tokens: Vec<usize> = all.iter().map(|function| function.tokens).collect();
    tokens.sort_unstable();
    let long = list_functions(all, |function| function.lines > 60);
    let heavy = list_functions(all, |function| function.tokens > 250);
    let (long_lines, blank_lines) = all
        .iter()
        .filter(|function| function.lines >= 12)
        .fold((0, 0), |(lines, blank), function| {
            (lines + function.lines, blank + function.blank_lines)
        });

    vec![
        Line {
            what: "functions",
            value: all.len() as f64,
            limit: Limit::None,
            places: vec![],
        },
        Line {
            what: "functions over 60 lines",
            value: long.len() as f64,
            limit: Limit::AtMost(MAX_LONG_FUNCTIONS),
            places: long,
        },
        Line {
            what: "tokens of a function: median",
            value: quantile(&tokens, 0.5) as f64,
            limit: Limit::None,
            places: vec![],
        },
        Line {
            what: "tokens of a function: p90",
            value: quantile(&tokens, 0.9) as f64,
            limit: Limit::AtMost(MAX_P90_TOKENS),
            places: heavy,
        },
        Line {
            what: "blank lines in functions of 12 lines and more, %",
            value: share(blank_lines, long_lines),
            limit: Limit::AtLeast(4.0),
            places: vec![],
        },
        Line {
            what: "named closures, % of lets",
            value: share(house.closures.len(), house.lets),
            limit: Limit::AtMost(MAX_CLOSURE_SHARE),
            places: house.closures.clone(),
        },
        Line {
            what: "lets of several names at once, % of lets",
            value: share(house.tuples.len(), house.lets),
            limit: Limit::AtMost(1.0),
            places: house.tuples.clone(),
        },
    ]
}

fn list_functions(all: &[Function], is_listed: impl Fn(&Function) -> bool) -> Vec<String> {
    let listed = all.iter().filter(|function| is_listed(function));
    listed
        .map(|function| {
            let Function {
                name,
                file,
                line,
                lines,
                tokens,
                ..
            } = function;
            format!("{file}:{line} {name}: {lines} lines, {tokens} tokens")
        })
        .collect()
}

fn name_lines(house: &House) -> Vec<Line> {
    let one_word = list_functions(&house.functions, |function| has_one_word(&function.name));
    let definitions: usize = house.types.values().map(Vec::len).sum();
    let ambiguous = house.types.iter().filter(|(_, places)| places.len() > 1);
    let ambiguous: Vec<(String, usize)> = ambiguous
        .map(|(name, places)| (format!("{name}: {}", places.join(" ")), places.len()))
        .collect();

    vec![
        Line {
            what: "functions with a name of one word, %",
            value: share(one_word.len(), house.functions.len()),
            limit: Limit::AtMost(30.0),
            places: one_word,
        },
        Line {
            what: "types whose name is also another type's, %",
            value: share(
                ambiguous.iter().map(|(_, places)| places).sum(),
                definitions,
            ),
            limit: Limit::AtMost(8.0),
            places: ambiguous.into_iter().map(|(text, _)| text).collect(),
        },
    ]
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is what the test is run for")]
fn the_code_keeps_its_measures() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the workspace");
    let house = House::measure(root);
    let lines = table(root, &house);

    let mut text = String::new();
    for line in &lines {
        text += &format!("{}\n", line.describe());
        if std::env::var_os("HOUSE_LIST").is_some() {
            line.places
                .iter()
                .for_each(|place| text += &format!("    {place}\n"));
        }
    }
    println!("{text}");
    if let Some(seed) = std::env::var_os("HOUSE_COMMENTS") {
        let seed = seed.to_str().and_then(|seed| seed.parse().ok());
        let files = house.files.keys().cloned().collect();
        comments::print_drawn_comments(
            root,
            &files,
            seed.expect("HOUSE_COMMENTS is a whole number"),
        );
    }

    let broken: Vec<String> = lines
        .iter()
        .filter(|line| !line.is_kept())
        .map(Line::describe)
        .collect();
    assert!(
        broken.is_empty(),
        "{}\nHOUSE_LIST=1 lists the places",
        broken.join("\n")
    );
}
