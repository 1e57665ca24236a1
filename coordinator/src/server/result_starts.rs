//! Starts from results: at its launch, a sweep whose trials start from weights that trials of another sweep kept gets the list of
//! them. The list and the files that it names are pinned as the files are that a sweep file names, so that they stay when the other
//! sweep is removed, and workers fetch them in the same way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::config::{ResultsSelection, ResultsSource};
use ergodic_common::ids::{CellIndex, FileHash, SweepId, SweepNumber};
use ergodic_common::net::Net;
use ergodic_common::pinned_file::FilePin;
use ergodic_common::quantity::find_cells_meeting;
use ergodic_common::random_streams::Purpose;
use ergodic_common::results_manifest::{KeptPart, ResultsManifest};
use ergodic_common::spec::misleading::used_streams;
use ergodic_common::spec::{Moment, SpecSource};
use ergodic_common::weights::Weights;
use ergodic_common::{ErrorCode, Outcome, Spec, TrialConfig, TrialKey};
use ergodic_proto::convert::{MAX_FILES, MAX_PINNED_FILES};
use ergodic_proto::status::UserError;
use tonic::Status;

use super::blobs::BlobStore;
use super::services::access::SweepApi;
use super::store_error;
use crate::core::Core;
use crate::core::queries::{SweepMatch, describe_cell};
use crate::store::StoreReader;
use crate::store::trial_range::TrialRange;

/// Maximum bytes of all files that trials start from, which workers hold in memory.
const MAX_START_BYTES: u64 = 4 << 30;
const FIELD: &str = "model.init.results";

/// A sweep whose trials kept weights.
struct KeptSweep {
    id: SweepId,
    number: SweepNumber,
    spec: Arc<Spec>,
}

impl SweepApi {
    /// Pins what the trials of a new sweep start from that trials of other sweeps kept, and reads the sweep with it.
    ///
    /// # Errors
    /// There is no such sweep, it has not ended, or lacks some of the weights.
    pub(super) async fn pin_results(
        &self,
        spec: Spec,
        source: &mut SpecSource,
    ) -> Result<Spec, Status> {
        // What another program resolved says nothing.
        source.files.retain(FilePin::is_named_by_sweep_file);
        let selections = list_selections(&spec);
        if selections.is_empty() {
            return Ok(spec);
        }

        let spec = Arc::new(spec);
        let mut pins = PinnedResults::default();
        for (path, selection) in selections {
            let word = name_sweep(&selection, source)?;
            let file = source.clone();
            let kept = self
                .query_core(move |core| {
                    find_kept_sweep(core, &word).map_err(|why| refuse(&file, why))
                })
                .await??;
            let resolution = StartResolution {
                kept,
                selection,
                spec: spec.clone(),
                source: source.clone(),
                blobs: self.0.catalog.blobs.clone(),
            };
            let resolved = self.read_store(move |reader| resolution.resolve(reader));
            let (manifest, files) = resolved.await?;
            pins.add(path, &manifest, files, &self.0.catalog.blobs)?;
        }

        let pins = pins.into_pins(source)?;
        source.files.extend(pins);
        let source = source.clone();
        let task = tokio::task::spawn_blocking(move || Spec::read_stored(&source));
        let read = task.await.map_err(|e| Status::internal(e.to_string()))?;
        read.map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()).into())
    }
}

/// Checks that a sweep that grows has initial weights for all its repeats.
///
/// # Errors
/// The trials start from weights that were listed at the launch, for fewer repeats.
pub(super) fn check_covered_repeats(spec: &Spec, blobs: &BlobStore) -> Result<(), UserError> {
    let configs = spec.grid.class_configs();
    let starts = configs
        .iter()
        .filter_map(|config| config.results_start.as_ref());
    for hash in starts.filter_map(|start| start.manifest) {
        let list = std::fs::read(blobs.blob_path(&hash)).map_err(|e| {
            let message =
                format!("the list of weights that its trials start from cannot be read: {e}");
            UserError::new(ErrorCode::Internal, message)
        })?;
        let manifest = ResultsManifest::decode(&list)
            .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?;
        let covered = manifest.repeat_count();
        if (spec.repeats as usize) > covered {
            let message = format!(
                "repeats: the weights that trials start from ({FIELD}) were listed at the launch, for {covered} repeats: launch the \
                 sweep file again with repeats = {}",
                spec.repeats
            );
            return Err(UserError::new(ErrorCode::Refused, message));
        }
    }

    Ok(())
}

/// The selections of all cells, by the paths of their lists.
fn list_selections(spec: &Spec) -> BTreeMap<String, ResultsSelection> {
    let starts = spec.grid.class_configs().into_iter();
    let starts = starts.filter_map(|config| config.results_start);
    starts
        .map(|start| (start.selection.manifest_path(), start.selection))
        .collect()
}

fn refuse(source: &SpecSource, why: impl Into<String>) -> UserError {
    UserError::new(
        ErrorCode::BadInput,
        source.field_error(FIELD, why).to_string(),
    )
}

/// The word that names the sweep of a selection.
fn name_sweep(selection: &ResultsSelection, source: &SpecSource) -> Result<String, UserError> {
    match &selection.source {
        ResultsSource::Sweep(word) => Ok(word.clone()),
        ResultsSource::Stage(name) => source.stage_sweep(name).ok_or_else(|| {
            let message = format!(
                "the sweep of the stage '{name}' is not known: `ergodic run` and `ergodic verify` run the stages of a file in turn; \
                 to launch one, name the sweep with --set results.{name}=ID"
            );
            refuse(source, message)
        }),
    }
}

/// Finds an ended sweep by its name, its id or a prefix of the id.
fn find_kept_sweep(core: &Core, word: &str) -> Result<KeptSweep, String> {
    let named: Vec<_> = core
        .sweeps()
        .filter(|sweep| sweep.spec.name == word)
        .collect();
    let sweep = match (&named[..], core.find_any_sweep(word)) {
        ([only], _) => *only,
        ([], Ok(SweepMatch::Readable(sweep))) => sweep,
        ([], _) => {
            return Err(format!(
                "no sweep here has the name or the id '{word}': `ergodic list` shows all"
            ));
        }
        (several, _) => {
            let ids: Vec<&str> = several.iter().map(|sweep| sweep.id.as_str()).collect();
            return Err(format!(
                "several sweeps have the name '{word}': name one of {} by its id",
                ids.join(", ")
            ));
        }
    };
    if sweep.state.is_open() {
        return Err(format!(
            "the sweep {} has not ended: wait for its end with `ergodic watch {}`, and launch this then",
            sweep.id, sweep.id
        ));
    }
    Ok(KeptSweep {
        id: sweep.id.clone(),
        number: sweep.number,
        spec: sweep.spec.clone(),
    })
}

/// What is needed to list the weights of a selection.
struct StartResolution {
    kept: KeptSweep,
    selection: ResultsSelection,
    /// The new sweep.
    spec: Arc<Spec>,
    source: SpecSource,
    blobs: BlobStore,
}

/// A cell whose trials are taken, with the moments: numbers of steps, or `None` for the end.
type TakenCell = (CellIndex, Vec<Option<u64>>);

/// The files of a list, each with its path among the files of the sweep.
type NamedParts = Vec<(FileHash, String)>;

/// What is stored of the trials of a sweep.
#[derive(Default)]
struct StoredEnds {
    outcomes: HashMap<TrialKey, Outcome>,
    files: HashMap<TrialKey, FileHash>,
}

impl StartResolution {
    /// Lists the weights for each repeat of the new sweep.
    ///
    /// # Errors
    /// Some are missing or do not fit the networks that start from them.
    fn resolve(
        &self,
        reader: &dyn StoreReader,
    ) -> Result<(ResultsManifest, NamedParts), UserError> {
        let cells = self.find_cells()?;
        self.check_repeats()?;
        self.check_independence(&cells)?;
        let ends = self.read_ends(reader)?;

        let mut files = BTreeMap::new();
        let mut repeats = Vec::with_capacity(self.spec.repeats as usize);
        for repeat in 0..self.spec.repeats {
            let mut parts = Vec::new();
            for (cell, steps) in &cells {
                let first = repeat * self.selection.block;
                for taken in first..first + self.selection.trials {
                    let key = TrialKey::new(cell.0, taken);
                    let file = self.find_file(&ends, key)?;
                    files.insert(file, format!("weights of {} {key}", self.kept.id));
                    parts.extend(steps.iter().map(|step| KeptPart { file, step: *step }));
                }
            }
            repeats.push(parts);
        }

        let manifest = ResultsManifest::new(repeats);
        self.check_parts(&manifest)?;
        Ok((manifest, files.into_iter().collect()))
    }

    fn refuse(&self, why: impl Into<String>) -> UserError {
        refuse(&self.source, why)
    }

    /// The cells whose trials are taken, with the moments: numbers of steps, or `None` for the end.
    fn find_cells(&self) -> Result<Vec<TakenCell>, UserError> {
        let KeptSweep { id, spec, .. } = &self.kept;
        let condition = self.selection.condition.as_deref();
        let cells = find_cells_meeting(&spec.grid, condition)
            .map_err(|why| self.refuse(format!("where, of the sweep {id}: {why}")))?;
        if cells.is_empty() {
            let condition = condition.unwrap_or_default();
            return Err(self.refuse(format!("no cell of {id} meets '{condition}'")));
        }
        let moments = cells
            .into_iter()
            .map(|cell| Ok((cell, self.find_moments(cell)?)));
        moments.collect()
    }

    fn find_moments(&self, cell: CellIndex) -> Result<Vec<Option<u64>>, UserError> {
        let KeptSweep { id, spec, .. } = &self.kept;
        let unread = |e: ergodic_common::SpecError| self.refuse(e.to_string());
        let config = spec.grid.resolve_config(cell).map_err(unread)?;
        let kept = spec.measure_in(cell).map_err(unread)?;
        let kept = kept.save.steps_in_trial(&config);
        let mut wanted: Vec<u64> = Vec::new();
        for text in &self.selection.at {
            let moment = Moment::parse_several(text);
            let steps = moment.map(|moment| moment.steps_in_trial(&config));
            let before = wanted.len();
            wanted.extend(steps.into_iter().flatten());
            if wanted.len() == before {
                return Err(self.refuse(format!(
                    "at: the trials of {id} ({}), which have {} steps, have no moment \"{text}\": leave the cell out with where, or \
                     name another moment",
                    describe_cell(spec, cell),
                    config.total_steps()
                )));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();

        if let Some(step) = wanted.iter().find(|step| !kept.contains(step)) {
            let keeps: Vec<String> = kept.iter().map(u64::to_string).collect();
            let keeps = match keeps.is_empty() {
                true => "they keep none".to_owned(),
                false => format!("they keep those after {} steps", keeps.join(", ")),
            };
            return Err(self.refuse(format!(
                "the trials of {id} ({}) keep no weights after {step} steps, {keeps}: add the moment to save under [measure] in the \
                 file of {id}, and launch it again",
                describe_cell(spec, cell)
            )));
        }
        let steps = wanted.into_iter();
        Ok(steps
            .map(|step| (step < config.total_steps()).then_some(step))
            .collect())
    }

    fn check_repeats(&self) -> Result<(), UserError> {
        let KeptSweep { id, spec, .. } = &self.kept;
        let ResultsSelection { trials, block, .. } = &self.selection;
        let repeats = self.spec.repeats;
        let before_last = u64::from(repeats - 1) * u64::from(*block);
        let needed = before_last + u64::from(*trials);
        if needed <= u64::from(spec.repeats) {
            return Ok(());
        }
        Err(self.refuse(format!(
            "{repeats} repeats that start from {trials} of {block} trials each need {needed} repeats of {id}, which has {}: add some with `ergodic \
             extend {id} --repeats {needed}`, or set fewer repeats or trials here",
            spec.repeats
        )))
    }

    /// Checks that repeats of the new sweep have nothing in common but what is the same in all of them.
    fn check_independence(&self, cells: &[TakenCell]) -> Result<(), UserError> {
        let KeptSweep { id, spec, .. } = &self.kept;
        let configs = cells
            .iter()
            .filter_map(|(cell, _)| spec.grid.resolve_config(*cell).ok());
        let used: Vec<Purpose> = configs.flat_map(|config| used_streams(&config)).collect();
        let shared = self
            .selection
            .find_shared_stream(&spec.seeds, &used, self.spec.repeats);
        let Some(stream) = shared else {
            return Ok(());
        };

        Err(self.refuse(format!(
            "repeats would take trials of {id} that have a level of the crossed stream '{}' in common, so that they are not \
             independent: choose trials and block so that each repeat has levels of its own, or take trials of a sweep without \
             seeds.crossed",
            stream.as_str()
        )))
    }

    fn read_ends(&self, reader: &dyn StoreReader) -> Result<StoredEnds, UserError> {
        let mut ends = StoredEnds::default();
        let number = self.kept.number;
        reader
            .read_ended_trials(number, TrialRange::ALL, &mut |trial| {
                ends.outcomes.insert(trial.key, trial.outcome);
            })
            .map_err(store_error)?;
        let damages = reader.read_weights_hashes(number, &mut |key, hash| {
            ends.files.insert(key, hash);
        });
        damages.map_err(store_error)?;
        Ok(ends)
    }

    /// The file of a trial, which is kept until the new sweep is stored.
    fn find_file(&self, ends: &StoredEnds, key: TrialKey) -> Result<FileHash, UserError> {
        let id = &self.kept.id;
        let problem = match (ends.outcomes.get(&key), ends.files.get(&key)) {
            (Some(Outcome::Completed), Some(hash)) if self.blobs.has_blob(hash) => {
                return Ok(*hash);
            }
            (Some(Outcome::Completed), _) => {
                format!("has lost its weights: `ergodic retry {id}` computes them again")
            }
            (Some(Outcome::Diverged { step }), _) => format!(
                "diverged at step {step}, and has none: leave its cell out with where, or set fewer repeats or trials"
            ),
            (Some(Outcome::Failed { .. }), _) => {
                format!("failed, and has none: `ergodic retry {id}` runs it again")
            }
            (None, _) => "was not run, and has none: set fewer repeats or trials".to_owned(),
        };
        Err(self.refuse(format!(
            "of the weights to start from, the trial {key} of {id} {problem}"
        )))
    }

    /// Checks that the weights fit the networks that start from them, by those of one trial per cell, and that there are pairs to
    /// compare if metrics do.
    fn check_parts(&self, manifest: &ResultsManifest) -> Result<(), UserError> {
        let parts = manifest
            .parts_of(ergodic_common::ids::Repeat(0))
            .unwrap_or_default();
        let compares = self
            .spec
            .measure
            .metrics
            .iter()
            .find(|metric| metric.is_of_parts());
        if let Some(metric) = compares.filter(|_| parts.len() < 2) {
            return Err(self.refuse(format!(
                "{} compares the weights that a trial starts from, which are those of one trial at one moment: set trials = 2 or \
                 more, or remove it",
                metric.name()
            )));
        }

        let path = self.selection.manifest_path();
        let configs = self.spec.grid.class_configs();
        let starting = configs.iter().filter(|config| starts_from(config, &path));
        let per_cell = (self.selection.trials as usize).max(1);
        for net in starting.filter_map(Net::from_config) {
            for part in parts.iter().step_by(per_cell) {
                let id = &self.kept.id;
                let read = std::fs::read(self.blobs.blob_path(&part.file)).map_err(|e| {
                    self.refuse(format!("a file of weights of {id} cannot be read: {e}"))
                })?;
                Weights::read_moment(&read, &net, part.step).map_err(|e| {
                    self.refuse(format!(
                        "the weights of {id} do not fit the network that starts from them: {e}"
                    ))
                })?;
            }
        }
        Ok(())
    }
}

fn starts_from(config: &TrialConfig, path: &str) -> bool {
    let start = config.results_start.as_ref();
    start.is_some_and(|start| start.selection.manifest_path() == path)
}

/// The lists of a new sweep, and the files that they name.
#[derive(Default)]
struct PinnedResults {
    lists: Vec<FilePin>,
    files: BTreeMap<FileHash, String>,
}

impl PinnedResults {
    /// Stores a list, and keeps its files until the sweep is stored.
    fn add(
        &mut self,
        path: String,
        manifest: &ResultsManifest,
        files: NamedParts,
        blobs: &BlobStore,
    ) -> Result<(), UserError> {
        let text = manifest.encode();
        let hash = FileHash::from(blake3::hash(text.as_bytes()));
        blobs.store_blob(&hash, text.as_bytes()).map_err(|e| {
            let message = format!("the list of weights to start from cannot be stored: {e}");
            UserError::new(ErrorCode::Internal, message)
        })?;
        self.lists.push(FilePin {
            path,
            hash,
            images: None,
        });
        for (file, path) in files {
            if !self.files.contains_key(&file) && !blobs.reserve(&file) {
                let message = format!("{path} are not there any more: launch the sweep again");
                return Err(UserError::new(ErrorCode::Refused, message));
            }
            self.files.insert(file, path);
        }
        self.check_size(blobs)
    }

    fn check_size(&self, blobs: &BlobStore) -> Result<(), UserError> {
        let sizes = self
            .files
            .keys()
            .map(|hash| std::fs::metadata(blobs.blob_path(hash)));
        let bytes: u64 = sizes.flatten().map(|file| file.len()).sum();
        let files = self.files.len();
        if bytes <= MAX_START_BYTES && files <= MAX_PINNED_FILES - 2 * MAX_FILES {
            return Ok(());
        }
        let message = format!(
            "{FIELD}: {files} files of {bytes} bytes are too many to start from: at most {} of {MAX_START_BYTES} bytes are possible; set \
             fewer trials, moments or repeats",
            MAX_PINNED_FILES - 2 * MAX_FILES
        );
        Err(UserError::new(ErrorCode::BadInput, message))
    }

    /// The pins, lists first.
    fn into_pins(self, source: &SpecSource) -> Result<Vec<FilePin>, UserError> {
        if self.lists.len() > MAX_FILES {
            let lists = self.lists.len();
            let message = format!(
                "{lists} selections of weights are too many: at most {MAX_FILES} are possible"
            );
            return Err(refuse(source, message));
        }
        let files = self.files.into_iter();
        let files = files.map(|(hash, path)| FilePin {
            path,
            hash,
            images: None,
        });
        Ok(self.lists.into_iter().chain(files).collect())
    }
}
