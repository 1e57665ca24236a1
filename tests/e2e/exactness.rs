//! Exactly once: what happens to results that come twice, late, changed, or from somebody who holds no lease.

use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, v1};
use ergodic_tests::{Cluster, RawWorker};
use tonic::Code;

use crate::{block_on, empty_sweep};

#[test]
fn a_second_delivery_is_compared_and_a_different_one_raises_an_alarm_that_outlives_the_coordinator()
{
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(3));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        let result = RawWorker::result(&grant, 0, 0.5);
        let first = worker
            .deliver(&grant, vec![result.clone()])
            .await
            .expect("taken");
        assert_eq!(
            (first.stored, first.duplicates, first.fenced),
            (1, 0, false)
        );

        // The lease has ended with its last trial, so that the second delivery meets no fence.
        let second = worker
            .deliver(&grant, vec![result.clone()])
            .await
            .expect("taken");
        assert_eq!(
            (second.stored, second.duplicates, second.mismatches),
            (0, 1, 0)
        );

        let changed = worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.6)])
            .await
            .expect("taken");
        assert_eq!(
            (changed.stored, changed.duplicates, changed.mismatches),
            (0, 0, 1)
        );
    });

    let status = cluster.status(&id);
    assert_eq!(
        (
            &status["duplicates"],
            &status["mismatches"],
            &status["done"]
        ),
        (&2.into(), &1.into(), &1.into())
    );

    assert!(cluster.ask(&["status", &id]).contains("ALARM"));
    assert!(cluster.ask(&["explain", &id]).contains("ALARM"));
    cluster.kill_and_restart_coordinator();
    let status = cluster.status(&id);
    assert_eq!(
        (
            &status["duplicates"],
            &status["mismatches"],
            &status["done"]
        ),
        (&2.into(), &1.into(), &1.into())
    );

    assert!(cluster.ask(&["status", &id]).contains("ALARM"));
    assert!(
        cluster.rows(&id).contains(",0.5,"),
        "the first delivery stays: {}",
        cluster.rows(&id)
    );
}

#[test]
fn results_under_a_lease_that_ended_are_not_stored() {
    let cluster = Cluster::start(&["--lease-ttl", "500ms"]);
    let id = cluster.launch(&empty_sweep(2));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        // A worker that says nothing for so long loses its lease and its session.
        let mut other = RawWorker::joined(&cluster.url, "b").await;
        other.keep_beating();
        let inherited = loop {
            let grant_of_other = other.lease().await;
            if (grant_of_other.cells[0], grant_of_other.repeats[0])
                == (grant.cells[0], grant.repeats[0])
            {
                break grant_of_other;
            }

            let result = RawWorker::result(&grant_of_other, 0, 0.5);
            other
                .deliver(&grant_of_other, vec![result])
                .await
                .expect("taken");
        };

        let late = worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.1)])
            .await
            .expect("answered");
        assert!(late.fenced && late.stored == 0, "{late:?}");
        let result = RawWorker::result(&inherited, 0, 0.5);
        assert_eq!(
            other
                .deliver(&inherited, vec![result])
                .await
                .expect("taken")
                .stored,
            1
        );

        // Now there is a row to compare with.
        let later = worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("answered");
        assert!(
            later.fenced && later.duplicates == 1 && later.mismatches == 0,
            "{later:?}"
        );
    });

    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (
            &status["releases"],
            &status["fenced"],
            &status["mismatches"]
        ),
        (&1.into(), &2.into(), &0.into())
    );
}

#[test]
fn a_worker_writes_only_what_it_was_granted() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(5));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        let mut alien = RawWorker::result(&grant, 0, 0.5);
        alien.key = Some(ergodic_proto::v1::TrialKey { cell: 0, repeat: 4 });
        let refused = worker
            .deliver(&grant, vec![alien])
            .await
            .expect_err("not in the lease");
        assert_eq!(refused.code(), Code::PermissionDenied);

        let thief = RawWorker::joined(&cluster.url, "b").await;
        let stolen = thief
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("answered");
        assert!(stolen.fenced && stolen.stored == 0);

        let mut malformed = RawWorker::result(&grant, 0, 0.5);
        malformed.digest = vec![1];
        let refused = worker
            .deliver(&grant, vec![malformed])
            .await
            .expect_err("malformed");
        assert!(
            refused.code() == Code::InvalidArgument && refused.message().contains("digest"),
            "{refused}"
        );
    });

    assert_eq!(cluster.status(&id)["done"], 0);
}

/// Takes leases until one holds this trial, or any where it is not yet known; delivers all others. The lease and the trial.
pub(crate) async fn reach(worker: &mut RawWorker, wanted: Option<(u64, u32)>) -> (u64, (u64, u32)) {
    loop {
        let grant = worker.lease().await;
        let keys: Vec<(u64, u32)> = grant
            .cells
            .iter()
            .copied()
            .zip(grant.repeats.iter().copied())
            .collect();
        let wanted = wanted.unwrap_or(keys[0]);
        let others = (0..keys.len())
            .filter(|i| keys[*i] != wanted)
            .map(|i| RawWorker::result(&grant, i, 0.5))
            .collect();
        worker.deliver(&grant, others).await.expect("taken");

        if keys.contains(&wanted) {
            return (grant.fence.expect("a grant has a fence").lease, wanted);
        }
    }
}

#[test]
fn a_trial_that_kills_three_workers_is_given_up_the_sweep_ends_and_a_retry_runs_it_again() {
    let mut cluster = Cluster::start(&["--lease-ttl", "500ms"]);
    let id = cluster.launch(&empty_sweep(4));
    let mut culprit = None;
    block_on(async {
        for name in ["a", "b", "c"] {
            let mut worker = RawWorker::joined(&cluster.url, name).await;
            let beating = worker.keep_beating();
            let (lease, (cell, repeat)) = reach(&mut worker, culprit).await;
            beating.abort();
            let _ = beating.await;
            culprit = Some((cell, repeat));

            let running = vec![v1::RunningTrial {
                lease,
                key: Some(v1::TrialKey { cell, repeat }),
            }];
            worker
                .say(Request::Heartbeat(v1::Heartbeat {
                    running,
                    ..v1::Heartbeat::default()
                }))
                .await;
            // It dies: the session ends without a goodbye.
        }
    });

    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["failed"]),
        (&3.into(), &1.into())
    );
    let (cell, repeat) = culprit.expect("a trial was reached");
    let explained = cluster.ask(&["explain", &id, &format!("{cell}/{repeat}")]);

    let cause = "3 workers crashed that may have been running it: raw-a, raw-b, raw-c";
    assert!(
        explained.contains(&format!("failed: {cause}")),
        "{explained}"
    );

    assert!(cluster.ask(&["retry", &id]).contains("is running"));
    cluster.kill_and_restart_coordinator();
    let _worker = cluster.worker(1, &[]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["failed"]),
        (&4.into(), &0.into())
    );

    let explained = cluster.ask(&["explain", &id, &format!("{cell}/{repeat}")]);
    assert!(
        explained.contains("completed")
            && explained.contains(&format!("earlier attempt failed: {cause}"))
    );
}

#[test]
fn a_paused_sweep_stays_paused_over_a_restart_until_it_is_resumed() {
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(4));
    assert!(cluster.ask(&["pause", &id]).contains("is paused"));
    cluster.kill_and_restart_coordinator();
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        worker
            .say(Request::RequestWork(v1::RequestWork { idle_slots: 1 }))
            .await;
        worker.beat().await;
        let status = cluster.status(&id);
        assert_eq!(
            (&status["state"], &status["leased"]),
            (&"paused".into(), &0.into())
        );

        assert!(
            cluster
                .ask(&["explain", &id])
                .contains(&format!("ergodic resume {id}"))
        );
        assert!(cluster.ask(&["resume", &id]).contains("is running"));

        let grant = worker.lease().await;
        worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("taken");

        worker.say(Request::Goodbye(v1::Goodbye {})).await;
    });

    let _worker = cluster.worker(1, &[]);
    assert_eq!(cluster.wait_for_end(&id)["completed"], 4);
    let refused = ergodic_tests::run(&["pause", &id, "--coordinator", &cluster.url]);
    assert!(
        refused.code == 4 && refused.stderr.contains("is complete"),
        "{}",
        refused.stderr
    );
}

#[test]
fn protocol_versions_are_checked_when_a_session_opens() {
    let cluster = Cluster::start(&[]);
    block_on(async {
        let refused = RawWorker::join(&cluster.url, "a", PROTOCOL_VERSION + 1)
            .await
            .err()
            .expect("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let advice = "update the coordinator";
        assert!(refused.message().contains(advice), "{refused}");

        let refused = RawWorker::join(&cluster.url, "a", OLDEST_PROTOCOL_VERSION - 1)
            .await
            .err()
            .expect("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("update the worker"), "{refused}");

        RawWorker::join(&cluster.url, "a", OLDEST_PROTOCOL_VERSION)
            .await
            .expect("one version back is fine");
    });
}

#[test]
fn after_a_cancel_no_row_appears() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(4));
    block_on(async {
        let mut worker = RawWorker::joined(&cluster.url, "a").await;
        let grant = worker.lease().await;
        assert!(cluster.ask(&["cancel", &id]).contains("cancelled"));
        assert_eq!(
            worker.revoked().await.fences,
            [grant.fence.expect("a grant has a fence")]
        );

        let late = worker
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("answered");
        assert!(late.fenced && late.stored == 0);
    });

    assert_eq!(cluster.status(&id)["done"], 0);
    assert!(cluster.ask(&["explain", &id]).contains("cancelled"));
}
