//! Verdicts on the claims of a sweep, over real trainings: what theory says to the last bit, with controls, and what is wrong.

use std::path::Path;

use ergodic_tests::{Cluster, run_in};
use rusqlite::Connection;
use serde_json::Value;

use super::refusals::refused;

/// Batch norm without ε makes a network that begins with weights twice as large, and is trained with a learning rate four times
/// as large, the same network to the last bit; three times as large is not exact in binary.
const SCALED: &str = r#"
name    = "scaled"
repeats = 4
seed    = 5
seeds   = { fixed = ["head"] }
[data]
dataset = "glyphs"
train   = 200
test    = 100
[model]
kind       = "mlp"
hidden     = [8]
norm       = "batch"
norm_eps   = 0.0
affine     = false
fixed_head = true
[train]
steps      = 60
batch_size = 20
schedule   = [{ step = 40, lr = "x0.1" }]
[grid]
"model.init.scale" = [1, 2, 3]
[derive]
lr = "0.1*model.init.scale^2"
[measure]
every   = "10 steps"
metrics = ["train_loss", "effective_lr", "weight_norm_sq"]
probe   = { points = 50, at = ["20 steps", "final"] }
[quantity]
inv  = "1/effective_lr"
gain = "jump(inv, decay)"
[[claim]]
name = "twice the scale, the same bits"
form = "bits"
of   = ["train_loss", "inv"]
to   = "init.scale == 1"
where = "init.scale == 2"
[[claim]]
name = "three times is not exact"
form = "bits"
of   = ["train_loss", "inv"]
to   = "init.scale == 1"
where = "init.scale == 3"
control = true
[[claim]]
name  = "twice the scale, the same function"
form  = "labels"
to    = "init.scale == 1"
where = "init.scale == 2"
at    = "20 steps"
below = 0.001
[[claim]]
name  = "twice the scale, the same curve"
of    = "mean(abs(train_loss - other(train_loss)))"
to    = "init.scale == 1"
where = "init.scale == 2"
below = 1e-12
[[claim]]
name   = "the jump"
of     = "gain"
within = [8, 14]
[[claim]]
name  = "no cell learns better"
of    = "mean(train_loss, last 30 %)"
form  = "ratio"
to    = "init.scale == 1"
within = [0.8, 1.25]
"#;

fn verdicts(text: &str) -> Vec<(String, String)> {
    let found: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"));
    let rows = found["rows"].as_array().expect("there are rows").iter();
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.map(|row| (word(row, "claim"), word(row, "verdict")))
        .collect()
}

#[test]
fn claims_about_a_sweep_are_judged() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(SCALED);
    cluster.wait_for_end(&id);

    let found = verdicts(&cluster.ask(&["verdict", &id, "--format", "json"]));
    let counts = |name: &str| found.iter().filter(|(claim, _)| claim == name).count();
    assert_eq!(counts("the jump"), 3, "{found:?}");
    assert_eq!(counts("no cell learns better"), 2, "{found:?}");
    assert!(
        found.len() == 9 && found.iter().all(|(_, verdict)| verdict == "agrees"),
        "{found:?}"
    );
    let people = cluster.ask(&["verdict", &id]);
    assert!(
        people.contains("9 agree, 0 disagree, 0 not enough")
            && people.contains("control, must be wrong")
            && people.contains("given the fixed head")
            && !people.contains("NaN"),
        "{people}"
    );

    // The same claims with something wrong in each.
    let wrong = cluster.path("wrong.toml");
    let judge_file = |text: &str| {
        std::fs::write(&wrong, text).expect("a file can be written");
        let file = wrong.to_string_lossy().into_owned();
        cluster.run(&["verdict", &id, "--claims", &file, "--format", "json"])
    };
    let claim = |keys: &str| format!("[[claim]]\nname = \"c\"\n{keys}\n");
    for (keys, code, verdict) in [
        ("of = \"gain\"\nwithin = [2, 3]", 7, "disagrees"),
        (
            "form = \"bits\"\nof = \"train_loss\"\nto = \"init.scale == 1\"",
            7,
            "disagrees",
        ),
        (
            "form = \"bits\"\nof = \"train_loss\"\nto = \"init.scale == 1\"\nwhere = \"init.scale == 2\"\ncontrol = true",
            7,
            "disagrees",
        ),
        (
            "form = \"ratio\"\nof = \"mean(train_loss)\"\nto = \"init.scale == 1\"\nabove = 2",
            7,
            "disagrees",
        ),
        (
            "form = \"difference\"\nof = \"mean(train_loss)\"\nto = \"init.scale == 1\"\nabove = 1",
            7,
            "disagrees",
        ),
        (
            "form = \"spread\"\nof = \"mean(train_loss)\"\nabove = 3",
            7,
            "disagrees",
        ),
        (
            "form = \"collapse\"\nof = \"mean(train_loss)\"\nover = \"init.scale\"\nabove = 3",
            7,
            "disagrees",
        ),
        (
            "form = \"slope\"\nof = \"mean(weight_norm_sq)\"\nagainst = \"init.scale\"\nbelow = 1",
            7,
            "disagrees",
        ),
        (
            "form = \"share\"\nof = \"at(train_loss, end) < 100\"\nbelow = 0.1",
            7,
            "disagrees",
        ),
        (
            "form = \"extreme\"\nof = \"at(train_loss, end)\"\nabove = 100",
            7,
            "disagrees",
        ),
        ("of = \"gain\"\nwithin = [2, 30]\nmin = 5", 8, "not enough"),
        (
            "form = \"labels\"\nover = \"init.scale\"\nabove = 0.001\nwhere = \"init.scale < 3\"",
            7,
            "disagrees",
        ),
        (
            "form = \"labels\"\nover = \"init.scale\"\nbelow = 0.5\nwhere = \"init.scale < 3\"\nrelative_to = \"20 steps\"",
            8,
            "not enough",
        ),
        (
            "of = \"gain\"\nform = \"extreme\"\nbelow = 100",
            8,
            "not enough",
        ),
    ] {
        let finished = judge_file(&claim(keys));
        assert_eq!(finished.code, code, "{keys}: {}", finished.stderr);
        let found = verdicts(&finished.stdout);
        assert!(
            found.iter().any(|(_, found)| found == verdict),
            "{keys}: {found:?}"
        );
        assert!(
            finished.stdout.contains("\"post_hoc\":true"),
            "{}",
            finished.stdout
        );
    }
    refused(
        &judge_file(&claim("of = \"gian\"\nabove = 1")),
        2,
        &["wrong.toml:3", "claim 'c'", "did you mean 'gain'?"],
    );
    refused(
        &cluster.run(&["verdict", &id, "--claims", "nowhere.toml"]),
        2,
        &["--claims", "nowhere.toml"],
    );

    let plain = cluster.launch(&crate::empty_sweep(2));
    refused(
        &cluster.run(&["verdict", &plain]),
        5,
        &["has no claims", "--claims"],
    );
}

/// Changes the lowest bit of the last training loss of a trial in a store. Curves end with the metrics of the last step.
fn flip_bit(store: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(store)?;
    let select =
        "SELECT curve, data FROM curves JOIN trials USING (curve) WHERE cell = 1 AND repeat = 2";
    let (curve, mut data) = connection.query_row(select, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    let loss = data.len() - 3 * size_of::<f64>();
    data[loss] ^= 1;
    connection.execute(
        "UPDATE curves SET data = ?1 WHERE curve = ?2",
        (data, curve),
    )?;
    Ok(())
}

#[test]
fn one_bit_of_a_stored_row_is_damage_and_without_a_checksum_a_claim_that_disagrees() {
    let here = tempfile::tempdir().expect("a temporary directory");
    let here = here.path();
    let claims = "[[claim]]\nname = \"bits\"\nform = \"bits\"\nof = \"train_loss\"\n\
                  where = \"init.scale == 2\"\nto = \"init.scale == 1\"\n";
    std::fs::write(here.join("scaled.toml"), SCALED).expect("a file can be written");
    std::fs::write(here.join("bits.toml"), claims).expect("a file can be written");
    let run = run_in(here, &[], &["run", "scaled.toml", "--store", "store"]);
    assert_eq!(run.code, 0, "{run:?}");
    let judge = || run_in(here, &[], &["verdict", "latest", "--claims", "bits.toml"]);
    assert_eq!(judge().code, 0, "{:?}", judge());

    let store = here.join("store/ergodic.sqlite");
    flip_bit(&store).expect("the row is changed");
    let damaged = judge();
    assert!(
        ![0, 7, 8].contains(&damaged.code) && damaged.stderr.contains("damaged"),
        "{damaged:?}"
    );

    // Rows of the first stores have no checksum.
    Connection::open(&store)
        .and_then(|connection| connection.execute("UPDATE curves SET checksum = NULL", []))
        .expect("the rows are changed");
    let wrong = judge();
    assert_eq!(wrong.code, 7, "{wrong:?}");
    assert!(wrong.stdout.contains("3 of 4 repeats equal"), "{wrong:?}");
}
