//! Sweeps of experiments: what they mean, and what is said of those that mean nothing.

use crate::Spec;
use crate::ids::{CellIndex, DatasetHash};
use crate::program::{Experiment, ProgramValue};
use crate::spec::SpecSource;
use crate::spec::misleading::{refuse_misleading_sweep, warn_of_equal_repeats};

const FILE: &str = "name = \"t\"\nrepeats = 2\n[model]\nkind = \"custom:char-rnn\"\nmetrics = { loss = \"min\", seconds_of_step = \"volatile\" }\n\
                    width = 32\ntext = \"2 * x\"\n[grid]\nlr = [0.1, 0.25]\n";

fn source(text: &str, settings: &[&str]) -> SpecSource {
    SpecSource {
        file: "sweep.toml".into(),
        text: text.to_owned(),
        settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        ..SpecSource::default()
    }
    .with_settings_of_axes()
}

fn read(text: &str, settings: &[&str]) -> Spec {
    Spec::read_new(&source(text, settings)).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(text: &str) -> String {
    match Spec::read_new(&source(text, &[])) {
        Ok(_) => panic!("this should be refused:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// The values of a cell as text.
fn values_of(spec: &Spec, cell: u64) -> String {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    let cell = config.model.kind.program().expect("an experiment");
    let values = cell.values.iter();
    let values = values.map(|(name, value)| format!("{name}={value}"));
    values.collect::<Vec<_>>().join(" ")
}

fn hash_of(spec: &Spec, cell: u64) -> crate::ids::CellHash {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    spec.compute_cell_hash(&config, DatasetHash::NONE)
}

#[test]
fn keys_of_the_model_and_axes_are_values_of_the_config() {
    let spec = read(
        &format!("{FILE}[derive]\nhalf = \"lr / 2\"\n[where]\nkeep = \"lr < 0.2\"\n"),
        &[],
    );
    assert_eq!(spec.grid.cell_count(), 1);
    assert_eq!(values_of(&spec, 0), "half=0.05 lr=0.1 text=2 * x width=32");
    assert_eq!(spec.min_grammar(), 4);

    let program = spec.program().expect("an experiment");
    let expected = Experiment {
        name: "char-rnn".into(),
        version: None,
    };
    assert_eq!(program.experiment, Some(expected));
    assert_eq!(program.metrics.len(), 2);
    assert!(spec.must_repeat_exactly() && program.command.is_empty());
    assert_eq!(spec.numerics, "custom/char-rnn");
}

#[test]
fn cases_axes_and_settings_take_the_place_of_constants() {
    let cases = FILE.replace(
        "[grid]\nlr = [0.1, 0.25]\n",
        "[case]\nA = { lr = 0.1, width = 8 }\nB = { lr = 0.2, width = 16 }\n",
    );
    assert_eq!(
        values_of(&read(&cases, &[]), 1),
        "lr=0.2 text=2 * x width=16"
    );
    let axis = format!("{FILE}width = [4, 8]\n");
    let spec = read(&axis, &[]);
    assert_eq!(spec.grid.cell_count(), 4);
    assert_eq!(values_of(&spec, 0), "lr=0.1 text=2 * x width=4");
    let spec = read(FILE, &["model.width=64", "lr=0.5"]);
    assert_eq!(values_of(&spec, 0), "lr=0.5 text=2 * x width=64");

    let overridden = Spec::read_new(&source(&axis, &["model.width=64"]));
    let error = overridden.expect_err("the axis decides").to_string();
    assert!(
        error.contains("decides this field in every cell"),
        "{error}"
    );
}

#[test]
fn the_version_enters_the_numerics_class_when_it_is_known() {
    let versioned = FILE.replace("metrics", "version = 3\nmetrics");
    assert_eq!(read(&versioned, &[]).numerics, "custom/char-rnn/3");

    let mut spec = read(FILE, &[]);
    let before = hash_of(&spec, 0);
    let setting = spec.pin_numerics("custom/char-rnn/7").expect("a class");
    assert_ne!(hash_of(&spec, 0), before);
    let stored = Spec::read_stored(&source(FILE, &[&setting])).expect("it is read again");
    assert_eq!(stored.numerics, "custom/char-rnn/7");
    assert_eq!(hash_of(&stored, 0), hash_of(&spec, 0));
    assert!(spec.pin_numerics("custom/char-rnn/x").is_err());
}

#[test]
fn the_identity_of_a_cell_is_its_config_and_metrics() {
    let spec = read(FILE, &[]);
    assert_ne!(hash_of(&spec, 0), hash_of(&spec, 1));
    let same = FILE.replace(
        "width = 32\ntext = \"2 * x\"",
        "text = \"2 * x\"\nwidth = 32.0",
    );
    assert_eq!(hash_of(&read(&same, &[]), 0), hash_of(&spec, 0));
    for (from, to) in [
        ("width = 32", "width = 33"),
        ("custom:char-rnn", "custom:other"),
        ("loss = \"min\"", "loss = \"max\""),
        ("width = 32", "width = 32\ndeterministic = false"),
    ] {
        let other = read(&FILE.replace(from, to), &[]);
        assert_ne!(hash_of(&other, 0), hash_of(&spec, 0), "{to}");
    }
    let said = FILE.replace("width = 32", "width = 32\ndeterministic = true");
    assert_eq!(hash_of(&read(&said, &[]), 0), hash_of(&spec, 0));
    let value = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let value = value
        .model
        .kind
        .program()
        .and_then(|c| c.find_value("width").cloned());
    assert_eq!(value, Some(ProgramValue::Number(32.0)));
}

#[test]
fn wrong_fields_of_an_experiment_are_named_with_line_and_remedy() {
    for (from, to, expected) in [
        (
            "custom:char-rnn",
            "custom:Char",
            "sweep.toml:4: model.kind: 'Char' is no name of an experiment: write custom: and up to 40 small letters",
        ),
        (
            "metrics = { loss = \"min\", seconds_of_step = \"volatile\" }\n",
            "",
            "sweep.toml:3: model.metrics: which metrics does the program report? set metrics = {",
        ),
        (
            "loss = \"min\"",
            "loss = \"mim\"",
            "sweep.toml:5: model.metrics.loss: which values are better? Found 'mim', did you mean 'min'?",
        ),
        (
            "loss = \"min\"",
            "mean = \"min\"",
            "sweep.toml:5: model.metrics.mean: 'mean' is a column of tables: choose another name",
        ),
        (
            "width = 32",
            "version = 0",
            "sweep.toml:6: model.version: expected",
        ),
        (
            "width = 32",
            "width = [1, 2]",
            "sweep.toml:6: model.width: expected a number, a string, true or false",
        ),
        (
            "width = 32",
            "\"a b\" = 32",
            "sweep.toml:6: model.a b: 'a b' is no name for a value",
        ),
        (
            "lr = [",
            "loss = [",
            "sweep.toml:9: grid.loss: model.metrics has this name",
        ),
        (
            "lr = [",
            "\"model.width\" = [",
            "'model.width' is no name for a value",
        ),
        (
            "repeats = 2",
            "repeats = 2\nnumerics = \"cpu-f32\"",
            "sweep.toml:3: numerics: this experiment has the numerics class custom/char-rnn: remove numerics",
        ),
        (
            "repeats = 2",
            "repeats = { min = 2, max = 9, until = { metric = \"los\", ci95 = 0.1 } }",
            "sweep.toml:2: repeats.until.metric: model.metrics has no 'los', did you mean 'loss'?",
        ),
        (
            "repeats = 2\n[model]",
            "repeats = 2\naudit = 0.5\n[model]\ndeterministic = false",
            "audit: an audit compares results, which may differ between runs of this program: remove audit, or set model.deterministic",
        ),
        (
            "[grid]",
            "[data]\ntrian = 1\n[grid]",
            "sweep.toml:9: data.trian: unknown key 'trian', did you mean 'train'?",
        ),
        (
            "[grid]",
            "[data]\norder = \"shuffle\"\n[grid]",
            "sweep.toml:9: data.order: an experiment visits its data in an order of its own: remove data.order, and draw",
        ),
        (
            "[grid]",
            "[data]\naugment = \"flip\"\n[grid]",
            "sweep.toml:9: data.augment: an experiment gets its data unchanged: remove data.augment, and change them",
        ),
        (
            "[grid]",
            "[data]\nlabel_noise = 0.1\n[grid]",
            "sweep.toml:9: data.label_noise: an experiment gets labels as they are: remove data.label_noise",
        ),
        (
            "[grid]\n",
            "[grid]\n\"data.label_noise\" = [0.1, 0.2]\n",
            "sweep.toml:9: grid.data.label_noise: an experiment gets labels as they are",
        ),
        (
            "[grid]\n",
            "[grid]\n\"data.train\" = [100, 20000]\n",
            "sweep.toml:9: grid.data.train: glyphs has 10000 images here, not 20000",
        ),
        (
            "[grid]\n",
            "[derive]\n\"data.oder\" = \"lr\"\n[grid]\n",
            "sweep.toml:9: derive.data.oder: 'data.oder' is not a numeric field of a trial",
        ),
        (
            "[grid]",
            "[train]\nlr = 1\n[grid]",
            "sweep.toml:8: train: an experiment trains by itself: remove [train]",
        ),
        (
            "[grid]",
            "[measure]\nevery = \"1 step\"\n[grid]",
            "sweep.toml:8: measure: an experiment measures what it declares: remove [measure]",
        ),
        (
            "[grid]",
            "[stage.a]\nrepeats = 1\n[grid]",
            "sweep.toml:8: stage: a program or experiment takes no weights of others",
        ),
    ] {
        assert!(FILE.contains(from), "{from}");
        let found = refusal(&FILE.replacen(from, to, 1));
        assert!(found.contains(expected), "{to}: {found}");
    }
}

#[test]
fn a_training_has_no_numerics_class_of_an_experiment() {
    let found = refusal(
        "name = \"t\"\nnumerics = \"custom/a/1\"\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"mlp\"\n[train]\nepochs = 1\nlr = 1\n",
    );
    assert!(
        found.starts_with("sweep.toml:2: numerics: this is the class of an experiment, which model.kind does not name"),
        "{found}"
    );
}

/// An experiment may see the repeat, and draw from streams that cannot be fixed: its repeats need not be copies.
#[test]
fn all_purposes_of_an_experiment_can_be_fixed() {
    let fixed = "repeats = 2\nseeds = { fixed = [\"init\", \"head\", \"order\", \"augment\"] }";
    let spec = read(&FILE.replace("repeats = 2", fixed), &[]);
    assert_eq!(
        refuse_misleading_sweep(&spec).map_err(|e| e.to_string()),
        Ok(())
    );
    let warning = warn_of_equal_repeats(&spec).expect("repeats may be equal");
    assert!(
        warning.starts_with("repeats: all streams of seeds (init, head, order, augment) are fixed or crossed, so that the 2 repeats")
            && warning.contains("copies of 1 unless") && warning.contains("set repeats = 1, or leave a stream out"),
        "{warning}"
    );
}

#[test]
fn repeats_that_differ_and_those_of_others_are_no_warning() {
    for seeds in [
        "repeats = 1\nseeds = { fixed = [\"init\", \"head\", \"order\", \"augment\"] }",
        "repeats = 2\nseeds = { fixed = [\"init\", \"head\", \"order\"] }",
        "repeats = 4\nseeds = { fixed = [\"init\", \"head\"], crossed = { order = 2, augment = 2 } }",
        "repeats = 2",
    ] {
        let spec = read(&FILE.replace("repeats = 2", seeds), &[]);
        assert_eq!(warn_of_equal_repeats(&spec), None, "{seeds}");
    }
    let twice = "repeats = 8\nseeds = { fixed = [\"init\", \"head\"], crossed = { order = 2, augment = 2 } }";
    let warning = warn_of_equal_repeats(&read(&FILE.replace("repeats = 2", twice), &[]));
    assert!(warning.is_some_and(|warning| warning.contains("copies of 4 unless")));
}

#[test]
fn an_experiment_is_no_axis_and_no_case() {
    let mut spec = read(FILE, &[]);
    spec.program = None;
    let found = spec.check_cells().expect_err("a refusal").to_string();
    assert!(
        found.contains(
            "model.kind: an experiment is named by [model] alone, so this is no axis and no case"
        ),
        "{found}"
    );
}

/// Without its experiment, a file would be one of a training, whose axes are fields.
#[test]
fn nothing_is_told_that_follows_from_a_wrong_experiment() {
    for (from, to) in [
        ("custom:char-rnn", "custom:Char"),
        ("loss = \"min\"", "loss = 1"),
    ] {
        let text = FILE.replace(from, to);
        let mistakes = Spec::read_new_naming_mistakes(&source(&text, &[])).expect_err("a mistake");
        assert_eq!(mistakes.as_slice().len(), 1, "{mistakes}");
    }
}

/// The data of a cell as text; nothing if it has none.
fn data_of(spec: &Spec, cell: u64) -> String {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    let data = &config.data;
    match config.uses_dataset() {
        true => format!("{} {}/{}", data.dataset.as_str(), data.train, data.test),
        false => String::new(),
    }
}

#[test]
fn an_experiment_may_have_data_whose_fields_are_axes_cases_and_derived() {
    assert_eq!(data_of(&read(FILE, &[]), 0), "");
    let with_data = |more: &str| format!("{FILE}{more}");
    let section = "[data]\ndataset = \"cifar10\"\ntrain = 500\n";
    let spec = read(&with_data(section), &[]);
    assert_eq!(data_of(&spec, 1), "cifar10 500/10000");
    assert_eq!(values_of(&spec, 0), "lr=0.1 text=2 * x width=32");
    assert_eq!(
        data_of(&read(&with_data("[data]\n"), &[]), 0),
        "glyphs 10000/2000"
    );

    let axis = with_data("\"data.train\" = [100, 200]\n");
    let spec = read(&axis, &[]);
    assert_eq!(spec.grid.cell_count(), 4);
    let of_cells: Vec<String> = (0..4).map(|cell| data_of(&spec, cell)).collect();
    assert_eq!(
        of_cells
            .iter()
            .filter(|data| *data == "glyphs 100/2000")
            .count(),
        2
    );
    assert_eq!(
        of_cells
            .iter()
            .filter(|data| *data == "glyphs 200/2000")
            .count(),
        2
    );
    assert_eq!(values_of(&spec, 0), "lr=0.1 text=2 * x width=32");

    let cases = FILE.replace(
        "[grid]\nlr = [0.1, 0.25]\n",
        "[case]\nA = { lr = 0.1, data.train = 50 }\nB = { lr = 0.2, data.train = 60 }\n",
    );
    assert_eq!(data_of(&read(&cases, &[]), 1), "glyphs 60/2000");
    let derived = with_data("[derive]\n\"data.train\" = \"1000 * lr\"\n");
    let spec = read(&derived, &[]);
    assert_eq!(
        [0, 1].map(|cell| data_of(&spec, cell)),
        ["glyphs 100/2000", "glyphs 250/2000"]
    );
    assert_eq!(spec.grid.derived_value_names().count(), 0);
    assert_eq!(values_of(&spec, 0), "lr=0.1 text=2 * x width=32");

    let spec = read(&with_data(section), &["data.train=70", "data.test=9"]);
    assert_eq!(data_of(&spec, 0), "cifar10 70/9");
    let spec = read(&axis, &["data.train=70"]);
    assert_eq!(
        (spec.grid.cell_count(), data_of(&spec, 0).as_str()),
        (2, "glyphs 70/2000")
    );
}

#[test]
fn data_are_part_of_the_identity_and_their_lack_is_not() {
    let plain = read(FILE, &[]);
    let config = plain.grid.resolve_config(CellIndex(0)).expect("a cell");
    let values =
        "loss:min;seconds_of_step:volatile;lr=Number(0.1);text=Text(\"2 * x\");width=Number(32.0);";
    assert_eq!(
        config.identity_fields(),
        [("program.values", values.to_owned())]
    );
    assert_eq!(plain.min_grammar(), 4);

    let of = |data: &str| hash_of(&read(&format!("{FILE}[data]\n{data}"), &[]), 0);
    let hashes = [
        hash_of(&plain, 0),
        of(""),
        of("train = 100"),
        of("test = 100"),
        of("validation = 100"),
        of("standardize = false"),
        of("dataset = \"mnist\""),
    ];
    for (at, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..at].contains(hash), "{at}");
    }
    assert_eq!(of("train = 10000\ntest = 2000"), of(""));

    let spec = read(&format!("{FILE}[data]\n"), &[]);
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let other = spec.compute_cell_hash(&config, DatasetHash([7; 32]));
    assert_ne!(other, hash_of(&spec, 0));
}

/// Whoever cannot give an experiment data is told so by the grammar.
#[test]
fn data_of_an_experiment_need_a_program_that_knows_them() {
    let text = format!("{FILE}[data]\ntrain = 100\n");
    let spec = read(&text, &[]);
    assert_eq!(spec.min_grammar(), 5);
    let older = SpecSource {
        grammar: 4,
        ..source(&text, &[])
    };
    let found = Spec::read_new(&older).expect_err("a refusal").to_string();
    let words = "sweep.toml:10: data: this exists since version 5 of the grammar";
    assert!(found.starts_with(words), "{found}");
    let axis = read(&format!("{FILE}\"data.train\" = [100]\n"), &[]);
    assert_eq!(axis.min_grammar(), 5);
}

#[test]
fn quantities_use_the_fields_of_data_where_there_are_some() {
    let quantity = "[quantity]\nper_point = \"loss / data.train\"\n";
    let cases = FILE.replace(
        "[grid]\nlr = [0.1, 0.25]\n",
        "[case]\nA = { lr = 0.1, data.train = 50 }\nB = { lr = 0.2, data.train = 60 }\n",
    );
    for text in [
        format!("{FILE}\"data.train\" = [50, 60]\n{quantity}"),
        format!("{FILE}[data]\ntrain = 50\n{quantity}"),
        format!("{cases}{quantity}"),
    ] {
        let spec = read(&text, &[]);
        assert!(spec.claims.is_ok(), "{:?}", spec.claims);
    }
    let found = refusal(&format!("{FILE}{quantity}"));
    assert!(found.contains("data.train"), "{found}");
}

#[test]
fn a_program_has_no_fields_of_data() {
    let text = "name = \"t\"\n[program]\ncommand = [\"a\", \"{x}\"]\nmetrics = { loss = \"min\" }\n[grid]\nx = [1]\n";
    let axis = refusal(&format!("{text}\"data.train\" = [1]\n"));
    let words = "grid.data.train: 'data.train' is no name for a value of a program";
    assert!(axis.contains(words), "{axis}");
    let derived = refusal(&format!("{text}[derive]\n\"data.train\" = \"x\"\n"));
    assert!(derived.contains("'data.train' is no name"), "{derived}");
    let section = refusal(&format!("{text}[data]\n"));
    assert!(
        section.contains("data: a program brings its own data"),
        "{section}"
    );
}
