//! Sweeps on a dataset with targets instead of labels.

use crate::Spec;
use crate::config::Loss;
use crate::ids::{CellIndex, FileHash};
use crate::metric::Metric;
use crate::net::Net;
use crate::pinned_file::{FileData, FilePin};
use crate::spec::SpecSource;
use crate::spec_file::grammar::TARGETS_GRAMMAR;

/// A sweep on images of 8×8×3 with so many targets, or with labels, whose file ends with `rest`.
fn source(targets: u32, train: &str, rest: &str) -> SpecSource {
    let images = FileData {
        hash: FileHash([7; 32]),
        sizes: (1000, 100),
        shape: (8, 8, 3),
        classes: if targets == 0 { 3 } else { 0 },
        targets,
        floats: true,
    };
    let pin = FilePin {
        path: "d.safetensors".into(),
        hash: images.hash,
        images: Some(images),
    };
    let text = format!(
        "name = \"t\"\nrepeats = 3\n[data]\ndataset = \"d.safetensors\"\n[model]\nkind = \"mlp\"\nhidden = [4]\nnorm = \"none\"\n\
         [train]\nsteps = 5\nbatch_size = 10\nlr = 0.1\n{train}\n{rest}"
    );
    SpecSource {
        file: "t.toml".into(),
        text,
        files: vec![pin],
        ..SpecSource::default()
    }
}

fn refusal(train: &str, rest: &str) -> String {
    let refused = Spec::read_new(&source(2, train, rest));
    refused.expect_err("refused").to_string()
}

#[test]
fn targets_have_squared_errors_and_a_network_as_many_outputs() {
    for targets in [1, 2, 300] {
        for train in ["", "loss = \"mse\"", "loss = { kind = \"mse\" }"] {
            let spec = Spec::read_new(&source(targets, train, "")).expect("fine");
            let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
            assert_eq!(config.train.loss, Loss::Mse);
            let net = Net::from_config(&config).expect("a network");
            assert_eq!(net.classes, targets as usize);
            assert_eq!(
                net.layers.last().map(|layer| layer.output.channels),
                Some(targets as usize)
            );
            assert_eq!(
                spec.measure.metrics,
                [Metric::TrainLoss, Metric::TestLoss],
                "what a file that names none has"
            );
        }
    }

    let labels = Spec::read_new(&source(0, "", "")).expect("fine");
    assert_eq!(labels.measure.metrics, [Metric::TrainLoss, Metric::TestAcc]);
    let config = labels.grid.resolve_config(CellIndex(0)).expect("a cell");
    assert_eq!(config.train.loss, Loss::CrossEntropy { smoothing: 0.0 });
}

#[test]
fn a_measure_with_expressions_has_the_metrics_of_targets_in_every_cell() {
    let rest = "[grid]\nk = [1, 2]\n[derive]\nwd = \"k/1000\"\n[measure]\nevery = \"k steps\"\n";
    let spec = Spec::read_new(&source(1, "", rest)).expect("fine");
    for cell in 0..2 {
        let measure = spec.measure_in(CellIndex(cell)).expect("a cell");
        assert_eq!(measure.metrics, [Metric::TrainLoss, Metric::TestLoss]);
    }
    let named = format!("{rest}metrics = [\"test_acc\"]\n");
    Spec::read_new(&source(1, "", &named)).expect_err("refused");
}

#[test]
fn only_programs_that_know_targets_take_the_sweep() {
    let with_targets = source(2, "", "");
    let spec = Spec::read_new(&with_targets).expect("fine");
    assert_eq!(spec.min_grammar(), TARGETS_GRAMMAR);
    let labels = Spec::read_new(&source(0, "", "")).expect("fine");
    assert_eq!(labels.min_grammar(), 1);

    let earlier = SpecSource {
        grammar: TARGETS_GRAMMAR - 1,
        ..with_targets
    };
    let error = Spec::read_stored(&earlier).expect_err("too early");
    assert!(
        error.to_string().contains("since version 6 of the grammar"),
        "{error}"
    );
}

#[test]
fn what_needs_classes_is_refused_by_name() {
    for (train, rest, words) in [
        (
            "loss = \"cross-entropy\"",
            "",
            "t.toml:13: train.loss: cross-entropy is of classes, and 'y_train' holds numbers (F32): set loss = \"mse\"",
        ),
        (
            "loss = { kind = \"cross-entropy\", label_smoothing = 0.1 }",
            "",
            "t.toml:13: train.loss: cross-entropy is of classes",
        ),
        (
            "loss = { label_smoothing = 0.1 }",
            "",
            "t.toml:13: train.loss.label_smoothing: this belongs to kind = \"cross-entropy\" only",
        ),
        (
            "",
            "[grid]\n\"train.loss\" = [\"mse\", \"cross-entropy\"]\n",
            "cross-entropy is of classes",
        ),
        (
            "",
            "[measure]\nmetrics = [\"test_loss\", \"test_acc\"]\n",
            "t.toml:15: measure.metrics: test_acc is a share of images that are classified correctly, and images have targets \
             ('y_train' is F32): name test_loss",
        ),
        (
            "",
            "[measure]\nmetrics = [\"average_val_acc\"]\n",
            "name average_val_loss",
        ),
        (
            "",
            "[measure]\nprobe = { points = 10 }\n",
            "t.toml:15: measure.probe: predictions are classes",
        ),
        (
            "",
            "[grid]\nlr = [0.1, 0.2]\n[[claim]]\nname = 'c'\nform = 'labels'\nbelow = 0.1\nover = 'lr'\n",
            "predictions are classes",
        ),
        (
            "",
            "[[claim]]\nname = 'c'\nof = 'test_acc'\nabove = 0.5\n",
            "test_acc is a share of images",
        ),
    ] {
        let message = refusal(train, rest);
        assert!(message.contains(words), "{message}\n{words}");
    }

    let noisy = SpecSource {
        settings: vec!["data.label_noise=0.1".into()],
        ..source(2, "", "")
    };
    let error = Spec::read_new(&noisy).expect_err("refused").to_string();
    assert!(
        error.contains("data.label_noise: the images have targets, and no labels to replace"),
        "{error}"
    );
}

#[test]
fn images_with_targets_can_be_augmented_and_kept_aside() {
    let settings = [
        "data.augment=crop-flip",
        "data.validation=100",
        "data.label_noise=0",
    ];
    let augmented = SpecSource {
        settings: settings.map(str::to_owned).to_vec(),
        ..source(
            2,
            "",
            "[measure]\nmetrics = [\"val_loss\", \"hessian_top\", \"grad_noise_trace\"]\n",
        )
    };
    Spec::read_new(&augmented).expect("fine");
}
