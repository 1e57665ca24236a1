//! `ergodic` as a program: what it says of itself. That this test exists makes `cargo test --workspace` build the program.

use std::process::Command;

#[test]
fn version_and_help_are_there_for_every_command() {
    let ergodic = env!("CARGO_BIN_EXE_ergodic");
    let say = |args: &[&str]| {
        let output = Command::new(ergodic)
            .args(args)
            .output()
            .expect("ergodic starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!(
        say(&["-V"]),
        (Some(0), format!("ergodic {}\n", ergodic_common::BUILD))
    );

    let (_, help) = say(&["--help"]);
    for command in [
        "run", "plan", "serve", "launch", "list", "status", "watch", "workers", "table", "trials",
        "curves", "pause", "resume", "cancel", "retry", "extend", "explain", "bench", "sql",
    ] {
        assert!(help.contains(command), "{help}");
        assert_eq!(say(&[command, "--help"]).0, Some(0));
    }

    assert_eq!(say(&["no-such-command"]).0, Some(2));
}

#[cfg(not(feature = "sql"))]
#[test]
fn a_program_without_sql_says_how_to_build_one_with_it() {
    let ergodic = env!("CARGO_BIN_EXE_ergodic");
    let output = Command::new(ergodic)
        .args(["sql", "SELECT 1"])
        .output()
        .expect("ergodic starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");

    assert!(
        error.starts_with("error: this program was built without SQL")
            && error.contains("--features ergodic/sql")
    );
}
