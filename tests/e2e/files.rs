//! Files that a sweep file names: datasets and initial weights.

use ergodic_common::dataset::{Images, generate_glyphs};
use ergodic_tests::{Cluster, run};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A sweep of small trainings on this dataset, with more under `[model]`.
pub(crate) fn sweep(dataset: &str, model: &str) -> String {
    format!(
        "name = \"files\"\nrepeats = 2\nseed = 3\n[data]\ndataset = \"{dataset}\"\ntrain = 500\ntest = 100\n\
         [model]\nkind = \"mlp\"\nhidden = [24]\n{model}\n[train]\nsteps = 20\nbatch_size = 32\n\
         [grid]\nlr = [0.05, 0.1]\n[measure]\nmetrics = [\"test_acc\", \"train_loss\"]\nsave = [\"final\"]\n"
    )
}

/// The generated dataset as a file, as bytes or as floats in [0, 1].
pub(crate) fn glyphs_file(floats: bool) -> Vec<u8> {
    let data = generate_glyphs();
    let x = |part: &Images| -> Vec<u8> {
        if floats {
            part.pixels
                .iter()
                .flat_map(|p| (f32::from(*p) / 255.0).to_le_bytes())
                .collect()
        } else {
            part.pixels.clone()
        }
    };
    let parts =
        [("train", &data.train), ("test", &data.test)].map(|(name, part)| (name, x(part), part));
    let views = parts.iter().flat_map(|(name, x, part)| {
        let dtype = if floats { Dtype::F32 } else { Dtype::U8 };
        let images = TensorView::new(dtype, vec![part.len(), 28, 28], x).expect("as many numbers");
        let labels =
            TensorView::new(Dtype::U8, vec![part.len()], &part.labels).expect("as many labels");
        [(format!("x_{name}"), images), (format!("y_{name}"), labels)]
    });

    serialize(views, None).expect("a small header")
}

/// One column of the trials of a sweep.
fn column(cluster: &Cluster, id: &str, name: &str) -> Vec<String> {
    let trials: serde_json::Value =
        serde_json::from_str(&cluster.ask(&["trials", id, "--format", "json"]))
            .expect("valid JSON");
    trials
        .as_array()
        .expect("a list")
        .iter()
        .map(|trial| trial[name].to_string())
        .collect()
}

#[test]
fn a_dataset_file_is_trained_on_like_the_dataset_it_holds() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let finish = |text: &str| {
        let id = cluster.launch(text);
        cluster.wait_for_end(&id);
        id
    };
    let built_in = finish(&sweep("glyphs", ""));

    std::fs::write(cluster.path("bytes.safetensors"), glyphs_file(false)).expect("written");
    std::fs::write(cluster.path("floats.safetensors"), glyphs_file(true)).expect("written");
    let bytes = finish(&sweep("bytes.safetensors", ""));
    let digests = column(&cluster, &built_in, "digest");
    assert_eq!(
        (digests.len(), &digests),
        (4, &column(&cluster, &bytes, "digest"))
    );

    // Floats are standardised in another way: the same images to rounding.
    let floats = finish(&sweep("floats.safetensors", ""));
    assert_ne!(column(&cluster, &floats, "digest"), digests);
    let number = |text: &String| text.parse::<f64>().expect("a number");
    let losses = [&built_in, &floats].map(|id| column(&cluster, id, "train_loss"));
    assert!(
        losses[0]
            .iter()
            .zip(&losses[1])
            .all(|(a, b)| (number(a) - number(b)).abs() < 1e-4),
        "{losses:?}"
    );

    assert!(
        cluster
            .ask(&["status", &floats])
            .contains("floats.safetensors: 500 of 10000")
    );
}

#[test]
fn trained_weights_are_the_start_of_the_next_sweep() {
    let mut cluster = Cluster::start(&[]);
    let _worker = cluster.worker(2, &[]);
    let first = cluster.launch(&sweep("glyphs", ""));
    cluster.wait_for_end(&first);

    for (trial, name) in [("0/0", "a.safetensors"), ("1/1", "b.safetensors")] {
        cluster.ask(&[
            "weights",
            &first,
            trial,
            "-o",
            &cluster.path(name).to_string_lossy(),
        ]);
    }

    let text = sweep("glyphs", "").replace(
        "lr = [",
        "\"model.init.file\" = [\"a.safetensors\", \"b.safetensors\"]\nlr = [",
    );
    let second = cluster.launch(&text);

    // What is pinned is what the file held at the launch.
    std::fs::remove_file(cluster.path("a.safetensors")).expect("removed");
    cluster.kill_and_restart_coordinator();
    cluster.wait_for_end(&second);
    let digests = column(&cluster, &second, "digest");
    let different: std::collections::BTreeSet<&String> = digests.iter().collect();
    assert_eq!(different.len(), 8);

    assert!(
        cluster
            .ask(&["replay", &second, "3/1"])
            .contains("the same bits")
    );
    let before = column(&cluster, &first, "train_loss")
        .iter()
        .map(|x| x.parse().expect("a number"))
        .fold(0.0, f64::max);

    let after = column(&cluster, &second, "train_loss")
        .iter()
        .map(|x| x.parse().expect("a number"))
        .fold(0.0, f64::max);
    assert!(
        after < before,
        "training went on from where it was: {after} after {before}"
    );
}

#[test]
fn files_that_will_not_do_are_refused_and_nothing_is_stored() {
    let cluster = Cluster::start(&[]);
    std::fs::write(cluster.path("text.safetensors"), "nothing of this kind").expect("written");
    std::fs::write(cluster.path("data.safetensors"), glyphs_file(false)).expect("written");
    let init = |name: &str| format!("init = {{ file = \"{name}\" }}");
    for (dataset, model, words) in [
        (
            "missing.safetensors",
            String::new(),
            "is missing: looked for",
        ),
        (
            "text.safetensors",
            String::new(),
            "text.safetensors: this is no safetensors file",
        ),
        (
            "glyphs",
            init("missing.safetensors"),
            "'missing.safetensors' that it names is missing",
        ),
        (
            "glyphs",
            init("data.safetensors"),
            "model.init.file: data.safetensors: the model has no tensor 'x_test'",
        ),
    ] {
        let file = cluster.path("sweep.toml");
        std::fs::write(&file, sweep(dataset, &model)).expect("written");
        let refused = run(&[
            "launch",
            &file.to_string_lossy(),
            "--coordinator",
            &cluster.url,
        ]);
        assert_eq!(refused.code, 2, "{refused:?}");

        assert!(
            refused.stderr.contains(words) && !refused.stderr.contains("panicked"),
            "{refused:?}"
        );
    }

    assert!(cluster.ask(&["list"]).contains("no sweep yet"));
}
