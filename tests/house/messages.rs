//! Messages name commands and options that there are: a remedy that cannot be typed helps nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use crate::{is_for_tests, is_test_file, source_files};

/// Options that messages name but that are not of these programs: those of `cargo`.
const FOREIGN_OPTIONS: [&str; 3] = ["--release", "--locked", "--features"];
/// A page of HTML, whose style sheet has names that begin like options.
const STYLE_SHEETS: &str = "client/report/page.rs";

/// The options of each command, by its words, such as `ergodic token new`.
type Commands = BTreeMap<String, BTreeSet<String>>;

/// Reads the page of commands, which a test compares with what the programs print.
fn read_commands(root: &Path) -> Commands {
    let page = root.join("docs/src/reference/commands.md");
    let page = std::fs::read_to_string(page).expect("the page of commands");
    let mut commands = Commands::new();
    let mut command = String::new();

    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            name.clone_into(&mut command);
            commands.entry(command.clone()).or_default();
        } else if let Some(options) = commands.get_mut(&command) {
            // Other lines are prose, which may name options of other commands.
            if line.trim_start().starts_with('-') {
                options.extend(options_in(line).map(str::to_owned));
            }
        }
    }

    commands
}

/// The long options that a text names.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    let is_option_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.split(move |c: char| !is_option_char(c) && c != '_')
        .map(|word| word.trim_end_matches('-'))
        .filter(|word| {
            word.strip_prefix("--")
                .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
}

/// What is wrong with the commands and options that a message names.
fn find_wrong_remedies(message: &str, commands: &Commands) -> Vec<String> {
    let mut wrong = Vec::new();
    for quoted in message.split('`').skip(1).step_by(2) {
        if quoted.starts_with("ergodic") {
            wrong.extend(check_command_line(quoted, commands));
        }
    }

    let is_known = |option: &str| {
        commands.values().any(|all| all.contains(option)) || FOREIGN_OPTIONS.contains(&option)
    };
    wrong.extend(
        options_in(message)
            .filter(|option| !is_known(option))
            .map(|option| format!("no command has {option}")),
    );
    wrong
}

/// What is wrong with a command line in backticks.
fn check_command_line(line: &str, commands: &Commands) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let named = (1..=words.len().min(3))
        .rev()
        .map(|count| words[..count].join(" "))
        .find(|name| commands.contains_key(name));
    let Some(named) = named else {
        return Some(format!("there is no command `{line}`"));
    };

    let rest = words.get(named.split(' ').count());
    let is_command = |word: &&&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    if named == "ergodic"
        && let Some(word) = rest.filter(is_command)
    {
        return Some(format!("there is no command `ergodic {word}`"));
    }

    let unknown = options_in(line).find(|option| !commands[&named].contains(*option))?;
    Some(format!("`{named}` has no option {unknown}"))
}

/// The text literals of a file outside its tests and attributes.
fn collect_literals(file: &syn::File) -> Vec<String> {
    let mut literals = Vec::new();
    for item in &file.items {
        let is_test = matches!(item, syn::Item::Mod(module) if is_for_tests(&module.attrs));
        if !is_test {
            collect_from_tokens(item.to_token_stream(), &mut literals);
        }
    }
    literals
}

fn collect_from_tokens(tokens: TokenStream, literals: &mut Vec<String>) {
    let mut follows_hash = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) if !follows_hash => {
                collect_from_tokens(group.stream(), literals);
            }
            TokenTree::Literal(literal) => {
                if let Ok(syn::Lit::Str(text)) = syn::parse_str(&literal.to_string()) {
                    literals.push(text.value());
                }
            }
            TokenTree::Punct(ref punct) if punct.as_char() == '#' => {
                follows_hash = true;
                continue;
            }
            _ => {}
        }
        follows_hash = false;
    }
}

#[test]
fn messages_name_commands_and_options_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the workspace");
    let commands = read_commands(root);
    assert!(commands.len() > 30, "{commands:?}");

    let mut wrong = Vec::new();
    let mut messages = 0;
    for krate in ["common", "proto", "coordinator", "worker"] {
        for path in source_files(&root.join(krate).join("src")) {
            let name = path.display().to_string();
            if is_test_file(&name) || name.ends_with(STYLE_SHEETS) {
                continue;
            }

            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            // A literal of one word is an argument that the program passes itself.
            for literal in collect_literals(&file)
                .iter()
                .filter(|text| text.contains(' '))
            {
                messages += 1;
                let found = find_wrong_remedies(literal, &commands);
                wrong.extend(
                    found
                        .into_iter()
                        .map(|why| format!("{name}: {why}: {literal}")),
                );
            }
        }
    }

    assert!(messages > 1000, "{messages} messages were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_remedy_is_found() {
    let mut commands = Commands::new();
    for (name, options) in [
        ("ergodic", &[][..]),
        ("ergodic run", &["--store"]),
        ("ergodic token new", &["--role"]),
    ] {
        let options = options.iter().map(|option| (*option).to_owned());
        commands.insert(name.to_owned(), options.collect());
    }

    for right in [
        "see `ergodic run {id} --store {dir}`, or `ergodic token new --role user`",
        "is `ergodic` there? Name it with --store DIR",
        "build it with `cargo build --release`",
    ] {
        assert_eq!(find_wrong_remedies(right, &commands), [""; 0], "{right}");
    }
    for wrong in [
        "see `ergodic runn`",
        "see `ergodic token old`",
        "see `ergodic run --role user`",
        "name it with --dir DIR",
    ] {
        assert!(!find_wrong_remedies(wrong, &commands).is_empty(), "{wrong}");
    }
}
