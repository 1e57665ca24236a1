//! `ergodic rm`: sweeps, their rows and their files go, and nothing else does.

use std::collections::BTreeSet;

use ergodic_tests::{Cluster, RawWorker, wait_for};
use rusqlite::Connection;
use tonic::Code;

use crate::weights::KEEPING;
use crate::{block_on, empty_sweep};

/// Names of the kept files.
fn files(cluster: &Cluster) -> BTreeSet<String> {
    let entries = std::fs::read_dir(cluster.path("store/data")).expect("the folder of files");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Rows of the tables that belong to sweeps.
fn rows(cluster: &Cluster) -> Vec<i64> {
    let store =
        Connection::open(cluster.path("store/ergodic.sqlite")).expect("the store can be read");
    let count = |table: &&str| {
        let count = store.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        });
        count.expect("it can be counted")
    };

    [
        "sweeps",
        "leases",
        "trials",
        "curves",
        "predictions",
        "attempts",
        "removals",
    ]
    .iter()
    .map(count)
    .collect()
}

#[test]
fn a_removed_sweep_takes_its_rows_and_the_files_that_nobody_else_names() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let first = cluster.launch(KEEPING);
    cluster.wait_for_end(&first);

    // Its weights, of two trials, and its dataset.
    let of_first = files(&cluster);
    assert_eq!(of_first.len(), 3, "{of_first:?}");
    // Two of the same trials, and two others.
    let second = cluster.launch(&KEEPING.replace("[0.05, 1e38]", "[0.05, 0.1]"));
    cluster.wait_for_end(&second);
    let both = files(&cluster);
    assert_eq!(both.len(), 5, "{both:?}");

    let wanted = (cluster.rows(&first), cluster.ask(&["predictions", &first]));

    let said = cluster.ask(&["rm", &second]);
    assert!(
        said.starts_with(&format!("removed {second} (keeping): 4 rows, 2 files")),
        "{said}"
    );
    assert_eq!(files(&cluster), of_first);

    assert_eq!(
        (cluster.rows(&first), cluster.ask(&["predictions", &first])),
        wanted
    );
    cluster.ask(&[
        "weights",
        &first,
        "0/1",
        "-o",
        &cluster.path("w").to_string_lossy(),
    ]);

    assert_eq!(cluster.run(&["status", &second]).code, 5);

    let said = cluster.ask(&["rm", "latest", "--yes"]);
    assert!(
        said.starts_with(&format!("removed {first} (keeping): 4 rows, 3 files")),
        "{said}"
    );
    assert_eq!((files(&cluster).len(), rows(&cluster)), (0, vec![0; 7]));

    let again = cluster.run(&["rm", &first]);
    assert!(
        again.code == 5 && again.stderr.contains("there is no sweep"),
        "{again:?}"
    );
}

#[test]
fn a_running_sweep_is_removed_only_by_force_and_its_worker_goes_on_with_others() {
    let mut cluster = Cluster::counted(&[]);
    // More rows than are cleared at a time.
    cluster.gate.hold_after(2500);
    let _worker = cluster.worker(2, &[]);
    let id = cluster.launch(&empty_sweep(5000));
    cluster.wait_until_held(&id, 2500);
    cluster.set_in_motion(|gate| gate.hold_after(4000));

    let refused = cluster.run(&["rm", &id]);
    assert!(
        refused.code == 4 && refused.stderr.contains(&format!("ergodic cancel {id}")),
        "{refused:?}"
    );
    cluster.ask(&["rm", "--force", &id]);

    assert_eq!(cluster.ask(&["list", "--format", "csv"]).lines().count(), 1);
    cluster.gate.open();
    wait_for("its rows are cleared", || rows(&cluster) == [0; 7]);
    let (text, wanted) = crate::work();
    let next = cluster.launch(&text);
    cluster.wait_for_end(&next);

    assert!(
        cluster.rows(&next) == wanted,
        "rows differ from those of a run without faults"
    );
}

#[test]
fn whoever_still_delivers_is_told_that_the_sweep_is_over() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(10));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("the sweep is there");

        let grant = worker.lease().await;
        cluster.ask(&["rm", "--force", &id]);
        let revoked = worker.revoked().await;
        assert_eq!(revoked.fences, grant.fence.into_iter().collect::<Vec<_>>());
        let late = worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect_err("it is over");

        assert!(
            late.code() == Code::NotFound && late.message().contains("it was removed"),
            "{late}"
        );
    });

    assert_eq!(rows(&cluster), [0; 7]);
}

#[test]
fn what_a_dead_coordinator_did_not_clear_the_next_one_clears() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(&empty_sweep(5000));
    cluster.wait_for_end(&id);
    worker.kill();
    cluster.take_coordinator().kill();

    let store =
        Connection::open(cluster.path("store/ergodic.sqlite")).expect("the store can be written");
    // As it is between the two steps of a removal.
    let first_step =
        "INSERT INTO removals SELECT number FROM sweeps; DELETE FROM leases; DELETE FROM sweeps;";
    store.execute_batch(first_step).expect("written");
    drop(store);

    cluster.restart_coordinator(&[]);
    wait_for("its rows are cleared", || rows(&cluster) == [0; 7]);
}

#[test]
fn a_sweep_of_a_thousand_million_trials_costs_no_more_than_what_was_run_of_it() {
    let mut cluster = Cluster::counted(&[]);
    let many_repeats = empty_sweep(1_000_000_000);
    let many_cells = "name = \"cells\"\nrepeats = 100\n[model]\nkind = \"toy\"\n[train]\nsteps = 1\n[grid]\n\
                      lr = { linear = [0.1, 0.2], points = 10000 }\nwd = { linear = [0.1, 0.2], points = 1000 }\n\
                      [measure]\nmetrics = [\"train_loss\"]\n";
    for text in [many_repeats.as_str(), many_cells] {
        cluster.gate.hold_after_trials(200);
        let id = cluster.launch(text);
        let worker = cluster.worker(2, &[]);
        cluster.wait_until(&id, "some trials are run", |status| {
            status["done"].as_u64() >= Some(100)
        });

        worker.kill();
        cluster.kill_and_restart_coordinator();
        let status = cluster.status(&id);
        assert_eq!(
            (&status["trials"], &status["state"]),
            (&1_000_000_000.into(), &"running".into())
        );

        assert!(
            (100..=200).contains(&status["done"].as_u64().expect("a number")),
            "{status}"
        );
        cluster.ask(&["cancel", &id]);
        assert_eq!(cluster.status(&id)["state"], "cancelled");

        cluster.kill_and_restart_coordinator();
        assert_eq!(cluster.status(&id)["state"], "cancelled");
        cluster.ask(&["rm", &id]);
        wait_for("its rows are cleared", || rows(&cluster) == [0; 7]);
        cluster.gate.open();
    }

    let held = cluster.coordinator().process().peak_memory_mib();
    assert!(held < 120, "the coordinator held {held} MiB");
}
