//! What trials of programs take of their worker: slots, memory and GPUs.

use ergodic_tests::Cluster;
use serde_json::Value;

use crate::program_trials::{PLAIN_COMMAND, cluster, launch_script};

/// A script that fails if another one of the same name runs beside it, and reports otherwise.
const ALONE: &str = "mkdir \"$LOCK.$CUDA_VISIBLE_DEVICES\" || exit 1
    echo \"$CUDA_VISIBLE_DEVICES\" >> \"$LOCK.seen\"
    sleep 0.05
    rmdir \"$LOCK.$CUDA_VISIBLE_DEVICES\"
    echo '{\"step\": 1, \"loss\": 5}' > \"$ERGODIC_METRICS\"";

/// Launches trials of which no two may have the same GPUs, or run at a time without any.
fn launch_alone(cluster: &Cluster, needs: &str) -> String {
    let lock = cluster.path("lock");
    let program = format!("{PLAIN_COMMAND}\n{needs}\nenv = {{ LOCK = {lock:?} }}");
    launch_script(cluster, ALONE, &program, "repeats = 6")
}

fn assert_all_completed(cluster: &Cluster, id: &str) {
    let status = cluster.wait_for_end(id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&Value::from(6), &Value::from(0)),
        "{status}"
    );
}

/// Waits until the explanation of a sweep has these words.
fn wait_for_words(cluster: &Cluster, id: &str, words: &str) {
    ergodic_tests::wait_for(words, || cluster.ask(&["explain", id]).contains(words));
}

#[test]
fn wide_trials_take_several_slots() {
    let mut cluster = cluster();
    let _narrow = cluster.worker(1, &["--programs", "--name", "narrow"]);
    cluster.wait_for_workers(1);
    let id = launch_alone(&cluster, "slots = 2");
    let why = "narrow cannot run it: a trial takes 2 slots, and this worker has 1: start one with --slots 2";
    wait_for_words(&cluster, &id, why);

    let _wide = cluster.worker(3, &["--programs"]);
    assert_all_completed(&cluster, &id);
}

#[test]
fn trials_run_at_a_time_as_far_as_the_memory_suffices() {
    let mut cluster = cluster();
    let _worker = cluster.worker(4, &["--programs", "--memory", "1GiB"]);
    let id = launch_alone(&cluster, "memory = \"600 MiB\"");
    assert_all_completed(&cluster, &id);

    let id = launch_alone(&cluster, "memory = \"2 GiB\"");
    let why = "a trial takes 2048 MiB of memory, and this worker has 1024 MiB";
    wait_for_words(&cluster, &id, why);
}

#[test]
fn each_trial_sees_the_gpus_that_are_its_own() {
    let mut cluster = cluster();
    let _worker = cluster.worker(4, &["--programs", "--gpus", "5,7"]);
    let id = launch_alone(&cluster, "gpus = 1");
    assert_all_completed(&cluster, &id);
    let seen = std::fs::read_to_string(cluster.path("lock.seen")).expect("the trials write it");
    assert!(
        seen.lines().all(|gpu| gpu == "5" || gpu == "7") && seen.lines().count() == 6,
        "{seen}"
    );

    let id = launch_alone(&cluster, "gpus = 3");
    let why = "a trial takes GPUs: 3, and this worker has 2: start one";
    wait_for_words(&cluster, &id, why);
}
