//! Trials that take long are kept by the coordinator: what one worker was stopped in, another one goes on with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ergodic_tests::{Cluster, RawWorker, paced, paced_steps};
use tonic::Code;

use crate::{block_on, empty_sweep};

/// One trial with state of every kind.
const LONG: &str = r#"
name    = "long"
seed    = 3
[data]
train   = 400
test    = 50
augment = "crop-flip"
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 4000
batch_size = 8
lr         = 0.01
optimizer  = { momentum = 0.9 }
average    = { kind = "ema", decay = 0.99 }
[measure]
every   = "200 steps"
metrics = ["test_acc", "average_test_acc", "train_loss", "init_distance"]
probe   = { points = 20, at = ["400 steps", "final"] }
"#;

/// The step at which it is held.
const HELD: u64 = 1000;

/// Rows, curves and predictions of the sweep's only trial.
fn yielded(cluster: &Cluster, id: &str) -> [String; 3] {
    let of = |what: &str| cluster.ask(&[what, id, "--format", "csv"]);
    [cluster.rows(id), of("curves"), of("predictions")]
}

/// What the trial yields without any fault.
fn undisturbed() -> &'static [String; 3] {
    static YIELDED: OnceLock<[String; 3]> = OnceLock::new();
    YIELDED.get_or_init(|| {
        let mut cluster = Cluster::start(&[]);
        let _worker = cluster.worker(1, &["--checkpoint-every", "off"]);
        let id = cluster.launch(&paced(LONG));
        cluster.wait_for_end(&id);
        yielded(&cluster, &id)
    })
}

fn cluster() -> Cluster {
    Cluster::start(&["--lease-ttl", "1s"])
}

/// Files of checkpoints that a coordinator keeps, on their way or in their place.
fn kept(cluster: &Cluster) -> Vec<PathBuf> {
    fn below(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                below(&entry.path(), files);
            } else {
                files.push(entry.path());
            }
        }
    }

    let mut files = Vec::new();
    below(&cluster.path("store/data/checkpoints"), &mut files);
    files
}

/// The step after which the trial is kept, as the coordinator tells it.
fn kept_step(cluster: &Cluster, id: &str) -> Option<u64> {
    let words = cluster.ask(&["explain", id, "0/0"]);
    let (_, rest) = words.split_once("A checkpoint after ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Starts the trial on a worker and kills it when it is kept. Gives the sweep's id.
fn killed_when_kept(cluster: &mut Cluster) -> String {
    cluster.gate.hold_at_step(paced_steps(HELD));
    let victim = cluster.worker(1, &["--checkpoint-every", "50ms"]);
    let id = cluster.launch(&paced(LONG));
    cluster.wait_until(&id, "the trial is kept", |status| {
        status["checkpoints"] == 1
    });

    victim.kill();
    cluster.gate.open();
    assert_eq!(cluster.status(&id)["done"], 0);
    id
}

/// The trial goes on from where it was kept, to the same bits, and nothing of it is left.
fn goes_on(cluster: &mut Cluster, id: &str) -> u64 {
    let before = kept_step(cluster, id).expect("it is kept");
    let heir = cluster.worker(1, &[]);
    cluster.wait_for_end(id);
    let from = heir.wait_for_log("resuming from a checkpoint trial=0/0 steps=");
    assert_eq!(from.parse(), Ok(before), "it goes on elsewhere");
    assert!(
        yielded(cluster, id) == *undisturbed(),
        "{:?}",
        yielded(cluster, id)
    );

    assert_eq!(
        (
            cluster.status(id)["checkpoints"].as_u64(),
            kept_step(cluster, id)
        ),
        (Some(0), None)
    );

    cluster
        .coordinator()
        .wait_until("its file is removed", || kept(cluster).is_empty());
    before
}

#[test]
fn what_a_killed_worker_ran_goes_on_elsewhere_with_the_same_bits() {
    let mut cluster = cluster();
    let id = killed_when_kept(&mut cluster);
    assert!(goes_on(&mut cluster, &id) > 0);
}

#[test]
fn a_worker_told_to_leave_sends_a_checkpoint_before_it_gives_the_trial_back() {
    let mut cluster = cluster();
    cluster.gate.hold_at_step(paced_steps(HELD));
    let first = cluster.worker(1, &["--checkpoint-every", "1h", "--drain", "1200ms"]);
    let id = cluster.launch(&paced(LONG));
    cluster.wait_until(&id, "the trial is running", |_| {
        let workers: serde_json::Value =
            serde_json::from_str(&cluster.ask(&["workers", "--format", "json"]))
                .expect("the workers are JSON");
        workers[0]["running"] == 1
    });

    first.signal("TERM");
    let log = first.log();
    assert_eq!(first.wait(), 0, "{log}");
    let status = cluster.status(&id);
    assert_eq!(
        (&status["done"], &status["leased"], &status["checkpoints"]),
        (&0.into(), &0.into(), &1.into())
    );

    cluster.gate.open();
    assert!(goes_on(&mut cluster, &id) > 0);
    assert_eq!(
        cluster.status(&id)["releases"],
        0,
        "the lease was given back, not lost"
    );
}

#[test]
fn checkpoints_outlive_the_coordinator_and_what_nobody_needs_is_removed_at_its_start() {
    let mut cluster = cluster();
    let id = killed_when_kept(&mut cluster);
    let file = kept(&cluster).pop().expect("a file");
    let folder = file.parent().expect("the sweep's folder").to_owned();
    let whole = std::fs::read(&file).expect("it can be read");

    // Half a file on its way, one of another sweep, one in another's place, and one that says nothing.
    let strange = folder.parent().expect("the folder of all").join("abcdefgh");
    std::fs::create_dir(&strange).expect("a folder can be made");
    let orphans = [
        folder.with_file_name("1-2-3.part"),
        strange.join("x-0"),
        folder.join("x-0"),
        folder.join("empty"),
    ];
    for (orphan, content) in orphans.iter().zip([&whole[..], &whole, &whole, &[]]) {
        std::fs::write(orphan, content).expect("a file can be written");
    }

    cluster.kill_and_restart_coordinator();
    assert_eq!(kept(&cluster), [file]);
    goes_on(&mut cluster, &id);
}

#[test]
fn a_trial_whose_checkpoint_is_damaged_begins_anew_and_yields_the_same() {
    let mut cluster = cluster();
    let id = killed_when_kept(&mut cluster);
    let file = kept(&cluster).pop().expect("a file");
    let mut content = std::fs::read(&file).expect("it can be read");
    let middle = content.len() / 2;
    content[middle] ^= 1;

    std::fs::write(&file, content).expect("it can be written");
    let heir = cluster.worker(1, &[]);
    cluster.wait_for_end(&id);
    assert!(
        heir.log()
            .contains("its checkpoint cannot be fetched; the trial begins anew"),
        "{}",
        heir.log()
    );

    assert!(!heir.log().contains("resuming from"), "{}", heir.log());
    assert!(yielded(&cluster, &id) == *undisturbed());
}

#[test]
fn only_the_holder_of_a_lease_keeps_its_trials_or_has_what_was_kept() {
    let cluster = Cluster::start(&["--lease-ttl", "3s"]);
    let id = cluster.launch(&empty_sweep(1));
    block_on(async {
        let mut holder = RawWorker::joined(&cluster.url, "a").await;
        let other = RawWorker::joined(&cluster.url, "b").await;
        let grant = holder.lease().await;
        assert!(grant.checkpointed.is_empty());
        let fence = grant.fence.expect("a fence");
        let mut newer = grant.clone();
        newer.fence = Some(ergodic_proto::v1::Fence {
            epoch: fence.epoch + 1,
            ..fence
        });

        let mut foreign = grant.clone();
        foreign.repeats[0] += 1;

        for (worker, grant) in [(&other, &grant), (&holder, &newer), (&holder, &foreign)] {
            let refused = worker
                .keep(grant, 7, b"state")
                .await
                .expect_err("it holds no such lease");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        }

        holder
            .keep(&grant, 7, b"state")
            .await
            .expect("it holds the lease");
        holder
            .keep(&grant, 8, &vec![3; 3 << 20])
            .await
            .expect("a later one replaces it");

        assert_eq!(kept_step(&cluster, &id), Some(8));
        let refused = other.kept(&grant).await.expect_err("it holds no lease");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

        // The lease runs out, and another worker has it.
        let beating = holder.keep_beating();
        holder.revoked().await;
        beating.abort();
        let refused = holder
            .keep(&grant, 9, b"too late")
            .await
            .expect_err("the lease is over");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

        drop(other);
        let mut heir = RawWorker::joined(&cluster.url, "c").await;
        let grant = heir.lease().await;
        assert_eq!(grant.checkpointed.len(), 1);
        assert!(heir.kept(&grant).await.expect("it holds the lease") == vec![3; 3 << 20]);
        heir.deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("taken");

        let refused = heir
            .keep(&grant, 10, b"state")
            .await
            .expect_err("the trial has its row");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    });

    cluster
        .coordinator()
        .wait_until("its file is removed", || kept(&cluster).is_empty());
}

#[test]
fn a_cancelled_sweep_leaves_no_checkpoint() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_at_step(paced_steps(HELD));
    let worker = cluster.worker(1, &["--checkpoint-every", "50ms"]);
    let id = cluster.launch(&paced(LONG));
    cluster.wait_until(&id, "the trial is kept", |status| {
        status["checkpoints"] == 1
    });

    cluster.ask(&["cancel", &id]);
    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
    assert_eq!(cluster.status(&id)["checkpoints"], 0);
    cluster
        .coordinator()
        .wait_until("its file is removed", || kept(&cluster).is_empty());
}
