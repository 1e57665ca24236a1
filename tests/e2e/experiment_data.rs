//! Data of experiments: pinned at the launch, brought to workers that lack them, and part of the identity of cells.

use std::path::Path;

use ergodic_common::dataset::{Images, generate_glyphs};
use ergodic_tests::{Cluster, program, run, run_in};

use crate::files::glyphs_file;

/// The worker program of `worker/examples`, which has the perceptron.
const WORKER: &str = "examples/char_transformer";

/// The sweep file of the perceptron with these data, and fewer cells and steps.
fn sweep_text(data: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/experiments/perceptron.toml");
    let mut text = std::fs::read_to_string(path).expect("the sweep of the example");
    for (from, to) in [
        (
            "dataset = \"glyphs\"\ntrain   = 2000\ntest    = 1000\n",
            data,
        ),
        ("repeats = 3", "repeats = 2"),
        ("epochs  = 5", "epochs  = 20"),
        ("[0.03, 0.1, 0.3]", "[0.1, 0.3]"),
        ("[16, 64]", "[8]"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

/// Writes glyphs as the files of MNIST, with so many images.
fn write_as_mnist(folder: &Path, (train, test): (usize, usize)) {
    let glyphs = generate_glyphs();
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |prefix: &str, images: &Images, count: usize| {
        for (kind, magic, sizes, content) in [
            (
                "images-idx3-ubyte",
                0x803_u32,
                vec![count as u32, 28, 28],
                &images.pixels[..count * 784],
            ),
            (
                "labels-idx1-ubyte",
                0x801,
                vec![count as u32],
                &images.labels[..count],
            ),
        ] {
            let head = std::iter::once(magic).chain(sizes);
            let head = head.flat_map(u32::to_be_bytes);
            let bytes: Vec<u8> = head.chain(content.iter().copied()).collect();
            std::fs::write(folder.join(format!("{prefix}-{kind}")), bytes).expect("written");
        }
    };
    write("train", &glyphs.train, train);
    write("t10k", &glyphs.test, test);
}

/// One column of the trials of a sweep.
fn column(cluster: &Cluster, id: &str, name: &str) -> Vec<String> {
    let answer = cluster.ask(&["trials", id, "--format", "json"]);
    let trials: serde_json::Value = serde_json::from_str(&answer).expect("valid JSON");
    let trials = trials.as_array().expect("a list");
    trials.iter().map(|trial| trial[name].to_string()).collect()
}

#[test]
fn a_worker_without_files_trains_on_the_data_of_the_launch_with_the_same_bits() {
    let files = tempfile::tempdir().expect("a folder");
    write_as_mnist(&files.path().join("mnist"), (600, 200));
    let data_dir = files.path().to_string_lossy().into_owned();
    let mut cluster = Cluster::start(&["--lease-ttl", "2s", "--data-dir", &data_dir]);
    let owner = cluster.worker_of(WORKER, 1, &["--data-dir", &data_dir]);
    let bare = cluster.worker_of(WORKER, 1, &[]);
    cluster.wait_for_workers(2);

    let text = sweep_text("dataset = \"mnist\"\ntrain = 400\ntest = 200\n")
        .replace("repeats = 2", "repeats = 2\naudit = 1.0");
    let id = cluster.launch(&text);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&4.into(), &0.into()),
        "{status}"
    );
    // Another worker process has run each trial again, so both workers took part.
    assert_eq!(status["audits_same"], 4, "{status}");
    let words =
        "mnist: 400 of the first 600 of 60000 training images, the first 200 of 10000 test images";
    let described = status["data"].as_str().unwrap_or_default();
    assert!(described.starts_with(words), "{status}");
    let fetched = "dataset fetched from the coordinator";
    assert!(bare.log().contains(fetched), "{}", bare.log());
    assert!(!owner.log().contains(fetched), "{}", owner.log());
    for accuracy in column(&cluster, &id, "test_acc") {
        let accuracy: f64 = accuracy.parse().expect("a number");
        // Guessing gives 0.1, with a standard error of 0.02.
        assert!(accuracy > 0.2, "nothing is learnt: {accuracy}");
    }

    // Reuse, extension and replay know the sweep by its data.
    let path = cluster.path("sweep.toml").to_string_lossy().into_owned();
    let again = cluster.run(&["launch", &path]);
    assert!(
        again.stderr.contains("has the results of all these trials"),
        "{again:?}"
    );
    let longer = cluster.ask(&["extend", &id, "--repeats", "3"]);
    let longer = cluster.wait_for_end(longer.trim());
    assert_eq!(
        (&longer["done"], &longer["failed"]),
        (&6.into(), &0.into()),
        "{longer}"
    );
    let worker = program(WORKER).to_string_lossy().into_owned();
    let replayed = cluster.ask(&["replay", &id, "1/1", "--worker-bin", &worker]);
    assert!(replayed.contains("the same bits here"), "{replayed}");
}

#[test]
fn a_file_of_one_s_own_gives_the_same_bits_and_other_data_give_others() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker_of(WORKER, 2, &[]);
    cluster.wait_for_workers(1);
    std::fs::write(cluster.path("bytes.safetensors"), glyphs_file(false)).expect("written");
    let run_with = |data: &str| {
        let id = cluster.launch(&sweep_text(data));
        let status = cluster.wait_for_end(&id);
        assert_eq!(
            (&status["done"], &status["failed"]),
            (&4.into(), &0.into()),
            "{status}"
        );
        column(&cluster, &id, "digest")
    };

    let built_in = run_with("dataset = \"glyphs\"\ntrain = 500\ntest = 100\n");
    assert_eq!(
        run_with("dataset = \"bytes.safetensors\"\ntrain = 500\ntest = 100\n"),
        built_in
    );
    for data in [
        "train = 450\ntest = 100\n",
        "train = 500\ntest = 100\nstandardize = false\n",
    ] {
        let other = run_with(data);
        assert!(other.iter().zip(&built_in).all(|(a, b)| a != b), "{data}");
    }

    let sizes = sweep_text("test = 100\n").replace("[8]", "[8]\n\"data.train\" = [450, 500]");
    let id = cluster.launch(&sizes);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&8.into(), &0.into()),
        "{status}"
    );
    let digests = column(&cluster, &id, "digest");
    assert!(built_in.iter().all(|digest| digests.contains(digest)));

    // A trial takes what the launch promised, and a launch promises what a trial needs.
    let path = cluster.path("sweep.toml");
    for (from, to, words) in [
        (
            "[data]\n",
            "",
            "sweep.toml: data: the experiment perceptron needs data: add [data] with a dataset, such as dataset = \"glyphs\"",
        ),
        (
            "[data]\n",
            "[data]\ndataset = \"mnist\"\n",
            "mnist needs files",
        ),
        (
            "[data]\n",
            "[data]\naugment = \"flip\"\n",
            "sweep.toml:8: data.augment: an experiment gets its data unchanged: remove data.augment",
        ),
    ] {
        std::fs::write(&path, sweep_text("").replace(from, to)).expect("written");
        let refused = cluster.run(&["launch", &path.to_string_lossy()]);
        assert!(
            refused.code != 0 && refused.stderr.contains(words),
            "{to}: {refused:?}"
        );
    }
}

#[test]
fn a_plan_shows_the_data_of_an_experiment_and_warns_of_equal_repeats() {
    let dir = tempfile::tempdir().expect("a folder");
    let fixed = "seeds = { fixed = [\"init\", \"head\", \"order\", \"augment\"] }\n";
    let text = sweep_text("train = 400\n").replace("[data]", &format!("{fixed}[data]"));
    std::fs::write(dir.path().join("sweep.toml"), text).expect("written");
    let planned = run_in(dir.path(), &[], &["plan", "sweep.toml"]);
    for words in [
        "  data: glyphs: 400 of 10000 training images, all 2000 test images, class-balanced by seed 0; blake3 ",
        "standardized per channel; 10 classes of 40 training images each",
        "  experiment: perceptron, in the version of the worker program",
        "time: not known for an experiment before its first trials have run",
        "checked: the file and its 2 cells; the images and labels of glyphs; the launch checks each config",
    ] {
        assert!(planned.stdout.contains(words), "{planned:?}");
    }
    let warning =
        "warning: repeats: all streams of seeds (init, head, order, augment) are fixed or crossed";
    assert!(planned.stderr.contains(warning), "{planned:?}");

    let json = run_in(dir.path(), &[], &["plan", "sweep.toml", "--format", "json"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    let experiment = &plan["experiment"];
    assert_eq!(
        (&plan["cells"], &plan["trials"]),
        (&2.into(), &4.into()),
        "{plan}"
    );
    assert_eq!(experiment["name"], "perceptron");
    let data = plan["data"].as_str().unwrap_or_default();
    assert!(data.starts_with("glyphs: 400 of 10000"), "{plan}");
    assert_eq!(experiment["metrics"][0]["better"], "max", "{plan}");

    let worker = program(WORKER).to_string_lossy().into_owned();
    let path = dir.path().join("sweep.toml").to_string_lossy().into_owned();
    let runs = dir.path().join("runs").to_string_lossy().into_owned();
    let finished = run(&["run", &path, "--store", &runs, "--worker-bin", &worker]);
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stderr.contains(warning), "{finished:?}");
    assert!(
        finished.stderr.contains("data: glyphs: 400 of 10000"),
        "{finished:?}"
    );
}
