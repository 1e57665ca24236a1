//! Bad input: one paragraph that names the field or path and the remedy, the documented exit code, nothing stored.

use ergodic_tests::{Cluster, Finished, run};

use crate::{SWEEP, trials};

pub(crate) fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, code, "{}", finished.stderr);
    assert!(finished.stdout.is_empty(), "{}", finished.stdout);
    let text = finished.stderr.trim();
    assert!(
        text.starts_with("error: ") && !text.contains("\n\n") && !text.contains("panicked"),
        "{text}"
    );

    for word in words {
        assert!(text.contains(word), "'{word}' is missing in: {text}");
    }
}

#[test]
fn sweeps_that_mean_nothing_are_refused_by_launch_run_and_plan() {
    let cluster = Cluster::start(&[]);
    let cases: [(&str, &str, &[&str]); 9] = [
        ("lr = [0.05, 0.2, 1e38]", "lr = []", &["grid.lr", "empty"]),
        (
            "lr = [0.05, 0.2, 1e38]",
            "lr = { log = [0, 1], points = 3 }",
            &["grid.lr.log", "above 0"],
        ),
        (
            "lr = [0.05, 0.2, 1e38]",
            "lr = [nan]",
            &["grid.lr", "finite"],
        ),
        (
            "batch_size = 32",
            "batch_size = 0",
            &["train.batch_size", ">= 1"],
        ),
        (
            "batch_size = 32",
            "batch_sise = 32",
            &["train.batch_sise", "did you mean 'batch_size'"],
        ),
        (
            "\"mlp\"",
            "\"mpl\"",
            &["model.kind", "'mpl'", "did you mean 'mlp'"],
        ),
        (
            "lr = [0.05, 0.2, 1e38]\nwd = [0.0, 1e-3]",
            "lr = { linear = [0, 1], points = 1000000 }\nwd = { linear = [0, 1], points = 1000000 }",
            &["grid", "1e12 cells", "10000000"],
        ),
        (
            "repeats = 12",
            "repeats = 1000000000",
            &["repeats", "too many"],
        ),
        ("[grid]", "[gird]", &["unknown key 'gird'", "grid"]),
    ];

    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("sweep.toml");
    let (path, store) = (
        file.to_string_lossy().into_owned(),
        dir.path().join("store"),
    );

    for (from, to, words) in cases {
        assert!(SWEEP.contains(from), "{from}");
        std::fs::write(&file, SWEEP.replace(from, to)).expect("a file can be written");
        let named = [&["sweep.toml"], words].concat();
        refused(
            &run(&["launch", &path, "--coordinator", &cluster.url]),
            2,
            &named,
        );

        refused(
            &run(&["run", &path, "--dir", &store.to_string_lossy()]),
            2,
            &named,
        );

        refused(&run(&["plan", &path]), 2, &named);
    }

    assert!(!store.exists(), "a refused run leaves nothing behind");
    assert_eq!(cluster.ask(&["list", "--format", "json"]), "[]\n");
}

#[test]
fn files_that_are_missing_damaged_or_directories_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    refused(
        &run(&["plan", &path("none.toml")]),
        2,
        &["none.toml", "no such sweep file"],
    );

    refused(&run(&["plan", &path("")]), 2, &["directory"]);
    std::fs::write(path("bad.toml"), [0xff, 0xfe]).expect("a file can be written");
    refused(
        &run(&["plan", &path("bad.toml")]),
        2,
        &["bad.toml", "UTF-8"],
    );
    // What has no end is read up to a limit.
    for (command, limit) in [
        (&["plan", "/dev/zero"][..], "4194304 bytes"),
        (
            &["verdict", "latest", "--claims", "/dev/zero"],
            "4194304 bytes",
        ),
        (&["list", "--token-file", "/dev/zero"], "1048576 bytes"),
    ] {
        refused(&run(command), 2, &["/dev/zero", limit]);
    }

    std::fs::write(path("sweep.toml"), SWEEP.replace("glyphs", "mnist"))
        .expect("a file can be written");
    let launch = |data: &[&str]| {
        let sweep = path("sweep.toml");
        let store = path("store");
        run(&[&["run", &sweep, "--dir", &store], data].concat())
    };
    refused(&launch(&[]), 2, &["mnist", "--data-dir", "torchvision"]);

    refused(
        &launch(&["--data-dir", &path("nowhere")]),
        2,
        &["nowhere/mnist/train-images-idx3-ubyte", "torchvision"],
    );
    std::fs::create_dir_all(path("data/mnist/train-images-idx3-ubyte"))
        .expect("a directory can be made");

    refused(
        &launch(&["--data-dir", &path("data")]),
        2,
        &["train-images-idx3-ubyte", "found a directory"],
    );
    std::fs::create_dir_all(path("cut/mnist")).expect("a directory can be made");

    std::fs::write(
        path("cut/mnist/train-images-idx3-ubyte"),
        [0, 0, 8, 3, 0, 0],
    )
    .expect("a file can be written");
    std::fs::write(path("cut/mnist/train-labels-idx1-ubyte"), [0, 0, 8, 1])
        .expect("a file can be written");

    refused(
        &launch(&["--data-dir", &path("cut")]),
        2,
        &["cut/mnist/train-images-idx3-ubyte", "truncated"],
    );

    assert!(
        !dir.path().join("store").exists(),
        "a refused run leaves nothing behind"
    );
}

#[test]
fn a_worker_gives_back_what_does_not_fit_into_its_memory() {
    let mut cluster = Cluster::start(&[]);
    let small = cluster.worker(2, &["--name", "small", "--memory", "8MiB"]);
    let id = cluster.launch(SWEEP);
    small.wait_for_log("do not fit into the 8 MiB");
    let explained = cluster.ask(&["explain", &id]);
    assert!(
        explained.contains("small") && explained.contains("more --memory"),
        "{explained}"
    );

    assert_eq!(cluster.status(&id)["done"], 0);
    let _large = cluster.worker(2, &["--name", "large", "--memory", "64MiB"]);
    assert_eq!(cluster.wait_for_end(&id)["failed"], 0);
}

#[test]
fn a_coordinator_that_does_not_answer_is_named() {
    // A port that was free a moment ago, and that nobody was told of.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);

    for command in [&["list"][..], &["table", "latest"], &["cancel", "latest"]] {
        let mut finished = run(&[command, &["--coordinator", &url]].concat());
        // The client waits a little for a coordinator that is only starting, and says so.
        let error = finished.stderr.find("error: ").expect("an error");
        assert!(finished.stderr.starts_with("nothing listens at "));
        finished.stderr.drain(..error);
        refused(
            &finished,
            3,
            &[&url, "ergodic serve", "ERGODIC_COORDINATOR"],
        );
    }

    refused(
        &run(&["list", "--coordinator", "nonsense nowhere"]),
        2,
        &["nonsense nowhere", "http://"],
    );
    for url in ["http://127.0.0.1:99999", "http://127.0.0.1:"] {
        let words = &["--coordinator: ", url, "1 to 65535"];
        refused(&run(&["list", "--coordinator", url]), 2, words);
    }
}

#[test]
fn unknown_sweeps_axes_metrics_and_trials_are_not_found() {
    let cluster = Cluster::start(&[]);
    let ask = |args: &[&str]| run(&[args, &["--coordinator", &cluster.url]].concat());
    refused(&ask(&["table", "latest"]), 5, &["no sweep yet"]);
    let id = cluster.launch(SWEEP);
    refused(&ask(&["table", "zzz"]), 5, &["zzz", "ergodic list"]);
    refused(
        &ask(&["table", &id, "--by", "lrr"]),
        5,
        &["lrr", "did you mean 'lr'"],
    );

    refused(
        &ask(&["table", &id, "--metric", "test_loss"]),
        5,
        &["test_loss", "known: "],
    );
    refused(&ask(&["explain", &id, "99/0"]), 5, &["99/0"]);

    refused(&ask(&["table", &id, "--at", "soon"]), 2, &["20 epochs"]);
}

#[test]
fn a_second_coordinator_on_a_store_or_an_address_is_refused() {
    let cluster = Cluster::start(&[]);
    let store = cluster.path("store").to_string_lossy().into_owned();
    refused(
        &run(&["serve", "--store", &store, "--listen", "127.0.0.1:0"]),
        4,
        &["running coordinator, process", &store],
    );

    let address = cluster.url.trim_start_matches("http://").to_owned();
    let other = cluster.path("other").to_string_lossy().into_owned();
    refused(
        &run(&["serve", "--store", &other, "--listen", &address]),
        4,
        &[&address, "--listen"],
    );
}

#[test]
fn a_coordinator_told_to_stop_does_so_in_good_order() {
    let mut cluster = Cluster::start(&[]);
    cluster.gate.hold_after(2);
    let _worker = cluster.worker(1, &[]);
    let id = cluster.launch(SWEEP);
    cluster.wait_until_held(&id, trials(2));
    let coordinator = cluster.take_coordinator();
    coordinator.signal("TERM");
    assert_eq!(coordinator.wait(), 0);
}
