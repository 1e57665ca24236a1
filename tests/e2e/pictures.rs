//! Pictures, reports and tables for papers over one finished sweep, as a user sees them.

use ergodic_tests::{Cluster, run};
use serde_json::Value;

use super::refusals::refused;
use crate::SWEEP;

fn finished(text: &str) -> (Cluster, String) {
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(text);
    let worker = cluster.worker(2, &["--name", "spare"]);
    cluster.wait_for_end(&id);
    drop(worker);
    (cluster, id)
}

#[test]
fn what_users_look_at_is_drawn_and_what_cannot_be_is_said() {
    let (cluster, id) = finished(SWEEP);
    check_pictures(&cluster, &id);
    check_paper_figures(&cluster, &id);
    check_selected_cells(&cluster, &id);
    check_bad_requests(&cluster, &id);
    check_tables(&cluster, &id);
    check_report(&cluster, &id);
    let lone = cluster.launch(&super::repeated(1).replace("lr = [0.05, 0.2, 1e38]", "lr = [0.05]"));

    let early = |args: &[&str]| run(&[args, &["--coordinator", &cluster.url]].concat());
    refused(
        &early(&["plot", &lone, "--kind", "curves"]),
        2,
        &["no trial has ended"],
    );

    refused(
        &early(&["plot", &lone]),
        2,
        &["two axes", "only 'wd'", "--kind curves"],
    );

    refused(
        &early(&["plot", &lone, "--kind", "distribution"]),
        2,
        &["none has ended"],
    );
}

fn check_pictures(cluster: &Cluster, id: &str) {
    let kinds: [(&[&str], &[&str]); 8] = [
        (
            &["--kind", "heatmap"],
            &["mean test_acc", "Crossed: all trials diverged.", "±"],
        ),
        (
            &[
                "--kind",
                "heatmap",
                "--rows",
                "lr",
                "--cols",
                "wd",
                "--stat",
                "q05",
                "--metric",
                "train_loss",
            ],
            &["q05 train_loss"],
        ),
        (
            &[
                "--kind",
                "heatmap",
                "--at",
                "20 steps",
                "--metric",
                "effective_lr",
                "--log",
                "--where",
                "lr < 1",
            ],
            &["at 20 steps", "log scale"],
        ),
        (
            &["--stat", "diverged_at", "--metric", "train_loss"],
            &[
                ": diverged_at<",
                "The number is over the trials that diverged",
                "Hatched: no trial diverged.",
            ],
        ),
        (
            &["--kind", "curves", "--metric", "train_loss"],
            &[
                "Without a curve: 1e38 · 0 (all 12 diverged)",
                "lr · wd",
                "step",
            ],
        ),
        (
            &[
                "--kind", "curves", "--by", "lr", "--where", "lr < 1", "--title", "a < b",
            ],
            &["a &lt; b", ">0.05<", ">0.2<"],
        ),
        (&["--kind", "distribution"], &["all 12 diverged", "n = 12"]),
        (
            &[
                "--kind",
                "pairs",
                "--baseline",
                "lr=0.05",
                "--sort",
                "-mean",
            ],
            &["test_acc minus that of lr=0.05", "p = ", "▲"],
        ),
    ];
    for (args, words) in kinds {
        let args = [&["plot", id], args].concat();
        let svg = cluster.ask(&args);
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"),
            "{args:?}: {svg}"
        );

        for word in words {
            assert!(
                svg.contains(word),
                "{args:?}: '{word}' is missing in: {svg}"
            );
        }

        assert_eq!(
            cluster.ask(&args),
            svg,
            "the same question has the same bytes as its answer"
        );
    }

    let phase = cluster.ask(&["plot", id, "--kind", "phase"]);
    assert!(
        phase.contains("P(diverged)") && phase.contains(">0.5<"),
        "{phase}"
    );
    let png = cluster.path("phase.png");
    assert_eq!(
        cluster.ask(&["plot", id, "--kind", "phase", "-o", &png.to_string_lossy()]),
        ""
    );

    let bytes = std::fs::read(&png).expect("a picture");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let svg = cluster.path("phase.svg");
    cluster.ask(&["plot", id, "--kind", "phase", "-o", &svg.to_string_lossy()]);
    assert_eq!(std::fs::read_to_string(&svg).expect("a picture"), phase);
}

/// Figures for a paper: formats, sizes, texts, and what the caption has to say.
fn check_paper_figures(cluster: &Cluster, id: &str) {
    let pdf = cluster.path("figure.pdf");
    let to_pdf = ["plot", id, "-o", &pdf.to_string_lossy(), "--width", "80mm"];
    let written = || {
        cluster.ask(&to_pdf);
        std::fs::read(&pdf).expect("a picture")
    };
    let bytes = written();
    let text = String::from_utf8_lossy(&bytes);
    // 80 mm are 226.77 points.
    assert!(
        text.starts_with("%PDF-") && text.contains("/MediaBox [0 0 226.77 "),
        "{text}"
    );
    assert_eq!(
        written(),
        bytes,
        "the same question has the same bytes as its answer"
    );

    let bare = cluster.run(&[
        "plot",
        id,
        "--bare",
        "--xlabel",
        "learning rate",
        "--clim",
        "0,1",
        "--cmap",
        "greys",
        "--width",
        "3.25in",
        "--font-size",
        "8",
    ]);
    let svg = bare.stdout;
    let notes = bare.stderr;
    assert!(bare.code == 0 && svg.contains("width=\"312\""), "{svg}");
    assert!(
        svg.contains(">learning rate<")
            && !svg.contains("Crossed:")
            && !svg.contains("small: mean test_acc</text>"),
        "{svg}"
    );
    assert!(notes.contains("Crossed: all trials diverged."), "{notes}");

    let epochs = cluster.ask(&[
        "plot", id, "--kind", "curves", "--by", "lr", "--facet", "wd", "--x", "epoch", "--trials",
        "--where", "lr < 1",
    ]);
    for words in [">epoch<", ">wd = 0<", "Thin lines: completed trials"] {
        assert!(epochs.contains(words), "'{words}' is missing in: {epochs}");
    }
    let points = cluster.ask(&["plot", id, "--kind", "scatter", "--where", "lr < 1"]);
    assert!(points.contains("<circle "), "{points}");

    let title = ["plot", id, "--title", "学習率"];
    assert!(cluster.ask(&title).contains("学習率"));
    refused(
        &cluster.run(&[&title[..], &["-o", &pdf.to_string_lossy()]].concat()),
        2,
        &["'学'", "--title", ".svg"],
    );
    assert_eq!(
        std::fs::read(&pdf).expect("a picture"),
        bytes,
        "the old file stays"
    );
}

/// `--where` selects cells before they are pooled, and `--having` rows.
fn check_selected_cells(cluster: &Cluster, id: &str) {
    let rows = |args: &[&str]| {
        let text = cluster.ask(&[&["table", id, "--format", "json"], args].concat());
        json(&text)["rows"].as_array().cloned().expect("a list")
    };
    let whole = rows(&[]);
    let by_wd = rows(&["--by", "wd", "--where", "lr < 0.1"]);
    assert_eq!(by_wd.len(), 2);
    for row in &by_wd {
        // One cell of each row is left, so the row has its numbers.
        let cell = whole
            .iter()
            .find(|cell| cell["wd"] == row["wd"] && cell["lr"] == 0.05)
            .expect("a cell");
        assert_eq!((&row["n"], &row["mean"]), (&cell["n"], &cell["mean"]));
    }

    assert_eq!(rows(&["--by", "lr", "--where", "lr < 0.1"]).len(), 1);
    assert_eq!(rows(&["--by", "lr", "--having", "diverged == 0"]).len(), 2);
    let both = ["--by", "wd", "--where", "lr < 1", "--having", "wd > 0"];
    assert_eq!(rows(&both).len(), 1);

    let distribution = cluster.ask(&[
        "plot",
        id,
        "--kind",
        "distribution",
        "--by",
        "wd",
        "--where",
        "lr < 0.1",
    ]);
    assert!(
        distribution.contains(">n = 12<") && distribution.contains("cells with lr &lt; 0.1"),
        "{distribution}"
    );

    let ask = |args: &[&str]| cluster.run(&[&["table", id, "--by", "wd"], args].concat());
    refused(
        &ask(&["--where", "lr < 1 && mean > 0"]),
        2,
        &["'lr' is pooled", "--having \"mean"],
    );
    refused(
        &ask(&["--where", "lrr < 1"]),
        5,
        &["where", "did you mean 'lr'"],
    );
    refused(&ask(&["--where", "lr > 1e39"]), 5, &["no cell satisfies"]);
    refused(&ask(&["--having", "lr < 1"]), 5, &["--having", "'lr'"]);
}

fn check_bad_requests(cluster: &Cluster, id: &str) {
    let ask = |args: &[&str]| cluster.run(&[&["plot", id], args].concat());
    refused(&ask(&["-o", "x.jpg"]), 2, &["x.jpg", ".svg, .pdf or .png"]);
    refused(
        &ask(&["-o", "/nowhere/at/all.svg"]),
        2,
        &[
            "/nowhere/at/all.svg",
            "cannot be written",
            "/nowhere/at does not exist",
        ],
    );

    refused(
        &ask(&["--metric", "test_akk"]),
        5,
        &["test_akk", "did you mean 'test_acc'"],
    );
    refused(
        &ask(&["--rows", "lr", "--cols", "wdd"]),
        5,
        &["wdd", "did you mean 'wd'"],
    );

    refused(&ask(&["--rows", "lr", "--cols", "lr"]), 2, &["both 'lr'"]);
    refused(
        &ask(&["--at", "7 steps"]),
        5,
        &["no trial was sampled after step 7"],
    );

    refused(
        &ask(&["--stat", "ci95"]),
        2,
        &["ci95_low and ci95_high", "one number"],
    );
    refused(
        &ask(&["--stat", "meen"]),
        5,
        &["'meen'", "did you mean 'mean'"],
    );

    refused(
        &ask(&["--kind", "pairs"]),
        2,
        &["--baseline", "lr (0.05, 0.2, 1e38)"],
    );
    refused(
        &ask(&["--kind", "pairs", "--baseline", "lr=3"]),
        5,
        &["'3'"],
    );

    refused(
        &ask(&["--kind", "phase", "--stat", "mean"]),
        2,
        &["--stat", "heatmap"],
    );
    refused(
        &ask(&["--kind", "pairs", "--facet", "wd"]),
        2,
        &["--facet", "heatmap", "curves"],
    );
    refused(&ask(&["--facet", "wd"]), 2, &["only 'lr'", "beside 'wd'"]);
    for (option, value, words) in [
        ("--width", "80miles", ["80miles", "80mm"]),
        ("--clim", "1,0", ["1,0", "lower end below"]),
        ("--cmap", "jet", ["jet", "viridis"]),
    ] {
        let text = ask(&[option, value]);
        let is_told = words.iter().all(|word| text.stderr.contains(word));
        assert!(text.code == 2 && is_told, "{text:?}");
    }
    refused(
        &ask(&["--kind", "curves", "--by", "lrr"]),
        5,
        &["lrr", "did you mean 'lr'"],
    );

    refused(
        &ask(&["--kind", "curves", "--where", "lr > 1"]),
        2,
        &["no value of test_acc", "0 (all 12 diverged)"],
    );
    refused(
        &ask(&["--where", "lr > 1"]),
        2,
        &[
            "no cell has a value of mean test_acc",
            "all 24 trials that have ended diverged",
        ],
    );

    refused(
        &ask(&["--kind", "distribution", "--where", "lr > 1"]),
        2,
        &["all diverged"],
    );
    refused(&ask(&["--where", "lr > 1e39"]), 5, &["none of 6 rows"]);

    refused(
        &ask(&["--kind", "curves", "--width", "160", "--height", "120"]),
        2,
        &["too small", "--height"],
    );
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

fn check_tables(cluster: &Cluster, id: &str) {
    let ask = |args: &[&str]| cluster.ask(&[&["table", id], args].concat());
    let latex = ask(&["--format", "latex"]);
    assert!(
        latex.contains(
            "\\begin{tabular}{rrrrl}\n\\toprule\nlr & wd & $n$ & test\\_acc &  \\\\\n\\midrule\n"
        ),
        "{latex}"
    );

    assert!(
        latex.contains("12 diverged") && latex.contains("\\mathbf{") && !latex.contains("NaN"),
        "{latex}"
    );
    let grid = ask(&[
        "--format",
        "latex",
        "--rows",
        "lr",
        "--cols",
        "wd",
        "--metric",
        "test_acc,train_loss",
    ]);
    assert_eq!(grid.matches("\\multicolumn{2}{c}{wd}").count(), 2, "{grid}");

    let spread = ask(&[
        "--format",
        "latex",
        "--stat",
        "mean,std",
        "--metric",
        "test_acc,train_loss",
    ]);
    assert!(
        spread.contains("mean ± standard deviation")
            && spread.contains("test\\_acc & train\\_loss &"),
        "{spread}"
    );

    let rows = |args: &[&str]| {
        json(&ask(&[args, &["--format", "json"]].concat()))["rows"]
            .as_array()
            .cloned()
            .expect("a list")
    };
    let means = |rows: &[Value]| {
        rows.iter()
            .map(|row| row["mean"].as_f64())
            .collect::<Vec<_>>()
    };
    let all = means(&rows(&[]));

    let sorted = means(&rows(&["--sort", "-mean"]));
    assert!(
        sorted[..4].is_sorted_by(|a, b| a >= b) && sorted[4..] == [None, None],
        "{sorted:?}"
    );
    assert_eq!(means(&rows(&["--top", "2"])), sorted[..2]);

    assert_eq!(
        means(&rows(&["--where", "lr < 1 && wd > 0"])),
        [all[1], all[3]]
    );
    let both = rows(&["--metric", "test_acc,train_loss", "--top", "1"]);
    assert_eq!(
        both.iter()
            .map(|row| row["metric"].as_str())
            .collect::<Vec<_>>(),
        [Some("test_acc"), Some("train_loss")]
    );

    assert_eq!(
        both[0]["lr"], both[1]["lr"],
        "the first metric decides which row is the best"
    );
    let csv = ask(&["--metric", "test_acc,train_loss", "--format", "csv"]);
    assert!(
        csv.starts_with("lr,wd,metric,n,") && csv.lines().count() == 13,
        "{csv}"
    );

    let people = ask(&["--metric", "test_acc,train_loss"]);
    assert!(
        people.contains("test_acc")
            && people.contains("train_loss")
            && people.contains("12 diverged"),
        "{people}"
    );

    assert!(
        !ask(&["--rows", "lr", "--cols", "wd"]).contains('\u{1b}'),
        "no colours away from a terminal"
    );
    let refused_table = |args: &[&str], code, words: &[&str]| {
        refused(&cluster.run(&[&["table", id], args].concat()), code, words)
    };
    refused_table(&["--sort", "lrr"], 5, &["--sort", "did you mean 'lr'"]);

    refused_table(
        &["--where", "lr <"],
        2,
        &["--where", "expected a condition"],
    );
    refused_table(
        &["--metric", "effective_lr", "--top", "1"],
        2,
        &["--top", "effective_lr", "--sort -mean"],
    );

    refused_table(&["--metric", "test_acc,nothing"], 5, &["'nothing'"]);
}

fn check_report(cluster: &Cluster, id: &str) {
    let dir = cluster.path("paper/report");
    let place = dir.join("index.html");
    assert_eq!(
        cluster
            .ask(&["report", id, "-o", &dir.to_string_lossy()])
            .trim(),
        place.to_string_lossy()
    );

    let html = std::fs::read_to_string(&place).expect("a page");
    for words in [
        id,
        "<!DOCTYPE html>",
        "6 cells × 12 repeats = 72 trials · 24 diverged",
        "<h2>test_acc</h2>",
        "<h2>effective_lr</h2>",
        "<h2>Divergence</h2>",
        "n − 1 in the denominator",
        "★ best, by the ranks of trials within repeats",
        "overflow-x: visible",
        "name    = &quot;small&quot;",
        "<th>seed</th><td>7</td>",
        "cpu-f32/",
        "spare (",
        ": 72 trials",
    ] {
        assert!(html.contains(words), "'{words}' is missing in the page");
    }

    // Three metrics with a map and curves each, the distributions of the main one, and the phase diagram.
    assert_eq!(html.matches("<figure>").count(), 8);
    let elsewhere = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!elsewhere.contains("http") && !html.contains("<script") && !html.contains("NaN"));
    refused(
        &cluster.run(&["report", "zzz", "-o", &dir.to_string_lossy()]),
        5,
        &["zzz"],
    );
}
