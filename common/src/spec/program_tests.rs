//! Sweeps of programs: what they mean, and what is said of those that mean nothing.

use crate::Spec;
use crate::ids::{CellHash, CellIndex, DatasetHash, FileHash, Repeat};
use crate::metric::Metric;
use crate::pinned_file::{FilePin, PROGRAM_BUNDLE};
use crate::program::needs::TrialNeeds;
use crate::program::{Direction, TrialFacts};
use crate::random_streams::{SeedPlan, Streams};
use crate::spec::SpecSource;
use crate::spec::misleading::{refuse_misleading_sweep, warn_of_equal_repeats};
use crate::trial::{Predictions, TrialKey, TrialResult};

const PROGRAM: &str = "name = \"t\"\nrepeats = 2\n[program]\ncommand = [\"python3\", \"train.py\", \"--lr={lr}\", \"{seed.init}\"]\n\
                       files = [\"train.py\"]\nmetrics = { loss = \"min\", acc = \"max\", time = \"volatile\" }\n";
const GRID: &str = "[grid]\nlr = [0.1, 0.25]\n";

fn source(text: &str, settings: &[&str]) -> SpecSource {
    let pin = FilePin {
        path: PROGRAM_BUNDLE.into(),
        hash: FileHash([7; 32]),
        images: None,
    };
    SpecSource {
        file: "sweep.toml".into(),
        text: text.to_owned(),
        settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        files: vec![pin],
        ..SpecSource::default()
    }
}

fn read(text: &str) -> Spec {
    Spec::read_new(&source(text, &[])).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(text: &str) -> String {
    match Spec::read_new(&source(text, &[])) {
        Ok(_) => panic!("this should be refused:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// The command of a cell in its first repeat.
fn command_of(spec: &Spec, cell: u64) -> Vec<String> {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    let program = config.model.kind.program().expect("a program");
    let streams = Streams {
        sweep_seed: spec.seed,
        repeat: Repeat(0),
        cell: CellHash([0; 32]),
        plan: SeedPlan::default(),
    };
    program.fill_command(&TrialFacts {
        streams: &streams,
        dir: "/tmp/trial",
    })
}

#[test]
fn axes_and_derived_fields_are_values_of_the_command() {
    let text = format!(
        "{}[grid]\nlr = [0.1, 0.25]\nkind = [\"a\", \"b\"]\nflag = [true]\n[derive]\nhalf = \"lr / 2\"\n[where]\nkeep = \"half < 0.1\"\n",
        PROGRAM.replace(
            "\"--lr={lr}\"",
            "\"--lr={lr}\", \"{kind}\", \"{flag}\", \"{half}\""
        )
    );
    let spec = read(&text);
    assert_eq!(spec.grid.cell_count(), 2);
    let command = command_of(&spec, 0);
    assert_eq!(
        command[..6],
        ["python3", "train.py", "--lr=0.1", "a", "true", "0.05"]
    );
    assert!(command[6].parse::<u64>().expect("a seed") < 1 << 53);
    assert_eq!(spec.grid.derived_values_in(CellIndex(0)), [("half", 0.05)]);
    assert_eq!(spec.min_grammar(), 4);

    let metrics: Vec<_> = spec.measure.metrics.iter().map(Metric::name).collect();
    assert_eq!(metrics, ["loss", "acc", "time"]);
    let better = spec.measure.metrics.iter().map(Metric::larger_is_better);
    assert_eq!(better.collect::<Vec<_>>(), [Some(false), Some(true), None]);
}

#[test]
fn cases_set_values_of_the_command() {
    let text = format!(
        "{PROGRAM}[case]\nA = {{ lr = 0.1, opt = \"sgd\" }}\nB = {{ lr = 0.2, opt = \"adam\" }}\n"
    );
    let spec = read(&text);
    assert_eq!(command_of(&spec, 1)[2], "--lr=0.2");
    let cells = crate::quantity::find_cells_meeting(&spec.grid, Some("opt == \"adam\""));
    assert_eq!(cells, Ok(vec![CellIndex(1)]));

    let lacking = format!("{PROGRAM}[case]\nA = {{ lr = 0.1, opt = 1 }}\nB = {{ lr = 0.2 }}\n");
    assert!(refusal(&lacking).contains("the value opt has no value here: the case A sets it"));
}

#[test]
fn conditions_and_quantities_find_values_by_name() {
    let text = format!(
        "{PROGRAM}{GRID}[derive]\nhalf = \"lr / 2\"\n[quantity]\nratio = \"at(loss, end) / half\"\nearly = \"mean(loss, last 50 %)\"\n"
    );
    let spec = read(&text);
    let cells = crate::quantity::find_cells_meeting(&spec.grid, Some("half > 0.1"));
    assert_eq!(cells, Ok(vec![CellIndex(1)]));

    let claims = spec.claims.as_ref().expect("they can be read");
    let quantity = |text: &str| {
        claims
            .compile_trial_quantity(&spec.grid, &spec.measure.metrics, text)
            .expect("a quantity")
    };
    let value = |text: &str, cell: u64| {
        let quantity = quantity(text);
        let inputs = quantity
            .cell_inputs(&spec.grid, CellIndex(cell))
            .expect("a cell");
        let losses = [4.0, 2.0, 1.0, f64::NAN];
        let steps = [10.0, 20.0, 30.0, 40.0];
        let value = |row: usize, _: usize| losses[row];
        quantity.evaluate(&inputs, &steps, &value).as_number()
    };
    assert_eq!(value("ratio", 0), 1.0 / 0.05);
    assert_eq!(value("early", 0), 1.5);
    assert_eq!(value("at(loss, 25)", 0), 2.0);
    assert!(value("at(loss, 5)", 0).is_nan());
}

#[test]
fn a_trial_takes_what_the_program_needs() {
    assert_eq!(
        read(&format!("{PROGRAM}{GRID}")).trial_needs(),
        TrialNeeds::ONE_SLOT
    );
    let keys = "slots = 4\nmemory = \"1536 MiB\"\ngpus = 0.25\n";
    let needs = read(&format!("{PROGRAM}{keys}{GRID}")).trial_needs();
    let expected = TrialNeeds {
        slots: 4,
        memory: 1536 << 20,
        gpu_parts: 25,
    };
    assert_eq!(needs, expected);
}

#[test]
fn the_identity_of_a_cell_is_what_the_program_gets() {
    let spec = read(&format!("{PROGRAM}{GRID}"));
    let hash = |spec: &Spec, cell: u64| {
        let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
        spec.compute_cell_hash(&config, DatasetHash::NONE)
    };
    assert_ne!(hash(&spec, 0), hash(&spec, 1));
    assert!(spec.numerics.starts_with("program/"));
    assert_eq!(spec.numerics.len(), "program/".len() + 16);

    let whole = format!("{PROGRAM}checkpoint_limit = \"1 GiB\"\n{GRID}");
    let limit = |text: &str| read(text).program().map(|program| program.checkpoint_limit);
    assert_eq!(limit(&whole), Some(1 << 30));
    assert_eq!(limit(&format!("{PROGRAM}{GRID}")), limit(&whole));
    let same = format!("{PROGRAM}checkpoint_limit = \"1 MiB\"\nrequire = [[\"true\"]]\n{GRID}");
    let same = same.replace(
        "metrics",
        "slots = 2\nmemory = \"1 GiB\"\ngpus = 1\nmetrics",
    );
    let same = same.replace("repeats = 2", "repeats = 5\ntime_limit = \"1h\"");
    assert_eq!(hash(&read(&same), 0), hash(&spec, 0));

    for (from, to) in [
        ("train.py\", \"--lr", "other.py\", \"--lr"),
        ("loss = \"min\"", "loss = \"max\""),
        ("metrics = {", "env = { A = \"1\" }\nmetrics = {"),
        ("metrics = {", "pass_env = [\"A\"]\nmetrics = {"),
        ("metrics = {", "deterministic = true\nmetrics = {"),
        ("repeats = 2", "seed = 1"),
    ] {
        let other = format!("{PROGRAM}{GRID}").replace(from, to);
        assert_ne!(hash(&read(&other), 0), hash(&spec, 0), "{to}");
    }

    let mut changed = source(&format!("{PROGRAM}{GRID}"), &[]);
    changed.files[0].hash = FileHash([8; 32]);
    let changed = Spec::read_new(&changed).expect("a valid sweep");
    assert_ne!(changed.numerics, spec.numerics);

    let pinned = format!("numerics=\"{}\"", spec.numerics);
    let stored = source(&format!("{PROGRAM}{GRID}"), &[&pinned]);
    let stored = Spec::read_new(&stored).expect("a valid sweep");
    assert_eq!(stored.numerics, spec.numerics);
}

#[test]
fn what_stands_in_another_list_of_a_program_is_another_identity() {
    let class = |command: &str, more: &str| {
        let text = format!(
            "name = \"t\"\nrepeats = 2\n[program]\ncommand = [{command}]\nmetrics = {{ loss = \"min\" }}\n{more}"
        );
        let source = SpecSource {
            text,
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let program = spec.program().expect("a program").clone();
        (spec.numerics, program)
    };
    let (long, program) = class("\"x\", \"files\", \"env\", \"A\", \"1\"", "");
    let (short, _) = class("\"x\"", "env = { A = \"1\", files = \"env\" }\n");
    assert_ne!(long, short);

    let (_, one) = class("\"x\"", "require = [[\"a\", \"require\", \"b\"]]\n");
    let (_, two) = class("\"x\"", "require = [[\"a\"], [\"b\"]]\n");
    assert_ne!(one.consent_hash(&[]), two.consent_hash(&[]));
    let texts = [("a".to_owned(), "b".to_owned())];
    let (_, required) = class("\"x\"", "require = [[\"a\", \"b\"]]\n");
    assert_ne!(program.consent_hash(&texts), program.consent_hash(&[]));
    assert_ne!(required.consent_hash(&[]), one.consent_hash(&texts));
}

#[test]
fn cells_with_the_same_values_are_the_same_wherever_these_stand() {
    let hash = |more: &str| {
        let spec = read(&format!("{PROGRAM}{more}"));
        let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
        spec.compute_cell_hash(&config, DatasetHash::NONE)
    };
    let one = hash("[grid]\nlr = [0.5]\nwidth = [2]\nkind = [\"a\"]\n");
    assert_eq!(
        one,
        hash("[grid]\nkind = [\"a\"]\nwidth = [2]\nlr = [0.5]\n")
    );
    assert_eq!(
        one,
        hash("[case]\nA = { width = 2, lr = 0.5 }\n[grid]\nkind = [\"a\"]\n")
    );
    let derived = "[grid]\nkind = [\"a\"]\nlr = [0.5]\n[derive]\nwidth = \"4 * lr\"\n";
    assert_eq!(one, hash(derived));
    assert_ne!(
        one,
        hash("[grid]\nlr = [2]\nwidth = [0.5]\nkind = [\"a\"]\n")
    );
}

#[test]
fn a_stored_program_keeps_names_that_later_versions_take() {
    let text = PROGRAM.replace("loss =", "mean =") + GRID + "[derive]\nhash = \"lr\"\n";
    let stored = Spec::read_stored(&source(&text, &[])).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stored.measure.metrics[0].name(), "mean");
    assert_eq!(stored.grid.derived_values_in(CellIndex(0)), [("hash", 0.1)]);
}

#[test]
fn a_setting_of_an_axis_gives_it_other_values() {
    let source = source(&format!("{PROGRAM}{GRID}"), &["lr=[1, 2, 3]"]).with_settings_of_axes();
    let spec = Spec::read_new(&source).expect("a valid sweep");
    assert_eq!(spec.grid.cell_count(), 3);
}

#[test]
fn metrics_with_a_direction_decide_how_many_repeats_there_are() {
    let rule = |metric: &str| {
        PROGRAM.replace("repeats = 2\n", "")
            + GRID
            + &format!(
                "[repeats]\nmin = 2\nmax = 8\nhalving = {{ metric = \"{metric}\", factor = 2 }}\n"
            )
    };
    let spec = read(&rule("loss"));
    let metric = spec.stopping_rule.expect("a rule").metric;
    assert_eq!(metric.larger_is_better(), Some(false));
    let Metric::Declared(declared) = metric else {
        panic!("it is declared");
    };
    assert_eq!(declared.direction, Direction::Min);
    assert!(refusal(&rule("time")).contains("repeats.halving.metric: time is volatile"));
    assert!(refusal(&rule("los")).contains("program.metrics has no 'los', did you mean 'loss'?"));
}

#[test]
fn repeats_of_a_program_that_gets_the_same_seeds_are_refused() {
    let why = |seeds: &str, change: (&str, &str)| {
        let text = format!("{PROGRAM}{GRID}").replace("repeats = 2", seeds);
        let spec = read(&text.replace(change.0, change.1));
        let refused = refuse_misleading_sweep(&spec).err();
        refused.map_or_else(String::new, |error| error.to_string())
    };
    let fixed = "repeats = 20\nseeds = { fixed = [\"init\"] }";
    let found = why(fixed, ("", ""));
    assert!(
        found.contains("20 repeats of a cell are copies of 1: everything random about its trials (init) is fixed"),
        "{found}"
    );
    assert!(
        found.contains("or add {seed} or {repeat} to program.command"),
        "{found}"
    );
    let crossed = "repeats = 12\nseeds = { crossed = { init = 2, order = 3 } }";
    let both = ("{seed.init}", "{seed.init}{seed.order}");
    assert!(why(crossed, both).contains("12 repeats of a cell are copies of 6"));
    let once = crossed.replace("12", "6");
    assert_eq!(why(&once, both), "");

    for change in [
        ("{seed.init}", "{seed}"),
        ("{seed.init}", "{seed.init}-{repeat}"),
        ("{seed.init}", "{seed.init}{seed.order}"),
        ("{seed.init}", "x"),
        ("files = [", "env = { R = \"{repeat}\" }\nfiles = ["),
        ("files = [", "files = [\"ergodic:python\", "),
    ] {
        assert_eq!(why(fixed, change), "", "{change:?}");
    }
}

#[test]
fn a_program_whose_streams_are_not_seen_is_a_warning_if_all_are_fixed() {
    let all = "fixed = [\"init\", \"head\", \"order\", \"augment\"]";
    let warning = |seeds: &str, change: (&str, &str)| {
        let seeds = format!("repeats = 8\nseeds = {{ {seeds} }}");
        let text = format!("{PROGRAM}{GRID}").replace("repeats = 2", &seeds);
        let spec = read(&text.replace(change.0, change.1));
        assert!(refuse_misleading_sweep(&spec).is_ok(), "{change:?}");
        warn_of_equal_repeats(&spec)
    };

    let helper = ("files = [", "files = [\"ergodic:python\", ");
    let unseen = ("{seed.init}", "x");
    for change in [helper, unseen] {
        let said = warning(all, change).expect("repeats may be equal");
        assert!(
            said.starts_with("repeats: all streams of seeds (init, head, order, augment) are fixed or crossed, so that the 8 repeats")
                && said.contains("copies of 1 unless the program draws from other streams")
                && said.ends_with("or add {seed} or {repeat} to program.command or program.env"),
            "{said}"
        );
    }
    let crossed = "fixed = [\"init\", \"head\"], crossed = { order = 2, augment = 2 }";
    assert!(warning(crossed, helper).is_some_and(|said| said.contains("copies of 4 unless")));

    let some = "fixed = [\"init\", \"head\", \"order\"]";
    for (seeds, change) in [
        (some, helper),
        (some, unseen),
        (all, ("{seed.init}", "{seed}")),
        (all, ("{seed.init}", "{repeat}")),
    ] {
        assert_eq!(warning(seeds, change), None, "{seeds} {change:?}");
    }
}

/// Checks the refusal of a program with one change.
fn check_change(from: &str, to: &str, expected: &str) {
    let text = format!("{PROGRAM}{GRID}");
    assert!(text.contains(from), "{from}");
    let found = refusal(&text.replacen(from, to, 1));
    assert!(found.contains(expected), "{to}: {found}");
    // What is wrong in the section has a line.
    let line = found.strip_prefix("sweep.toml:").unwrap_or_default();
    let has_line = line.starts_with(|c: char| c.is_ascii_digit());
    assert!(has_line || !found.contains(": program."), "{to}: {found}");
}

#[test]
fn wrong_sections_beside_a_program_are_refused() {
    for (section, words) in [
        (
            "[data]\ntrain = 1\n",
            "data: a program brings its own data: remove [data]",
        ),
        (
            "[model]\nkind = \"mlp\"\n",
            "model: a program is its own model: remove [model]",
        ),
        (
            "[train]\nlr = 1\n",
            "train: a program trains by itself: remove [train]",
        ),
        (
            "[measure]\nevery = \"1 step\"\n",
            "measure: a program measures what it declares",
        ),
        (
            "[stage.a]\nrepeats = 1\n",
            "stage: a program or experiment takes no weights of others",
        ),
    ] {
        let found = refusal(&format!("{PROGRAM}{GRID}{section}"));
        assert!(found.starts_with("sweep.toml:9"), "{found}");
        assert!(found.contains(words), "{found}");
    }
    check_change(
        "repeats = 2",
        "numerics = \"cpu-f32\"",
        "numerics: the numerics class of this program is program/",
    );
    check_change(
        "repeats = 2",
        "audit = 0.5",
        "audit: an audit compares results",
    );
}

/// Without its program, a file would be one of a training, whose axes are fields.
#[test]
fn nothing_is_told_that_follows_from_a_wrong_program() {
    let text = format!("{PROGRAM}{GRID}").replace("{lr}", "{lx}");
    let mistakes = Spec::read_new_naming_mistakes(&source(&text, &[])).expect_err("a mistake");
    assert_eq!(mistakes.as_slice().len(), 1, "{mistakes}");
}

#[test]
fn wrong_fields_of_a_program_are_named_with_line_and_remedy() {
    for (from, to, expected) in [
        (
            "command",
            "comand",
            "sweep.toml:4: program.comand: unknown key",
        ),
        (
            "command = [\"python3\"",
            "command = [\"{lx}\"",
            "program.command: no axis or derived field is called {lx}, did you mean 'lr'?",
        ),
        (
            "\"--lr={lr}\"",
            "\"--lr={lr\"",
            "a { stands alone in \"--lr={lr\": write {{",
        ),
        (
            "{seed.init}",
            "{seed.innit}",
            "there are no seeds for 'innit', did you mean 'init'?",
        ),
        ("{seed.init}", "{cell}", "{cell} is no placeholder"),
        (
            "{seed.init}",
            "{'loss': 1}",
            "{'loss': 1} is no placeholder: write {{ and }} for braces",
        ),
        (
            "\"train.py\"]\nm",
            "\"../train.py\"]\nm",
            "program.files: \"../train.py\" is no path below the folder",
        ),
        (
            "\"train.py\"]\nm",
            "\"/train.py\"]\nm",
            "program.files: \"/train.py\" is no path below the folder",
        ),
        (
            "\"train.py\"]\nm",
            "\"ergodic:pyton\"]\nm",
            "did you mean 'ergodic:python'?",
        ),
        (
            "\"train.py\"]\nm",
            "\"a\", \"a\"]\nm",
            "\"a\" is listed twice",
        ),
        (
            "\"train.py\"]\nm",
            "\"ergodic_trial.py\"]\nm",
            "is that of the helper: write \"ergodic:python\"",
        ),
        (
            "loss = \"min\"",
            "loss = \"mim\"",
            "program.metrics.loss: which values are better? Found 'mim', did you mean 'min'?",
        ),
        (
            "loss = \"min\"",
            "step = \"min\"",
            "program.metrics.step: 'step' has a meaning of its own",
        ),
        (
            "loss = \"min\"",
            "\"a b\" = \"min\"",
            "expected a name of at most 64 letters",
        ),
        (
            "metrics = {",
            "env = { ERGODIC_X = \"1\" }\nmetrics = {",
            "program.env: ERGODIC_X begins with ERGODIC_",
        ),
        (
            "metrics = {",
            "env = { A = 1 }\nmetrics = {",
            "sweep.toml:6: program.env.A: expected a string, found 1: write it in quotes, as in \"1\"",
        ),
        (
            "metrics = {",
            "env = { A = \"1\" }\npass_env = [\"A\"]\nmetrics = {",
            "program.pass_env: env sets A already",
        ),
        (
            "metrics = {",
            "require = [\"true\"]\nmetrics = {",
            "program.require: expected a list of commands, found 'true'",
        ),
        (
            "metrics = {",
            "checkpoint_limit = \"5 GB\"\nmetrics = {",
            "program.checkpoint_limit: expected a size",
        ),
        (
            "metrics = {",
            "checkpoint_limit = \"1025 MiB\"\nmetrics = {",
            "program.checkpoint_limit: expected a size from \"1 KiB\" to \"1 GiB\"",
        ),
        (
            "metrics = {",
            "slots = 0\nmetrics = {",
            "program.slots: expected a whole number >= 1 and <= 4096, found 0",
        ),
        (
            "metrics = {",
            "memory = 4\nmetrics = {",
            "sweep.toml:6: program.memory: expected a string, found 4: write a size with its unit, such as \"4 GiB\"",
        ),
        (
            "metrics = {",
            "memory = \"4 GB\"\nmetrics = {",
            "program.memory: expected a size from \"1 KiB\" to \"65536 GiB\", such as \"4 GiB\", found '4 GB'",
        ),
        (
            "metrics = {",
            "gpus = 1.5\nmetrics = {",
            "program.gpus: expected a share of one GPU in hundredths, such as 0.5, or a whole number of GPUs from 1 to 64, found 1.5",
        ),
        (
            "metrics = {",
            "gpus = 1\npass_env = [\"CUDA_VISIBLE_DEVICES\"]\nmetrics = {",
            "program.pass_env: gpus sets CUDA_VISIBLE_DEVICES already: keep one of the two",
        ),
        (
            "metrics = {",
            "gpus = 1\nenv = { CUDA_DEVICE_ORDER = \"PCI_BUS_ID\" }\nmetrics = {",
            "program.env: gpus sets CUDA_DEVICE_ORDER already: keep one of the two",
        ),
        (
            "metrics = {",
            "gpus = 0.5\nenv = { CUDA_VISIBLE_DEVICES = \"0\" }\nmetrics = {",
            "program.env: gpus sets CUDA_VISIBLE_DEVICES already",
        ),
        (
            "metrics = {",
            "save = \"*.pt\"\nmetrics = {",
            "sweep.toml:6: program.save: expected a list, found '*.pt': write save = [\"*.pt\"]",
        ),
        (
            "[\"train.py\"]\nm",
            "\"train.py\"\nm",
            "sweep.toml:5: program.files: expected a list, found 'train.py': write files = [\"train.py\"]",
        ),
        (
            "[\"train.py\"]\nm",
            "[\n\"a.py\",\ntrue]\nm",
            "sweep.toml:7: program.files: expected a string, found true: write it in quotes, as in \"true\"",
        ),
        (
            "[\"train.py\"]\nm",
            "[[1]]\nm",
            "sweep.toml:5: program.files: expected a string, found a list: write one, such as \"train.py\"",
        ),
        (
            "metrics = {",
            "pass_env = 3\nmetrics = {",
            "sweep.toml:6: program.pass_env: expected a list, found 3: write pass_env = [\"VIRTUAL_ENV\"]",
        ),
        (
            "metrics = {",
            "require = \"true\"\nmetrics = {",
            "sweep.toml:6: program.require: expected a list of commands, found 'true': write require = [[",
        ),
        (
            "metrics = {",
            "checkpoint_limit = 5\nmetrics = {",
            "program.checkpoint_limit: expected a string, found 5: write a size with its unit, such as \"512 MiB\"",
        ),
        (
            "metrics = {",
            "save = []\nmetrics = {",
            "program.save: expected 1 to 100 patterns of files, found 0",
        ),
        (
            "metrics = {",
            "save = [1]\nmetrics = {",
            "program.save: expected a pattern of files, such as \"*.pt\", found 1",
        ),
        (
            "metrics = {",
            "save = [\"*.pt\", \"../*.pt\"]\nmetrics = {",
            "program.save: \"../*.pt\" is no pattern below the folder of the trial",
        ),
        (
            "metrics = {",
            "save = [\"*.pt\", \"*.pt\"]\nmetrics = {",
            "program.save: \"*.pt\" is listed twice: remove one",
        ),
        (
            "lr = [0.1",
            "loss = [1]\nlr = [0.1",
            "grid.loss: program.metrics has this name",
        ),
        (
            "lr = [0.1",
            "seed = [1]\nlr = [0.1",
            "grid.seed: {seed} is a placeholder already",
        ),
        (
            "lr = [0.1",
            "\"a b\" = [1]\nlr = [0.1",
            "grid.a b: 'a b' is no name for a value of a program",
        ),
        (
            "lr = [0.1",
            "x = [[1]]\nlr = [0.1",
            "expected a number, a string, true or false for a program, found a list",
        ),
        (
            "lr = [0.1",
            "steps = [1]\nlr = [0.1",
            "grid.steps: 'steps' is a column of tables",
        ),
        (
            "lr = [0.1",
            "id = [9007199254740993]\nlr = [0.1",
            "9007199254740993 lies beyond 2^53, where numbers lose digits: write it as a string, \"9007199254740993\"",
        ),
        (
            "loss = \"min\"",
            "std = \"min\"",
            "program.metrics.std: 'std' is a column of tables: choose another name",
        ),
        (
            "loss = \"min\"",
            "weights = \"min\"",
            "program.metrics.weights: 'weights' is a column of tables: choose another name",
        ),
        (
            "lr = [0.1, 0.25]",
            "lr = [0.1, 0.25]\n[derive]\nhash = \"lr\"",
            "derive.hash: 'hash' is a column of tables: choose another name",
        ),
        (
            "lr = [0.1, 0.25]",
            "lr = [0.1, 0.25]\n[derive]\nsteps = \"lr\"",
            "derive.steps: 'steps' is a column of tables: choose another name",
        ),
    ] {
        check_change(from, to, expected);
    }
}

#[test]
fn wrong_quantities_of_a_program_are_refused() {
    for (quantity, expected) in [
        ("mean(epoch)", "a program has no epochs"),
        ("mean(samples)", "a program has no images"),
        ("at(loss, decay)", "a program has no schedule"),
        (
            "mean(loss, last 2 epochs)",
            "a program has no epochs, found '2 epochs'",
        ),
        (
            "test_acc",
            "there is no quantity, metric, axis or field 'test_acc'",
        ),
    ] {
        let found = refusal(&format!("{PROGRAM}{GRID}[quantity]\nq = \"{quantity}\"\n"));
        assert!(found.contains(expected), "{quantity}: {found}");
    }
    let labels = "[[claim]]\nname = \"c\"\nform = \"labels\"\nover = \"lr\"\nbelow = 0.1\n";
    read(&format!(
        "{PROGRAM}{GRID}{labels}at = \"50 steps\"\njoint = true\nrelative_to = \"final\"\n"
    ));
    for (key, moment) in [("at", "2 epochs"), ("relative_to", "50 %")] {
        let found = refusal(&format!("{PROGRAM}{GRID}{labels}{key} = \"{moment}\"\n"));
        let expected = format!(
            "claim 'c': {key}: predictions of programs are at the steps that they report: write \"1000 steps\" or \"final\", found \"{moment}\""
        );
        assert!(found.contains(&expected), "{found}");
    }
    let hidden = refusal(&format!("{PROGRAM}{GRID}[quantity]\nloss = \"lr\"\n"));
    assert!(hidden.contains("a metric has this name"), "{hidden}");
}

/// The sweep with this line in `[program]`.
fn read_saving(save: &str) -> Spec {
    let text = format!("{PROGRAM}{GRID}");
    let text = text.replacen("metrics = {", &format!("{save}metrics = {{"), 1);
    read(&text)
}

#[test]
fn files_that_are_kept_are_part_of_the_program_and_need_a_later_grammar() {
    let none = read_saving("");
    let [some, same, other] = [
        "save = [\"*.pt\", \"out/*\"]\n",
        "save = [\"out/*\", \"*.pt\"]\n",
        "save = [\"*.pt\"]\n",
    ]
    .map(read_saving);
    assert_eq!(some.numerics, same.numerics);
    assert_ne!(some.numerics, none.numerics);
    assert_ne!(some.numerics, other.numerics);
    assert_eq!((none.min_grammar(), some.min_grammar()), (4, 6));

    let text =
        format!("{PROGRAM}{GRID}").replacen("metrics = {", "save = [\"*.pt\"]\nmetrics = {", 1);
    let mut old = source(&text, &[]);
    old.grammar = 5;
    let error = Spec::read_stored(&old).expect_err("it is too old");
    assert_eq!(error.path, "program.save");
    assert!(error.message.contains("since version 6 of the grammar"));
}

#[test]
fn results_of_programs_are_reused_with_their_predictions_and_files() {
    for (save, keeps) in [("", false), ("save = [\"*.pt\"]\n", true)] {
        let spec = read_saving(save);
        let program = spec.program().expect("a program");
        let result = TrialResult {
            metrics: vec![0.5; program.metrics.len()],
            predictions: Predictions {
                steps: vec![1, 2],
                classes: vec![3, 4, 5, 6],
            },
            weights_hash: Some(FileHash([7; 32])),
            ..TrialResult::completed(TrialKey::new(0, 0))
        };
        let selection = program.selection_for(program).expect("it is the same");
        let reused = selection.apply_to(result.clone());
        assert_eq!(reused.predictions, result.predictions);
        assert_eq!(reused.weights_hash.is_some(), keeps);
    }
}

#[test]
fn a_program_needs_the_grammar_that_has_it() {
    let mut old = source(&format!("{PROGRAM}{GRID}"), &[]);
    old.grammar = 3;
    let error = Spec::read_stored(&old).expect_err("it is too old");
    assert_eq!(error.path, "program");
    assert!(error.message.contains("since version 4 of the grammar"));
}
