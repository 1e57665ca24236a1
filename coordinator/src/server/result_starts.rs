//! Starts from results: at its launch, a sweep whose trials start from weights that trials of another sweep kept gets the list of
//! them. The list and the files that it names are pinned as the files are that a sweep file names, so that they stay when the other
//! sweep is removed, and workers fetch them in the same way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ergodic_common::config::{ResultsSelection, ResultsSource};
use ergodic_common::ids::{FileHash, SweepId, SweepNumber};
use ergodic_common::net::Net;
use ergodic_common::pinned_file::FilePin;
use ergodic_common::results_manifest::{KeptPart, ResultsManifest};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::taken_weights::{RESULTS_FIELD, TakenCell, WeightsTaking};
use ergodic_common::weights::Weights;
use ergodic_common::{ErrorCode, Outcome, Spec, TrialKey};
use ergodic_proto::convert::{MAX_FILES, MAX_PINNED_FILES};
use ergodic_proto::status::UserError;
use tonic::Status;

use super::blobs::BlobStore;
use super::services::access::SweepApi;
use super::store_error;
use crate::core::Core;
use crate::core::queries::SweepMatch;
use crate::store::StoreReader;
use crate::store::trial_range::TrialRange;

/// Maximum bytes of all files that trials start from, which workers hold in memory.
const MAX_START_BYTES: u64 = 4 << 30;

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
        let selections = spec.list_results_selections();
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
                "repeats: the weights that trials start from ({RESULTS_FIELD}) were listed at the launch, for {covered} repeats: launch the \
                 sweep file again with repeats = {}",
                spec.repeats
            );
            return Err(UserError::new(ErrorCode::Refused, message));
        }
    }

    Ok(())
}

fn refuse(source: &SpecSource, why: impl Into<String>) -> UserError {
    UserError::new(
        ErrorCode::BadInput,
        source.field_error(RESULTS_FIELD, why).to_string(),
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
        let taking = WeightsTaking {
            selection: &self.selection,
            taker: &self.spec,
            keeper: &self.kept.spec,
            keeper_name: self.kept.id.as_str(),
        };
        let cells = taking.find_cells().map_err(|why| self.refuse(why))?;
        let ends = self.read_ends(reader)?;

        let mut files = BTreeMap::new();
        let mut repeats = Vec::with_capacity(self.spec.repeats as usize);
        for repeat in 0..self.spec.repeats {
            let mut parts = Vec::new();
            for cell in &cells {
                let first = repeat * self.selection.block;
                for taken in first..first + self.selection.trials {
                    let key = TrialKey::new(cell.cell.0, taken);
                    let file = self.find_file(&ends, key)?;
                    let path = format!("weights of {} {key}", self.kept.id);
                    if files.insert(file, path).is_none() {
                        self.check_file(cell, key, &file)?;
                    }
                    let moments = cell.moments.iter();
                    parts.extend(moments.map(|step| KeptPart { file, step: *step }));
                }
            }
            repeats.push(parts);
        }

        Ok((ResultsManifest::new(repeats), files.into_iter().collect()))
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
        Err(self.lack(format!(
            "of the weights to start from, the trial {key} of {id} {problem}"
        )))
    }

    /// Checks that what a trial of a cell kept can be started from.
    fn check_file(
        &self,
        taken: &TakenCell,
        key: TrialKey,
        file: &FileHash,
    ) -> Result<(), UserError> {
        let config = self.kept.spec.grid.resolve_config(taken.cell);
        let Some(net) = config.ok().as_ref().and_then(Net::from_config) else {
            return Ok(());
        };
        let unusable = |why: String| {
            self.lack(format!(
                "the weights of the trial {key} of {} cannot be started from: {why}; leave its cell out with where, or set fewer repeats \
                 or trials",
                self.kept.id
            ))
        };

        let bytes = std::fs::read(self.blobs.blob_path(file))
            .map_err(|e| unusable(format!("their file cannot be read: {e}")))?;
        for step in &taken.moments {
            Weights::read_moment(&bytes, &net, *step).map_err(|e| unusable(e.to_string()))?;
        }
        Ok(())
    }

    /// An error about the file of the new sweep.
    fn refuse(&self, why: impl Into<String>) -> UserError {
        refuse(&self.source, why)
    }

    /// An error about what trials left, which says nothing against the file of the new sweep.
    fn lack(&self, why: impl Into<String>) -> UserError {
        let error = self.source.field_error(RESULTS_FIELD, why);
        UserError::new(ErrorCode::NotFound, error.to_string())
    }
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
            "{RESULTS_FIELD}: {files} files of {bytes} bytes are too many to start from: at most {} of {MAX_START_BYTES} bytes are possible; set \
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
