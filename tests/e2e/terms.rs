//! The terms on which trials are run: how long they may take, whose turn it is, who checks them.

use ergodic_tests::Cluster;

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
    assert_eq!((&status["completed"], &status["failed"]), (&2.into(), &2.into()));
    let explained = cluster.ask(&["explain", &id, "0/1"]);
    let (_, reached) = explained.split_once("failed: its time limit of 200ms was over after ").expect(&explained);
    let steps: u64 = reached.split(' ').next().and_then(|steps| steps.parse().ok()).expect(reached);
    assert!(steps > 0 && reached.contains("of 1000000000 steps"), "{explained}");
}
