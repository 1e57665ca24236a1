//! The terms on which trials are run: how long they may take, whose turn it is, who checks them.

use ergodic_proto::v1;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_tests::{Cluster, RawWorker, run};

use crate::{block_on, empty_sweep};

#[test]
fn a_trial_over_its_time_limit_fails_with_the_step_it_reached_and_the_others_go_on() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(
        "name = \"limited\"\nrepeats = 2\ntime_limit = \"200ms\"\n[model]\nkind = \"toy\"\n[train]\nlr = 0.1\n\
         [grid]\n\"train.steps\" = [1000000000, 20]\n[measure]\nevery = \"500000000 steps\"\n\
         metrics = [\"train_loss\"]\n",
    );
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["failed"]),
        (&2.into(), &2.into())
    );

    let explained = cluster.ask(&["explain", &id, "0/1"]);
    let (_, reached) = explained
        .split_once("failed: it exceeded its time limit of 200ms after ")
        .expect(&explained);
    let steps: u64 = reached
        .split(' ')
        .next()
        .and_then(|steps| steps.parse().ok())
        .expect(reached);

    assert!(
        steps > 0 && reached.contains("of 1000000000 steps"),
        "{explained}"
    );
}

#[test]
fn a_share_decides_whose_turn_it_is_and_outlives_the_coordinator() {
    let mut cluster = Cluster::start(&[]);
    let first = cluster.launch(&empty_sweep(1));
    let second = cluster.launch(&format!("priority = -1\nweight = 0.5\n{}", empty_sweep(2)));
    let shares = |cluster: &Cluster, id: &str| {
        (
            cluster.status(id)["priority"].clone(),
            cluster.status(id)["weight"].clone(),
        )
    };
    assert_eq!(
        (shares(&cluster, &first), shares(&cluster, &second)),
        ((0.into(), 1.0.into()), ((-1).into(), 0.5.into()))
    );

    assert!(
        cluster
            .ask(&["share", &second, "--priority", "-2", "--weight", "3"])
            .contains("priority -2, weight 3")
    );
    assert!(
        cluster
            .ask(&["share", &second, "--priority", "9"])
            .contains("priority 9, weight 3")
    );

    cluster.kill_and_restart_coordinator();
    assert_eq!(shares(&cluster, &second), (9.into(), 3.0.into()));
    let list = cluster.ask(&["list", "--format", "csv"]);
    assert!(
        list.contains("priority,weight") && list.contains(",9,3"),
        "{list}"
    );

    block_on(async {
        let grant = RawWorker::joined(&cluster.url, "a").await.lease().await;
        assert_eq!(grant.sweep, second, "the higher priority goes first");
    });
    let refused =
        |args: &[&str]| run(&[&["share", &first, "--coordinator", &cluster.url], args].concat());

    for (args, words) in [
        (&["--priority", "101"][..], "priority: expected"),
        (&["--weight", "0"], "weight: expected"),
    ] {
        let finished = refused(args);
        assert!(
            finished.code == 2 && finished.stderr.contains(words),
            "{}",
            finished.stderr
        );
    }

    cluster.ask(&["cancel", &first]);
    let finished = refused(&["--priority", "1"]);
    assert!(
        finished.code == 4 && finished.stderr.contains("was cancelled"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_straggler_is_asked_for_what_it_has_not_begun_and_another_worker_does_it() {
    let mut cluster = Cluster::start(&[]);
    let id = cluster.launch(&empty_sweep(2000));
    block_on(async {
        let mut straggler = RawWorker::joined(&cluster.url, "a").await;
        let _beating = straggler.keep_beating();
        // Its first results were quick, so that its next lease is a large one. Then it takes its time.
        let grant = straggler.lease().await;
        straggler
            .deliver(&grant, vec![RawWorker::result(&grant, 0, 0.5)])
            .await
            .expect("taken");

        let grant = straggler.lease().await;
        assert!(grant.cells.len() > 100, "{}", grant.cells.len());
        let _worker = cluster.worker(1, &["--name", "quick"]);
        let asked = straggler.asked_back().await;
        assert_eq!(asked.fence, grant.fence);
        let keep = grant.cells.len() - asked.trials as usize;
        let cells = grant.cells[keep..].to_vec();

        let repeats = grant.repeats[keep..].to_vec();
        straggler
            .say(Request::Retracted(v1::Retracted {
                fence: grant.fence,
                cells,
                repeats,
            }))
            .await;

        cluster.wait_until(&id, "another worker does them", |status| {
            status["done"] == 2000 - keep
        });
        let kept = (0..keep)
            .map(|i| RawWorker::result(&grant, i, 0.5))
            .collect();
        assert_eq!(
            straggler.deliver(&grant, kept).await.expect("taken").stored as usize,
            keep
        );
    });

    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (
            &status["completed"],
            &status["duplicates"],
            &status["releases"]
        ),
        (&2000.into(), &0.into(), &0.into())
    );
}
