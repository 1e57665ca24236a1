//! The command line as a whole: help in groups, and the names that commands and options had before.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _};

use super::EXIT_CODES;
use super::dispatch::ErgodicCli;
use crate::app::stdout_error;
use crate::terminal::print_stderr_line;

/// The groups of `ergodic --help`, each with its commands.
pub(super) const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Run",
        &[
            "run", "verify", "plan", "init", "docs", "launch", "watch", "replay",
        ],
    ),
    (
        "Steer",
        &[
            "list", "status", "explain", "pause", "resume", "cancel", "retry", "extend", "update",
            "rm",
        ],
    ),
    (
        "Results",
        &[
            "table",
            "trials",
            "log",
            "curves",
            "predictions",
            "plot",
            "report",
            "export",
            "sql",
            "weights",
            "files",
        ],
    ),
    (
        "Analysis",
        &[
            "compare",
            "effects",
            "distance",
            "variance",
            "verdict",
            "sample-size",
        ],
    ),
    (
        "Operate",
        &[
            "serve",
            "workers",
            "worker",
            "token",
            "backup",
            "restore",
            "bench",
            "completions",
            "man",
            "help",
        ],
    ),
];

/// Commands with an older name, which stays as a hidden alias.
const OLD_COMMANDS: [(&str, &str); 1] = [("share", "update")];

/// Options with an older name: command, older name, option. `worker/src/cli/mod.rs` has those of `ergodic-worker`.
const OLD_OPTIONS: [(&str, &str, &str); 8] = [
    ("run", "dir", "store"),
    ("rm", "dir", "store"),
    ("serve", "check", "verify-store"),
    ("serve", "files", "artifacts"),
    ("restore", "files", "artifacts"),
    ("plot", "log", "log-scale"),
    ("plot", "log-y", "log-scale"),
    ("export", "anew", "rewrite"),
];

/// Options that made a command what another command is now: command, older option, command of today. The value of the option is the
/// last argument of that command.
const OLD_FORMS: [(&str, &str, &str); 1] = [("plan", "precision", "sample-size")];

/// Options for the connection to a coordinator, which come last in each help under their own
/// heading.
const CONNECTION_OPTIONS: [&str; 5] = ["coordinator", "token-file", "ca", "cert", "key"];

const HELP_TEMPLATE: &str =
    "{about}\n\n{usage-heading} {usage}\n{after-help}\n\nOptions:\n{options}";

/// Parses the command line of this process. Exits if it is wrong or asks for help.
pub(super) fn parse_command_line() -> ErgodicCli {
    let matches = match_words(std::env::args_os()).unwrap_or_else(|error| end_with(&error));
    ErgodicCli::from_arg_matches(&matches).unwrap_or_else(|error| end_with(&error))
}

/// Prints a refusal, help or the version, and ends the program. Unlike refusals, help and version are what the user wants on stdout.
fn end_with(outcome: &clap::Error) -> ! {
    if outcome.use_stderr() {
        outcome.exit();
    }

    let printed = outcome.print().and_then(|()| std::io::stdout().flush());
    match printed {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            let error = stdout_error(&e);
            print_stderr_line(&format!("error: {error}"));
            std::process::exit(error.code.exit_code().into())
        }
        _ => std::process::exit(outcome.exit_code()),
    }
}

/// Matches a command line, of today or in an older form, against the commands.
fn match_words(words: impl Iterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    let mut words: Vec<OsString> = words.collect();
    for (old, option, new) in OLD_FORMS {
        let is_old_command = words.get(1).is_some_and(|word| word == old);
        if is_old_command && let Some(value) = take_option(&mut words, option) {
            words[1] = new.into();
            words.push(value);
        }
    }

    build_command().try_get_matches_from(words)
}

/// Takes an option out of a command line, and returns its value; `None` if it lacks the option or the value.
fn take_option(words: &mut Vec<OsString>, option: &str) -> Option<OsString> {
    let flag = format!("--{option}");
    let joined = format!("{flag}=");
    let at = words
        .iter()
        .position(|word| *word == *flag || word.to_string_lossy().starts_with(&joined))?;

    if words[at] != *flag {
        let word = words.remove(at);
        return word.to_string_lossy().strip_prefix(&joined).map(Into::into);
    }
    if at + 1 == words.len() {
        return None;
    }
    words.remove(at);
    Some(words.remove(at))
}

/// Builds the command line with its groups and older names.
pub fn build_command() -> Command {
    let mut command = ErgodicCli::command();

    for (old, new) in OLD_COMMANDS {
        command = command.mut_subcommand(new, |c| c.alias(old));
    }
    for (name, old, new) in OLD_OPTIONS {
        command = command.mut_subcommand(name, |c| add_option_alias(c, old, new));
    }

    let groups = describe_groups(&command);
    set_connection_options_apart(command)
        .help_template(HELP_TEMPLATE)
        .after_help(format!("{groups}{EXIT_CODES}"))
}

fn set_connection_options_apart(command: Command) -> Command {
    let command = command.mut_args(|option| {
        if option
            .get_long()
            .is_some_and(|name| CONNECTION_OPTIONS.contains(&name))
        {
            option.help_heading("Connection")
        } else {
            option
        }
    });
    command.mut_subcommands(set_connection_options_apart)
}

fn add_option_alias(command: Command, old: &'static str, new: &str) -> Command {
    let id = command
        .get_arguments()
        .find(|option| option.get_long() == Some(new))
        .map(|option| option.get_id().clone())
        .expect("OLD_OPTIONS names options that there are");

    command.mut_arg(id, |option| option.alias(old))
}

/// The commands of each group, each with the first line of its help.
fn describe_groups(command: &Command) -> String {
    let mut text = String::new();
    for (group, names) in GROUPS {
        let _ = writeln!(text, "\n{group}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map_or_else(
                || "Print help for a command".to_owned(),
                ToString::to_string,
            );
            let _ = writeln!(text, "  {name:<12} {about}");
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        build_command().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group() {
        let mut listed: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        listed.sort_unstable();

        let command = build_command();
        let mut all: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        all.push("help");
        all.sort_unstable();
        all.dedup();

        assert_eq!(listed, all);
    }

    #[test]
    fn older_names_are_understood_and_not_shown() {
        let parses = |line: &[&str]| {
            let line = std::iter::once("ergodic").chain(line.iter().copied());
            let matched = match_words(line.map(OsString::from)).unwrap_or_else(|e| panic!("{e}"));
            matched.subcommand_name().map(str::to_owned)
        };
        parses(&["share", "latest", "--priority", "3"]);
        parses(&["run", "a.toml", "--dir", "d"]);
        parses(&["rm", "latest", "--dir", "d"]);
        parses(&["serve", "--check", "--files", "d"]);
        parses(&["restore", "b", "--store", "s", "--files", "d"]);
        parses(&["plot", "latest", "--log"]);
        parses(&["plot", "latest", "--log-y"]);
        parses(&["export", "latest", "-o", "d", "--anew"]);

        for line in [
            &["plan", "latest", "--precision", "test_acc=0.1"][..],
            &["plan", "--precision=test_acc=0.1", "latest", "--store", "d"],
        ] {
            assert_eq!(parses(line).as_deref(), Some("sample-size"), "{line:?}");
        }

        let mut command = build_command();
        let mut help = command.render_long_help().to_string();
        for name in ["run", "rm", "serve", "restore", "plot", "export", "plan"] {
            let sub = command.find_subcommand_mut(name).expect("a command");
            help += &sub.render_long_help().to_string();
        }
        let options = OLD_OPTIONS.iter().map(|(_, old, _)| old);
        for old in options.chain(OLD_FORMS.iter().map(|(_, old, _)| old)) {
            assert!(!help.contains(&format!("--{old} ")), "--{old} is shown");
        }
        assert!(!help.contains("  share "), "share is shown");
    }
}
