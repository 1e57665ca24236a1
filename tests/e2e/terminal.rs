//! What commands print on a terminal, and which trials and columns one can choose.

use std::process::Command;

use ergodic_tests::{Cluster, Program, program, skip};

use crate::empty_sweep;

/// Trials of the toy loss: microseconds each. The names of the axes are long.
const TOY: &str = r#"name    = "toy"
repeats = 3
[model]
kind = "toy"
[train]
steps = 20
[grid]
"train.lr"        = [0.01, 0.02, 0.04, 0.08, 0.1, 0.2, 0.4, 0.8]
"train.optimizer.momentum" = [0.0, 0.5, 0.9]
[measure]
every   = "10 steps"
metrics = ["train_loss", "weight_norm"]
"#;

/// What a command prints on a terminal of this size; `None` if there is no program that makes one.
fn on_terminal(
    cluster: &Cluster,
    columns: u32,
    lines: u32,
    environment: &[(&str, &str)],
    args: &str,
) -> Option<(i32, String)> {
    let line = format!(
        "stty cols {columns} rows {lines}; exec {} {args} --coordinator {}",
        program("ergodic").display(),
        cluster.url
    );
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env_remove("PAGER")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    Some((output.status.code().unwrap_or(256), text))
}

fn completed(cluster: &mut Cluster, text: &str) -> String {
    let id = cluster.launch(text);
    let _worker = cluster.worker(2, &["--name", "desktop"]);
    cluster.wait_for_end(&id);
    id
}

/// Width of the widest line below the heading, without the sequences that set colours.
fn widest(text: &str) -> usize {
    let plain = text.split('\u{1b}').enumerate().map(|(at, part)| match at {
        0 => part,
        _ => part.split_once('m').map_or(part, |(_, after)| after),
    });
    let plain: String = plain.collect();
    let table = plain.lines().skip(1);
    table.map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn tables_fit_the_terminal_and_say_what_is_left_out() {
    let mut cluster = Cluster::start(&[]);
    let id = completed(&mut cluster, TOY);
    let no_pager = [("ERGODIC_PAGER", "")];
    let shown = |columns, args: &str| on_terminal(&cluster, columns, 40, &no_pager, args);

    let Some((code, narrow)) = shown(60, &format!("table {id} --top 4")) else {
        skip(
            "tables_fit_the_terminal_and_say_what_is_left_out",
            "script",
            "it cannot be started",
        );
        return;
    };
    assert_eq!(code, 0, "{narrow}");
    let (table, _) = narrow.split_once("not shown: ").expect(&narrow);
    assert!(widest(table) <= 60, "{table}");
    let words: Vec<&str> = narrow.split_whitespace().collect();
    assert!(
        words.join(" ").contains("`ergodic table --wide` shows all"),
        "{narrow}"
    );
    assert!(
        table.contains(" momentum") && table.contains(" ± CI"),
        "{table}"
    );

    let (_, wide) = shown(60, &format!("table {id} --top 4 --wide")).expect("it was started");
    assert!(
        !wide.contains("not shown") && wide.contains("train.optimizer.momentum"),
        "{wide}"
    );
    let (_, chosen) =
        shown(60, &format!("table {id} --columns lr,max,mean")).expect("it was started");
    assert!(
        chosen.contains("max") && chosen.contains('±') && !chosen.contains("momentum"),
        "{chosen}"
    );

    // A grid continues in blocks below, and nothing of it is missing.
    let (_, grid) = shown(60, &format!("table {id} --rows momentum --cols lr")).expect("started");
    let legend = grid.split_once("★ best").or(grid.split_once("no ★"));
    let (grid, _) = legend.expect(&grid);
    assert!(widest(grid) <= 60, "{grid}");
    assert_eq!(grid.matches(" ± ").count(), 24 + 1, "{grid}");

    let (_, trials) = shown(60, &format!("trials {id} --columns lr,digest")).expect("started");
    assert!(
        trials.lines().skip(2).all(|line| line.len() < 40),
        "{trials}"
    );

    // A pipe gets everything.
    let piped = cluster.ask(&["table", &id]);
    assert!(
        piped.contains("train.optimizer.momentum") && piped.contains(" median"),
        "{piped}"
    );
    assert!(
        !piped.contains("not shown") && !piped.contains('\u{1b}'),
        "{piped}"
    );
    let digest = cluster.ask(&["trials", &id, "--columns", "digest"]);
    assert_eq!(
        digest.lines().nth(2).map(|line| line.trim().len()),
        Some(64)
    );
}

#[test]
fn long_output_goes_through_a_pager_that_may_be_missing_or_end_early() {
    let mut cluster = Cluster::start(&[]);
    let id = completed(&mut cluster, TOY);
    let seen = cluster.path("seen").to_string_lossy().into_owned();
    let pager = format!("cat > {seen}");
    let shown = |environment: &[(&str, &str)], args: &str| {
        on_terminal(&cluster, 100, 10, environment, args)
    };

    let table = format!("table {id}");
    let Some((code, text)) = shown(&[("PAGER", "false"), ("ERGODIC_PAGER", &pager)], &table) else {
        skip(
            "long_output_goes_through_a_pager_that_may_be_missing_or_end_early",
            "script",
            "it cannot be started",
        );
        return;
    };
    assert_eq!((code, text.trim()), (0, ""));
    let paged = std::fs::read_to_string(&seen).expect("the pager has written it");
    assert!(paged.contains("★ "), "{paged}");

    // What fits the screen needs no pager, nor does what shall have none.
    std::fs::remove_file(&seen).expect("it is there");
    for args in [format!("{table} --top 2"), format!("{table} --no-pager")] {
        let (_, text) = shown(&[("PAGER", &pager)], &args).expect("it was started");
        assert!(
            text.contains("★ ") && !std::path::Path::new(&seen).exists(),
            "{text}"
        );
    }

    let (code, text) = shown(&[("PAGER", "no-such-pager")], &table).expect("it was started");
    assert!(
        code == 0 && text.contains("★ ") && !text.contains("no-such-pager"),
        "{text}"
    );
    let (code, text) = shown(&[("PAGER", "no-such-pager | cat")], &table).expect("it was started");
    assert!(code == 0 && !text.contains("error:"), "{text}");

    let (code, text) = shown(&[("PAGER", "true")], &format!("trials {id}")).expect("started");
    assert_eq!((code, text.trim()), (0, ""));
}

#[test]
fn a_dumb_terminal_gets_no_escape_sequences() {
    let mut cluster = Cluster::start(&[]);
    let id = completed(&mut cluster, TOY);
    let commands = [
        format!("table {id} --rows momentum --cols lr"),
        format!("table {id}"),
        format!("watch {id}"),
        format!("trials {id}"),
    ];

    for args in &commands {
        let Some((_, text)) = on_terminal(&cluster, 80, 10, &[("TERM", "dumb")], args) else {
            skip(
                "a_dumb_terminal_gets_no_escape_sequences",
                "script",
                "it cannot be started",
            );
            return;
        };
        assert!(!text.contains('\u{1b}'), "{args}: {text:?}");
    }

    let grid = |environment: &[(&str, &str)]| {
        on_terminal(&cluster, 80, 200, environment, &commands[0])
            .expect("it was started")
            .1
    };
    assert!(grid(&[]).contains("\u{1b}["), "a terminal shows colours");
    assert!(!grid(&[("NO_COLOR", "1")]).contains("\u{1b}["));
    assert!(
        grid(&[("NO_COLOR", "")]).contains("\u{1b}["),
        "empty means nothing"
    );
}

#[test]
fn trials_and_curves_are_selected_as_rows_of_a_table_are() {
    let mut cluster = Cluster::start(&[]);
    let id = completed(&mut cluster, TOY);
    let rows = |args: &[&str]| {
        let all = [args[0], &id, "--format", "csv"];
        let text = cluster.ask(&[&all[..], &args[1..]].concat());
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };

    assert_eq!(rows(&["trials"]).len(), 8 * 3 * 3);
    assert_eq!(rows(&["trials", "--cell", "lr=0.1,momentum=0.9"]).len(), 3);
    assert_eq!(
        rows(&["trials", "--where", "lr < 0.1 && repeat == 1"]).len(),
        12
    );
    assert_eq!(
        rows(&[
            "trials",
            "--where",
            "outcome == \"completed\"",
            "--top",
            "5"
        ])
        .len(),
        5
    );

    let best = rows(&["trials", "--top", "1", "--columns", "train_loss"]);
    let all = rows(&["trials", "--columns", "train_loss"]);
    let number = |text: &String| text.parse::<f64>().expect("a number");
    let least = all.iter().map(number).fold(f64::INFINITY, f64::min);
    assert_eq!(best.iter().map(number).collect::<Vec<_>>(), [least]);

    // The curves of the best cell are those of the row that `table` has first.
    let top = rows(&["table", "--top", "1", "--columns", "lr,momentum"]);
    let curve = rows(&["curves", "--top", "1", "--columns", "lr,momentum,step"]);
    assert_eq!(curve.len(), 2);
    assert!(
        curve
            .iter()
            .all(|point| point.starts_with(&format!("{},", top[0]))),
        "{curve:?}"
    );
    assert_eq!(
        rows(&["curves", "--where", "step == 20", "--cell", "lr=0.8"]).len(),
        3
    );

    for (args, words) in [
        (
            ["trials", "--where", "loss > 1"],
            "--where: trials have no axis or column 'loss'",
        ),
        (["trials", "--cell", "lr=7"], "no cell has lr = 7"),
        (
            ["table", "--cell", "lr"],
            "--cell: expected axes with their values",
        ),
        (["trials", "--columns", "digset"], "did you mean 'digest'"),
        (
            ["curves", "--columns", "mean,mean"],
            "'mean' is named twice",
        ),
        (["curves", "--where", "step > 20"], "--where: none of"),
    ] {
        let refused = cluster.run(&[args[0], &id, args[1], args[2]]);
        assert!(
            refused.code != 0 && refused.stderr.contains(words),
            "{args:?}: {refused:?}"
        );
    }
}

#[test]
fn failed_trials_are_counted_by_cause() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(
        "name = \"limited\"\nrepeats = 2\ntime_limit = \"200ms\"\n[model]\nkind = \"toy\"\n[train]\nlr = 0.1\n\
         [grid]\n\"train.steps\" = [1000000000, 20]\n[measure]\nevery = \"500000000 steps\"\n\
         metrics = [\"train_loss\"]\n",
    );
    cluster.wait_for_end(&id);

    let table = cluster.ask(&["table", &id]);
    let watched = cluster.run(&["watch", &id]);
    for text in [&table, &watched.stderr] {
        assert!(
            text.contains("2 trials failed:")
                && text.contains("2 × it exceeded its time limit of 200ms")
                && text.contains(", first 0/0")
                && text.contains(&format!("`ergodic explain {id} 0/0` says more")),
            "{text}"
        );
    }
    assert!(
        !cluster
            .ask(&["table", &id, "--format", "csv"])
            .contains("2 × ")
    );
    let failed = cluster.ask(&["trials", &id, "--where", "outcome == \"failed\""]);
    assert_eq!(failed.lines().count(), 4, "{failed}");
}

#[test]
fn whoever_watches_is_told_why_nothing_runs_and_that_the_sweep_goes_on() {
    let mut cluster = Cluster::start(&[]);
    // No trial ends, so that the worker is given few, whatever they take.
    cluster.gate.hold_at_step(10);
    let first = cluster.launch(&format!("priority = 1\n{}", crate::repeated(2_000)));
    let second = cluster.launch(&format!("seed = 5\n{}", empty_sweep(2)));
    let log = cluster.path("watch.log");
    let watch = Program::start(&["watch", &second, "--coordinator", &cluster.url], &log);
    watch.wait_for_log("waits: No worker is joined");

    // The sweep of higher priority has the only worker, whose trials are held.
    let _worker = cluster.worker(1, &[]);
    watch.wait_for_log(&format!("waits: {first} has a higher priority"));
    watch.signal("INT");
    assert_eq!(watch.wait(), 130);
    let text = std::fs::read_to_string(&log).expect("its log");
    let again = format!(
        "`ergodic watch {second} --coordinator {}` follows it again",
        cluster.url
    );
    assert!(
        text.contains("the sweep goes on: ") && text.contains(&again),
        "{text}"
    );
    assert_eq!(cluster.status(&second)["state"], "running");

    cluster.ask(&["cancel", &first]);
    cluster.gate.open();
    cluster.wait_for_end(&second);
}
