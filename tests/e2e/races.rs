//! Users who change their minds while workers work.

use ergodic_tests::Cluster;

use crate::work;

#[test]
fn sweeps_cancelled_and_launched_again_under_way_get_no_late_row() {
    let (text, wanted) = work();
    let mut cluster = Cluster::counted(&[]);
    let workers = vec![cluster.worker(1, &[]), cluster.worker(2, &[])];
    cluster.gate.hold_after(10);
    let mut cancelled = Vec::new();

    for n in 0..8 {
        let id = cluster.launch(&text);
        let under_way =
            cluster.wait_until(&id, "it is under way", |s| s["done"].as_u64() > Some(4 * n));
        assert!(cluster.ask(&["cancel", &id]).contains("cancelled"));
        let rows = cluster.rows(&id);
        let status = cluster.status(&id);

        let number = rows.lines().count() as u64 - 1;
        assert_eq!(
            (&status["leased"], &status["done"]),
            (&0.into(), &number.into()),
            "{status}"
        );

        assert!(
            Some(number) >= under_way["done"].as_u64(),
            "results are gone: {under_way}\n{status}"
        );
        cancelled.push((id, rows));
    }

    let id = cluster.launch(&text);
    cluster.gate.open();
    cluster.wait_for_end(&id);

    for (id, rows) in cancelled {
        assert_eq!(cluster.rows(&id), rows, "a row came after the end");
        assert_eq!(cluster.status(&id)["state"], "cancelled");
    }

    cluster.settle(&id, wanted, workers);
}
