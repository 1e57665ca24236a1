//! What sweep files mean, and what is said of those that mean nothing.

use std::time::Duration;

use proptest::prelude::*;

use crate::Spec;
use crate::config::{ModelKind, SHORT_NAMES, Toy};
use crate::ids::{CellIndex, DatasetHash, FileHash, Repeat, ShapeClass, TrialIndex};
use crate::pinned_file::{FileData, FilePin};
use crate::random_streams::Purpose;
use crate::spec::scheduling::Share;
use crate::spec::source::SpecSource;
use crate::spec_file::grammar::GRAMMAR;
use crate::trial::TrialKey;

const BASE: &str = r#"
name = "t"
repeats = 3
seed = 20
[data]
dataset = "glyphs"
train = 1000
[model]
kind = "cnn4"
width = 4
[train]
epochs = 2
batch_size = 32
lr = 0.1
optimizer = { kind = "sgd", momentum = 0.9 }
"#;

pub(super) fn source(rest: &str, settings: &[&str]) -> SpecSource {
    let settings = settings.iter().map(|s| (*s).to_owned()).collect();
    SpecSource {
        file: "sweep.toml".into(),
        text: format!("{BASE}{rest}"),
        settings,
        ..SpecSource::default()
    }
}

fn read(rest: &str) -> Spec {
    Spec::read_stored(&source(rest, &[])).expect("a valid sweep")
}

pub(super) fn refusal(rest: &str, settings: &[&str]) -> String {
    Spec::read_stored(&source(rest, settings))
        .expect_err(rest)
        .to_string()
}

#[test]
fn axes_override_train_and_settings_override_the_file() {
    let spec = Spec::read_stored(&source(
        "[grid]\nlr = [0.1, 0.2]\n\"model.init.scale\" = [1, 2]\n",
        &["wd=0.5", "repeats=7"],
    ))
    .expect("a valid sweep");
    assert_eq!((spec.grid.cell_count(), spec.trial_count()), (4, 28));

    let config = spec
        .grid
        .resolve_config(CellIndex(3))
        .expect("cell 3 resolves");
    assert_eq!(
        (config.train.lr, config.model.init_scale, config.train.wd),
        (0.2, 2.0, 0.5)
    );
}

#[test]
fn a_setting_replaces_an_axis_whose_name_has_dots() {
    let grid = "[grid]\n\"model.norm\" = [\"batch\", \"none\"]\nlr = [0.1, 0.2]\n";
    for setting in [
        "grid.model.norm=[\"none\"]",
        "grid.\"model.norm\"=[\"none\"]",
    ] {
        let spec = Spec::read_stored(&source(grid, &[setting])).expect("a valid sweep");
        let axes: Vec<&str> = spec.grid.axes().iter().map(|a| a.name.as_str()).collect();
        assert_eq!(axes, ["model.norm", "lr"], "{setting}");
        assert_eq!(spec.grid.cell_count(), 2, "{setting}");
    }
}

#[test]
fn validation_is_blamed_for_leaving_less_than_a_batch() {
    let mut source = source("", &["data.validation=9990"]);
    source.text = source.text.replace("train = 1000\n", "");
    let error = Spec::read_stored(&source).expect_err("10 images are left");
    assert_eq!(error.path, "data.validation");
    let message = error.to_string();
    assert!(message.contains("leave 10 training images"), "{message}");
}

#[test]
fn a_full_batch_has_no_batch_size() {
    let read_with = |setting: &str, batch: &str| {
        let mut source = source("", &[setting]);
        source.text = source.text.replace("batch_size = 32\n", batch);
        Spec::read_stored(&source)
            .map(|spec| spec.grid.resolve_config(CellIndex(0)).expect("a cell"))
    };

    let without = read_with("data.order=full-batch", "").expect("it is not used");
    let with = read_with("data.order=full-batch", "batch_size = 32\n").expect("it may be there");
    assert_eq!(without.identity_fields(), with.identity_fields());
    assert_eq!(without.effective_batch_size(), 1000);

    let refused = read_with("data.order=shuffle", "").expect_err("it is used");
    assert_eq!(refused.path, "train.batch_size");
}

#[test]
fn files_are_named_pinned_and_part_of_a_cells_identity() {
    let text = "[grid]\n\"model.init.file\" = [\"a.safetensors\", \"b.safetensors\"]\n";
    let named = SpecSource {
        settings: vec!["data.dataset='d.safetensors'".into()],
        ..source(text, &[])
    };
    assert_eq!(
        named.named_files(),
        ["a.safetensors", "b.safetensors", "d.safetensors"]
    );

    assert_eq!(
        source("", &["name=other"]).sweep_name().as_deref(),
        Some("other")
    );
    assert_eq!(
        source("", &["name.x=1"]).sweep_name(),
        source("", &[]).sweep_name(),
        "whatever else is wrong"
    );

    let pin = |path: &str, hash| FilePin {
        path: path.into(),
        hash: FileHash([hash; 32]),
        images: None,
    };
    let with = |a, b| {
        let files = vec![pin("a.safetensors", a), pin("b.safetensors", b)];
        Spec::read_stored(&SpecSource {
            files,
            ..source(text, &[])
        })
        .expect("a valid sweep")
    };

    let hash = |spec: &Spec, cell| {
        spec.compute_cell_hash(
            &spec.grid.resolve_config(CellIndex(cell)).expect("a cell"),
            DatasetHash::NONE,
        )
    };
    let one = with(1, 2);
    let other = with(1, 3);
    assert_eq!(
        one.grid
            .resolve_config(CellIndex(1))
            .expect("a cell")
            .model
            .init_file,
        Some(FileHash([2; 32]))
    );

    assert_eq!(hash(&one, 0), hash(&other, 0));
    assert_ne!(hash(&one, 1), hash(&other, 1));
    let error = Spec::read_stored(&source(text, &[]))
        .expect_err("no file came along")
        .to_string();
    assert!(
        error.contains("grid.model.init.file") || error.contains("model.init.file"),
        "{error}"
    );

    for (more, words) in [
        (
            "[model.init]\nfile = \"w.pt\"\n",
            "path of a .safetensors file",
        ),
        (
            "[model.init]\nscheme = \"orthogonal\"\n[grid]\n\"model.init.file\" = [\"a.safetensors\"]\n",
            "decides the initial",
        ),
    ] {
        let files = vec![pin("a.safetensors", 1)];
        let error = Spec::read_stored(&SpecSource {
            files,
            ..source(more, &[])
        })
        .expect_err(more)
        .to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn images_to_validate_on_are_taken_from_the_training_images() {
    let config = |rest: &str| {
        let text = BASE.replace("train = 1000\n", rest);
        let spec = Spec::read_stored(&SpecSource {
            text,
            ..source("", &[])
        })
        .expect("a valid sweep");
        spec.grid
            .resolve_config(CellIndex(0))
            .expect("cell 0 resolves")
    };
    let plain = config("");

    let some = config("validation = 400\n");
    assert_eq!((plain.data.train, plain.data.validation), (10_000, 0));
    assert_eq!(
        (some.data.train, some.data.validation, some.total_steps()),
        (9_600, 400, 600)
    );

    let fields = |config: &crate::TrialConfig| {
        config
            .identity_fields()
            .iter()
            .map(|(path, _)| *path)
            .collect::<Vec<_>>()
    };
    assert!(
        !fields(&plain).contains(&"data.validation"),
        "cells without keep their identity"
    );

    assert!(fields(&some).contains(&"data.validation"));
    // How many steps an epoch has depends on them.
    let spec =
        read("[grid]\n\"data.validation\" = [0, 500]\n[measure]\nmetrics = [\"test_acc\"]\n");
    assert_eq!(spec.grid.class_count(), 2);
    let message = refusal(
        "[grid]\n\"data.validation\" = [0, 500]\n[measure]\nmetrics = [\"average_val_loss\"]\n",
        &[],
    );

    assert!(
        message.contains("average_val_loss needs validation images"),
        "{message}"
    );
}

#[test]
fn images_without_sides_are_neither_mirrored_nor_moved() {
    let read = |shape, augment: &str| {
        let data = FileData {
            hash: FileHash([7; 32]),
            sizes: (1000, 100),
            shape,
            classes: 3,
            targets: 0,
            floats: true,
        };
        let files = vec![FilePin {
            path: "d.safetensors".into(),
            hash: FileHash([7; 32]),
            images: Some(data),
        }];

        let settings = vec![
            "data.dataset='d.safetensors'".into(),
            format!("data.augment={augment}"),
        ];
        Spec::read_new(&SpecSource {
            settings,
            files,
            ..source("", &[])
        })
        .map(|_| ())
        .map_err(|e| e.to_string())
    };

    for (shape, augment, fine) in [
        ((1, 1, 784), "none", true),
        ((1, 1, 784), "flip", false),
        ((1, 1, 784), "crop-flip", false),
        ((1, 2, 3), "flip", true),
        ((4, 28, 1), "crop-flip", false),
        ((28, 4, 1), "crop-flip", false),
        ((5, 5, 1), "crop-flip", true),
    ] {
        match read(shape, augment) {
            Ok(()) => assert!(fine, "{shape:?} {augment}"),
            Err(error) => {
                assert!(
                    !fine && error.contains("data.augment") && error.contains("[image, feature]"),
                    "{error}"
                )
            }
        }
    }
}

#[test]
fn derived_fields_use_free_names_axes_and_plain_fields() {
    let spec = read(
        "[grid]\nlr = [0.1, 0.5]\nintrinsic_lr = [1e-4, 5e-5]\n[derive]\nwd = \"intrinsic_lr / lr\"\n\
         momentum = \"min(0.9, wd * train.epochs)\"\n",
    );
    let config = spec
        .grid
        .resolve_config(CellIndex(1))
        .expect("cell 1 resolves");
    assert_eq!(config.train.wd, 5e-5 / 0.1);
    assert_eq!(config.train.momentum, 2.0 * (5e-5 / 0.1));
}

#[test]
fn a_derived_field_is_named_with_or_without_quotes() {
    let grid = "[grid]\na = [2, 4]\n[derive]\n";
    let quoted = read(&format!(
        "{grid}\"model.init.scale\" = \"a\"\n\"train.wd\" = \"0.1/a\"\n"
    ));
    let plain = read(&format!(
        "{grid}model.init.scale = \"a\"\ntrain.wd = \"0.1/a\"\n"
    ));
    for cell in [CellIndex(0), CellIndex(1)] {
        let [quoted, plain] = [&quoted, &plain].map(|spec| spec.grid.resolve_config(cell));
        assert_eq!(quoted.expect("a cell"), plain.expect("a cell"));
    }

    let message = refusal("[derive]\nmodel.init.scle = \"2\"\n", &[]);
    assert!(message.contains("derive.model.init.scle"), "{message}");
    let message = refusal("[derive]\ntrain.lr = 2\n", &[]);
    assert!(
        message.contains("derive.train.lr: expected an expression"),
        "{message}"
    );
}

#[test]
fn a_cell_is_found_by_what_differs_in_it() {
    let zipped = "lr = [0.1, 0.2, 0.3]\nwd = [1e-3, 2e-3, 3e-3]\nmomentum = [0, 0.9]\nzip = [[\"lr\", \"wd\"]]\n";
    let grid = read(&format!("[grid]\n{zipped}")).grid;
    assert_eq!(
        grid.cell_with_values(CellIndex(5), &[(0, 1)]),
        Some(CellIndex(3))
    );
    assert_eq!(grid.value_indices(CellIndex(3)), [1, 1, 1]);
    assert_eq!(
        grid.cell_with_values(CellIndex(5), &[(1, 0), (2, 0)]),
        Some(CellIndex(0))
    );
    assert_eq!(
        grid.cell_with_values(CellIndex(5), &[(0, 0), (1, 1)]),
        None,
        "these two move together"
    );

    let kept = read(&format!(
        "[grid]\n{zipped}[where]\nkeep = \"lr < 0.25 || momentum > 0\"\n"
    ))
    .grid;
    assert_eq!(
        (
            kept.cell_with_values(CellIndex(0), &[(0, 2)]),
            kept.cell_with_values(CellIndex(0), &[(0, 2), (2, 1)])
        ),
        (None, Some(CellIndex(5)))
    );
}

#[test]
fn zipped_and_random_axes_move_together() {
    let zipped = read(
        "[grid]\nlr = [0.1, 0.2, 0.3]\nwd = [1e-3, 2e-3, 3e-3]\nmomentum = [0, 0.9]\nzip = [[\"lr\", \"wd\"]]\n",
    );
    assert_eq!(zipped.grid.cell_count(), 6);
    let config = zipped
        .grid
        .resolve_config(CellIndex(5))
        .expect("cell 5 resolves");
    assert_eq!(
        (config.train.lr, config.train.wd, config.train.momentum),
        (0.3, 3e-3, 0.9)
    );

    let random = read(
        "[grid]\nlr = { log_uniform = [1e-3, 1], samples = 50 }\nwd = { log_uniform = [1e-5, 1e-2], samples = 50 }\n",
    );
    assert_eq!(random.grid.cell_count(), 50);
}

#[test]
fn where_keeps_cells_and_their_numbers() {
    let all = read("[grid]\nlr = [0.1, 0.2, 0.4]\nwd = [1e-3, 1e-2]\n");
    let some = read(
        "[grid]\nlr = [0.1, 0.2, 0.4]\nwd = [1e-3, 1e-2]\n[where]\nkeep = \"lr * wd <= 2e-3 && lr != 0.2\"\n",
    );
    assert_eq!(
        some.grid.iter().collect::<Vec<_>>(),
        [0, 1, 4].map(CellIndex)
    );

    assert_eq!(
        all.grid.resolve_config(CellIndex(4)).ok(),
        some.grid.resolve_config(CellIndex(4)).ok()
    );
}

#[test]
fn a_cell_keeps_its_hash_when_the_sweep_is_extended_or_reworded() {
    let hash = |spec: &Spec, cell| {
        spec.compute_cell_hash(
            &spec.grid.resolve_config(CellIndex(cell)).expect("resolves"),
            DatasetHash([1; 32]),
        )
    };
    let a = read("[grid]\nlr = [0.1, 1.0]\n");
    let b = read(
        "[grid]\n\"train.lr\" = [0.05, 0.1, 1]\nmomentum = [0.9]\n[measure]\nmetrics = [\"test_loss\"]\n",
    );
    assert_eq!(hash(&a, 0), hash(&b, 1));

    assert_eq!(hash(&a, 1), hash(&b, 2));
    assert_ne!(hash(&a, 0), hash(&a, 1));
    let c =
        Spec::read_stored(&source("[grid]\nlr = [0.1]\n", &["seed=21"])).expect("a valid sweep");
    assert_ne!(hash(&a, 0), hash(&c, 0));
}

#[test]
fn a_lot_decides_what_is_audited_whatever_else_the_sweep_has() {
    let spec = |audit: &str, grid: &str| {
        Spec::read_stored(&source(grid, &[audit])).expect("a valid sweep")
    };
    let chosen = |spec: &Spec, cell: u64| {
        let hash = spec.compute_cell_hash(
            &spec.grid.resolve_config(CellIndex(cell)).expect("resolves"),
            DatasetHash([1; 32]),
        );
        (0..2000)
            .filter(|repeat| spec.should_audit(hash, Repeat(*repeat)))
            .collect::<Vec<u32>>()
    };

    let few = spec("audit=0.1", "[grid]\nlr = [0.1]\n");
    let wide = spec("audit=0.1", "[grid]\nlr = [0.01, 0.1]\n");
    assert!(
        (150..250).contains(&chosen(&few, 0).len()),
        "a tenth: {}",
        chosen(&few, 0).len()
    );

    assert_eq!(
        chosen(&few, 0),
        chosen(&wide, 1),
        "an extension keeps the choice"
    );
    assert_ne!(chosen(&wide, 0), chosen(&wide, 1));

    let more = chosen(&spec("audit=0.5", "[grid]\nlr = [0.1]\n"), 0);
    assert!(
        chosen(&few, 0).iter().all(|repeat| more.contains(repeat)),
        "a larger share adds to the choice"
    );
    assert_eq!(
        chosen(&spec("audit=1", "[grid]\nlr = [0.1]\n"), 0).len(),
        2000
    );

    assert!(chosen(&spec("audit=0", "[grid]\nlr = [0.1]\n"), 0).is_empty());
}

#[test]
fn crossed_streams_are_read_checked_and_part_of_a_cells_identity() {
    let with = |settings: &[&str]| Spec::read_stored(&source("", settings)).expect("a valid sweep");
    let crossed = with(&["repeats=12", "seeds.crossed={ order = 3, init = 2 }"]);
    assert_eq!(
        crossed.seeds.crossed,
        [(Purpose::Init, 2), (Purpose::Order, 3)]
    );

    let hash = |spec: &Spec| {
        spec.compute_cell_hash(
            &spec.grid.resolve_config(CellIndex(0)).expect("a cell"),
            DatasetHash::NONE,
        )
    };
    assert_ne!(hash(&crossed), hash(&with(&["repeats=12"])));

    for (settings, words) in [
        (
            ["repeats=7", "seeds.crossed={ init = 2, order = 3 }"],
            "repeats: 7 repeats do not meet all 6 combinations",
        ),
        (
            ["repeats=6", "seeds.crossed={ init = 6 }"],
            "seeds.crossed: name two streams or more",
        ),
        (
            ["repeats=6", "seeds.crossed={ init = 6, order = 1 }"],
            "seeds.crossed.order: expected a whole number >= 2",
        ),
        (
            ["repeats=6", "seeds.crossed={ init = 2, ordre = 3 }"],
            "did you mean 'order'",
        ),
        (
            [
                "repeats=6",
                "seeds={ fixed = [\"init\"], crossed = { init = 2, order = 3 } }",
            ],
            "'init' is fixed, too",
        ),
    ] {
        let message = refusal("", &settings);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn terms_are_read_checked_and_no_part_of_a_cells_identity() {
    let with = |settings: &[&str]| Spec::read_stored(&source("", settings)).expect("a valid sweep");
    let plain = with(&[]);
    let limited = with(&["time_limit=10m"]);
    assert_eq!(
        (plain.scheduling.time_limit, limited.scheduling.time_limit),
        (None, Some(Duration::from_secs(600)))
    );

    let shared = with(&["priority=-5", "weight=2.5"]);
    assert_eq!(
        (plain.scheduling.share, shared.scheduling.share),
        (
            Share::default(),
            Share {
                priority: -5,
                weight: 2.5
            }
        )
    );

    let audited = with(&["audit=0.25"]);
    assert_eq!(
        (plain.scheduling.audit_share, audited.scheduling.audit_share),
        (0.0, 0.25)
    );
    let hash = |spec: &Spec| {
        spec.compute_cell_hash(
            &spec.grid.resolve_config(CellIndex(0)).expect("a cell"),
            DatasetHash::NONE,
        )
    };
    assert_eq!(
        [hash(&limited), hash(&shared), hash(&audited)],
        [hash(&plain); 3]
    );

    for (setting, words) in [
        ("time_limit=0s", "time_limit: expected a time from 10ms"),
        ("time_limit=10", "found 10"),
        (
            "priority=101",
            "priority: expected a whole number >= -100 and <= 100",
        ),
        ("priority=0.5", "priority"),
        ("weight=0", "weight: expected a finite number >= 0.000001"),
        ("time_limits=10m", "did you mean 'time_limit'"),
        (
            "audit=1.01",
            "audit: expected a finite number >= 0 and <= 1, found 1.01",
        ),
        ("audit=-0.1", "audit"),
    ] {
        let message = refusal("", &[setting]);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_setting_that_an_axis_overrides_is_refused() {
    let message = refusal("[grid]\nlr = [0.1, 0.2]\n", &["train.lr=0.5"]);
    assert!(
        message.contains("--set train.lr=0.5") && message.contains("set grid.lr instead"),
        "{message}"
    );
    let spec = Spec::read_stored(&source("[grid]\nlr = [0.1, 0.2]\n", &["grid.lr=[0.5]"]))
        .expect("a valid sweep");
    assert_eq!(spec.grid.cell_count(), 1);
}

#[test]
fn every_defect_is_named_with_its_line_and_remedy() {
    let cases: &[(&str, &[&str])] = &[
        ("[grid]\nlr = []\n", &["sweep.toml:17", "grid.lr", "empty"]),
        (
            "[grid]\nlr = { log = [0, 1], points = 3 }\n",
            &["grid.lr.log", "above 0"],
        ),
        ("[grid]\nlr = [nan]\n", &["grid.lr", "finite"]),
        ("[grid]\nbatch_size = [0]\n", &["grid.batch_size", ">= 1"]),
        (
            "[grid]\nbatch_size = [32, 2000]\n",
            &["2000", "1000 training images"],
        ),
        ("[grid]\nlrr = [0.1]\n", &["grid.lrr", "did you mean 'lr'?"]),
        ("[grid]\nepochs = [1]\n", &["did you mean 'train.epochs'?"]),
        (
            "[grid]\ndataset = [\"mnist\"]\n",
            &["did you mean 'data.dataset'?"],
        ),
        (
            "[grid]\nlr = [1, 2]\n[where]\nkeep = \"data.test > lr\"\n",
            &["where.keep", "data.test has no value", "set data.test"],
        ),
        (
            "[grid]\n\"model.widht\" = [4]\n",
            &["model.widht", "did you mean 'width'?"],
        ),
        (
            "[grid]\n\"model.kind\" = [\"cnn5\"]\n",
            &["unknown value 'cnn5'", "cnn4"],
        ),
        (
            "[grid]\nlr = [0.1]\n\"train.lr\" = [0.2]\n",
            &["same field"],
        ),
        (
            "[grid]\nlr = [0.1]\n[derive]\nlr = \"0.1\"\n",
            &["axis of [grid] as well"],
        ),
        (
            "[derive]\nwd = \"lr / lrr\"\n",
            &["derive.wd", "nothing is called lrr"],
        ),
        (
            "[grid]\nfree = [1, 2]\n[derive]\nwd = \"0 - free\"\n",
            &["train.wd", "-1", "free=1"],
        ),
        (
            "[grid]\nfree = [0, 1]\n[derive]\nwd = \"1 / free\"\n",
            &["inf", "free=0"],
        ),
        (
            "[grid]\na = [1, 2]\nb = [1, 2]\n[derive]\nwd = \"a * b\"\n",
            &["same trial", "a=1, b=2"],
        ),
        (
            "[grid]\n\"model.norm\" = [\"batch\", \"none\"]\n\"model.norm_eps\" = [0, 1e-5]\n",
            &["same trial", "none"],
        ),
        (
            "[grid]\n\"data.order\" = [\"full-batch\"]\nbatch_size = [8, 16]\n",
            &["same trial", "batch_size=16"],
        ),
        ("[grid]\nwd = [0.0, -0.0]\n", &["grid.wd", "twice"]),
        (
            "[measure]\nevery = \"1 step\"\n[grid]\n\"train.epochs\" = [1000000]\n",
            &["measure.every", "less often"],
        ),
        (
            "[grid]\nlr = [1, 2]\n[where]\nkeep = \"lr > 3\"\n",
            &["where.keep", "no cell"],
        ),
        (
            "[grid]\nlr = [1, 2]\n[where]\nkep = \"lr > 3\"\n",
            &["did you mean 'keep'"],
        ),
        (
            "[grid]\nlr = [1, 2]\nwd = [1, 2, 3]\nzip = [[\"lr\", \"wd\"]]\n",
            &["lr has 2", "wd has 3"],
        ),
        (
            "[grid]\nlr = { linear = [0, 1], points = 1e6 }\nwd = { linear = [0, 1], points = 1e6 }\n",
            &["1e12 cells"],
        ),
        (
            "[grid]\n\"measure.every\" = [\"1 epoch\"]\n",
            &["only fields of data, model and train"],
        ),
        (
            "[measure]\nevery = \"1 epok\"\n",
            &["measure.every", "50 steps"],
        ),
        (
            "[measure]\nprobe = { at = [\"final\"] }\n",
            &["measure.probe.points", "points = 1000"],
        ),
        (
            "[measure]\nprobe = { points = 3000 }\n",
            &["measure.probe.points", "2000 test images"],
        ),
        (
            "[measure]\nprobe = { points = 9, at = [\"soon\"] }\n",
            &["measure.probe.at", "'soon'"],
        ),
        (
            "[measure]\nprobe = { points = 9, at = [] }\n",
            &["measure.probe.at", "empty"],
        ),
        (
            "[measure]\nprobe = { points = 9, at = [\"3 epochs\"] }\n",
            &["measure.probe.at", "step 93", "62 steps"],
        ),
        (
            "[measure]\nprobe = { points = 9, every = 2 }\n",
            &["measure.probe.every", "unknown key"],
        ),
        (
            "[measure]\nsave = [\"best\"]\n",
            &["measure.save", "'best'", "final"],
        ),
        (
            "[measure]\nmetrics = [\"test_ac\"]\n",
            &["did you mean 'test_acc'?"],
        ),
        (
            "[grd]\nlr = [1]\n",
            &["unknown key 'grd'", "did you mean 'grid'?"],
        ),
        ("x = [\n", &["not valid TOML"]),
    ];
    for (rest, words) in cases {
        let message = refusal(rest, &[]);
        for word in *words {
            assert!(message.contains(word), "{rest}\n{message}\nlacks {word}");
        }
    }

    let settings: &[(&str, &[&str])] = &[
        ("train.batch_size=0", &["--set train.batch_size=0", ">= 1"]),
        (
            "model.kind=transformer",
            &["unknown value 'transformer'", "cnn4"],
        ),
        ("repeats=2000000000", &["repeats"]),
        ("model.hidden=[3]", &["belongs to kind = \"mlp\" only"]),
        ("name=a b", &["letters"]),
        ("name=..", &["first a letter"]),
        ("data.train=20000", &["10000 images"]),
        (
            "data.validation=9001",
            &[
                "data.validation",
                "9001 validation images",
                "leaves 999",
                "lower",
            ],
        ),
        (
            "data.validation=20000",
            &["data.validation", "10000 images"],
        ),
        (
            "measure.metrics=[\"val_acc\"]",
            &["measure.metrics", "val_acc", "data.validation = 1000"],
        ),
        (
            "measure.statistics=reestimated",
            &["measure.statistics", "did you mean 're-estimated'?"],
        ),
        ("train.lr=nan", &["finite"]),
        ("train.optimizer.momentum=1", &["< 1"]),
        ("train.lr.x=1", &["'lr' is not a table"]),
        ("data.order=shufle", &["did you mean 'shuffle'?"]),
        ("oops", &["key=value"]),
    ];

    for (setting, words) in settings {
        let message = refusal("", &[setting]);
        for word in *words {
            assert!(message.contains(word), "{setting}\n{message}\nlacks {word}");
        }
    }
}

#[test]
fn a_huge_sweep_needs_no_room_for_its_trials() {
    let spec = Spec::read_stored(&source(
        "[grid]\nlr = { log = [1e-4, 1], points = 1000 }\nwd = { log = [1e-6, 1e-2], points = 1000 }\n",
        &["repeats=100"],
    ))
    .expect("a valid sweep");
    assert_eq!(spec.trial_count(), 100_000_000);

    let key = TrialKey::new(999_999, 99);
    assert_eq!(
        spec.grid.locate_trial(key),
        TrialIndex {
            class: ShapeClass(0),
            number: 99_999_999
        }
    );
}

proptest! {
    /// Whatever the axes and whatever `[where]` drops: trials of all classes, in number order, are exactly the kept
    /// cells times the repeats, and `locate` inverts the numbering.
    #[test]
    fn classes_partition_the_trials(lrs in 1_usize..5, batches in 1_usize..5, wds in 1_usize..5, drop in 0_u32..40) {
        let list = |n: usize, of: &dyn Fn(usize) -> String| (0..n).map(of).collect::<Vec<_>>().join(", ");
        let text = format!(
            "[grid]\nlr = [{}]\nbatch_size = [{}]\nwd = [{}]\n[where]\nkeep = \"batch_size * 7 * wd - 3 * lr < {}\"\n",
            list(lrs, &|i| format!("0.{}", i + 1)),
            list(batches, &|i| format!("{}", i + 1)),
            list(wds, &|i| format!("0.{}", i + 1)),
            f64::from(drop) / 4.0,
        );
        let Ok(spec) = Spec::read_stored(&source(&text, &[])) else { return Ok(()) };
        let grid = &spec.grid;
        let mut seen = Vec::new();
        for class in grid.shape_classes() {
            for number in 0..spec.class_trial_count(class) {
                let index = TrialIndex { class, number };
                let key = grid.trial_at(index);
                prop_assert!(spec.has_trial(key));
                prop_assert_eq!(grid.locate_trial(key), index);
                seen.push(key);
            }
        }
        seen.sort_unstable();
        let wanted: Vec<TrialKey> =
            grid.iter().flat_map(|cell| (0..spec.repeats).map(move |repeat| TrialKey { cell, repeat: Repeat(repeat) })).collect();
        prop_assert_eq!(seen, wanted);
    }

    /// No text makes the parser panic.
    #[test]
    fn nonsense_is_refused_not_panicked_at(text in "[a-z\\[\\]{}=,.\"0-9\n -]{0,80}") {
        let _ = Spec::read_stored(&source(&text, &[]));
    }
}

#[test]
fn images_and_single_layers_can_be_asked_for() {
    let good = source(
        "",
        &[
            "data.augment=crop-flip",
            "data.label_noise=0.2",
            "data.standardize=false",
        ],
    );
    let spec = Spec::read_stored(&good).expect("a valid sweep");

    let plain = Spec::read_stored(&source("", &[])).expect("a valid sweep");
    let fields = |spec: &Spec| {
        spec.grid
            .resolve_config(CellIndex(0))
            .expect("a cell")
            .identity_fields()
    };
    let added: Vec<_> = fields(&spec)
        .into_iter()
        .filter(|field| !fields(&plain).contains(field))
        .collect();
    assert_eq!(added.len(), 3, "{added:?}");

    for (setting, words) in [
        ("data.label_noise=1", &["data.label_noise", "< 1"][..]),
        ("data.augment=crop", &["crop-flip", "data.augment"]),
        (
            "measure.metrics=[\"weight_norm_sq[fc9]\"]",
            &["measure.metrics", "has a layer", "known: "],
        ),
        (
            "measure.metrics=[\"hessian\"]",
            &["measure.metrics", "unknown metric"],
        ),
    ] {
        let message = refusal("", &[setting]);
        for word in words {
            assert!(message.contains(word), "{setting}\n{message}\nlacks {word}");
        }
    }
}

/// As if a later version had named a metric, or a column of tables, as a stored sweep names an axis.
#[test]
fn an_axis_of_a_stored_sweep_keeps_a_name_that_became_a_column() {
    for name in ["val_acc", "digest"] {
        let text = format!("[grid]\n{name} = [0.1, 0.2]\n[derive]\nwd = \"{name} / 2\"\n");
        let spec = read(&text);
        assert_eq!(spec.grid.cell_count(), 2);
        assert_eq!(spec.grid.axes()[0].name, name);

        let error = Spec::read_new(&source(&text, &[])).expect_err(name);
        let error = error.to_string();
        assert!(error.contains("column of tables"), "{error}");
    }
}

#[test]
fn names_that_are_used_otherwise_are_no_axes_and_free_names_of_new_sweeps() {
    let axis = |name: &str| format!("[grid]\n{name} = [1, 2]\n[derive]\nwd = \"{name} / 2\"\n");
    let cases = "[case]\nA = { end = 1 }\nB = { end = 2 }\n[derive]\nwd = \"0.1*end\"\n";
    for (text, words) in [
        (axis("note"), "grid.note"),
        (axis("q05"), "'q05' is a column of tables"),
        (axis("end"), "every quantity can use"),
        (axis("case"), "[case] makes an axis"),
        (cases.to_owned(), "every quantity can use"),
    ] {
        let error = Spec::read_new(&source(&text, &[])).expect_err(&text);
        assert!(error.to_string().contains(words), "{text}: {error}");
        assert_eq!(read(&text).grid.cell_count(), 2, "{text}");
    }
}

/// One more would turn the free name of a stored sweep into a field: that takes a new version of the grammar.
#[test]
fn short_names_stay_as_they_are() {
    let names = SHORT_NAMES.map(|(short, _)| short);
    assert_eq!(names, ["lr", "wd", "batch_size", "momentum"]);
}

#[test]
fn the_toy_loss_needs_no_images_and_says_what_it_has() {
    let spec = |rest: &str| {
        let measure = if rest.contains("[measure]") {
            ""
        } else {
            "[measure]\nmetrics = [\"train_loss\"]\n"
        };
        let text = format!("name = \"t\"\n[model]\nkind = \"toy\"\n{rest}{measure}");
        let source = SpecSource {
            file: "t.toml".into(),
            text,
            ..SpecSource::default()
        };

        Spec::read_stored(&source).map_err(|e| e.to_string())
    };

    let train = "[train]\nsteps = 9\nlr = 0.1\n";
    let good = spec(&format!(
        "start = [1, -0.5, 2]\nnoise = 0.1\n{train}[grid]\nwd = [0, 0.1]\n"
    ))
    .expect("a toy");
    let config = good.grid.resolve_config(CellIndex(1)).expect("a cell");

    let toy = Toy {
        dim: 3,
        noise: 0.1,
        start: Some(vec![1.0, -0.5, 2.0]),
    };
    assert_eq!(
        (config.model.kind.clone(), config.train.wd),
        (ModelKind::Toy(toy), 0.1)
    );

    for (rest, words) in [
        (format!("start = [1, 2]\ndim = 3\n{train}"), "model.start"),
        (format!("start = [0, 0]\n{train}"), "not all of them 0"),
        (format!("dim = 1\n{train}"), "model.dim"),
        (format!("norm = \"batch\"\n{train}"), "model.norm"),
        (
            format!("init = {{ scheme = \"orthogonal\" }}\n{train}"),
            "only the scale",
        ),
        (
            format!("{train}average = {{ kind = \"swa\" }}\n"),
            "no averages",
        ),
        (
            format!("{train}[measure]\nsave = [\"final\"]\nmetrics = [\"train_loss\"]\n"),
            "not a network",
        ),
        (
            format!("{train}[measure]\nevery = \"3 steps\"\n"),
            "the toy loss has no test_acc",
        ),
        (format!("start = [1]\n{train}"), "at least two numbers"),
        ("[train]\nsteps = 9\n".to_owned(), "train.lr"),
    ] {
        let error = spec(&rest).expect_err(words);
        assert!(error.contains(words), "{error}");
    }
}

/// `[model]` and `[train]` tables with what they must be refused for.
#[test]
fn models_norms_and_schedules_say_what_they_need() {
    let spec = |model: &str, train: &str| {
        let text = format!(
            "name = \"a\"\n[data]\ndataset = \"mnist\"\n[model]\n{model}\n[train]\nepochs = 1\nbatch_size = 8\nlr = 0.1\nwd = 0\n{train}\n"
        );
        let source = SpecSource {
            file: "a.toml".into(),
            text,
            ..SpecSource::default()
        };

        Spec::read_stored(&source)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };

    for good in [
        "kind = \"preresnet\"\ndepth = 56\nwiden = 2\nnorm = \"group\"",
        "kind = \"mlp\"\nhidden = [64, 32]\nnorm = \"layer\"\naffine = true",
        "kind = \"cnn4\"\nwidth = 3\nnorm = \"group\"\ngroups = 3",
        "kind = \"cnn4\"\nnorm = \"ghost-batch\"\nghost_size = 4\naffine = true",
        "kind = \"preresnet\"\nnorm = \"ghost-batch\"\nghost_size = 8",
    ] {
        assert_eq!(spec(good, ""), Ok(()), "{good}");
    }

    for good in [
        "schedule = { kind = \"cosine\", warmup = \"1 epoch\" }",
        "schedule = { kind = \"exponential\", factor = 1.001, per = \"2 steps\" }",
        "schedule = { kind = \"linear\", end = \"x0.1\" }",
        "optimizer = { kind = \"adamw\", beta1 = 0.8 }",
        "loss = \"mse\"",
        "wd_on = \"normed\"",
        "added_noise = { images = 8 }",
        "added_noise = { images = 2, pairs = 1000 }",
        "average = { kind = \"swa\", from_epoch = 0, every = 1 }",
        "average = { kind = \"ema\", decay = 0.99, every = \"5 steps\" }",
        "schedule = { kind = \"piecewise-linear\", points = [{ step = 0, lr = 0 }, { epoch = 1, lr = \"x2\" }] }",
    ] {
        assert_eq!(spec("kind = \"mlp\"", good), Ok(()), "{good}");
    }

    for (model, path, words) in [
        (
            "kind = \"preresnet\"\ndepth = 21",
            "model.depth",
            "20 and 26",
        ),
        (
            "kind = \"mlp\"\ndepth = 20",
            "model.depth",
            "belongs to kind = \"preresnet\" or \"vgg\"",
        ),
        ("kind = \"vgg\"", "model.kind", "32×32"),
        (
            "kind = \"vgg\"\ndepth = 12",
            "model.depth",
            "11, 13, 16 or 19",
        ),
        (
            "kind = \"cnn4\"\nwidth = 6\nnorm = \"group\"",
            "model.groups",
            "6 channels of conv1",
        ),
        (
            "kind = \"cnn4\"\ngroups = 4",
            "model.groups",
            "norm = \"group\"",
        ),
        (
            "kind = \"cnn4\"\nnorm = \"ghost-batch\"\nghost_size = 3",
            "model.ghost_size",
            "a batch of 8 images cannot be cut into ghost batches of 3",
        ),
        (
            "kind = \"cnn4\"\nnorm = \"ghost-batch\"",
            "model.ghost_size",
            "ghost batches of 16",
        ),
        (
            "kind = \"cnn4\"\nnorm = \"ghost-batch\"\ngroups = 4",
            "model.groups",
            "norm = \"group\"",
        ),
        (
            "kind = \"cnn4\"\nnorm = \"group\"\nghost_size = 4",
            "model.ghost_size",
            "norm = \"ghost-batch\"",
        ),
        (
            "kind = \"cnn4\"\nghost_size = 4",
            "model.ghost_size",
            "norm = \"ghost-batch\"",
        ),
        (
            "kind = \"cnn4\"\nnorm = \"ghost-batch\"\nghost_size = 4\n[train.added_noise]\nimages = 6",
            "train.added_noise.images",
            "ghost batches of 4",
        ),
        (
            "kind = \"toy\"\nghost_size = 4",
            "model.ghost_size",
            "belongs to kind",
        ),
        (
            "kind = \"cnn4\"\ninit = { zero_residual = true }",
            "model.init.zero_residual",
            "preresnet",
        ),
        (
            "kind = \"cnn4\"\ninit = { layers = { conv5 = 2.0 } }",
            "model.init.layers",
            "did you mean 'conv1'?",
        ),
        (
            "kind = \"cnn4\"\ninit = { layers = { conv1 = 0 } }",
            "model.init.layers",
            "> 0",
        ),
    ] {
        let error = spec(model, "").expect_err(model);
        assert!(
            error.contains(path) && error.contains(words),
            "{model}: {error}"
        );
    }

    for (train, path, words) in [
        (
            "schedule = { warmup = \"1 epoch\" }",
            "train.schedule.kind",
            "cosine",
        ),
        (
            "schedule = { kind = \"cosine\", factor = 2.0 }",
            "train.schedule.factor",
            "exponential",
        ),
        (
            "schedule = { kind = \"exponential\" }",
            "train.schedule.factor",
            "needed",
        ),
        (
            "schedule = { kind = \"cosine\", warmup = \"soon\" }",
            "train.schedule.warmup",
            "2 epochs",
        ),
        (
            "optimizer = { kind = \"adamw\", momentum = 0.9 }",
            "train.optimizer.momentum",
            "sgd",
        ),
        (
            "loss = { kind = \"mse\", label_smoothing = 0.1 }",
            "train.loss.label_smoothing",
            "cross-entropy",
        ),
        (
            "optimizer = { beta1 = 0.9 }",
            "train.optimizer.beta1",
            "adamw",
        ),
        (
            "optimizer = { kind = \"adamw\", beta2 = 1.0 }",
            "train.optimizer.beta2",
            "< 1",
        ),
        (
            "schedule = { kind = \"cosine\", finish = 1 }",
            "train.schedule.finish",
            "unknown",
        ),
        (
            "schedule = [{ epoch = 2, lr = \"x0.1\" }]",
            "train.schedule",
            "a trial has only 7500",
        ),
        (
            "schedule = { kind = \"piecewise-linear\" }",
            "train.schedule.points",
            "needed",
        ),
        (
            "schedule = { kind = \"piecewise-linear\", points = [{ step = 9, lr = 0 }, { step = 9, lr = 1 }] }",
            "train.schedule.points",
            "follow each other",
        ),
        ("average = { from_epoch = 2 }", "train.average.kind", "swa"),
        (
            "average = { kind = \"swa\", decay = 0.9 }",
            "train.average.decay",
            "ema",
        ),
        (
            "average = { kind = \"swa\", every = \"often\" }",
            "train.average.every",
            "50 steps",
        ),
        ("wd_on = \"norms\"", "train.wd_on", "normed"),
        (
            "added_noise = { pairs = 2 }",
            "train.added_noise.images",
            "needed",
        ),
        (
            "added_noise = { images = 9 }",
            "train.added_noise.images",
            "at most as many",
        ),
        (
            "added_noise = { images = 1 }",
            "train.added_noise.images",
            "2 or more",
        ),
        (
            "added_noise = { images = 4, pairs = 0 }",
            "train.added_noise.pairs",
            "1",
        ),
        (
            "added_noise = { image = 4 }",
            "train.added_noise.image",
            "unknown",
        ),
    ] {
        let error = spec("kind = \"mlp\"", train).expect_err(train);
        assert!(
            error.contains(path) && error.contains(words),
            "{train}: {error}"
        );
    }
}

#[test]
fn an_axis_of_a_new_sweep_has_no_name_of_a_column() {
    let message = new_refusal("[grid]\nn = [1, 2]\n[derive]\nwd = \"n\"\n", &[]);
    assert!(
        message.contains("grid.n") && message.contains("column"),
        "{message}"
    );
}

/// What is said of a new sweep that is taken where it is stored already.
fn new_refusal(rest: &str, settings: &[&str]) -> String {
    let source = source(rest, settings);
    let stored = Spec::read_stored(&source).map(|spec| spec.compute_cells_fingerprint());
    assert!(
        stored.is_ok(),
        "of a stored sweep nothing new is refused: {stored:?}"
    );
    Spec::read_new(&source).expect_err(rest).to_string()
}

#[test]
fn what_became_a_refusal_is_one_for_new_sweeps_alone() {
    let mlp = |norm: &str| format!("model={{ kind = \"mlp\", hidden = [4], {norm} }}");
    for (settings, words) in [
        (
            vec!["train.schedule=[{ epoch = 1, lr = 0.1 }, { step = 5, lr = 0.2 }]".to_owned()],
            "write them in the order",
        ),
        (
            vec!["train.schedule=[{ step = 31, lr = 0.1 }, { epoch = 1, wd = 0.2 }]".to_owned()],
            "write them as one",
        ),
        (
            vec!["seed=9007199254740993".to_owned()],
            "at most 9007199254740992",
        ),
        (
            vec!["seed=9007199254740993.0".to_owned()],
            "without a point",
        ),
        (
            vec![mlp("norm = \"batch\""), "train.batch_size=1".to_owned()],
            "batch norm",
        ),
        (
            vec![mlp("norm = \"ghost-batch\", ghost_size = 1")],
            "ghost batches of one image",
        ),
        (vec![mlp("norm = \"group\", groups = 4")], "another norm"),
    ] {
        let error = new_refusal("", &settings.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error.contains(words), "{settings:?}: {error}");
    }

    // Values that mean the same, and values that do not go together.
    for (values, words) in [
        (
            "[[{ epoch = 1, lr = \"x0.1\" }], [{ epoch = 1, lr = \"x0.10\" }]]",
            "resolve to the same trial",
        ),
        (
            "[[{ epoch = 1, lr = \"x0.1\" }], [{ step = 31, lr = \"x0.1\" }]]",
            "resolve to the same trial",
        ),
    ] {
        let error = new_refusal(&format!("[grid]\n\"train.schedule\" = {values}\n"), &[]);
        assert!(error.contains(words), "{values}: {error}");
    }

    let late = "[grid]\n\"train.steps\" = [90, 40]\n\"train.schedule\" = [[{ step = 30, lr = 0.1 }], [{ step = 50, lr = 0.1 }]]\n";
    let steps = source(late, &[]);
    let steps = SpecSource {
        text: steps.text.replace("epochs = 2\n", ""),
        ..steps
    };
    assert!(Spec::read_stored(&steps).is_ok(), "as it was");

    let error = Spec::read_new(&steps)
        .expect_err("a schedule beyond the end")
        .to_string();
    assert!(error.contains("begins after 50 steps"), "{error}");

    // An axis is looked at in all of its values.
    let axis = "[grid]\n\"model.norm\" = [\"batch\", \"layer\"]\nlr = [1, 2]\n";
    let error = new_refusal(axis, &["model={ kind = \"mlp\", hidden = [1] }"]);
    assert!(
        error.contains("grid.model.norm") && error.contains("another norm"),
        "{error}"
    );

    let orders = "[grid]\n\"train.schedule\" = [[{ step = 5, lr = 0.1 }], [{ epoch = 1, lr = 0.1 }, { step = 5, lr = 0.2 }]]\n";
    assert!(new_refusal(orders, &[]).contains("write them in the order"));
    let exact = Spec::read_new(&source("", &["seed=9007199254740992"])).expect("the largest seed");
    assert_eq!(exact.seed, 1 << 53);
}

#[test]
fn a_grammar_keeps_its_meaning() {
    let rest = "[grid]\nx = [0.001, 0.01, 0.1, 0.6]\n[derive]\nlr = \"x\"\nwd = \"-x^2 * -1\"\n[where]\nkeep = \"0.001 < x < 0.5\"\n";
    let first = SpecSource {
        grammar: 1,
        ..source(rest, &[])
    };
    let cells = |spec: &Spec| spec.grid.iter().collect::<Vec<_>>();

    // In version 1, (-x)^2 · -1 is below 0.
    assert!(
        Spec::read_stored(&first)
            .expect_err("below 0")
            .to_string()
            .contains(">= 0")
    );

    let squares = SpecSource {
        text: first.text.replace(" * -1", ""),
        ..first
    };
    let was = Spec::read_stored(&squares).expect("a stored sweep");
    assert_eq!((cells(&was), was.min_grammar()), (vec![CellIndex(0)], 1));

    assert_eq!(was.grid.derived_values_in(CellIndex(0))[1].1, 1e-6);
    let now = Spec::read_new(&source(rest, &[])).expect("a new sweep");
    assert_eq!(
        (cells(&now), now.min_grammar()),
        (vec![CellIndex(1), CellIndex(2)], 2)
    );
    assert!((now.grid.derived_values_in(CellIndex(1))[1].1 - 1e-4).abs() < 1e-12);

    // A client that shows its user version 1 is told.
    let error = Spec::read_new(&squares)
        .expect_err("of an older client")
        .to_string();
    assert!(error.contains("means something else"), "{error}");

    // What both mean is stored as the first one, and means the same there.
    let plain = "[grid]\nx = [0.1, 0.2]\n[derive]\nlr = \"x / 2\"\n[where]\nkeep = \"x < 0.15\"\n";
    let [old, new] = [1, 2].map(|grammar| {
        Spec::read_new(&SpecSource {
            grammar,
            ..source(plain, &[])
        })
        .expect("valid")
    });
    assert_eq!(
        (
            old.compute_cells_fingerprint(),
            old.min_grammar(),
            new.min_grammar()
        ),
        (new.compute_cells_fingerprint(), 1, 1)
    );

    let later = SpecSource {
        grammar: GRAMMAR + 1,
        ..source(plain, &[])
    };
    assert!(
        Spec::read_stored(&later)
            .expect_err("a later grammar")
            .to_string()
            .contains("use a newer one")
    );
}

#[test]
fn a_number_is_no_condition_in_a_file() {
    for keep in ["lr", "lr * 2", "-(lr < 1)"] {
        let error = refusal(
            &format!("[grid]\nlr = [0.1, 0.2]\n[where]\nkeep = \"{keep}\"\n"),
            &[],
        );
        assert!(error.contains("expected a condition"), "{keep}: {error}");
        let old = SpecSource {
            grammar: 1,
            ..source(
                &format!("[grid]\nlr = [0.1, 0.2]\n[where]\nkeep = \"{keep}\"\n"),
                &[],
            )
        };
        assert!(
            Spec::read_stored(&old).is_ok(),
            "{keep}: a stored sweep keeps it"
        );

        assert!(Spec::read_new(&old).is_err(), "{keep}");
    }

    let root = "[grid]\nlr = [0.1, 0.2]\n[where]\nkeep = \"sqrt(0.15 - lr) < 1\"\n";
    let nowhere = refusal(root, &[]);
    assert!(
        nowhere.contains("the expression has no value") && nowhere.contains("lr=0.2"),
        "{nowhere}"
    );

    // So it is in a new file, whichever grammar its sender knows: in the first one it was false.
    let old = SpecSource {
        grammar: 1,
        ..source(root, &[])
    };
    assert_eq!(
        Spec::read_stored(&old)
            .expect("a stored sweep")
            .grid
            .cell_count(),
        1
    );

    assert!(
        Spec::read_new(&old).is_err_and(|e| e.to_string().contains("the expression has no value"))
    );
}

#[test]
fn what_cells_are_shows_in_their_print() {
    let base = "[grid]\nlr = [0.1, 0.2, 0.3]\nx = [1, 2]\n[derive]\nwd = \"lr * x\"\n[where]\nkeep = \"lr * x < 0.5\"\n";
    let print = |rest: &str| read(rest).compute_cells_fingerprint();
    let whole = print(base);
    assert_eq!(whole, print(base));

    for (from, to) in [
        ("lr * x\"", "lr + x\""),
        ("< 0.5", "< 0.25"),
        ("0.3]", "0.31]"),
        ("[1, 2]", "[2, 1]"),
    ] {
        assert_ne!(whole, print(&base.replace(from, to)), "{to}");
    }

    // Repeats and measurements are no part of cells.
    let more =
        Spec::read_stored(&source(base, &["repeats=9", "measure.every='5 steps'"])).expect("valid");
    assert_eq!(whole, more.compute_cells_fingerprint());

    // Of many cells some are looked at, and what is kept of all.
    let many = "[grid]\nlr = { linear = [0.1, 0.2], points = 2000 }\nwd = { linear = [0, 1], points = 100 }\n[where]\nkeep = \"lr != 0.15\"\n";
    assert_ne!(print(many), print(&many.replace("lr != 0.15", "lr != 0.1")));
    let derived = |wd: &str| {
        print(&format!(
            "[grid]\nlr = {{ linear = [0.1, 0.2], points = 200_000 }}\n[derive]\nwd = \"{wd}\"\n"
        ))
    };
    assert_ne!(
        derived("lr * 0.01"),
        derived("lr * 0.01 + (lr == 0.1)"),
        "one cell of 200 000"
    );
}

#[test]
fn what_a_file_costs_is_bounded_before_it_is_begun() {
    let axes = "[grid]\nx = { linear = [0.1, 0.2], points = 1000000 }\nlr = { linear = [0.1, 0.2], points = 10 }\n";
    let long = format!("x < 1{}", " && lr * x < 1".repeat(200));
    let error = new_refusal_only(&format!("{axes}[where]\nkeep = \"{long}\"\n"));
    assert!(
        error.contains("for 10000000 cells: shorten them"),
        "{error}"
    );

    let error = new_refusal_only(&format!(
        "{axes}[where]\nkeep = \"x < 1{}\"\n",
        " && x < 1".repeat(1000)
    ));
    assert!(error.contains("at most 4096 are possible"), "{error}");
    let many: String = (0..65).map(|n| format!("x{n} = [1]\n")).collect();
    let error = new_refusal_only(&format!("[grid]\n{many}"));
    assert!(
        error.contains("grid: 65 axes are too many; at most 64"),
        "{error}"
    );

    let metrics: Vec<String> = (0..65)
        .map(|n| format!("\"weight_norm_sq[{n}]\""))
        .collect();
    let error = new_refusal_only(&format!("[measure]\nmetrics = [{}]\n", metrics.join(", ")));
    assert!(
        error.contains("measure.metrics: 65 metrics are too many; at most 64"),
        "{error}"
    );

    // Spellings are compared in cells that are resolved in full, each with all that the file says.
    let schedule: String = (1..=800)
        .map(|step| format!("{{ step = {step}, lr = 0.1 }}, "))
        .collect();
    let spelled = "[grid]\n\"data.augment\" = [\"none\", \"flip\"]\n\"model.width\" = { linear = [1, 4000], points = 4000 }\n";
    let settings = [&*format!("train.schedule=[{schedule}]")];
    let error = Spec::read_new(&source(spelled, &settings))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("are too many to be checked"), "{error}");

    // Each value knows its line, and looking for it costs little: this took a minute for each ten thousand once.
    let values: Vec<String> = (1..=300_000).map(|n| format!("{n}e-7")).collect();
    let spec = read(&format!("[grid]\nlr = [{}]\n", values.join(",\n")));
    assert_eq!(spec.grid.cell_count(), 300_000);
    let set = format!("grid.lr=[{}]", values[..50_000].join(","));
    assert_eq!(
        Spec::read_new(&source("", &[&set]))
            .expect("valid")
            .grid
            .cell_count(),
        50_000
    );
}

fn new_refusal_only(rest: &str) -> String {
    Spec::read_new(&source(rest, &[]))
        .expect_err("refused")
        .to_string()
}

#[test]
fn reading_ends_when_nobody_waits_for_it() {
    let text = "[grid]\nx = { linear = [0.1, 0.2], points = 1000000 }\nlr = { linear = [0.1, 0.2], points = 10 }\n[where]\nkeep = \"x < 2\"\n";
    let asked = std::cell::Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let error = Spec::read_new_while_wanted(&source(text, &[]), &wanted)
        .expect_err("nobody waits")
        .to_string();

    assert!(
        error.contains("not needed any more") && asked.get() == 3,
        "{error}"
    );
}
