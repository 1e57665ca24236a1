//! Audits: trials that are run a second time by another worker process, and what is told of them.

use ergodic_proto::v1;
use ergodic_tests::{Cluster, Gate, RawWorker, stdout};
use serde_json::Value;

use crate::{block_on, empty_sweep, http, work};

/// Audits that were due, that found the same bits, other bits, nothing, and that are left.
fn audits(status: &Value) -> [u64; 5] {
    let count = |what: &str| {
        status[&format!("audits_{what}")]
            .as_u64()
            .expect("a number")
    };
    ["due", "same", "different", "failed", "left"].map(count)
}

#[test]
fn two_workers_audit_each_other_and_rows_are_those_of_a_run_without_audits() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--http", "127.0.0.1:0"]);
    let workers = vec![
        cluster.worker(1, &["--name", "same"]),
        cluster.worker(1, &["--name", "same"]),
    ];

    cluster.wait_for_workers(2);
    let id = cluster.launch(&format!("audit = 0.2\n{text}"));
    let status = cluster.wait_for_end(&id);
    let [due, same, ..] = audits(&status);
    assert!((40..110).contains(&due), "a fifth of 360, by lot: {status}");
    assert_eq!(audits(&status), [due, due, 0, 0, 0]);

    assert_eq!(
        (&status["audit"], &status["duplicates"]),
        (&0.2.into(), &0.into()),
        "{status}"
    );
    let told = format!(
        "{due} of {due} trials run again by another worker process, {due} with the same bits"
    );
    assert!(cluster.ask(&["status", &id]).contains(&told));

    assert!(cluster.ask(&["explain", &id]).contains(&format!(
        "{same} yielded the same bits, 0 different bits, 0 failed."
    )));
    let metrics = http::get(&http::address(&cluster), "/metrics").1;
    assert!(
        metrics.contains(&format!("ergodic_audits_total{{finding=\"same\"}} {due}\n")),
        "{metrics}"
    );

    assert!(metrics.contains("ergodic_audits_left 0\n"), "{metrics}");
    let mut explained =
        (0..60).map(|repeat| cluster.ask(&["explain", &id, &format!("0/{repeat}")]));
    let audited = explained
        .find(|lines| lines.contains("Audit:"))
        .expect("a fifth of them");
    let processes: Vec<&str> = audited
        .split("same (process ")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    assert!(
        processes.len() == 2 && processes[0] != processes[1],
        "{audited}"
    );

    let (_, done) = cluster.settle(&id, wanted, workers);
    assert_eq!((done.begun, done.duplicates), (360 + due, due));
}

#[test]
fn a_plan_says_how_many_trials_an_audit_adds() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("plan.toml");
    std::fs::write(&path, format!("audit = 0.01\n{}", empty_sweep(1000))).expect("written");
    let path = path.to_string_lossy();
    assert!(
        stdout(&["plan", &path])
            .contains("audit: about 10 trials (1 %) are run again by another worker")
    );

    let plan: Value =
        serde_json::from_str(&stdout(&["plan", &path, "--format", "json"])).expect("JSON");
    assert_eq!(
        (&plan["trials"], &plan["audits"]),
        (&1000.into(), &10.into())
    );
}

#[test]
fn whoever_is_alone_audits_nothing_which_is_said_and_made_up_for_when_another_one_has_joined() {
    let mut cluster = Cluster::start(&[]);
    let alone = cluster.worker(1, &["--name", "first"]);
    let id = cluster.launch(&format!("audit = 0.5\n{}", empty_sweep(200)));
    let status = cluster.wait_for_end(&id);
    let [due, same, .., left] = audits(&status);
    assert!(due > 50 && (same, left) == (0, due), "{status}");

    assert!(
        cluster
            .ask(&["status", &id])
            .contains(&format!("no other worker process was available for {due}"))
    );
    assert!(
        cluster
            .ask(&["explain", &id])
            .contains(&format!("ergodic retry {id}"))
    );

    alone.signal("TERM");
    assert_eq!(alone.wait(), 0);
    let _other = cluster.worker(1, &["--name", "second"]);
    cluster.wait_until(&id, "it has joined", |status| status["workers"] == 1);
    cluster.ask(&["retry", &id]);
    let status = cluster.wait_until(&id, "what was left is made", |status| {
        audits(status)[4] == 0
    });
    assert_eq!(audits(&status), [due, due, 0, 0, 0]);

    cluster.wait_for_end(&id);
}

#[test]
fn a_worker_that_computes_other_bits_is_found_by_an_audit_and_told_with_both_workers_for_good() {
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&format!("audit = 1\n{}", empty_sweep(20)));
    // What it delivers is made up.
    block_on(async {
        let mut liar = RawWorker::joined(&cluster.url, "a").await;
        work_through(&mut liar, 20).await;
    });

    cluster.wait_for_end(&id);
    let _worker = cluster.worker(1, &["--name", "honest"]);
    cluster.wait_until(&id, "it has joined", |status| status["workers"] == 1);
    cluster.ask(&["retry", &id]);
    cluster.wait_until(&id, "all are audited", |status| audits(status)[4] == 0);
    let told = |cluster: &Cluster| {
        let status = cluster.status(&id);
        assert_eq!(
            (audits(&status), &status["mismatches"]),
            ([20, 0, 20, 0, 0], &20.into()),
            "{status}"
        );

        assert!(
            cluster
                .ask(&["status", &id])
                .contains("ALARM: 20 results differed")
        );
        assert!(cluster.ask(&["explain", &id]).contains("ALARM"));

        let explained = cluster.ask(&["explain", &id, "0/7"]);
        let (_, alarm) = explained
            .split_once("ALARM: honest (process ")
            .expect(&explained);
        assert!(
            alarm.contains("different bits than raw-a (process aaaaaaaa), whose row is kept"),
            "{explained}"
        );

        assert!(
            alarm.contains("difference: ") && alarm.contains("digest, metrics"),
            "{explained}"
        );
        assert!(cluster.rows(&id).contains(",0.5,"), "{}", cluster.rows(&id));
    };
    told(&cluster);

    cluster.wait_for_end(&id);
    cluster.kill_and_restart_coordinator();
    told(&cluster);
}

#[test]
fn a_coordinator_killed_among_audits_neither_repeats_nor_forgets_one() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&["--lease-ttl", "10s"]);
    // The second worker has a gate of its own: it comes to audits when the first one has run the trials.
    let gate = Gate::at(&cluster.path("gate-of-the-second"));
    gate.hold_after(0);
    let held = ["env", &format!("FAILPOINTS={}", gate.failpoints())];
    let url = cluster.url.clone();
    let workers = vec![
        cluster.worker(1, &[]),
        cluster.worker_under(&held, &url, 1, &[]),
    ];

    cluster.wait_for_workers(2);
    let id = cluster.launch(&format!("audit = 1\n{text}"));
    cluster.wait_until(&id, "all trials are begun", |status| {
        status["done"]
            .as_u64()
            .zip(status["leased"].as_u64())
            .is_some_and(|(done, leased)| done + leased >= 360)
    });

    gate.hold_after(10);
    let under_way = |status: &Value| audits(status)[1] > 30 && audits(status)[4] > 30;
    let before = cluster.wait_until(&id, "audits are made", under_way);
    cluster.kill_and_restart_coordinator();
    gate.open();
    let after = cluster.status(&id);
    assert!(
        audits(&after)[1] >= audits(&before)[1] && after["state"] == "running",
        "{before}\n{after}"
    );

    let (status, done) = cluster.settle(&id, wanted, workers);
    assert_eq!(
        (audits(&status), &status["releases"]),
        ([360, 360, 0, 0, 0], &0.into()),
        "{status}"
    );

    assert_eq!(done.begun, 720, "what ran was begun again");
}

/// Delivers results of all trials of the leases that it is given, until so many have been delivered.
async fn work_through(worker: &mut RawWorker, mut trials: usize) {
    while trials > 0 {
        let grant = worker.lease().await;
        let results = (0..grant.cells.len())
            .map(|i| RawWorker::result(&grant, i, 0.5))
            .collect();
        worker.deliver(&grant, results).await.expect("taken");
        trials -= grant.cells.len();
    }
}

#[test]
fn one_that_joins_later_makes_the_audits_of_one_that_died_with_them() {
    let cluster = Cluster::start(&["--lease-ttl", "3s"]);
    let id = cluster.launch(&format!("audit = 1\n{}", empty_sweep(6)));
    block_on(async {
        let mut first = RawWorker::joined(&cluster.url, "a").await;
        let _beating = first.keep_beating();
        let mut second = RawWorker::joined(&cluster.url, "b").await;
        work_through(&mut first, 6).await;
        let status = cluster.status(&id);
        assert_eq!(
            (&status["done"], &status["state"], audits(&status)),
            (&6.into(), &"running".into(), [6, 0, 0, 0, 6])
        );

        let grant = second.lease().await;
        let key = format!("{}/{}", grant.cells[0], grant.repeats[0]);
        let explained = cluster.ask(&["explain", &id, &key]);
        assert!(
            explained.contains("run again by raw-b, after raw-a (process aaaaaaaa)"),
            "{explained}"
        );

        drop(second);
        let mut third = RawWorker::joined(&cluster.url, "c").await;
        let _beating = third.keep_beating();
        work_through(&mut third, 6).await;
        let status = cluster.wait_for_end(&id);
        assert_eq!(
            (audits(&status), &status["releases"]),
            ([6, 6, 0, 0, 0], &1.into()),
            "{status}"
        );

        assert_eq!(
            (
                &status["completed"],
                &status["failed"],
                &status["duplicates"]
            ),
            (&6.into(), &0.into(), &0.into())
        );
    });
}

#[test]
fn an_audit_that_fails_leaves_the_row_alone_and_is_made_by_a_retry() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&format!(
        "audit = 1\ntime_limit = \"10m\"\n{}",
        empty_sweep(1)
    ));
    block_on(async {
        let mut first = RawWorker::joined(&cluster.url, "a").await;
        let mut second = RawWorker::joined(&cluster.url, "b").await;
        let _beating = [first.keep_beating(), second.keep_beating()];
        work_through(&mut first, 1).await;
        let grant = second.lease().await;
        let late = v1::TrialResult {
            outcome: v1::OutcomeKind::Failed.into(),
            cause: "its time limit of 10m was over".into(),
            ..RawWorker::result(&grant, 0, f64::NAN)
        };
        let answer = second.deliver(&grant, vec![late]).await.expect("taken");
        assert_eq!((answer.stored, answer.mismatches), (0, 0));

        let status = cluster.wait_for_end(&id);
        assert_eq!(
            (audits(&status), &status["completed"], &status["failed"]),
            ([1, 0, 0, 1, 0], &1.into(), &0.into())
        );
        let explained = cluster.ask(&["explain", &id, "0/0"]);
        assert!(explained.contains(
            "Its audit, by raw-b (process bbbbbbbb), failed: its time limit of 10m was over."
        ));

        cluster.ask(&["retry", &id]);
        assert_eq!(audits(&cluster.status(&id)), [1, 0, 0, 0, 1]);
        work_through(&mut second, 1).await;
        assert_eq!(audits(&cluster.wait_for_end(&id)), [1, 1, 0, 0, 0]);
    });

    assert!(cluster.rows(&id).contains(",0.5,"), "{}", cluster.rows(&id));
}
