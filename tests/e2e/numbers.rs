//! Numbers for people: values of axes are told apart in every layout, small figures do not vanish, and what is ambiguous is refused.

use ergodic_tests::{Cluster, run};

use crate::refusals::refused;

/// Rates that look alike in four digits, and such whose losses are tiny.
const ALIKE: &str = r#"
name    = "alike"
repeats = 3
seed    = 7
[model]
kind  = "toy"
dim   = 4
noise = 1e-6
[train]
steps = 1
[grid]
lr = { linear = [1.999, 2.001], points = 64 }
wd = [0.0, 1e-7]
[measure]
metrics = ["train_loss"]
"#;

#[test]
fn cells_of_values_that_look_alike_are_told_apart_everywhere() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(ALIKE);
    cluster.wait_for_end(&id);
    let distinct = |text: &str, marker: &str| {
        let mut lines: Vec<&str> = text.lines().filter(|line| line.contains(marker)).collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "{text}");

        all
    };

    // One line per cell, or one per rate with both decays beside each other.
    for (args, marker, lines) in [
        (&["table", &id][..], " ± ", 128),
        (&["table", &id, "--rows", "lr", "--cols", "wd"], " ± ", 64),
        (
            &[
                "table", &id, "--rows", "lr", "--cols", "wd", "--format", "md",
            ],
            " ± ",
            64,
        ),
        (
            &[
                "table", &id, "--rows", "lr", "--cols", "wd", "--format", "latex",
            ],
            "\\pm",
            64,
        ),
        (&["table", &id, "--format", "latex"], "\\pm", 128),
        (&["table", &id, "--format", "md"], "| 1.9", 64),
        (&["table", &id, "--stat", "mean,std"], "1e-7", 64),
    ] {
        let text = cluster.ask(args);
        let text: Vec<&str> = text.lines().filter(|line| !line.contains("95 %")).collect();
        let text = text.join("\n");
        assert_eq!(distinct(&text, marker), lines, "{args:?}: {text}");
        assert!(
            !text.contains("0.00000 ") && !text.contains("± 0.000000"),
            "{args:?}: {text}"
        );
    }

    // Nothing stands for what several values may be meant by; what is exact, or rounded and alone, does.
    let compare = |baseline: &str| cluster.run(&["compare", &id, "--baseline", baseline]);
    refused(
        &compare("lr=2,wd=0"),
        2,
        &[
            "'lr' has",
            "that round to '2'",
            "1.99950793651",
            "give one in full",
        ],
    );

    refused(&compare("lr=2.5"), 5, &["the nearest is 2.001"]);
    assert!(
        compare("lr=1.99950793651,wd=0")
            .stdout
            .contains("against lr=1.999")
    );

    let rounded = compare("lr=1.99951,wd=0");
    assert!(
        rounded.stdout.contains("against lr=1.99951, wd=0"),
        "{rounded:?}"
    );
    let pairs = cluster.run(&[
        "plot",
        &id,
        "--kind",
        "pairs",
        "--baseline",
        "lr=1.99951,wd=0",
        "--top",
        "3",
        "--sort",
        "lr",
    ]);

    assert!(
        pairs.code == 0 && pairs.stdout.contains("<circle"),
        "the repeats are shown: {pairs:?}"
    );
}

#[test]
fn small_rates_are_shown() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&ALIKE.replace(
        "lr = { linear = [1.999, 2.001], points = 64 }",
        "lr = [1e-7, 0.003]",
    ));
    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(explained.contains("lr=1e-7"), "{explained}");

    let file = cluster.path("sweep.toml").display().to_string();
    let plan = run(&["plan", &file]);
    assert!(plan.stdout.contains("1e-7 … 0.003"), "{plan:?}");
}
