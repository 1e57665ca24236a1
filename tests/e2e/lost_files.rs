//! Files that rows name: none goes while a row names it or is about to, and one that is lost is told of and computed again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ergodic_proto::v1;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_tests::{Cluster, Postgres, RawWorker, connection, run, skip};
use rusqlite::Connection;
use tonic::Code;

use crate::weights::KEEPING;
use crate::{block_on, empty_sweep};

/// Sends a file as a worker does, which asks first whether it is there.
async fn send(url: &str, file: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(file).as_bytes().to_vec();
    let mut files = FileServiceClient::new(connection(url).await);
    let has = files
        .has(v1::HasRequest { hash: hash.clone() })
        .await
        .expect("it answers");
    if !has.into_inner().present {
        let put = v1::PutRequest {
            hash: hash.clone(),
            chunk: file.to_vec(),
        };
        files
            .put(tokio_stream::iter([put]))
            .await
            .expect("it is taken");
    }

    hash
}

fn naming(grant: &v1::Grant, weights: &[u8]) -> Vec<v1::TrialResult> {
    vec![v1::TrialResult {
        weights: Some(weights.to_vec()),
        ..RawWorker::result(grant, 0, 0.5)
    }]
}

/// One sweep's result is stored and the sweep removed, while another worker was told that the file is here for its own.
fn removed_between(cluster: &Cluster, folder: PathBuf) {
    let first = cluster.launch(&empty_sweep(1));
    let second = cluster.launch(&empty_sweep(1));
    block_on(async {
        let mut a = RawWorker::joined(&cluster.url, "a").await;
        let mut b = RawWorker::joined(&cluster.url, "b").await;
        let of_a = a.lease().await;
        let of_b = b.lease().await;
        let (of_first, of_second) = if of_a.sweep == first {
            (&of_a, &of_b)
        } else {
            (&of_b, &of_a)
        };
        assert_eq!((&of_first.sweep, &of_second.sweep), (&first, &second));

        let (a, b) = if of_a.sweep == first { (a, b) } else { (b, a) };
        let hash = send(&cluster.url, b"weights").await;
        assert_eq!(send(&cluster.url, b"weights").await, hash);
        a.deliver(of_first, naming(of_first, &hash))
            .await
            .expect("it is stored");

        cluster.ask(&["rm", "--force", &first]);
        let name = hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert!(
            folder.join(&name).exists(),
            "somebody was told that it is here"
        );

        b.deliver(of_second, naming(of_second, &hash))
            .await
            .expect("it is stored");
        assert_eq!(
            std::fs::read(folder.join(&name)).expect("it is there"),
            b"weights"
        );
    });

    assert_eq!(cluster.wait_for_end(&second)["completed"], 1);
    let out = cluster.path("w").to_string_lossy().into_owned();
    cluster.ask(&["weights", &second, "0/0", "-o", &out]);
}

#[test]
fn a_file_that_two_were_told_of_stays_until_both_have_named_it() {
    let cluster = Cluster::start(&[]);
    removed_between(&cluster, cluster.path("store/data"));
}

#[test]
fn a_file_that_two_were_told_of_stays_until_both_have_named_it_on_postgres() {
    let database = match Postgres::start() {
        Ok(database) => database,
        Err(why) => {
            return skip(
                "a_file_that_two_were_told_of_stays (PostgreSQL)",
                "postgres",
                &why,
            );
        }
    };

    let files = tempfile::tempdir().expect("a temporary directory");
    let folder = files.path().to_string_lossy().into_owned();
    let cluster = Cluster::start(&["--store", &database.url(), "--files", &folder]);
    removed_between(&cluster, files.path().to_owned());
}

#[test]
fn a_result_that_names_a_file_that_never_came_is_refused_until_it_has_come() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(1));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        let hash = blake3::hash(b"late").as_bytes().to_vec();
        let refused = worker
            .deliver(&grant, naming(&grant, &hash))
            .await
            .expect_err("the file is not here");
        assert!(
            refused.code() == Code::FailedPrecondition
                && refused.message().contains("send it first"),
            "{refused}"
        );

        assert_eq!(cluster.status(&id)["done"], 0);
        send(&cluster.url, b"late").await;
        let taken = worker
            .deliver(&grant, naming(&grant, &hash))
            .await
            .expect("it is here now");
        assert_eq!(taken.stored, 1);
    });

    assert_eq!(cluster.status(&id)["done"], 1);
}

fn files(cluster: &Cluster) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(cluster.path("store/data")).expect("the folder of files");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_none() && path.is_file())
        .collect()
}

#[test]
fn weights_that_are_lost_are_told_of_hinder_no_backup_and_are_computed_again() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    let before = files(&cluster);
    let wanted = cluster.rows(&id);

    let weights = ["0/0", "0/1"].map(|trial| {
        let out = cluster.path("w");
        cluster.ask(&["weights", &id, trial, "-o", &out.to_string_lossy()]);
        std::fs::read(out).expect("written")
    });

    let place =
        |content: &Vec<u8>| cluster.path(&format!("store/data/{}", blake3::hash(content).to_hex()));
    let missing = place(&weights[0]);
    let damaged = place(&weights[1]);
    std::fs::remove_file(&missing).expect("removed");
    let mut torn = weights[1].clone();
    torn[100] ^= 1;

    std::fs::write(&damaged, torn).expect("written");

    let file = cluster.path("backup").to_string_lossy().into_owned();
    let backup = cluster.run(&["backup", "-o", &file]);
    assert!(
        backup.code == 0 && backup.stdout.contains("1 sweep with 4 rows"),
        "{backup:?}"
    );

    assert_eq!(
        backup.stderr.matches("the backup lacks the file").count(),
        2,
        "{backup:?}"
    );
    assert!(
        backup.stderr.contains("it is missing") && backup.stderr.contains("it is damaged"),
        "{backup:?}"
    );

    let elsewhere = cluster.path("elsewhere").to_string_lossy().into_owned();
    let restored = run(&["restore", &file, "--store", &elsewhere]);
    assert!(
        restored.code == 0 && restored.stderr.contains("the backup lacks the file"),
        "{restored:?}"
    );

    worker.kill();
    cluster.take_coordinator().kill();
    cluster.restart_with(&["--check"]);
    cluster.wait_for_log("weights of trials are lost");
    assert!(
        cluster
            .coordinator()
            .log()
            .contains(&format!("ergodic retry {id}")),
        "it says what to do"
    );

    let _worker = cluster.worker(2, &[]);
    cluster.ask(&["retry", &id]);
    cluster.wait_until(&id, "both are there again", |_| {
        missing.exists() && damaged.exists()
    });
    cluster.wait_for_end(&id);

    assert_eq!((files(&cluster), cluster.rows(&id)), (before, wanted));
    assert_eq!(
        [missing, damaged].map(|path| std::fs::read(path).expect("it is there")),
        weights
    );
    let again = cluster.run(&["retry", &id]);
    assert!(
        again.code == 4 && again.stderr.contains("no failed trial"),
        "nothing is lost any more: {again:?}"
    );
}

/// A sweep that has ended, and the place of a file of its weights, which is gone.
fn without_a_file(cluster: &Cluster) -> (String, PathBuf) {
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    let out = cluster.path("w");
    cluster.ask(&["weights", &id, "0/0", "-o", &out.to_string_lossy()]);
    let content = std::fs::read(out).expect("written");
    let place = cluster.path(&format!("store/data/{}", blake3::hash(&content).to_hex()));
    std::fs::remove_file(&place).expect("removed");
    (id, place)
}

#[test]
fn a_launch_of_trials_that_are_there_has_lost_weights_computed_again() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let (id, place) = without_a_file(&cluster);
    let file = cluster.path("sweep.toml").to_string_lossy().into_owned();
    let launch = || {
        let launched = cluster.run(&["launch", &file]);
        assert_eq!(
            (launched.code, launched.stdout.trim()),
            (0, &id[..]),
            "{launched:?}"
        );

        launched.stderr
    };
    let said = launch();
    assert!(
        said.contains("1 trial that failed, or lost a file, is run again"),
        "{said}"
    );

    let status = cluster.wait_until(&id, "it is there again", |status| {
        place.exists() && status["state"] == "completed"
    });
    assert_eq!(
        (&status["audits_due"], &status["audits_same"]),
        (&1.into(), &1.into()),
        "shown though none were asked for"
    );

    let explained = cluster.ask(&["explain", &id, "0/0"]);
    assert!(
        explained.contains("ran it again, after ") && !explained.contains("(process )"),
        "{explained}"
    );
    assert!(
        cluster
            .ask(&["explain", &id])
            .contains("Audit: 1 of 1 trial was")
    );

    let said = launch();
    assert!(said.contains("nothing is run"), "{said}");
}

#[test]
fn a_row_that_is_damaged_hinders_neither_a_retry_nor_a_check_of_weights_that_others_name() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let (id, place) = without_a_file(&cluster);
    let database = cluster.path("store/ergodic.sqlite");
    let change = "UPDATE trials SET seconds = seconds + 1 WHERE cell = 0 AND repeat = 1";
    Connection::open(database)
        .and_then(|connection| connection.execute(change, []))
        .expect("changed");

    cluster.ask(&["retry", &id]);
    cluster.wait_until(&id, "it is there again", |_| place.exists());
    cluster.take_coordinator().kill();
    std::fs::remove_file(&place).expect("removed again");
    cluster.restart_with(&["--check"]);
    cluster.wait_for_log("weights of trials are lost");

    assert!(
        cluster
            .coordinator()
            .log()
            .contains("the row of a trial is damaged"),
        "{}",
        cluster.coordinator().log()
    );
}

#[test]
fn a_retry_that_finds_lost_files_has_failed_audits_made_again_as_well() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&format!("audit = 1\n{}", empty_sweep(2)));
    let audits = || {
        let status = cluster.status(&id);
        ["due", "same", "failed", "left"].map(|what| {
            status[&format!("audits_{what}")]
                .as_u64()
                .expect("a number")
        })
    };

    block_on(async {
        let mut first = RawWorker::joined(&cluster.url, "a").await;
        let mut second = RawWorker::joined(&cluster.url, "b").await;
        let _beating = [first.keep_beating(), second.keep_beating()];
        let hash = send(&cluster.url, b"weights").await;
        let result = |grant: &v1::Grant, i: usize| {
            let weights = (grant.repeats[i] == 0).then(|| hash.clone());
            v1::TrialResult {
                weights,
                ..RawWorker::result(grant, i, 0.5)
            }
        };
        let failure = |grant: &v1::Grant, i: usize| v1::TrialResult {
            outcome: v1::OutcomeKind::Failed.into(),
            cause: "it fails".into(),
            ..RawWorker::result(grant, i, f64::NAN)
        };

        work_off(&mut first, &result).await;
        work_off(&mut second, &failure).await;
        cluster.wait_for_end(&id);
        assert_eq!(audits(), [2, 0, 2, 0]);
        let name = hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        std::fs::remove_file(cluster.path("store/data").join(name)).expect("removed");

        cluster.ask(&["retry", &id]);
        assert_eq!(audits(), [2, 0, 0, 2]);
        send(&cluster.url, b"weights").await;
        work_off(&mut second, &result).await;
        cluster.wait_for_end(&id);

        assert_eq!(audits(), [2, 2, 0, 0]);
    });
}

/// Delivers such results of two trials, in however many leases these are given.
async fn work_off(worker: &mut RawWorker, result: &impl Fn(&v1::Grant, usize) -> v1::TrialResult) {
    let mut left = 2;
    while left > 0 {
        let grant = worker.lease().await;
        let results = (0..grant.cells.len()).map(|i| result(&grant, i)).collect();
        worker.deliver(&grant, results).await.expect("taken");
        left -= grant.cells.len();
    }
}

#[test]
fn files_that_nothing_names_are_collected_and_no_others() {
    let mut cluster = Cluster::start(&[]);
    let worker = cluster.worker(2, &[]);
    let id = cluster.launch(KEEPING);
    cluster.wait_for_end(&id);
    worker.kill();
    let named = files(&cluster);

    block_on(async {
        send(&cluster.url, b"forgotten").await;
        send(&cluster.url, b"under way").await;
    });
    let place =
        |content: &[u8]| cluster.path(&format!("store/data/{}", blake3::hash(content).to_hex()));
    let forgotten = place(b"forgotten");

    let under_way = place(b"under way");
    let part = cluster.path("store/data/1-1-1.part");
    std::fs::write(&part, b"half").expect("written");
    let old = SystemTime::now() - Duration::from_secs(24 * 3600);

    for path in named.iter().chain([&forgotten, &part]) {
        let file = std::fs::File::options()
            .append(true)
            .open(path)
            .expect("it is there");
        file.set_modified(old).expect("its time can be set");
    }

    cluster.kill_and_restart_coordinator();
    cluster.wait_for_log("unreferenced files were removed");
    let mut left = named;
    left.insert(under_way);
    assert_eq!(files(&cluster), left);

    assert!(!forgotten.exists() && !part.exists());
}

#[test]
fn a_folder_that_held_files_before_keeps_what_nothing_names() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    // As another store left it, whose coordinator signs nothing.
    let of_other = folder
        .path()
        .join(blake3::hash(b"weights").to_hex().as_str());
    std::fs::write(&of_other, b"weights").expect("written");
    let file = std::fs::File::options()
        .append(true)
        .open(&of_other)
        .expect("it is there");
    file.set_modified(SystemTime::now() - Duration::from_secs(24 * 3600))
        .expect("its time can be set");

    let mut cluster = Cluster::start(&["--files", &folder.path().to_string_lossy()]);
    cluster.wait_for_log("unreferenced files are not removed");
    cluster.kill_and_restart_coordinator();
    cluster
        .coordinator()
        .wait_for_log_times("unreferenced files are not removed", 2);

    assert_eq!(std::fs::read(of_other).expect("it is there"), b"weights");
}
