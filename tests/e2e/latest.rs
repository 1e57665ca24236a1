//! Sweeps know who launched them; "latest" is one's own, and nobody loses one by taking it for another.

use std::io::Write as _;
use std::process::{Command, Stdio};

use ergodic_tests::{Cluster, Finished, program, run, run_with, skip};
use serde_json::Value;

use crate::auth::{guarded, token, token_file};
use crate::empty_sweep;
use crate::refusals::refused;

/// Runs a command as this user of this machine.
fn ask_as(cluster: &Cluster, user: &str, args: &[&str]) -> Finished {
    run_with(
        &[("USER", user)],
        &[args, &["--coordinator", &cluster.url]].concat(),
    )
}

fn launch_as(cluster: &Cluster, user: &str) -> String {
    let path = cluster.path("sweep.toml");
    std::fs::write(&path, empty_sweep(2)).expect("a file can be written");
    let launched = ask_as(
        cluster,
        user,
        &["launch", &path.to_string_lossy(), "--again"],
    );
    assert_eq!(launched.code, 0, "{launched:?}");

    launched.stdout.trim().to_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn latest_of(cluster: &Cluster, user: &str) -> Value {
    let asked = ask_as(cluster, user, &["status", "latest", "--format", "json"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    json(&asked.stdout)["id"].clone()
}

#[test]
fn latest_is_the_last_sweep_of_whoever_asks() {
    let mut cluster = Cluster::start(&[]);
    let annas = launch_as(&cluster, "anna");
    let bens = launch_as(&cluster, "ben");
    assert_eq!(latest_of(&cluster, "anna"), annas.as_str());
    assert_eq!(latest_of(&cluster, "ben"), bens.as_str());
    let others = ask_as(&cluster, "cora", &["table", "latest"]);
    refused(
        &others,
        5,
        &[
            "cora@",
            "launched no sweep here",
            &format!("{bens} (empty) by ben@"),
            &annas,
        ],
    );

    for text in [
        cluster.ask(&["list"]),
        cluster.ask(&["list", "--format", "csv"]),
        cluster.ask(&["status", &annas]),
    ] {
        assert!(text.contains("anna@"), "{text}");
    }

    // It is kept, and goes along wherever the sweep goes.
    cluster.take_coordinator().kill();
    cluster.restart_coordinator(&[]);
    assert_eq!(latest_of(&cluster, "anna"), annas.as_str());
    let out = cluster.path("out");
    cluster.ask(&["export", &annas, "-o", &out.to_string_lossy()]);
    let manifest = std::fs::read_to_string(out.join("sweeps").join(&annas).join("manifest.json"))
        .expect("a manifest");
    assert!(
        json(&manifest)["sweep"]["launched_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("anna@")),
        "{manifest}"
    );

    let backup = cluster.path("backup").display().to_string();
    cluster.ask(&["backup", "-o", &backup]);
    let store = cluster.path("restored").display().to_string();
    let restored = run(&["restore", &backup, "--store", &store]);
    assert_eq!(restored.code, 0, "{restored:?}");

    assert_eq!(latest_of(&Cluster::on_store(&store), "ben"), bens.as_str());
}

#[test]
fn whoever_changes_the_latest_is_told_what_it_is_and_agrees() {
    let cluster = Cluster::start(&[]);
    let first = launch_as(&cluster, "anna");
    // A launch that fails leaves the one before as the latest.
    let path = cluster.path("bad.toml");
    std::fs::write(&path, "name = \"bad\"\nrepeats = 0\n").expect("a file can be written");
    assert_eq!(
        ask_as(&cluster, "anna", &["launch", &path.to_string_lossy()]).code,
        2
    );

    let what = format!("latest is {first} (empty), running, 0 of 2 trials done, launched ");
    for args in [
        &["rm", "latest", "--force"][..],
        &["cancel", "latest"],
        &["pause", "latest"],
        &["resume", "latest"],
        &["retry", "latest"],
        &["extend", "latest", "--repeats", "3"],
        &["update", "latest", "--weight", "2"],
    ] {
        let asked = ask_as(&cluster, "anna", args);
        refused(
            &asked,
            2,
            &[
                &what,
                "by anna@",
                &format!("`ergodic {} {first}`", args[0]),
                "--yes",
            ],
        );
    }

    let status = cluster.status(&first);
    assert_eq!(
        (&status["state"], &status["weight"], &status["repeats"]),
        (&"running".into(), &1.0.into(), &2.into())
    );
    let shared = ask_as(
        &cluster,
        "anna",
        &["update", "latest", "--weight", "2", "--yes"],
    );
    assert!(
        shared.code == 0 && shared.stderr.contains(&what),
        "{shared:?}"
    );

    assert_eq!(cluster.status(&first)["weight"], 2.0);

    // On a terminal one is asked.
    let on_terminal = |answer: &str| {
        let line = format!(
            "{} rm latest --force --coordinator {}",
            program("ergodic").display(),
            cluster.url
        );
        let mut script = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("USER", "anna")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        script
            .stdin
            .take()
            .expect("a pipe")
            .write_all(answer.as_bytes())
            .expect("it is read");

        let output = script.wait_with_output().expect("it ends");
        Some((
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    };

    match on_terminal("n\n") {
        None => skip(
            "whoever_changes_the_latest_is_told_what_it_is_and_agrees",
            "script",
            "it cannot be started",
        ),
        Some((code, said)) => {
            assert!(
                code == Some(4) && said.contains(&format!("rm {first} (empty), running")),
                "{code:?} {said}"
            );
            assert_eq!(cluster.status(&first)["state"], "running");
            let (code, said) = on_terminal("y\n").expect("it could be started");
            assert!(
                code == Some(0) && said.contains(&format!("removed {first}")),
                "{code:?} {said}"
            );

            refused(
                &ask_as(&cluster, "anna", &["rm", "latest", "--yes"]),
                5,
                &["no sweep yet"],
            );
        }
    }
}

#[test]
fn where_tokens_are_asked_for_they_say_whose_a_sweep_is() {
    let mut cluster = guarded(&[]);
    let tokens = [
        token(&cluster, "user", &[]),
        token(&cluster, "user", &["--note", "lab 3"]),
    ];
    let id_of = |token: &std::path::Path| {
        let text = std::fs::read_to_string(token).expect("a token");
        text.trim()
            .split('.')
            .nth(1)
            .expect("a token has an id")
            .to_owned()
    };

    let admin = cluster.access.clone();
    let sweeps = tokens.each_ref().map(|token| {
        cluster.access = token_file(token);
        cluster.launch(&empty_sweep(2))
    });
    for (token, sweep) in tokens.iter().zip(&sweeps) {
        cluster.access = token_file(token);
        let status = cluster.status("latest");
        assert_eq!(
            (&status["id"], &status["launched_by"]),
            (&sweep.as_str().into(), &id_of(token).into())
        );
    }

    // What a client says of its user counts for nothing here.
    cluster.access = admin;
    refused(
        &cluster.run(&["table", "latest"]),
        5,
        &["launched no sweep here", &sweeps[1]],
    );
}
