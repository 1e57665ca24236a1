//! Predictions that programs and experiments report: shown, compared and judged, as those of built-in trainings.

use std::collections::BTreeMap;

use ergodic_tests::Cluster;
use serde_json::Value;

use crate::program_trials::{cluster, launch_script};

const REPEATS: u64 = 6;
const POINTS: u64 = 3;

/// What the script below predicts.
fn drawn_label(bias: u64, repeat: u64, step: u64, point: u64) -> u64 {
    (bias * (point + 1) + (repeat + 3) * (point + 5) * (repeat + step)) % 4
}

const SCRIPT: &str = "for step in 10 20; do
    row=''
    for point in 0 1 2; do
        row=\"$row,$(( ($1 * (point + 1) + ($2 + 3) * (point + 5) * ($2 + step)) % 4 ))\"
    done
    echo \"{\\\"step\\\": $step, \\\"loss\\\": 1, \\\"predictions\\\": [${row#,}]}\" > \"$ERGODIC_METRICS\"
done";

const PROGRAM: &str = "command = [\"sh\", \"trial.sh\", \"{bias}\", \"{repeat}\"]\nmetrics = { loss = \"min\" }\n\
                       [grid]\nbias = [0, 1, 5]\n";

/// The labels of a cell by repeat, then by point.
fn labels_of(bias: u64, step: u64) -> Vec<Vec<u64>> {
    let of_repeat = |repeat| {
        let points = 0..POINTS;
        points
            .map(|point| drawn_label(bias, repeat, step, point))
            .collect()
    };
    (0..REPEATS).map(of_repeat).collect()
}

/// The sum over classes of differences of their shares, averaged over points.
fn distance_by_definition(a: &[Vec<u64>], b: &[Vec<u64>]) -> f64 {
    let mut sum = 0.0;
    for point in 0..POINTS as usize {
        for class in 0..4 {
            let [a, b] = [a, b].map(|cell| {
                let hits = cell.iter().filter(|labels| labels[point] == class);
                hits.count() as f64 / cell.len() as f64
            });
            sum += (a - b).abs();
        }
    }
    sum / POINTS as f64
}

/// The share of equal labels of trials of different repeats.
fn agreement_by_definition(a: &[Vec<u64>], b: &[Vec<u64>]) -> f64 {
    let (mut same, mut all) = (0.0, 0.0);
    for (i, one) in a.iter().enumerate() {
        for (_, other) in b.iter().enumerate().filter(|(j, _)| *j != i) {
            all += POINTS as f64;
            same += one.iter().zip(other).filter(|(x, y)| x == y).count() as f64;
        }
    }
    same / all
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

#[test]
fn predictions_of_a_program_are_shown_and_their_distances_are_those_by_hand() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let id = launch_script(&cluster, SCRIPT, PROGRAM, "repeats = 6");
    cluster.wait_for_end(&id);

    let csv = cluster.ask(&["predictions", &id]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("bias,cell,repeat,step,point,class"));
    let mut expected = Vec::new();
    for (cell, bias) in [0, 1, 5].into_iter().enumerate() {
        for repeat in 0..REPEATS {
            for step in [10, 20] {
                for point in 0..POINTS {
                    let class = drawn_label(bias, repeat, step, point);
                    expected.push(format!("{bias},{cell},{repeat},{step},{point},{class}"));
                }
            }
        }
    }
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    let shares = cluster.ask(&["predictions", &id, "--distributions"]);
    check_shares(&shares);

    let pair = [
        "distance",
        &id,
        "--between",
        "bias=1",
        "bias=5",
        "--format",
        "json",
    ];
    let found = json(&cluster.ask(&pair));
    assert_eq!(found["points"], POINTS);
    let rows = found["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for (row, step) in rows.iter().zip([10, 20]) {
        assert_eq!(
            (&row["at"], &row["n"]),
            (&format!("{step} steps").into(), &REPEATS.into())
        );
        let [a, b] = [1, 5].map(|bias| labels_of(bias, step));
        for (key, expected) in [
            ("statistic", distance_by_definition(&a, &b)),
            ("agreement", agreement_by_definition(&a, &b)),
            ("agreement_a", agreement_by_definition(&a, &a)),
            ("agreement_b", agreement_by_definition(&b, &b)),
        ] {
            let found = row[key].as_f64().expect("a number");
            assert!((found - expected).abs() < 1e-12, "{key}: {row} {expected}");
        }
    }

    let all = cluster.ask(&["distance", &id]);
    assert!(
        all.contains("final, 3 probe points, the 6 repeats"),
        "{all}"
    );
    let refused = cluster.run(&["distance", &id, "--at", "2 epochs"]);
    assert!(
        refused.code == 5 && refused.stderr.contains("steps that they report"),
        "{refused:?}"
    );

    let place = cluster.path("dataset").to_string_lossy().into_owned();
    let said = cluster.ask(&["export", &id, "-o", &place]);
    let count = 3 * REPEATS * 2 * POINTS;
    assert!(said.contains(&format!("predictions {count}")), "{said}");

    // Another sweep takes them over with the results.
    let more = launch_script(
        &cluster,
        SCRIPT,
        &PROGRAM.replace("[0, 1, 5]", "[0, 1]"),
        "repeats = 6",
    );
    cluster.wait_for_end(&more);
    let reused = cluster.ask(&["predictions", &more]);
    let wanted: Vec<String> = expected
        .into_iter()
        .filter(|line| !line.starts_with('5'))
        .collect();
    assert_eq!(reused.lines().skip(1).collect::<Vec<_>>(), wanted);
}

/// Each share is that of the trials of a cell, and those of a point make 1.
fn check_shares(csv: &str) {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [bias, step, point, class] =
            [0, 2, 3, 4].map(|at| fields[at].parse().expect("a number"));
        let labels = labels_of(bias, step);
        let hits = labels
            .iter()
            .filter(|labels| labels[point as usize] == class);
        let share = hits.count() as f64 / REPEATS as f64;
        assert_eq!(fields[6].parse(), Ok(share), "{line}");
        *sums.entry(fields[..4].join(",")).or_default() += share;
    }
    assert_eq!(sums.len() as u64, 3 * 2 * POINTS);
    assert!(
        sums.values().all(|sum| (sum - 1.0).abs() < 1e-12),
        "{sums:?}"
    );
}

/// The verdicts of a sweep, each with its notes.
fn verdicts(cluster: &Cluster, id: &str) -> Vec<(String, String)> {
    // The exit status says what the verdicts are.
    let said = cluster.run(&["verdict", id, "--format", "json"]).stdout;
    let found = json(&said);
    let rows = found["rows"].as_array().expect("there are rows").iter();
    rows.map(|row| {
        (
            row["verdict"].as_str().unwrap_or_default().to_owned(),
            row.to_string(),
        )
    })
    .collect()
}

#[test]
fn claims_about_labels_of_programs_agree_disagree_or_say_what_is_missing() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    // Of two points, one is always the class of the cell, and one depends on the repeat, otherwise in each cell. The cell 2 predicts at one step less.
    let script = "for step in 10 20; do
        if [ $step = 20 ] && [ $1 = 2 ]; then row=''; else row=\", \\\"predictions\\\": [$1, $((($2 + $1) % 3 / 2))]\"; fi
        echo \"{\\\"step\\\": $step, \\\"loss\\\": 1$row}\" > \"$ERGODIC_METRICS\"
    done";
    let claim = |name: &str, keys: &str| {
        format!("[[claim]]\nname = \"{name}\"\nform = \"labels\"\nto = \"bias == 0\"\n{keys}\n")
    };
    let far = "where = \"bias == 1\"\nat = \"10 steps\"";
    let program = PROGRAM.replace("[0, 1, 5]", "[0, 1, 2]")
        + &claim("far", &format!("{far}\nabove = 0.5"))
        + &claim("near", &format!("{far}\nbelow = 0.5"))
        + &claim(
            "joint",
            &format!("{far}\njoint = true\nat = \"final\"\nabove = 0.1").replacen(
                "at = \"10 steps\"\n",
                "",
                1,
            ),
        )
        + &claim(
            "missing",
            "where = \"bias == 2\"\nat = \"20 steps\"\nabove = 0.5",
        );
    let id = launch_script(&cluster, script, &program, "repeats = 12");
    cluster.wait_for_end(&id);
    let found = verdicts(&cluster, &id);
    let words: Vec<&str> = found.iter().map(|(verdict, _)| verdict.as_str()).collect();
    assert_eq!(
        words,
        ["agrees", "disagrees", "agrees", "not enough"],
        "{found:?}"
    );
    assert!(
        found[3].1.contains("12 without predictions at step 20"),
        "{found:?}"
    );
    assert_eq!(cluster.run(&["verdict", &id]).code, 7);

    let wrong = program.replace("20 steps", "2 epochs");
    std::fs::write(
        cluster.path("wrong.toml"),
        format!("name = \"wrong\"\n[program]\n{wrong}"),
    )
    .expect("a file can be written");
    let path = cluster.path("wrong.toml").to_string_lossy().into_owned();
    let refused = cluster.run(&["plan", &path]);
    assert!(
        refused.code == 2 && refused.stderr.contains("at the steps that they report"),
        "{refused:?}"
    );
}

#[test]
fn what_trials_do_not_report_is_not_compared() {
    let mut cluster = cluster();
    let _worker = cluster.worker(2, &["--programs"]);
    let script = "echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";
    let none = launch_script(&cluster, script, PROGRAM, "repeats = 2");
    cluster.wait_for_end(&none);
    for command in ["predictions", "distance"] {
        let refused = cluster.run(&[command, &none]);
        assert!(
            refused.code == 5 && refused.stderr.contains("has reported predictions"),
            "{refused:?}"
        );
    }

    let script = "row=1; [ \"$2\" = 1 ] && row=1,2
        echo \"{\\\"step\\\": 1, \\\"loss\\\": 5, \\\"predictions\\\": [$row]}\" > \"$ERGODIC_METRICS\"";
    let odd = launch_script(&cluster, script, PROGRAM, "repeats = 2");
    cluster.wait_for_end(&odd);
    let refused = cluster.run(&["distance", &odd]);
    assert!(
        refused.code == 2 && refused.stderr.contains("the trial 0/0 1, and 0/1 2"),
        "{refused:?}"
    );
    let refused = cluster.run(&["predictions", &odd, "--distributions"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("different numbers of points"),
        "{refused:?}"
    );
    assert!(cluster.ask(&["predictions", &odd]).contains("0,0,1,1,1,2"));

    let script = "echo '{\"step\": 1, \"loss\": 5, \"predictions\": []}' > \"$ERGODIC_METRICS\"";
    let empty = launch_script(&cluster, script, PROGRAM, "");
    cluster.wait_until(&empty, "the trials have failed", |status| {
        status["failed"] == 3
    });
    let explained = cluster.ask(&["explain", &empty, "0/0"]);
    assert!(
        explained.contains("list of predictions is empty"),
        "{explained}"
    );
}

#[test]
fn predictions_of_experiments_are_shown_and_judged() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker_of("examples/label_draws", 2, &[]);
    cluster.wait_for_workers(1);
    let text = "name = \"draws\"\nrepeats = 8\n[model]\nkind = \"custom:label-draws\"\nmetrics = { zeros = \"max\" }\npoints = 40\n\
                [grid]\nbias = [0.0, 0.9]\n[[claim]]\nname = \"far\"\nform = \"labels\"\nover = \"bias\"\nabove = 0.05\n";
    let id = cluster.launch(text);
    cluster.wait_for_end(&id);
    let csv = cluster.ask(&["predictions", &id]);
    assert_eq!(csv.lines().count(), 1 + 2 * 8 * 40);

    // The share of class 0 is what the experiment reported.
    let trials = json(&cluster.ask(&["trials", &id, "--format", "json"]));
    for trial in trials.as_array().expect("a list") {
        let start = format!(",{},{},10,", trial["cell"], trial["repeat"]);
        let hits = csv
            .lines()
            .filter(|line| line.contains(&start) && line.ends_with(",0"));
        assert_eq!(
            trial["zeros"].as_f64(),
            Some(hits.count() as f64 / 40.0),
            "{trial}"
        );
    }
    let found = verdicts(&cluster, &id);
    assert_eq!(found[0].0, "agrees", "{found:?}");
    let distance = cluster.ask(&["distance", &id, "--between", "0", "1"]);
    assert!(distance.contains("for 40 probe points"), "{distance}");
}
