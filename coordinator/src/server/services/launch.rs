//! `Launch`: reads, checks and stores a sweep.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ergodic_common::ids::{FileHash, SweepId, SweepNumber};
use ergodic_common::program::is_experiment_class;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::{refuse_misleading_sweep, settle_new_sweep};
use ergodic_common::trial::CUDA_F32;
use ergodic_common::{ErrorCode, Spec, SpecError};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::identity::random_bytes;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::core::{Core, Steering};
use crate::experiments::choose_experiment_class;
use crate::records::{DataPin, SweepRow, SweepState, SweepTallies};
use crate::server::datasets::DatasetCatalog;
use crate::server::limits::Permit;
use crate::server::services::access::{Requester, SweepApi};

/// How to get a worker that has an experiment.
const START_WORKER: &str =
    "start a worker program that has it first, or set model.version to launch without one";

/// A sweep that is ready to be stored.
pub(crate) struct PreparedSweep {
    pub(crate) row: SweepRow,
    pub(crate) spec: Arc<Spec>,
    /// A description of the sweep's data.
    pub(crate) data_description: String,
}

impl SweepApi {
    /// The body of `Launch`.
    pub(crate) async fn launch_sweep(
        &self,
        mut request: v1::LaunchRequest,
        requester: Requester,
    ) -> Result<v1::LaunchResponse, Status> {
        // Work goes on for a while after a client hangs up, so the permit is shared with it until
        // it ends.
        let permit = Arc::new(self.0.limits.launches.try_acquire()?);
        let source = take_source(&mut request)?;
        let spec = read_new_spec(&source, permit.clone()).await?;
        self.launch_source(&request, (source, spec), requester, permit)
            .await
    }

    /// The body of `Launch` for a client in this process, which has read the file of the request as `spec`.
    pub(crate) async fn launch_read_sweep(
        &self,
        mut request: v1::LaunchRequest,
        spec: Spec,
        requester: Requester,
    ) -> Result<v1::LaunchResponse, Status> {
        let permit = Arc::new(self.0.limits.launches.try_acquire()?);
        let source = take_source(&mut request)?;
        self.launch_source(&request, (source, Ok(spec)), requester, permit)
            .await
    }

    /// Launches or resumes the sweep of a file, which has been read.
    async fn launch_source(
        &self,
        request: &v1::LaunchRequest,
        (mut source, spec): (SpecSource, Result<Spec, UserError>),
        requester: Requester,
        permit: Arc<Permit>,
    ) -> Result<v1::LaunchResponse, Status> {
        // What is wrong with the file, or with what it starts from, is reported unless its sweep is there already.
        let spec = match spec {
            Ok(spec) => {
                self.check_right_to_run(&requester, &spec)?;
                let spec = self.settle_launch(spec, &mut source).await?;
                self.pin_results(spec, &mut source).await
            }
            Err(error) => Err(error.into()),
        };
        if request.resume
            && let Some(number) = self.find_unfinished(&source, spec.is_ok()).await?
        {
            self.check_right_to_steer(&requester, number).await?;
            let status = self.steer_sweep(number, Steering::Resume).await?;
            return Ok(v1::LaunchResponse {
                status,
                found: true,
                ..Default::default()
            });
        }

        let prepared = self
            .prepare_sweep(
                spec?,
                source,
                requester.name,
                permit.clone(),
                refuse_misleading_sweep,
            )
            .await?;
        let data_description = prepared.data_description.clone();
        let launched = if request.reuse {
            self.launch_missing_trials(prepared.row, prepared.spec, request.resume, permit)
                .await?
        } else {
            self.launch_prepared(prepared).await?
        };

        Ok(v1::LaunchResponse {
            data_description,
            ..launched
        })
    }

    /// Launches all trials of a sweep.
    async fn launch_prepared(&self, prepared: PreparedSweep) -> Result<v1::LaunchResponse, Status> {
        let PreparedSweep { row, spec, .. } = prepared;
        let files: Vec<FileHash> = row.named_files().collect();
        let number = self.store_new_sweep(row, spec).await?;
        self.0.catalog.blobs.release(&files);
        let status = self.query_status(number).await?;

        Ok(v1::LaunchResponse {
            status,
            ..Default::default()
        })
    }

    /// Finds an unfinished sweep with the same content, the latest if there are several. What its trials start from is compared only
    /// if `knows_results`: it may have been removed since.
    async fn find_unfinished(
        &self,
        source: &SpecSource,
        knows_results: bool,
    ) -> Result<Option<SweepNumber>, Status> {
        let source = source.clone();
        self.query_core(move |core| {
            let unfinished = core
                .sweeps()
                .filter(|sweep| sweep.state.is_open() && sweep.withheld.is_none());
            unfinished
                .filter(|sweep| has_same_content(&sweep.record.source, &source, knows_results))
                .last()
                .map(|sweep| sweep.number)
        })
        .await
    }

    /// Settles what the file leaves open, in the sweep and by settings in its source. It is pinned to its numerics class in full: a
    /// later version of this program must not take it for its own.
    async fn settle_launch(&self, mut spec: Spec, source: &mut SpecSource) -> Result<Spec, Status> {
        // The lowest grammar that reads the file alike, so that older workers can run it.
        source.grammar = spec.min_grammar();
        let class = match &spec.numerics {
            numerics if numerics == CUDA_F32 => self.find_cuda_class().await?,
            numerics if is_experiment_class(numerics) => {
                self.find_experiment(&spec, source).await?
            }
            numerics => numerics.clone(),
        };

        settle_new_spec(&mut spec, source, &class)?;
        Ok(spec)
    }

    /// The class that joined workers compute on CUDA, which depends on their devices.
    async fn find_cuda_class(&self) -> Result<String, Status> {
        let offered = Vec::from_iter(self.query_core(cuda_classes).await?);
        if offered.len() == 1 {
            return Ok(offered.concat());
        }

        let message = if offered.is_empty() {
            "numerics: no joined worker computes on CUDA: start one with --device cuda:0 first, or name the class in \
             full, as in \"cuda-f32/2/sm90/cublas13.1\""
                .to_owned()
        } else {
            format!(
                "numerics: joined workers compute in several classes, which do not mix: name one of {}",
                offered.join(", ")
            )
        };
        Err(UserError::new(ErrorCode::BadInput, message).into())
    }

    /// The class of the sweep's experiment that joined workers have, which the sweep must fit.
    async fn find_experiment(&self, spec: &Spec, source: &SpecSource) -> Result<String, Status> {
        let offered = self.query_core(Core::offered_experiments).await?;
        let (spec, source) = (spec.clone(), source.clone());
        let task = tokio::task::spawn_blocking(move || {
            choose_experiment_class((&spec, &source), &offered, START_WORKER)
        });
        let class = task.await.map_err(|e| Status::internal(e.to_string()))?;
        class.map_err(Into::into)
    }

    /// Pins the dataset of a sweep whose file was read: whatever is wrong with it is found here, before anything is stored.
    ///
    /// `refuse` says what a sweep must be beyond readable.
    pub(crate) async fn prepare_sweep(
        &self,
        spec: Spec,
        source: SpecSource,
        launched_by: String,
        permit: Arc<Permit>,
        refuse: impl FnOnce(&Spec) -> Result<(), SpecError> + Send + 'static,
    ) -> Result<PreparedSweep, Status> {
        let catalog = self.0.catalog.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = permit;
            refuse(&spec).map_err(|e| bad_input(e.with_file(&source.file)))?;
            build_prepared_sweep(spec, source, launched_by, &catalog)
        });
        let prepared: Result<_, UserError> =
            task.await.map_err(|e| Status::internal(e.to_string()))?;

        prepared.map_err(Into::into)
    }
}

/// # Errors
/// The request was damaged on its way, or lacks the source.
fn take_source(request: &mut v1::LaunchRequest) -> Result<SpecSource, Status> {
    if !request.verify_checksum() {
        return Err(Status::data_loss(
            "the sweep was damaged in transit: launch it again",
        ));
    }

    request
        .source
        .take()
        .ok_or_else(|| Status::invalid_argument("the field source of LaunchRequest is missing"))?
        .try_into()
        .map_err(|e: WireError| Status::invalid_argument(e.to_string()))
}

fn has_same_content(a: &SpecSource, b: &SpecSource, with_results: bool) -> bool {
    let files = |source: &SpecSource| {
        let mut files = source.files.clone();
        files.retain(|pin| with_results || pin.is_named_by_sweep_file());
        files
    };
    a.grammar == b.grammar
        && (&a.text, &a.settings) == (&b.text, &b.settings)
        && files(a) == files(b)
}

fn cuda_classes(core: &Core) -> BTreeSet<String> {
    core.workers()
        .filter(|(_, worker)| worker.connected)
        .flat_map(|(_, worker)| worker.numerics.clone())
        .filter(|class| class.starts_with("cuda-f32/"))
        .collect()
}

fn bad_input(error: impl std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::BadInput, error.to_string())
}

fn build_prepared_sweep(
    spec: Spec,
    mut source: SpecSource,
    launched_by: String,
    catalog: &DatasetCatalog,
) -> Result<PreparedSweep, UserError> {
    source.grammar = spec.min_grammar();
    source.cells_fingerprint = Some(spec.compute_cells_fingerprint());
    let (data, data_description) = catalog
        .pin_dataset(&spec, &source.files)
        .map_err(bad_input)?;

    Ok(PreparedSweep {
        row: build_row(&spec, source, data, launched_by),
        spec: Arc::new(spec),
        data_description,
    })
}

/// Builds the row of a sweep; the store assigns its number.
fn build_row(spec: &Spec, source: SpecSource, data: DataPin, launched_by: String) -> SweepRow {
    let launched_at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since_epoch| since_epoch.as_secs_f64());
    SweepRow {
        number: SweepNumber::UNSTORED,
        id: generate_sweep_id(),
        source,
        data,
        state: SweepState::Running,
        share: spec.scheduling.share,
        launched_at,
        launched_by,
        tallies: SweepTallies::default(),
    }
}

/// Reads the file of a new sweep, unless its requester goes away meanwhile.
///
/// # Errors
/// The reading itself broke off; or, inside, what is wrong with the file.
pub(crate) async fn read_new_spec(
    source: &SpecSource,
    permit: Arc<Permit>,
) -> Result<Result<Spec, UserError>, Status> {
    let source = source.clone();
    let (_requester, is_wanted) = track_requester();
    let task = tokio::task::spawn_blocking(move || {
        let _held = permit;
        let spec = Spec::read_new_while_wanted(&source, &is_wanted);
        if spec.is_err() && !is_wanted() {
            tracing::debug!("no client waits for this launch any more");
        }
        spec
    });

    let read = task.await.map_err(|e| Status::internal(e.to_string()))?;
    Ok(read.map_err(bad_input))
}

/// Settles what the file of a new sweep leaves open, and pins it to a numerics class, in the sweep and by settings in its source.
///
/// # Errors
/// `class` is no numerics class.
pub(crate) fn settle_new_spec(
    spec: &mut Spec,
    source: &mut SpecSource,
    class: &str,
) -> Result<(), UserError> {
    source.settings.extend(settle_new_sweep(spec));
    let pinned = spec.pin_numerics(class);
    source
        .settings
        .push(pinned.map_err(|e| bad_input(e.with_file(&source.file)))?);
    Ok(())
}

/// Tracks a requester: work on another thread asks whether it is still there, and ends with its
/// request.
fn track_requester() -> (Arc<()>, impl Fn() -> bool) {
    let requester = Arc::new(());
    let observed = Arc::downgrade(&requester);
    (requester, move || observed.strong_count() > 0)
}

/// Eight random letters and digits.
pub(crate) fn generate_sweep_id() -> SweepId {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let id: String = random_bytes::<{ SweepId::LENGTH }>()
        .iter()
        .map(|byte| ALPHABET[usize::from(byte % 32)] as char)
        .collect();
    id.into()
}
