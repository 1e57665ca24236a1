//! Snapshots of what the command line prints: its help, and its refusals. `INSTA_UPDATE=always` writes them anew.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::command::{GROUPS, build_command};
use crate::client::option_names::FIELD_OPTIONS;

/// Characters of a line.
const WIDTH: usize = 100;

/// Command lines that are refused before anything is done, by the rule that refuses them.
const REFUSED_LINES: [(&str, &[&str]); 7] = [
    (
        "unknown names",
        &[
            "tabel",
            "token",
            "token lst",
            "bench",
            "table a --metrics x",
        ],
    ),
    (
        "missing arguments",
        &[
            "run",
            "verify",
            "launch",
            "status",
            "explain",
            "weights a 0/0",
            "weights a",
            "log",
            "log a",
            "extend",
            "extend a",
            "update a",
            "rm",
            "restore b",
            "backup",
            "export a",
            "report a",
            "sample-size a",
            "token new",
            "token revoke",
            "sql",
            "completions",
            "man",
        ],
    ),
    (
        "surplus arguments",
        &[
            "list a",
            "verify a b",
            "status a b",
            "extend a b c",
            "explain a 0/0 b",
            "log a 0/0 b",
        ],
    ),
    (
        "options that need another one",
        &[
            "table a --rows lr",
            "plot a --cols lr",
            "run a.toml --rows lr",
            "status a --cert c.pem",
            "list --key k.pem",
            "serve --tls-cert c.pem",
            "export a -o d --every 5s",
        ],
    ),
    (
        "options that exclude each other",
        &[
            "table a --by lr --rows lr --cols wd",
            "extend a b.toml --repeats 3",
            "serve --secure --insecure",
            "serve --insecure --client-ca c.pem",
        ],
    ),
    (
        "numbers out of their range",
        &[
            "run a.toml --workers 0",
            "run a.toml --slots 4097",
            "verify a --workers 0",
            "extend a --repeats 0",
            "replay a 0/0 --threads 257",
            "log a 0/0 --attempt 0",
            "table a --top 0",
            "plot a --width 158",
            "plot a --height 8001",
            "plot a --height 80miles",
            "plot a --clim 1,0",
            "plot a --cmap jet",
            "plot a --font-size 3",
            "compare a --baseline lr=1 --level x",
            "distance a --permutations -1",
            "update a --priority 1.5",
            "update a --weight x",
            "serve --rate-limit -1",
            "serve --worker-rate-limit x",
            "serve --max-sessions 0",
            "serve --max-connections 100001",
            "serve --max-connections-per-address 0",
            "bench overhead --trials 99",
            "bench soak --workers 257",
            "bench fleet --workers 20001",
            "bench fleet --events 0",
            "bench tables --points 0",
        ],
    ),
    (
        "values that cannot be read",
        &[
            "explain a 3",
            "weights a x/y -o w",
            "sample-size a test_acc",
            "sample-size a test_acc=±0",
            "serve --listen here",
            "serve --http 7701",
            "serve --advertise host:7700",
            "serve --lease-ttl soon",
            "serve --log-format xml",
            "export a -o d --follow --every 1x",
            "export a -o d --format csv",
            "token new --role root",
            "token new --role user --expires 30x",
            "token new --role user --expires 30",
            "bench soak --kill-every 0s",
            "status a --format parquet",
            "trials a --format xlsx",
            "table a --weight repeats",
            "plot a --kind pie",
            "effects a --part all",
            "predictions a --format table",
            "distance a --between 1",
            "completions tcsh",
        ],
    ),
];

#[test]
fn help_is_as_in_the_snapshots() {
    let mut program = String::new();
    add_help(&mut program, &["ergodic"]);
    assert_snapshot("help", &program);

    for (group, names) in GROUPS {
        let mut text = String::new();
        for name in names.iter().filter(|name| **name != "help") {
            add_help(&mut text, &["ergodic", name]);
            let command = build_command();
            let command = command.find_subcommand(name).expect("a command of a group");
            for inner in command.get_subcommands() {
                add_help(&mut text, &["ergodic", name, inner.get_name()]);
            }
        }
        assert_snapshot(&format!("help_{}", group.to_lowercase()), &text);
    }
}

#[test]
fn refusals_are_as_in_the_snapshot() {
    let mut text = String::new();
    for (rule, lines) in REFUSED_LINES {
        let _ = writeln!(text, "# {rule}\n");
        for line in lines {
            let words = std::iter::once("ergodic").chain(line.split_whitespace());
            let words: Vec<&str> = words.collect();
            let command = change_options(build_command(), |option| option.env(None::<&str>));
            let printed = print_error(command, &words);
            let _ = writeln!(text, "$ {}\n{printed}", words.join(" "));
        }
    }

    assert_snapshot("refusals", &text);
}

/// Adds what a command prints for `--help`.
fn add_help(text: &mut String, path: &[&str]) {
    let words: Vec<&str> = path.iter().copied().chain(["--help"]).collect();
    // The variables of this process are no part of it.
    let command = change_options(build_command(), |option| option.hide_env_values(true));
    let printed = print_error(command, &words);
    let _ = writeln!(text, "$ {}\n{printed}", words.join(" "));
}

/// Changes the options of a command and of those below it.
fn change_options(command: Command, change: fn(Arg) -> Arg) -> Command {
    let command = command.mut_args(change);
    command.mut_subcommands(|inner| change_options(inner, change))
}

/// What is printed instead of doing something, without spaces at the ends of lines.
fn print_error(command: Command, words: &[&str]) -> String {
    let Err(error) = command.term_width(WIDTH).try_get_matches_from(words) else {
        panic!("{words:?} is not refused");
    };

    let mut text = String::new();
    for line in error.render().to_string().lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn assert_snapshot(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn the_options_that_stand_for_fields_of_requests_exist() {
    fn list_options(command: &Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(Arg::get_long);
        let own = own.map(|long| format!("--{long}"));
        own.chain(command.get_subcommands().flat_map(list_options))
            .collect()
    }

    let known = list_options(&build_command());
    for (field, option) in FIELD_OPTIONS {
        assert!(known.iter().any(|name| name == option), "{field}: {option}");
    }
}
