//! The sweeps that a worker has loaded: spec, dataset, and the cells that it has met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ergodic_common::config::{DataConfig, TrialConfig};
use ergodic_common::dataset::Dataset;
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::ids::{CellHash, CellIndex, DatasetHash, FileHash, Repeat, SweepId};
use ergodic_common::net::Net;
use ergodic_common::results_manifest::ResultsManifest;
use ergodic_common::spec::source::SpecSource;
use ergodic_common::{BUILD, Spec, TrialKey};
use ergodic_proto::backoff::Backoff;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::{PROTOCOL_VERSION, v1};

use crate::link::datasets::{DatasetDirs, FetchError};
use crate::link::{Link, LinkPool, datasets};
use crate::program::host::{LoadedProgram, PROGRAMS_ARE_OFF, ProgramHost, find_program};
use crate::train::{StartPart, TrialData};

/// A sweep that is ready to run.
#[derive(Debug)]
pub struct LoadedSweep {
    /// The id of the sweep.
    pub id: SweepId,
    /// The sweep file, read and checked.
    pub spec: Spec,
    program: Option<LoadedProgram>,
    data: Option<(Arc<Dataset>, DatasetHash)>,
    /// Files of initial weights, and of the lists of them, by their hash.
    initial_weights: HashMap<FileHash, Arc<[u8]>>,
    cells: Mutex<HashMap<CellIndex, Arc<ResolvedCell>>>,
    subsets: Mutex<HashMap<SubsetKey, Arc<TrialData>>>,
}

/// The settings that decide which images a cell uses. Cells with equal keys share the images.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SubsetKey {
    sizes: (u32, u32, u32),
    label_noise: u64,
    standardize: bool,
}

/// A cell that is ready to run.
#[derive(Debug)]
pub struct ResolvedCell {
    /// The settings of the cell.
    pub config: TrialConfig,
    /// The identity of the cell.
    pub hash: CellHash,
    /// The images to train on; `None` for a model without any.
    pub data: Option<Arc<TrialData>>,
    /// The initial weights, if they are not drawn.
    pub start: Option<CellStart>,
}

/// Where the initial weights of a cell's trials come from.
#[derive(Debug)]
pub enum CellStart {
    /// A file.
    File(Arc<[u8]>),
    /// Files of weights that other trials kept, by their hash, and which of them each repeat takes.
    Results(ResultsManifest, HashMap<FileHash, Arc<[u8]>>),
}

impl ResolvedCell {
    /// The kept weights that a repeat starts from the mean of; none if the cell does not start from such.
    ///
    /// # Errors
    /// The sweep came without those of this repeat.
    pub fn start_parts(&self, repeat: Repeat) -> Result<Vec<StartPart>, String> {
        let Some(CellStart::Results(manifest, files)) = &self.start else {
            return Ok(Vec::new());
        };
        let missing = || {
            format!(
                "the sweep came without kept weights for repeat {}",
                repeat.0
            )
        };
        let parts = manifest.parts_of(repeat).ok_or_else(missing)?;
        let parts = parts.iter().map(|part| {
            let file = files.get(&part.file).cloned().ok_or_else(missing)?;
            let step = part.step;
            Ok(StartPart { file, step })
        });
        parts.collect()
    }
}

/// The reason why a sweep cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The coordinator did not respond.
    #[error("the sweep could not be fetched: {0}")]
    Transport(#[from] tonic::Status),
    /// The spec or the dataset cannot be used here.
    #[error("{0}")]
    Invalid(String),
    /// The dataset cannot be fetched.
    #[error(transparent)]
    Data(#[from] FetchError),
}

/// Maximum attempts to fetch a sweep before its lease is released.
const MAX_ATTEMPTS: u32 = 4;
/// Time limit for a response of the coordinator.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of resolved cells in memory; beyond it, cells are resolved again.
const MAX_CACHED_CELLS: usize = 100_000;

impl LoadedSweep {
    /// Fetches a sweep and the data that it trains on.
    ///
    /// # Errors
    /// The sweep is unknown or needs a newer program, or its dataset cannot be obtained.
    pub async fn fetch_from(
        id: &SweepId,
        link: &mut Link,
        dirs: &DatasetDirs,
        programs: Option<&ProgramHost>,
        against: impl Fn(&Spec) -> Option<String>,
    ) -> Result<Self, SweepError> {
        let answer = request_sweep(id, link).await?;
        let source: SpecSource = answer
            .source
            .ok_or_else(|| {
                SweepError::Invalid("the coordinator sent a sweep without a file".into())
            })?
            .try_into()
            .map_err(|e: WireError| SweepError::Invalid(e.to_string()))?;
        let pins = source.files.clone();
        let spec = read_spec(source).await?;
        if let Some(why) = against(&spec) {
            return Err(SweepError::Invalid(why));
        }

        let spec = Arc::new(spec);
        let program = load_program(&spec, link, dirs, programs).await?;
        let data = match DatasetHash::try_from(answer.data_hash) {
            Ok(hash) => {
                let name = training_dataset(&spec);
                let dataset =
                    datasets::obtain_dataset(dirs, link, name, answer.data_train, hash).await?;
                Some((Arc::new(dataset), hash))
            }
            Err(_) => None,
        };

        let mut starts = HashMap::new();
        for pin in pins.iter().filter(|pin| {
            !pin.is_program_bundle()
                && data
                    .as_ref()
                    .is_none_or(|(_, hash)| FileHash::from(*hash) != pin.hash)
        }) {
            starts.insert(
                pin.hash,
                datasets::obtain_file(dirs, link, pin.hash, "file of initial weights")
                    .await?
                    .into(),
            );
        }

        Ok(Self {
            id: id.clone(),
            spec: Arc::unwrap_or_clone(spec),
            program,
            data,
            initial_weights: starts,
            cells: Mutex::default(),
            subsets: Mutex::default(),
        })
    }

    /// The files of the program, if the sweep has one.
    pub(crate) fn program(&self) -> Option<&LoadedProgram> {
        self.program.as_ref()
    }

    /// Resolves a cell, once.
    ///
    /// # Errors
    /// The cell cannot be resolved. Its trials fail with the message.
    pub fn cached_cell(&self, number: CellIndex) -> Result<Arc<ResolvedCell>, String> {
        if let Some(cell) = self.lock_cells().get(&number) {
            return Ok(cell.clone());
        }

        let cell = Arc::new(self.resolve_cell(number)?);
        let mut cells = self.lock_cells();
        if cells.len() >= MAX_CACHED_CELLS {
            cells.clear();
        }

        Ok(cells.entry(number).or_insert(cell).clone())
    }

    fn lock_cells(&self) -> std::sync::MutexGuard<'_, HashMap<CellIndex, Arc<ResolvedCell>>> {
        self.cells
            .lock()
            .expect("nothing panics while it holds the cells")
    }

    fn resolve_cell(&self, number: CellIndex) -> Result<ResolvedCell, String> {
        if !self.spec.grid.has_cell(number) {
            return Err(format!("the sweep has no cell {number}"));
        }

        let config = self
            .spec
            .grid
            .resolve_config(number)
            .map_err(|e| e.to_string())?;

        let pinned = self
            .data
            .as_ref()
            .map_or(DatasetHash::NONE, |(_, hash)| *hash);
        let hash = self.spec.compute_cell_hash(&config, pinned);
        let data = match &self.data {
            Some((dataset, _)) if config.uses_dataset() => {
                Some(self.shared_subset(dataset, &config, hash)?)
            }
            _ => None,
        };

        let start = self.find_start(&config)?;
        Ok(ResolvedCell {
            config,
            hash,
            data,
            start,
        })
    }

    /// The initial weights of a cell, if they came with the sweep.
    fn find_start(&self, config: &TrialConfig) -> Result<Option<CellStart>, String> {
        let Some(results) = &config.results_start else {
            let file = config.model.init_file;
            let found = file.and_then(|file| self.initial_weights.get(&file).cloned());
            return Ok(found.map(CellStart::File));
        };
        let list = results
            .manifest
            .and_then(|hash| self.initial_weights.get(&hash));
        let list = list.ok_or("the sweep came without the list of kept weights to start from")?;
        let manifest = ResultsManifest::decode(list).map_err(|e| e.to_string())?;
        Ok(Some(CellStart::Results(
            manifest,
            self.initial_weights.clone(),
        )))
    }

    /// The images that a cell uses, shared by all cells that use the same ones.
    fn shared_subset(
        &self,
        dataset: &Arc<Dataset>,
        config: &TrialConfig,
        hash: CellHash,
    ) -> Result<Arc<TrialData>, String> {
        let mut subsets = self
            .subsets
            .lock()
            .map_err(|_| "another trial panicked while choosing its images")?;
        let data = &config.data;
        let images = SubsetKey {
            sizes: (data.train, data.test, data.validation),
            label_noise: data.label_noise.to_bits(),
            standardize: data.standardize,
        };
        if let Some(data) = subsets.get(&images) {
            return Ok(data.clone());
        }

        // The images depend on the sweep's seed alone, so the streams of any trial choose the same
        // ones.
        let streams = self.spec.trial_streams(TrialKey::new(0, 0), hash);
        let data =
            TrialData::new(dataset.clone(), &config.data, &streams).map_err(|e| e.to_string())?;
        Ok(subsets.entry(images).or_insert(Arc::new(data)).clone())
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::of_file("name = \"t\"\n[model]\nkind = \"empty\"\n".to_owned())
    }

    /// The sweep of a file that needs no data.
    #[cfg(test)]
    pub(crate) fn of_file(text: String) -> Self {
        let spec = Spec::read_stored(&SpecSource {
            file: String::new(),
            text,
            ..SpecSource::default()
        })
        .expect("a valid sweep");

        let initial_weights = HashMap::new();
        Self {
            id: "t".into(),
            spec,
            program: None,
            data: None,
            initial_weights,
            cells: Mutex::default(),
            subsets: Mutex::default(),
        }
    }
}

/// Fetches the files of the sweep's program, and tries what it requires of this machine. `None` if the sweep has no program.
async fn load_program(
    spec: &Arc<Spec>,
    link: &mut Link,
    dirs: &DatasetDirs,
    host: Option<&ProgramHost>,
) -> Result<Option<LoadedProgram>, SweepError> {
    let Some(cell) = find_program(spec) else {
        return Ok(None);
    };
    if cell.program.experiment.is_some() {
        return Ok(None);
    }
    let host = host.ok_or_else(|| SweepError::Invalid(PROGRAMS_ARE_OFF.into()))?;
    let bundle = match cell.program.bundle {
        Some(hash) => Some(datasets::obtain_file(dirs, link, hash, "files of a program").await?),
        None => None,
    };

    let (spec, host) = (spec.clone(), host.clone());
    let preparing = tokio::task::spawn_blocking(move || {
        LoadedProgram::prepare(&host, &spec, bundle.as_deref())
    });
    let prepared = preparing
        .await
        .map_err(|e| SweepError::Invalid(e.to_string()))?;
    prepared.map(Some).map_err(SweepError::Invalid)
}

/// Reads a stored sweep on a thread that may block. Fails if its cells differ from those that the
/// coordinator stored.
async fn read_spec(source: SpecSource) -> Result<Spec, SweepError> {
    let reading = tokio::task::spawn_blocking(move || {
        let spec = Spec::read_stored(&source).map_err(|e| e.to_string())?;
        match spec.is_as_stored(&source) {
            true => Ok(spec),
            false => Err(format!(
                "this worker's version, {BUILD}, reads other cells from the sweep file: use a worker of the coordinator's version"
            )),
        }
    });
    reading
        .await
        .map_err(|e| SweepError::Invalid(e.to_string()))?
        .map_err(SweepError::Invalid)
}

/// Requests a sweep, and again if the response is missing or incomplete.
async fn request_sweep(
    id: &SweepId,
    link: &mut Link,
) -> Result<v1::GetSweepResponse, tonic::Status> {
    let mut backoff = Backoff::new();
    let mut asked = 1;

    loop {
        let mut question = tonic::Request::new(v1::GetSweepRequest {
            sweep: id.to_string(),
            protocol: PROTOCOL_VERSION,
        });
        question.set_timeout(ANSWER_TIMEOUT);
        let answer = link.worker_service.get_sweep(question).await.map(|answer| {
            let mut answer = answer.into_inner();
            answer.verify_checksum().then_some(answer)
        });
        let why = match answer {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => tonic::Status::data_loss("the sweep was damaged on its way here"),
            Err(status) => status,
        };

        if asked == MAX_ATTEMPTS {
            return Err(why);
        }

        asked += 1;
        backoff.wait_after(&why).await;
    }
}

/// Bytes that a trial of the cell needs, and bytes of the dataset.
pub(crate) fn required_bytes(spec: &Spec, cell: CellIndex) -> (u64, u64) {
    let config = spec
        .grid
        .has_cell(cell)
        .then(|| spec.grid.resolve_config(cell).ok())
        .flatten();
    let Some(config) = config else { return (0, 0) };
    if !config.uses_dataset() {
        return (0, 0);
    }

    let dataset = config.data.dataset.bytes_in_memory();
    match Net::from_config(&config) {
        Some(net) => (net.trial_bytes(&config, &spec.measure), dataset),
        // What an experiment itself needs, nobody knows.
        None => (0, dataset + tensor_bytes(&config.data)),
    }
}

/// Bytes of the tensors of an experiment's data.
fn tensor_bytes(data: &DataConfig) -> u64 {
    let points = data.train + data.validation + data.test;
    let (height, width, channels) = data.dataset.image_shape();
    let numbers = u64::from(height) * u64::from(width) * u64::from(channels) + 1;
    4 * u64::from(points) * numbers
}

/// The dataset of the sweep. All its cells use the same one, which the coordinator has checked.
fn training_dataset(spec: &Spec) -> DatasetName {
    spec.grid
        .iter()
        .find_map(|cell| {
            spec.grid
                .resolve_config(cell)
                .ok()
                .filter(TrialConfig::uses_dataset)
        })
        .map_or(DatasetName::Glyphs, |config| config.data.dataset)
}

/// The sweeps of leases that the worker holds or has held lately.
pub(crate) struct SweepCache {
    sweeps: HashMap<SweepId, Arc<LoadedSweep>>,
    dataset_dirs: DatasetDirs,
    links: LinkPool,
    programs: Option<ProgramHost>,
}

impl SweepCache {
    pub(crate) fn new(
        dataset_dirs: DatasetDirs,
        links: LinkPool,
        programs: Option<ProgramHost>,
    ) -> Self {
        Self {
            sweeps: HashMap::new(),
            dataset_dirs,
            links,
            programs,
        }
    }

    pub(crate) async fn get_or_fetch(
        &mut self,
        id: &SweepId,
        against: impl Fn(&Spec) -> Option<String>,
    ) -> Result<Arc<LoadedSweep>, String> {
        if let Some(sweep) = self.sweeps.get(id) {
            return against(&sweep.spec).map_or(Ok(sweep.clone()), Err);
        }

        let sweep = LoadedSweep::fetch_from(
            id,
            &mut self.links.current_link(),
            &self.dataset_dirs,
            self.programs.as_ref(),
            against,
        )
        .await
        .map_err(|e| e.to_string())?;
        let sweep = Arc::new(sweep);

        // Drops sweeps that no trial uses any more, because their datasets would stay in memory.
        self.sweeps.retain(|_, old| Arc::strong_count(old) > 1);
        self.sweeps.insert(id.clone(), sweep.clone());
        Ok(sweep)
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::dataset::generate_glyphs;
    use ergodic_common::ids::CellsFingerprint;

    use crate::link::sweeps::*;

    fn source(more: &str) -> SpecSource {
        let text = format!(
            "name = \"t\"\n[data]\ndataset = \"glyphs\"\ntrain = 100\ntest = 50\n[model]\nkind = \"mlp\"\nhidden = [8]\n[train]\n\
             steps = 2\nbatch_size = 16\nlr = 0.1\n{more}"
        );
        SpecSource {
            file: "t".into(),
            text,
            ..SpecSource::default()
        }
    }

    fn spec(more: &str) -> Spec {
        Spec::read_stored(&source(more)).expect("a valid sweep")
    }

    #[test]
    fn cells_share_their_images_only_if_they_hold_out_the_same_ones() {
        let sweep = LoadedSweep {
            spec: spec("[grid]\n\"data.validation\" = [0, 10, 20]\nlr = [0.1, 0.2]\n"),
            data: Some((Arc::new(generate_glyphs()), DatasetHash([1; 32]))),
            ..LoadedSweep::for_tests()
        };

        let cells: Vec<Arc<ResolvedCell>> = sweep
            .spec
            .grid
            .iter()
            .map(|cell| sweep.cached_cell(cell).expect("it is resolved"))
            .collect();
        assert_eq!(cells.len(), 6);
        for cell in &cells {
            let data = cell.data.as_ref().expect("it trains on images");
            let wanted = cell.config.data.validation;
            assert_eq!(data.validation_indices().len(), wanted as usize);

            for other in &cells {
                let is_shared = Arc::ptr_eq(data, other.data.as_ref().expect("likewise"));
                assert_eq!(is_shared, wanted == other.config.data.validation);
            }
        }
    }

    #[test]
    fn cells_of_an_experiment_share_the_tensors_of_their_points() {
        let text = "name = \"t\"\n[data]\ntest = 50\n[model]\nkind = \"custom:walk\"\nmetrics = { loss = \"min\" }\n\
                    [grid]\n\"data.train\" = [100, 200]\nlr = [0.1, 0.2]\n";
        let sweep = LoadedSweep {
            data: Some((Arc::new(generate_glyphs()), DatasetHash([1; 32]))),
            ..LoadedSweep::of_file(text.to_owned())
        };
        assert_eq!(training_dataset(&sweep.spec), DatasetName::Glyphs);

        let cells: Vec<Arc<ResolvedCell>> = sweep
            .spec
            .grid
            .iter()
            .map(|cell| sweep.cached_cell(cell).expect("it is resolved"))
            .collect();
        assert_eq!(cells.len(), 4);
        for cell in &cells {
            let tensors = |cell: &ResolvedCell| {
                let data = cell.data.as_ref().expect("it has data");
                std::ptr::from_ref(data.tensors().expect("tensors"))
            };
            let wanted = cell.config.data.train;
            for other in &cells {
                let is_shared = tensors(cell) == tensors(other);
                assert_eq!(is_shared, wanted == other.config.data.train);
            }
        }

        // The bytes of the whole dataset, and the tensors of the first cell: 4 bytes for each number and label.
        let (_, bytes) = required_bytes(&sweep.spec, CellIndex(0));
        assert_eq!(bytes, 12_000 * 785 + 4 * 150 * 785);
    }

    #[tokio::test]
    async fn a_sweep_whose_cells_are_others_than_the_stored_ones_is_not_run() {
        let source = source("[grid]\nlr = [0.1, 0.2]\n");
        let cells = Spec::read_stored(&source)
            .expect("a valid sweep")
            .compute_cells_fingerprint();
        let stored = |cells_fingerprint| SpecSource {
            cells_fingerprint,
            ..source.clone()
        };

        for same in [None, Some(cells)] {
            let spec = read_spec(stored(same)).await.expect("the same cells");
            assert_eq!(spec.compute_cells_fingerprint(), cells);
        }

        let refused = read_spec(stored(Some(CellsFingerprint([7; 32])))).await;
        let why = refused.expect_err("other cells").to_string();
        assert!(
            why.contains("other cells") && why.contains("the coordinator's version"),
            "{why}"
        );
    }

    #[test]
    fn what_is_measured_and_saved_needs_memory() {
        let bytes = |measure: &str| {
            let measure = format!("[measure]\n{measure}\n");
            required_bytes(&spec(&measure), CellIndex(0)).0
        };
        let plain = bytes("metrics = [\"test_acc\"]");
        assert!(plain > 0);
        assert!(bytes("metrics = [\"test_acc\", \"hessian_top\"]") > plain);
        assert!(bytes("metrics = [\"test_acc\"]\nsave = [\"final\"]") > plain);
    }
}
