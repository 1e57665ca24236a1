//! Sweeps that grow: `extend` runs exactly what is missing, and cells that are known well enough end by themselves.

use std::collections::{BTreeMap, BTreeSet};

use ergodic_tests::{Cluster, Postgres, run, skip};
use serde_json::Value;

/// Trials of the toy loss: two cells, each a few microseconds long, whose values differ from repeat to repeat.
const TOY: &str = r#"
name    = "toy"
repeats = 100
seed    = 3
[model]
kind = "toy"
dim  = 4
noise = 0.5
[train]
steps = 20
lr    = 0.1
wd    = 0.01
[grid]
lr = [0.1, 0.4]
[measure]
every   = "10 steps"
metrics = ["train_loss", "weight_norm_sq"]
"#;

/// More values, one of them in the middle, and an axis on which the old cells have the value that they had anyhow.
fn wider() -> String {
    TOY.replace("lr = [0.1, 0.4]", "lr = [0.1, 0.2, 0.4]\nwd = [0.0, 0.01]")
        .replace("repeats = 100", "repeats = 110")
}

fn csv(cluster: &Cluster, id: &str) -> String {
    cluster.ask(&["trials", id, "--format", "csv"])
}

fn column(csv: &str, name: &str) -> usize {
    let header = csv.lines().next().unwrap_or_default();
    header
        .split(',')
        .position(|column| column == name)
        .unwrap_or_else(|| panic!("no column {name} in {header}"))
}

/// The lines of rows of which this is so, with the header.
fn kept(csv: &str, keep: impl Fn(&[&str]) -> bool) -> String {
    let lines = csv
        .lines()
        .enumerate()
        .filter(|(at, line)| *at == 0 || keep(&line.split(',').collect::<Vec<_>>()));
    lines.map(|(_, line)| format!("{line}\n")).collect()
}

/// Rows by what they are of, all else as it stands there: a cell may stand elsewhere in another grid.
fn by_content(csv: &str) -> BTreeMap<String, String> {
    let at = |name: &str| column(csv, name);
    let cell = at("cell");
    let lr = at("lr");
    let repeat = at("repeat");
    let wd = csv
        .lines()
        .next()
        .unwrap_or_default()
        .split(',')
        .position(|column| column == "wd");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let wd_of = wd.map_or("0.01", |wd| fields[wd]);
        let rest: Vec<&str> = fields
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != cell && Some(*n) != wd)
            .map(|(_, field)| *field)
            .collect();

        (
            format!("lr={} wd={wd_of} {}", fields[lr], fields[repeat]),
            rest.join(","),
        )
    };

    csv.lines().skip(1).map(row).collect()
}

fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.path(name);
    std::fs::write(&path, text).expect("a file can be written");
    path.to_string_lossy().into_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"))
}

#[test]
fn more_repeats_run_exactly_what_is_missing_and_leave_every_row_as_it_is() {
    let mut cluster = Cluster::counted(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(TOY);
    cluster.wait_for_end(&id);
    let first = csv(&cluster, &id);
    assert_eq!((first.lines().count(), cluster.done().begun), (201, 200));

    assert_eq!(
        cluster.ask(&["extend", &id, "--repeats", "200"]),
        format!("{id}\n")
    );
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["trials"], &status["repeats"], &status["duplicates"]),
        (&400.into(), &200.into(), &0.into())
    );

    let all = csv(&cluster, &id);
    let repeat = column(&all, "repeat");
    let old = |fields: &[&str]| fields[repeat].parse::<u32>().expect("a number") < 100;
    assert!(kept(&all, old) == first, "old rows changed");
    assert_eq!(
        (all.lines().count(), cluster.done().begun),
        (401, 400),
        "exactly the missing ones were run"
    );

    // It is so still after a restart, and what is less, or the same, is refused.
    cluster.kill_and_restart_coordinator();
    assert_eq!(
        (csv(&cluster, &id), &cluster.status(&id)["state"]),
        (all.clone(), &"completed".into())
    );

    for repeats in ["150", "200"] {
        let refused = cluster.run(&["extend", &id, "--repeats", repeats]);
        assert!(
            refused.code == 2 && refused.stderr.contains("has 200 per cell"),
            "{refused:?}"
        );
    }

    cluster.ask(&["extend", "latest", "--yes", "--repeats", "203"]);
    cluster.wait_for_end(&id);
    assert_eq!(cluster.done().begun, 406);
    drop(worker);

    let mut other = Cluster::start(&[]);
    let _worker = other.worker(1, &[]);
    let at_once = other.launch(&TOY.replace("repeats = 100", "repeats = 203"));
    other.wait_for_end(&at_once);
    assert_eq!(
        cluster.rows(&id),
        other.rows(&at_once),
        "it is the sweep that was launched with as many"
    );
}

#[test]
fn a_running_sweep_is_extended_and_a_coordinator_that_dies_forgets_nothing_of_it() {
    let mut cluster = Cluster::start(&["--lease-ttl", "2s"]);
    cluster.gate.hold_after(10_000);
    let sweep = crate::empty_sweep(20_000);
    let id = cluster.launch(&sweep);
    let _worker = cluster.worker(2, &[]);
    cluster.wait_until_held(&id, 10_000);

    cluster.gate.hold_after(19_000);
    cluster.wait_until(&id, "it goes on", |status| {
        status["done"].as_u64() > Some(10_000)
    });
    cluster.ask(&["extend", &id, "--repeats", "30000"]);
    cluster.kill_and_restart_coordinator();

    assert_eq!(cluster.status(&id)["trials"], 30_000);
    cluster.gate.open();
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["mismatches"]),
        (&30_000.into(), &0.into())
    );

    assert_eq!(cluster.rows(&id).lines().count(), 30_001);
}

/// Extends a finished sweep by a file with more of everything; what is there was not run again.
fn grows_by_a_file(mut cluster: Cluster) {
    let worker = cluster.worker(2, &[]);
    let old = cluster.launch(TOY);
    cluster.wait_for_end(&old);
    let first = csv(&cluster, &old);
    let path = file(&cluster, "wider.toml", &wider());
    let said = cluster.run(&["extend", &old, &path]);
    assert!(
        said.stderr.contains(&format!(
            "460 trials are to be run, 200 have results already, of the sweep {old}\n"
        )),
        "{said:?}"
    );

    let new = said.stdout.trim().to_owned();
    assert!(said.code == 0 && new != old, "{said:?}");
    let status = cluster.wait_for_end(&new);
    assert_eq!(
        (&status["trials"], &status["completed"]),
        (&660.into(), &660.into())
    );

    assert_eq!(cluster.done().begun, 660, "only what was missing was run");
    assert_eq!(csv(&cluster, &old), first, "the old sweep is as it was");
    let was = by_content(&first);
    let is = by_content(&csv(&cluster, &new));
    assert_eq!((was.len(), is.len()), (200, 660));
    assert!(
        was.iter().all(|(trial, row)| is.get(trial) == Some(row)),
        "a row was changed on its way"
    );

    // The new one owes nothing to the old one, nor to the coordinator that made it.
    cluster.ask(&["rm", &old]);
    let rows = csv(&cluster, &new);
    cluster.kill_and_restart_coordinator();
    assert_eq!(
        (csv(&cluster, &new), &cluster.status(&new)["state"]),
        (rows, &"completed".into())
    );

    let replayed = cluster.ask(&["replay", &new, "0/3"]);
    assert!(replayed.contains("the same bits here"), "{replayed}");
    let mut other = Cluster::start(&[]);
    let _worker = other.worker(1, &[]);
    let at_once = other.launch(&wider());
    other.wait_for_end(&at_once);

    assert_eq!(
        cluster.rows(&new),
        other.rows(&at_once),
        "it is the sweep that was launched with all of it"
    );

    drop(worker);
}

#[test]
fn a_file_with_more_values_and_another_axis_goes_on_from_the_rows_there_are() {
    grows_by_a_file(Cluster::counted(&[]));
}

#[test]
fn a_sweep_on_postgres_grows_the_same_way() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => return skip("a_sweep_on_postgres_grows_the_same_way", "postgres", &why),
    };
    let files = tempfile::tempdir().expect("a temporary directory");
    let dir = files.path().to_string_lossy().into_owned();

    // Another coordinator takes over when the time of the one before is over.
    grows_by_a_file(Cluster::counted(&[
        "--store",
        &database.url(),
        "--files",
        &dir,
    ]));
}

#[test]
fn a_sweep_that_is_extended_by_a_file_while_it_runs_ends_in_favour_of_the_new_one() {
    let mut cluster = Cluster::counted(&[]);
    let old = cluster.launch(TOY);
    cluster.ask(&["pause", &old]);
    let _worker = cluster.worker(1, &[]);
    let path = file(&cluster, "wider.toml", &wider());
    let said = cluster.run(&["extend", &old, &path]);
    assert!(said.stderr.contains("which was cancelled"), "{said:?}");

    let new = said.stdout.trim().to_owned();
    cluster.wait_for_end(&new);
    assert_eq!(cluster.status(&old)["state"], "cancelled");
    assert_eq!(cluster.done().begun, 660);
    let refused = cluster.run(&["extend", &old, "--repeats", "200"]);
    assert!(
        refused.code == 4
            && refused
                .stderr
                .contains(&format!("`ergodic extend {old} SPEC`")),
        "{refused:?}"
    );
}

#[test]
fn what_does_not_fit_the_rows_there_are_is_refused_by_name_and_changes_nothing() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(TOY);
    cluster.wait_for_end(&id);
    let wide = wider();
    for (text, words) in [
        (
            wide.replace("seed    = 3", "seed    = 4"),
            "seed: the results of",
        ),
        (
            wide.replace("[measure]", "[seeds]\nfixed = [\"init\"]\n[measure]"),
            "seeds: the results of",
        ),
        (
            wide.replace("10 steps", "5 steps"),
            "measure: what was measured",
        ),
        (
            wide.replace("repeats = 110", "repeats = 90"),
            "repeats: the results of",
        ),
        (
            wide.replace("lr = [0.1, 0.2, 0.4]", "lr = [0.1, 0.2]"),
            "(lr=0.4)",
        ),
        (wide.replace("steps = 20", "steps = 21"), "(lr=0.1)"),
        (TOY.to_owned(), "the same trials as"),
    ] {
        let path = file(&cluster, "other.toml", &text);
        let refused = cluster.run(&["extend", &id, &path]);
        assert!(
            refused.code == 4 && refused.stderr.contains(words),
            "{words}: {refused:?}"
        );
    }

    // What is refused of new sweeps, as long as the old one does not do it, too.
    let early =
        "repeats = { min = 20, max = 110, until = { metric = \"train_loss\", ci95 = 0.1 } }";
    let path = file(
        &cluster,
        "other.toml",
        &wide.replace("repeats = 110", early),
    );
    let refused = cluster.run(&["extend", &id, &path]);
    assert!(
        refused.code == 2 && refused.stderr.contains("repeats.min: expected 40 or more"),
        "{refused:?}"
    );

    let path = file(
        &cluster,
        "other.toml",
        &wide.replace("kind = \"toy\"", "kind = \"toi\""),
    );
    assert_eq!(cluster.run(&["extend", &id, &path]).code, 2);

    assert_eq!(cluster.run(&["extend", "nosuch", "--repeats", "9"]).code, 5);
    assert_eq!(cluster.run(&["extend", &id]).code, 2);
    assert_eq!(
        json(&cluster.ask(&["list", "--format", "json"]))
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

/// The toy sweep with more cells, all of which start at one point and differ the more the larger their steps, each repeated
/// until its mean is known to ± 0.05.
fn until() -> String {
    let until = "[repeats]\nmin = 40\nmax = 160\nuntil = { metric = \"weight_norm_sq\", ci95 = 0.05 }\n[model]";
    let cells = TOY
        .replace("[0.1, 0.4]", "[0.01, 0.1, 0.4, 1.0]")
        .replace("dim  = 4", "start = [1, 1, 1, 1]");
    cells
        .replace("repeats = 100\n", "")
        .replace("[model]", until)
}

#[test]
fn cells_end_when_they_are_known_whoever_runs_them_and_whatever_happens() {
    let mut quiet = Cluster::start(&[]);
    let _one = quiet.worker(1, &[]);
    let id = quiet.launch(&until());
    let status = quiet.wait_for_end(&id);
    let rows = quiet.rows(&id);
    let cell = column(&rows, "cell");

    let repeat = column(&rows, "repeat");
    let mut repeats: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();

    for line in rows.lines().skip(1) {
        let field = |at: usize| {
            line.split(',')
                .nth(at)
                .and_then(|field| field.parse().ok())
                .expect("a number")
        };
        repeats
            .entry(field(cell))
            .or_default()
            .insert(field(repeat));
    }

    let ladder = [40, 50, 62, 77, 96, 120, 150, 160];
    let ends: BTreeSet<usize> = repeats.values().map(BTreeSet::len).collect();
    assert!(
        repeats
            .values()
            .all(|repeats| repeats.iter().copied().eq(0..repeats.len() as u32)),
        "prefixes: {repeats:?}"
    );

    assert!(
        ends.iter().all(|n| ladder.contains(n)) && ends.len() > 1,
        "{ends:?}"
    );
    let known = repeats
        .values()
        .filter(|repeats| repeats.len() < 160)
        .count();

    assert_eq!(repeats.len(), 4);
    assert!(
        status["cells_known"].as_u64() >= Some(known as u64),
        "{status}"
    );
    assert_eq!(
        status["cells_known"]
            .as_u64()
            .zip(status["cells_exhausted"].as_u64())
            .map(|(a, b)| a + b),
        Some(4)
    );

    assert_eq!(
        (&status["trials"], &status["done"]),
        (
            &status["expected_trials"],
            &(rows.lines().count() - 1).into()
        )
    );

    // Whatever says of how many trials it is, says the same number.
    let table = quiet.ask(&["table", &id]);
    let effects = quiet.ask(&["effects", &id]);
    assert_eq!(table.lines().last(), effects.lines().last(), "{effects}");

    let explained = quiet.ask(&["explain", &id]);
    assert!(
        explained.contains("of 4 cells the mean of weight_norm_sq is known to ± 0.05"),
        "{explained}"
    );
    let beyond = quiet.ask(&["explain", &id, "0/159"]);
    assert!(
        repeats[&0].len() == 160 || beyond.contains("its cell needs fewer repeats"),
        "{beyond}"
    );

    // Before any cell is decided on, when one was, and later.
    assert!(
        status["done"].as_u64() > Some(200),
        "these are to be kills of a sweep that goes on: {status}"
    );
    let mut wild = Cluster::counted(&["--lease-ttl", "4s"]);
    let id = wild.launch(&until());
    kill_when_there_are(&mut wild, &id, &[60, 170, 190]);

    let _last = wild.worker(3, &[]);
    wild.wait_for_end(&id);
    assert_eq!(wild.rows(&id), rows, "not one trial more or less");
}

/// Kills coordinator and worker whenever a sweep has so many rows, and work is under way. Each worker begins a few trials
/// more than are wanted of it at most, and so does not come to the sweep's end.
fn kill_when_there_are(wild: &mut Cluster, id: &str, rows: &[u64]) {
    let done = |status: &Value| status["done"].as_u64().expect("a number");
    for rows in rows {
        let wanted = rows.saturating_sub(done(&wild.status(id)));
        wild.gate.hold_after_trials(wanted);
        let worker = wild.worker(2, &[]);
        let status = wild.wait_until(id, "it goes on", |status| done(status) >= *rows);
        assert_eq!(status["state"], "running");
        wild.set_in_motion(|gate| gate.hold_after_trials(wanted + 8));

        wild.take_coordinator().kill();
        worker.kill();
        wild.restart_coordinator(&[]);
    }

    wild.gate.open();
}

/// The toy sweep with eight learning rates, of which a third goes on after 4 and after 12 of 30 repeats.
fn halving() -> String {
    let halving =
        "[repeats]\nmin = 4\nmax = 30\nhalving = { metric = \"train_loss\", factor = 3 }\n[model]";
    let cells = TOY.replace(
        "[0.1, 0.4]",
        "[0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 1e30]",
    );
    cells
        .replace("repeats = 100\n", "")
        .replace("[model]", halving)
}

#[test]
fn the_best_cells_are_repeated_further_whoever_runs_them_and_whatever_happens() {
    let mut wild = Cluster::counted(&["--lease-ttl", "4s"]);
    let id = wild.launch(&halving());
    let plan = run(&["plan", &wild.path("sweep.toml").to_string_lossy()]).stdout;
    assert!(
        plan.contains("one cell in 3 continues, by mean rank in train_loss"),
        "{plan}"
    );
    let status = wild.status(&id);
    let trials = 8 * 4 + 3 * 8 + 18;
    assert_eq!(
        (&status["trials"], &status["expected_trials"]),
        (&32.into(), &trials.into()),
        "{status}"
    );

    // In each of its three stages.
    kill_when_there_are(&mut wild, &id, &[16, 44, 62]);
    let _last = wild.worker(3, &[]);
    let status = wild.wait_for_end(&id);
    let rows = wild.rows(&id);
    let cell = column(&rows, "cell");
    let loss = column(&rows, "train_loss");

    let mut losses: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for line in rows.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        // The last rate is too large: its trials diverge.
        let loss = fields[loss].parse().unwrap_or(f64::INFINITY);
        losses
            .entry(fields[cell].parse().expect("a number"))
            .or_default()
            .push(loss);
    }

    let mut standing: Vec<usize> = (0..8).collect();
    for (rung, kept) in [(4, 3), (12, 1)] {
        // How many others did better in the same repeat, equals counting half; and the means of those that are alike.
        let beaten = |cell: usize| {
            let by = |repeat: usize| {
                let better = |other: &usize| losses[other][repeat] < losses[&cell][repeat];
                let equal = |other: &usize| losses[other][repeat] == losses[&cell][repeat];
                2 * standing.iter().filter(|other| better(other)).count()
                    + standing.iter().filter(|other| equal(other)).count()
            };
            (0..rung).map(by).sum::<usize>()
        };

        let mean = |cell: usize| losses[&cell][..rung].iter().sum::<f64>() / rung as f64;
        let mut ordered: Vec<(usize, f64, usize)> = standing
            .iter()
            .map(|cell| (beaten(*cell), mean(*cell), *cell))
            .collect();
        ordered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));

        standing = ordered.into_iter().map(|(_, _, cell)| cell).collect();
        let out = standing.split_off(kept);
        assert!(
            out.iter().all(|cell| losses[cell].len() == rung),
            "{out:?} are out after {rung}: {losses:?}"
        );
    }

    assert!(
        losses[&standing[0]].len() == 30 && losses[&7][0].is_infinite(),
        "{losses:?}"
    );
    assert_eq!(
        (&status["done"], &status["rung"], &status["cells_standing"]),
        (&trials.into(), &30.into(), &1.into())
    );

    let explained = wild.ask(&["explain", &id, "7/0"]);
    assert!(
        explained.contains("was not among the best after 4 repeats"),
        "{explained}"
    );
}

#[test]
fn a_pilot_tells_what_a_precision_takes() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(&TOY.replace("repeats = 100", "repeats = 30"));
    cluster.wait_for_end(&id);
    let plan = |precision: &str| {
        json(&cluster.ask(&["plan", &id, "--precision", precision, "--format", "json"]))
    };
    let needs = plan("weight_norm_sq=0.05");
    let repeats = needs["repeats"].as_u64().expect("a number of repeats");

    let rows = needs["rows"].as_array().expect("a row per cell");
    assert_eq!(
        (
            rows.len(),
            rows.iter().filter_map(|row| row["repeats"].as_u64()).max()
        ),
        (2, Some(repeats))
    );

    // Student's interval with so many values is narrow enough, and with one less it is not; 1.96 is its limit.
    let widest = rows
        .iter()
        .filter_map(|row| row["std"].as_f64())
        .fold(0.0, f64::max);
    let normal = (1.96 * widest / 0.05).powi(2);
    assert!(
        (normal..1.1 * normal + 4.0).contains(&(repeats as f64)),
        "{normal}: {needs}"
    );

    assert_eq!(needs["same"]["trials"], 2 * repeats.saturating_sub(30));
    assert!(
        needs["same"]["core_seconds"].as_f64() > Some(0.0)
            && needs["same"]["eta_seconds"].is_number(),
        "{needs}"
    );

    let people = cluster.ask(&["plan", &id, "--precision", "weight_norm_sq=0.05"]);
    assert!(
        people.contains(&format!("`ergodic extend {id} --repeats {repeats}`")),
        "{people}"
    );
    assert_eq!(plan("weight_norm_sq=1e6")["same"]["trials"], 0);

    for (precision, code) in [
        ("weight_norm=0.1", 5),
        ("weight_norm_sq=0", 2),
        ("weight_norm_sq", 2),
    ] {
        assert_eq!(
            cluster.run(&["plan", &id, "--precision", precision]).code,
            code,
            "{precision}"
        );
    }
}
