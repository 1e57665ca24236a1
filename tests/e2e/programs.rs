//! What the programs say of themselves: their version, the scripts by which shells complete, and their manual pages.

use std::path::Path;
use std::process::{Command, Stdio};

use ergodic_common::BUILD;
use ergodic_tests::{program, skip};

const PROGRAMS: [&str; 2] = ["ergodic", "ergodic-worker"];

/// Stdout of a program that ends well and says nothing on stderr.
fn output_of(name: &str, args: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{name} {args:?}: {stderr}"
    );
    String::from_utf8(output.stdout).expect("text")
}

fn is_installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

#[test]
fn the_short_version_is_one_line_and_the_long_one_names_the_build() {
    for name in PROGRAMS {
        assert_eq!(output_of(name, &["-V"]), format!("{name} {BUILD}\n"));

        let long = output_of(name, &["--version"]);
        let mut lines = long.lines();
        assert_eq!(lines.next(), Some(&*format!("{name} {BUILD}")));
        let names: Vec<&str> = lines
            .map(|line| line.split_once(": ").expect("a fact").0)
            .collect();
        let all = [
            "revision",
            "protocol",
            "store schema",
            "numerics",
            "features",
            "target",
        ];
        let expected = all
            .iter()
            .filter(|fact| name == "ergodic" || **fact != "store schema");
        assert!(names.iter().eq(expected), "{long}");

        let protocol = format!("\nprotocol: {}\n", ergodic_proto::PROTOCOL_VERSION);
        assert!(long.contains(&protocol), "{long}");
        assert!(long.contains(ergodic_common::trial::CPU_F32), "{long}");
    }
}

/// What bash offers after these words, of which the last is being typed.
fn complete_in_bash(name: &str, words: &[&str]) -> Vec<String> {
    let script = output_of(name, &["completions", "bash"]);
    let lines = format!(
        "{script}\nCOMP_WORDS=({name} {}) COMP_CWORD={}\nhandler=$(complete -p {name})\n[[ $handler =~ -F\\ ([^ ]+) ]]\n\
         \"${{BASH_REMATCH[1]}}\" {name} {} {}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words.join(" "),
        words.len(),
        words.last().copied().unwrap_or_default(),
        words
            .len()
            .checked_sub(2)
            .map_or(name, |before| words[before]),
    );

    let output = Command::new("bash")
        .args(["--norc", "-c", &lines])
        .output()
        .expect("bash can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    let offered = String::from_utf8(output.stdout).expect("text");
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !is_installed("bash") {
        return skip(
            "bash_completes_commands_options_and_values",
            "bash",
            "it is not installed",
        );
    }

    for (name, words, expected) in [
        ("ergodic", &["tabl"][..], &["table"][..]),
        ("ergodic", &["token", "revo"], &["revoke"]),
        ("ergodic", &["run", "--works"], &[""]),
        ("ergodic", &["run", "--worker-b"], &["--worker-bin"]),
        (
            "ergodic",
            &["table", "latest", "--format", "late"],
            &["latex"],
        ),
        ("ergodic-worker", &["benc"], &["bench"]),
        ("ergodic-worker", &["--idl"], &["--idle-exit"]),
    ] {
        assert_eq!(complete_in_bash(name, words), expected, "{name} {words:?}");
    }
}

#[test]
fn there_is_a_script_for_each_shell() {
    for name in PROGRAMS {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = output_of(name, &["completions", shell]);
            assert!(script.contains("bench"), "{name} {shell}");
        }
    }
}

/// The pages of both programs, by their names.
fn write_pages(dir: &Path) -> Vec<String> {
    for name in PROGRAMS {
        let said = output_of(name, &["man", &dir.to_string_lossy()]);
        assert_eq!(said, "");
    }

    let entries = std::fs::read_dir(dir).expect("the directory is made");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a page").file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

#[test]
fn each_command_has_a_manual_page_that_renders_without_warnings() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("share/man1");
    let pages = write_pages(&dir);
    for page in [
        "ergodic.1",
        "ergodic-table.1",
        "ergodic-token-revoke.1",
        "ergodic-worker.1",
        "ergodic-worker-bench.1",
    ] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    assert!(!pages.contains(&"ergodic-worker-trial.1".to_owned()));

    // The same again: a page says nothing of the day, the machine or the environment.
    let text = |page: &str| std::fs::read_to_string(dir.join(page)).expect("a page");
    let before: Vec<String> = pages.iter().map(|page| text(page)).collect();
    assert_eq!(write_pages(&dir), pages);
    assert!(pages.iter().map(|page| text(page)).eq(before));
    assert!(text("ergodic.1").contains("Exit codes"));

    if !is_installed("groff") {
        return skip(
            "each_command_has_a_manual_page_that_renders_without_warnings",
            "groff",
            "it is not installed",
        );
    }
    for page in &pages {
        let output = Command::new("groff")
            .args(["-man", "-ww", "-Tutf8", "-P-cbou", "-K", "utf8"])
            .arg(dir.join(page))
            .output()
            .expect("groff can be run");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && warnings.is_empty(),
            "{page}: {warnings}"
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("SYNOPSIS"));
    }
}

#[test]
fn pages_that_cannot_be_written_are_an_error_that_names_the_directory() {
    for name in PROGRAMS {
        let output = Command::new(program(name))
            .args(["man", "/dev/null/pages"])
            .output()
            .expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with("error: /dev/null/pages: cannot write the pages"),
            "{stderr}"
        );
    }
}
