//! `ergodic backup` and `ergodic restore`: a store elsewhere, of either kind, that goes on as if nothing had happened.

use ergodic_tests::{Cluster, Postgres, run, skip, stdout};

use crate::weights::KEEPING;
use crate::{reach, trials, work};

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_backup_of_a_running_sweep_goes_on_elsewhere_to_the_same_rows() {
    let (sweep, wanted) = work();
    let mut cluster = Cluster::counted(&[]);
    let worker = cluster.worker(2, &[]);
    let kept = cluster.launch(&format!("audit = 1.0\n{KEEPING}"));
    cluster.wait_for_end(&kept);
    cluster.gate.hold_after(9);

    let id = cluster.launch(&sweep);
    reach(&cluster, &id, 9);
    let file = cluster.path("backup");
    let done = |cluster: &Cluster| cluster.status(&id)["done"].as_u64().expect("a number");
    let earlier = done(&cluster);
    let said = cluster.ask(&["backup", "-o", &text(&file)]);

    let later = done(&cluster);
    assert!(said.contains("2 sweeps"), "{said}");
    let weights = cluster.path("w1");
    cluster.ask(&["weights", &kept, "0/1", "-o", &text(&weights)]);
    let audits = |cluster: &Cluster| {
        ["due", "left"].map(|what| cluster.status(&kept)[format!("audits_{what}")].as_u64())
    };
    let due = audits(&cluster);
    assert!(
        due[0] > Some(0) && due[1] == due[0],
        "nobody else was there to make them: {due:?}"
    );

    let of_kept = (
        cluster.rows(&kept),
        cluster.ask(&["predictions", &kept]),
        cluster.ask(&["curves", &kept]),
    );

    worker.kill();

    let mut elsewhere = Cluster::start(&[]);
    let coordinator = elsewhere.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
    std::fs::remove_dir_all(elsewhere.path("store")).expect("the store can be removed");
    let store = text(&elsewhere.path("store"));
    stdout(&["restore", &text(&file), "--store", &store]);

    let again = run(&["restore", &text(&file), "--store", &store]);
    assert!(
        again.code == 4 && again.stderr.contains("has sweeps"),
        "{again:?}"
    );
    elsewhere.restart_coordinator(&[]);

    let before = elsewhere.status(&id);
    assert!(
        (earlier..=later).contains(&done(&elsewhere)) && earlier >= trials(9),
        "{earlier} to {later}: {before}"
    );
    assert_eq!(before["state"], "running", "{before}");

    let restored = (
        elsewhere.rows(&kept),
        elsewhere.ask(&["predictions", &kept]),
        elsewhere.ask(&["curves", &kept]),
    );
    assert!(restored == of_kept, "rows are not what they were");

    assert_eq!(audits(&elsewhere), due, "audits that are due");
    let same = elsewhere.path("w2");
    elsewhere.ask(&["weights", &kept, "0/1", "-o", &text(&same)]);
    assert_eq!(
        std::fs::read(same).expect("weights"),
        std::fs::read(weights).expect("weights")
    );

    let worker = elsewhere.worker(2, &[]);
    elsewhere.settle(&id, wanted, vec![worker]);
}

#[test]
fn what_is_no_whole_backup_makes_no_store() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    let file = cluster.path("backup");
    cluster.ask(&["backup", "-o", &text(&file)]);

    let whole = std::fs::read(&file).expect("the backup");
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;

    for content in [&whole[..whole.len() / 2], &changed, b"something else"] {
        std::fs::write(&file, content).expect("it can be written");
        let store = cluster.path("new");
        let refused = run(&["restore", &text(&file), "--store", &text(&store)]);
        assert!(
            refused.code == 2 && refused.stderr.contains(&text(&file)),
            "{refused:?}"
        );

        assert!(!store.exists());
    }

    // Nothing half is left where a backup could not be made.
    let nowhere = cluster.run(&["backup", "-o", &text(&cluster.path("none/backup"))]);
    assert_eq!(nowhere.code, 2, "{nowhere:?}");
    let data = cluster.path("store/data");
    std::fs::remove_dir_all(data).expect("the files can be removed");

    // Rows are saved all the same, and it is said what is not.
    let saved = cluster.run(&["backup", "-o", &text(&cluster.path("rest"))]);
    assert!(
        saved.code == 0 && saved.stderr.contains("the backup lacks the file"),
        "{saved:?}"
    );
}

#[test]
fn a_backup_moves_a_store_to_postgres_and_back() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_backup_moves_a_store_to_postgres_and_back",
                "postgres",
                &why,
            );
        }
    };

    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    worker.kill();
    let answers = |cluster: &Cluster| {
        let seconds = cluster.ask(&["trials", &id, "--format", "csv"]);
        (
            seconds,
            cluster.ask(&["predictions", &id]),
            cluster.ask(&["curves", &id]),
            cluster.ask(&["list"]),
        )
    };
    let wanted = answers(&cluster);

    let first = text(&cluster.path("first"));
    let second = text(&cluster.path("second"));
    cluster.ask(&["backup", "-o", &first]);
    let files = text(&cluster.path("files"));
    let refused = run(&["restore", &first, "--store", &database.url()]);
    assert!(
        refused.code == 2 && refused.stderr.contains("--artifacts"),
        "{refused:?}"
    );

    stdout(&[
        "restore",
        &first,
        "--store",
        &database.url(),
        "--files",
        &files,
    ]);

    let in_postgres = Cluster::start(&["--store", &database.url(), "--files", &files]);
    assert!(
        answers(&in_postgres) == wanted,
        "rows are not what they were"
    );
    in_postgres.ask(&["backup", "-o", &second]);

    let back = text(&cluster.path("back"));
    stdout(&["restore", &second, "--store", &back]);
    let back = Cluster::on_store(&back);
    assert!(answers(&back) == wanted, "rows are not what they were");
}
