//! `ergodic-worker` as a program. That this test exists makes `cargo test --workspace` build the program.

use std::process::{Command, Output};

fn worker(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ergodic-worker"));
    command
        .env_remove("ERGODIC_COORDINATOR")
        .args(args)
        .output()
        .expect("ergodic-worker starts")
}

#[test]
fn it_knows_its_version_and_measures_the_machine() {
    let version = worker(&["-V"]);
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("ergodic-worker {}\n", ergodic_common::BUILD)
    );
    for workload in ["mlp", "vgg"] {
        let sizes = ["--steps", "3", "--batch", "8", "--format", "json"];
        let bench = worker(&[&["bench", "--workload", workload][..], &sizes].concat());
        let report: serde_json::Value =
            serde_json::from_slice(&bench.stdout).expect("the report is JSON");

        assert_eq!(report["workload"], workload);
        assert!(
            report["samples_per_cpu_second"].as_f64() > Some(0.0),
            "{report}"
        );
    }
}

#[test]
fn a_word_in_an_error_does_not_move_the_cursor() {
    let refused = worker(&["bench", "--isa", "\u{1b}[2J\u{202e}avx9"]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("\\u001b[2J\\u202eavx9"), "{stderr}");
}

#[test]
fn what_it_cannot_do_is_said_in_words() {
    for (args, word) in [
        (&[][..], "--coordinator"),
        (&["--join", "not a url"], "http://"),
        (&["--join", "http://127.0.0.1:1", "--isa", "avx9"], "avx2"),
        (&["bench", "--isa", "avx9"], "avx2"),
    ] {
        let output = worker(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(
            stderr.contains(word) && !stderr.contains("panicked"),
            "{args:?}: {stderr}"
        );
    }
}
