//! What `[stage]` means, and which start from results a cell has.

use super::tests::source;
use crate::Spec;
use crate::config::{Length, ResultsSource};
use crate::ids::{CellHash, CellIndex, DatasetHash, FileHash};
use crate::pinned_file::FilePin;
use crate::spec::SpecSource;
use crate::spec::scale::settings_with_scale;
use crate::spec::stage::{format_stage_setting, settings_with_stage};

const STAGES: &str = r#"
[seeds]
fixed = ["head"]
[model.init]
scheme = "orthogonal"
scale = 2.0
[grid]
lr = [0.1, 0.2]
[where]
keep = "lr > 0.05"
[measure]
metrics = ["train_loss", "test_acc"]
save = ["final"]
[quantity]
late = "at(test_acc, end)"
[[claim]]
name = "a"
of = "late"
above = 0.1
[stage.mean]
repeats = 4
seeds = { per_cell = ["order"] }
train = { steps = 0, lr = 1.0 }
measure = { metrics = ["test_acc"], save = [] }
model.init.results = { stage = "main", trials = 2 }
[stage.mean.grid]
"model.init.results.block" = [2, 3]
[[stage.mean.claim]]
name = "b"
of = "at(test_acc, end)"
above = 0.2
[stage.plain]
repeats = 9
lr = 1.0
[scale.desk]
repeats = 2
data.train = 500
[scale.desk.stage.mean]
repeats = 5
"#;

fn staged(scale: Option<&str>, stage: Option<&str>, settings: &[&str]) -> SpecSource {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    let mut source = source(STAGES, &[]);
    source.settings = settings_with_stage(&settings_with_scale(&settings, scale), stage);
    source.with_settings_of_axes()
}

fn read(scale: Option<&str>, stage: Option<&str>, settings: &[&str]) -> Spec {
    Spec::read_new(&staged(scale, stage, settings)).expect("a valid sweep")
}

fn claims(spec: &Spec) -> Vec<String> {
    let section = spec.claims.as_ref().expect("claims that can be read");
    section
        .claims
        .iter()
        .map(|claim| claim.name.clone())
        .collect()
}

#[test]
fn a_stage_has_the_fields_of_the_file_and_axes_and_claims_of_its_own() {
    let main = read(None, None, &[]);
    assert_eq!(main.stages.names, ["mean", "plain"]);
    assert_eq!(main.min_grammar(), 3);
    assert_eq!(
        (main.grid.cell_count(), claims(&main)),
        (2, vec!["a".to_owned()])
    );

    let mean = read(None, Some("mean"), &[]);
    assert_eq!(mean.name, format!("{}-mean", main.name));
    assert_eq!((mean.repeats, mean.grid.cell_count()), (4, 2));
    assert_eq!(claims(&mean), ["b"]);
    assert_eq!(mean.seeds.fixed, [], "seeds are replaced as a whole");
    let config = mean.grid.resolve_config(CellIndex(1)).expect("a cell");
    assert_eq!(config.train.length, Length::Steps(0));
    assert_eq!(
        config.model.init_scale, 1.0,
        "the start is replaced as a whole"
    );
    let start = config.results_start.expect("it starts from results");
    assert_eq!(start.selection.source, ResultsSource::Stage("main".into()));
    assert_eq!((start.selection.trials, start.selection.block), (2, 3));
    assert_eq!(start.manifest, None);

    let plain = read(None, Some("plain"), &[]);
    let config = plain.grid.resolve_config(CellIndex(0)).expect("a cell");
    assert_eq!((plain.grid.cell_count(), plain.repeats), (1, 9));
    assert_eq!((config.train.lr, config.model.init_scale), (1.0, 2.0));
    assert_eq!(claims(&plain), Vec::<String>::new());
}

#[test]
fn scales_and_settings_reach_into_stages() {
    let mean = read(Some("desk"), Some("mean"), &[]);
    let config = mean.grid.resolve_config(CellIndex(0)).expect("a cell");
    assert_eq!((mean.repeats, config.data.train), (5, 500));
    assert_eq!(read(Some("desk"), None, &[]).repeats, 2);
    let set = read(None, Some("mean"), &["repeats=7", "stage.mean.audit=0.5"]);
    assert_eq!((set.repeats, set.scheduling.audit_share), (7, 0.5));
}

/// The identity of a cell that starts from the list with this hash.
fn cell_hash(path: &str, list: FileHash, settings: &[&str]) -> CellHash {
    let mut source = staged(None, Some("mean"), settings);
    source.files = vec![FilePin {
        path: path.to_owned(),
        hash: list,
        images: None,
    }];
    let spec = Spec::read_stored(&source).expect("a valid sweep");
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let start = config
        .results_start
        .as_ref()
        .expect("it starts from results");
    assert_eq!(start.manifest, Some(list));
    spec.compute_cell_hash(&config, DatasetHash::NONE)
}

#[test]
fn a_cell_is_what_it_starts_from_however_that_is_named() {
    let [one, other] = [1, 2].map(|byte| FileHash([byte; 32]));
    let main = "results of the stage main: 2 of 2 per cell at final where true";
    let by_id = "results of the sweep abcd2345: 2 of 2 per cell at final where true";
    let set = "stage.mean.model.init.results={ sweep = 'abcd2345', trials = 2 }";
    let hash = cell_hash(main, one, &[]);
    assert_eq!(cell_hash(by_id, one, &[set]), hash);
    assert_eq!(cell_hash(main, one, &["results.main=abcd2345"]), hash);
    assert_ne!(cell_hash(main, other, &[]), hash);
}

#[test]
fn the_sweep_of_a_stage_is_a_setting() {
    let setting = format_stage_setting("main", "12345678");
    let mut source = staged(None, Some("mean"), &[]);
    assert_eq!(source.stage_sweep("main"), None);
    source.settings.push(setting);
    assert_eq!(source.stage_sweep("main").as_deref(), Some("12345678"));
    assert!(Spec::read_new(&source).is_ok());

    let error = source.field_error("model.init.results", "why").to_string();
    assert!(error.contains("model.init.results: why"), "{error}");
}

/// Stored sweeps of earlier versions have neither, and mean what they meant.
#[test]
fn a_file_without_stages_has_the_text_of_its_checkpoints_unchanged() {
    let config = read(None, None, &[])
        .grid
        .resolve_config(CellIndex(0))
        .expect("a cell");
    let text = format!("{config:?}");
    assert!(
        text.starts_with("TrialConfig { data: DataConfig {") && text.ends_with("} }"),
        "{text}"
    );
    assert!(!text.contains("results"), "{text}");
}
