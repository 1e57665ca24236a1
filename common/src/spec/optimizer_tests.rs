//! Tests of what changes a step: clipping, learning rates by parameter, sharpness-aware steps, and sweeps over optimizers.

use crate::config::{Adam, AdamDecay, TrialConfig};
use crate::ids::CellIndex;
use crate::net::Net;
use crate::quantity::find_cells_meeting;
use crate::spec::{Spec, SpecSource};

const HEAD: &str =
    "name = \"a\"\n[data]\ndataset = \"mnist\"\n[train]\nepochs = 1\nbatch_size = 8\nlr = 0.1\n";
const MLP: &str = "[model]\nkind = \"mlp\"\nhidden = [8, 8]\nnorm = \"batch\"\naffine = true\n";

fn source(train: &str, rest: &str) -> SpecSource {
    SpecSource {
        file: "a.toml".into(),
        text: format!("{HEAD}{train}\n{rest}"),
        ..SpecSource::default()
    }
}

fn read(train: &str, rest: &str) -> Result<Spec, String> {
    Spec::read_new(&source(train, rest)).map_err(|e| e.to_string())
}

/// The settings of all cells of a sweep of perceptrons.
fn configs(train: &str, rest: &str) -> Vec<TrialConfig> {
    let spec = read(train, &format!("{MLP}{rest}")).expect("a valid sweep");
    let cells = spec.grid.iter();
    cells
        .map(|cell| spec.grid.resolve_config(cell).expect("a valid cell"))
        .collect()
}

fn config(train: &str) -> TrialConfig {
    configs(train, "").remove(0)
}

fn refusal(train: &str, rest: &str) -> String {
    read(train, rest).expect_err(train)
}

#[test]
fn what_changes_a_step_belongs_to_a_cell_only_where_it_is_used() {
    let plain = config("");
    for same in [
        "lr_on = {}",
        "lr_on = { head = 1, biases = 1.0 }",
        "sam = { rho = 0 }",
    ] {
        assert_eq!(config(same), plain, "{same}");
        assert_eq!(config(same).identity_fields(), plain.identity_fields());
    }

    let fields = plain.identity_fields();
    for (train, field, value, text) in [
        ("clip_norm = 1", "train.clip_norm", "1", "clip_norm: 1.0"),
        (
            "lr_on = { norms = 0.1, head = 0 }",
            "train.lr_on",
            "head=0,norms=0.1",
            "lr_on: {\"head\": 0.0, \"norms\": 0.1}",
        ),
        (
            "sam = { rho = 0.05 }",
            "train.sam.rho",
            "0.05",
            "sam: Sam { rho: 0.05 }",
        ),
    ] {
        let found = config(train);
        let mut own = found.identity_fields();
        own.retain(|field| !fields.contains(field));
        assert_eq!(own, [(field, value.to_owned())]);
        assert!(format!("{found:?}").contains(text), "{found:?}");
        assert!(!format!("{plain:?}").contains(text.split(':').next().expect("a name")));
    }

    let [first, second] = ["{ norms = 0.1, fc1 = 2 }", "{ fc1 = 2, norms = 0.1 }"];
    assert_eq!(
        config(&format!("lr_on = {first}")),
        config(&format!("lr_on = {second}"))
    );
}

#[test]
fn adam_is_another_optimizer_than_adamw() {
    let [adam, adamw] = ["adam", "adamw"]
        .map(|kind| config(&format!("optimizer = {{ kind = \"{kind}\", beta1 = 0.8 }}")));
    let settings = Adam {
        beta1: 0.8,
        beta2: 0.999,
        eps: 1e-8,
        decay: AdamDecay::Coupled,
    };
    assert_eq!(adam.train.adam, Some(settings));
    assert_ne!(adam.identity_fields(), adamw.identity_fields());
    assert!(
        format!("{adamw:?}").contains("adamw: Some(AdamW { beta1: 0.8, beta2: 0.999, eps: 1e-8 })"),
        "{adamw:?}"
    );
    assert!(format!("{adam:?}").contains("eps: 1e-8, decay: Coupled })"));
}

#[test]
fn factors_of_roles_and_layers_multiply() {
    let factors = "lr_on = { weights = 2, biases = 3, norms = 5, head = 7, fc2 = 11 }";
    let spec = read(factors, &format!("{MLP}bias = true\n")).expect("a valid sweep");
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let net = Net::from_config(&config).expect("a network");
    let head = net.layers.len() - 1;
    let found: Vec<(String, f64)> = net
        .params()
        .into_iter()
        .map(|param| {
            let factor = param.lr_factor(&config.train.lr_on, head);
            (param.name, factor)
        })
        .collect();
    let expected = [
        ("fc1.weight", 2.0),
        ("fc1.norm.scale", 5.0),
        ("fc1.norm.shift", 5.0),
        ("fc2.weight", 22.0),
        ("fc2.norm.scale", 55.0),
        ("fc2.norm.shift", 55.0),
        ("head.weight", 14.0),
        ("head.bias", 21.0),
    ];
    for (name, factor) in expected {
        assert!(found.contains(&(name.to_owned(), factor)), "{found:?}");
    }
}

#[test]
fn rules_of_a_step_say_what_they_need() {
    let toy = "[model]\nkind = \"toy\"\n[measure]\nmetrics = [\"train_loss\"]\n";
    let effective = format!("{MLP}[measure]\nmetrics = [\"effective_lr\"]\n");
    let resnet = "[model]\nkind = \"preresnet\"\ndepth = 8\n";
    for (train, rest, path, words) in [
        ("clip_norm = 0", MLP, "train.clip_norm", "> 0"),
        ("clip_norm = true", MLP, "train.clip_norm", "> 0"),
        ("lr_on = 2", MLP, "train.lr_on", "table"),
        (
            "lr_on = { head = -1 }",
            MLP,
            "train.lr_on",
            "head: expected a finite number >= 0",
        ),
        (
            "lr_on = { fc3 = 2 }",
            MLP,
            "train.lr_on",
            "no layer or role 'fc3', did you mean 'fc",
        ),
        (
            "lr_on = { hed = 1 }",
            MLP,
            "train.lr_on",
            "'hed', did you mean",
        ),
        (
            "lr_on = { biase = 2 }",
            MLP,
            "train.lr_on",
            "did you mean 'biases'?",
        ),
        (
            "lr_on = { block1.conv1 = 2 }",
            resnet,
            "train.lr_on",
            "in quotes",
        ),
        ("sam = {}", MLP, "train.sam.rho", "needed"),
        ("sam = { rho = -1 }", MLP, "train.sam.rho", ">= 0"),
        ("sam = { radius = 1 }", MLP, "train.sam.radius", "unknown"),
        (
            "sam = { rho = 0.1 }\nadded_noise = { images = 4 }",
            MLP,
            "train.sam",
            "keep one of the two",
        ),
        ("sam = { rho = 0.1 }", toy, "train.sam", "remove it"),
        ("lr_on = { head = 2 }", toy, "train.lr_on", "set train.lr"),
        (
            "optimizer = { kind = \"adam\", momentum = 0.9 }",
            MLP,
            "train.optimizer.momentum",
            "\"sgd\" only: remove it, or set kind",
        ),
        (
            "optimizer = { beta2 = 0.9 }",
            MLP,
            "train.optimizer.beta2",
            "\"adam\" or \"adamw\" only: remove it, or set kind",
        ),
        (
            "lr_on = { fc1 = 2 }",
            &effective,
            "measure.metrics",
            "weight_norm_sq[LAYER]",
        ),
    ] {
        let error = refusal(train, rest);
        assert!(
            error.contains(path) && error.contains(words),
            "{train}: {error}"
        );
        let line = error.strip_prefix("a.toml:").unwrap_or_default();
        let has_line = line.starts_with(|c: char| c.is_ascii_digit());
        assert!(has_line || !path.starts_with("train."), "{train}: {error}");
    }

    for (train, rest) in [
        ("lr_on = { \"block1.conv1\" = 2 }", resnet),
        ("lr_on = { weights = 2 }", &effective),
        ("clip_norm = 0.1\noptimizer = { kind = \"adam\" }", toy),
        (
            "clip_norm = 1\nlr_on = { head = 0 }\nadded_noise = { images = 4 }",
            MLP,
        ),
    ] {
        assert_eq!(read(train, rest).map(|_| ()), Ok(()), "{train}");
    }
}

#[test]
fn rules_of_a_step_are_axes_and_expressions() {
    let found = configs(
        "",
        "[grid]\n\"train.clip_norm\" = [0.5, 1]\n\"train.lr_on.head\" = [0, 1]\n\"train.sam.rho\" = [0, 0.1]\n",
    );
    assert_eq!(found.len(), 8);
    assert_eq!(found[0].train.clip_norm, Some(0.5));
    assert_eq!(found[0].train.sam, None);

    let found = configs(
        "lr_on = { head = \"2*k\" }\nclip_norm = \"k\"",
        "[grid]\nk = [0.5, 2]\n",
    );
    let factors: Vec<_> = found[1].train.lr_on.iter().collect();
    assert_eq!(factors, [("head", 4.0)]);
    assert_eq!(found[1].train.clip_norm, Some(2.0));
    assert!(found[0].train.lr_on.is_empty());

    let found = configs(
        "",
        "[case]\na = { train.lr_on = { head = 0 } }\nb = { train.lr_on = { norms = 2 } }\n",
    );
    assert_eq!(found.len(), 2);
}

#[test]
fn a_factor_of_a_learning_rate_needs_trained_parameters() {
    let model = |settings: &str| format!("[model]\nkind = \"mlp\"\nhidden = [8]\n{settings}\n");
    for (factors, settings) in [
        ("{ norms = 0.1 }", ""),
        ("{ norms = 0.1 }", "norm = \"batch\"\naffine = false"),
        ("{ biases = 2 }", "norm = \"batch\""),
        ("{ head = 2 }", "norm = \"batch\"\nfixed_head = true"),
    ] {
        let train = format!("lr_on = {factors}");
        let error = refusal(&train, &model(settings));
        let role = factors.split(' ').nth(1).expect("a role");
        assert!(
            error.contains("train.lr_on")
                && error.contains(&format!("no trained parameter that '{role}' acts on"))
                && error.contains("set it to 1"),
            "{train}: {error}"
        );

        // Stored sweeps keep it.
        let source = source(&train, &model(settings));
        assert!(Spec::read_stored(&source).is_ok(), "{train}");
    }

    // A cell whose network lacks the parameters has a factor of 1.
    let norms = "\"model.affine\" = [true, false]\n\"train.lr_on.norms\" = [1, 0.1]\n";
    let batch = model("norm = \"batch\"");
    let error = refusal("", &format!("{batch}[grid]\n{norms}"));
    assert!(error.contains("'norms' acts on"), "{error}");
    let cases = "[case.a]\n\"model.affine\" = true\n\
                 [case.b]\n\"model.affine\" = false\n\"train.lr_on.norms\" = 1\n";
    let found = read("lr_on = { norms = 0.1 }", &format!("{batch}{cases}"));
    assert_eq!(found.map(|_| ()), Ok(()));
}

#[test]
fn a_table_and_a_part_of_it_are_not_two_axes() {
    let loss = "\"train.loss\" = [\"mse\", \"cross-entropy\"]";
    let smoothing = "\"train.loss.label_smoothing\" = [0, 0.1]";
    let head = "\"train.lr_on.head\" = [1, 3]";
    for (first, second) in [
        (loss, smoothing),
        (smoothing, loss),
        (head, "\"train.lr_on\" = [{ head = 2 }, { norms = 2 }]"),
        (
            "\"train.sam.rho\" = [0.1, 0.3]",
            "\"train.sam\" = [{ rho = 0.1 }, { rho = 0.2 }]",
        ),
        (
            "\"train.optimizer.kind\" = [\"sgd\", \"adam\"]",
            "\"train.optimizer\" = [{ momentum = 0.9 }, { momentum = 0.5 }]",
        ),
    ] {
        let error = refusal("", &format!("{MLP}[grid]\n{first}\n{second}\n"));
        assert!(
            error.contains("sets part of the same table: keep one of the two"),
            "{error}"
        );
    }

    // Two parts of one table are.
    let parts = "\"train.lr_on.norms\" = [1, 3]";
    let found = configs("", &format!("[grid]\n{head}\n{parts}\n"));
    assert_eq!(found.len(), 4);
}

#[test]
fn conditions_know_the_settings_of_a_step_that_cells_leave_out() {
    let spec = read(
        "",
        &format!(
            "{MLP}[case.a]\nmomentum = 0.9\n[case.b]\n\"train.optimizer.kind\" = \"adam\"\n\
             [case.c]\n\"train.sam.rho\" = 0.1\n"
        ),
    )
    .expect("a valid sweep");
    for (condition, cells) in [
        ("rho == 0", &[0, 1][..]),
        ("train.optimizer.kind == \"sgd\"", &[0, 2]),
        ("train.optimizer.kind == \"adam\"", &[1]),
        ("momentum == 0", &[2]),
        ("momentum >= 0", &[0, 2]),
    ] {
        let found = find_cells_meeting(&spec.grid, Some(condition)).expect(condition);
        let found: Vec<_> = found.into_iter().map(|cell| cell.0).collect();
        assert_eq!(found, cells, "{condition}");
    }
}

#[test]
fn settings_of_one_optimizer_belong_to_its_cells_alone() {
    let train = "optimizer = { momentum = 0.9, nesterov = true, beta1 = 0.8 }";
    let both = "[grid]\n\"train.optimizer.kind\" = [\"sgd\", \"adamw\"]\n";
    let found = configs(train, both);
    let alone = [
        config("optimizer = { momentum = 0.9, nesterov = true }"),
        config("optimizer = { kind = \"adamw\", beta1 = 0.8 }"),
    ];
    assert_eq!(found, alone);

    // What no optimizer of the sweep has is refused, as without the axis.
    let refused = |train: &str, rest: &str| refusal(train, &format!("{MLP}{rest}"));
    let adams = "[grid]\n\"train.optimizer.kind\" = [\"adam\", \"adamw\"]\n";
    assert!(refused(train, adams).contains("train.optimizer.momentum"));
    assert!(refused(train, "").contains("train.optimizer.beta1"));
    assert!(refused("optimizer = { momentun = 0.9 }", both).contains("did you mean 'momentum'?"));

    // Cases that choose the optimizer.
    let cases = "[case.a]\nlr = 0.2\n[case.b]\n\"train.optimizer.kind\" = \"adam\"\n";
    let found = configs(train, cases);
    assert_eq!(found[0].train.momentum, 0.9);
    assert_eq!(found[0].train.adam, None);
    let adam = config("optimizer = { kind = \"adam\", beta1 = 0.8 }");
    assert_eq!(found[1], adam);
    let mixed =
        "[case.a]\nlr = 0.2\n[case.b]\n\"train.optimizer.kind\" = \"adam\"\nmomentum = 0.5\n";
    let error = refused(train, mixed);
    assert!(
        error.contains("momentum") && error.contains("\"sgd\" only"),
        "{error}"
    );
}

#[test]
fn an_axis_over_a_setting_of_one_optimizer_makes_equal_cells() {
    let kinds = "\"train.optimizer.kind\" = [\"sgd\", \"adam\"]\n";
    for axis in [
        "momentum = [0.5, 0.9]",
        "\"train.optimizer.eps\" = [1e-8, 1e-3]",
    ] {
        for grid in [format!("{kinds}{axis}\n"), format!("{axis}\n{kinds}")] {
            let error = refusal("", &format!("{MLP}[grid]\n{grid}"));
            assert!(
                error.contains("resolve to the same trial") && error.contains("into a [case]"),
                "{error}"
            );
        }
    }

    // However many other values there are.
    let many = "lr = { linear = [0.1, 1], points = 30_000 }\nmomentum = [0.5, 0.9]\n";
    let error = refusal("", &format!("{MLP}[grid]\n{many}{kinds}"));
    assert!(error.contains("resolve to the same trial"), "{error}");

    // Through an expression too.
    let many = "lr = { linear = [0.1, 1], points = 30_000 }\nk = [0.5, 0.9]\n";
    let computed = "[derive]\nmomentum = \"k\"\n";
    let error = refusal("", &format!("{MLP}[grid]\n{many}{kinds}{computed}"));
    assert!(error.contains("resolve to the same trial"), "{error}");

    let cases = "[case]\na = { momentum = 0.5 }\nb = { momentum = 0.9 }\n\
                 c = { train.optimizer.kind = \"adam\", train.optimizer.beta1 = 0.8 }\n";
    assert_eq!(configs("", cases).len(), 3);
    let zipped = "[grid]\nzip = [[\"train.optimizer.kind\", \"lr\"]]\n\
                  \"train.optimizer.kind\" = [\"sgd\", \"adam\"]\nlr = [0.1, 0.001]\n";
    let found = configs("optimizer = { momentum = 0.9 }", zipped);
    assert_eq!(found.len(), 2);
}

#[test]
fn an_optimizer_that_takes_another_gradient_needs_room_for_it() {
    let bytes = |train: &str| {
        let config = config(train);
        let net = Net::from_config(&config).expect("a network");
        (net.train_bytes(&config), 4 * net.param_counts().0)
    };
    let (plain, copy) = bytes("");
    assert_eq!(bytes("clip_norm = 1").0, plain + copy);
    assert_eq!(
        bytes("sam = { rho = 0.1 }\nclip_norm = 1").0,
        plain + 2 * copy
    );
    let adam = bytes("optimizer = { kind = \"adam\" }").0;
    assert_eq!(adam, plain + copy);
}

#[test]
fn a_cell_has_the_same_position_whatever_optimizer_it_has() {
    let spec = read(
        "",
        &format!("{MLP}[grid]\n\"train.optimizer.kind\" = [\"sgd\", \"adam\"]\nlr = [1, 2]\n"),
    )
    .expect("a valid sweep");
    assert_eq!(spec.grid.class_count(), 1);
    assert!(spec.grid.has_cell(CellIndex(3)));
}
