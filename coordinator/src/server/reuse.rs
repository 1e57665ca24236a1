//! Launching what is missing. A trial is what it resolves to: one that another sweep of the store has the result of is not run
//! again, but its row copied. A file that asks for exactly what a sweep has is that sweep.
//!
//! Cells are compared by their identities, which are worked out here and not in the event loop: of the new sweep's cells, and of
//! those cells of others that have rows, where seed, streams, data and numerics class are the same. They are remembered, up to a bound.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_common::{ErrorCode, Outcome, Spec, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::oneshot;
use tonic::Status;

use super::engine::events::EngineEvent;
use super::limits::Permit;
use super::recovery::reader_threads;
use super::services::access::SweepApi;
use super::sweep_changes::stopping_status;
use super::{lost_blobs, store_error};
use crate::core::reuse::{ComparableSweep, find_wanted_repeats};
use crate::core::{Core, Steering, StoredRow};
use crate::records::{Finding, SweepRow, SweepState};
use crate::store::{ReuseSource, ReusedCell, ReusingSweep, TrialRange, Twin};

/// Most cells of a sweep that are looked for in others, or in which trials are looked for.
const MAX_COMPARED_CELLS: usize = 300_000;
/// Identities that are remembered.
const MAX_IDENTITIES: usize = 1_000_000;
/// Ids that an answer names.
const MAX_NAMED_SWEEPS: usize = 16;

/// What launches share.
#[derive(Debug, Default)]
pub(crate) struct LaunchState {
    /// Held from the look at other sweeps until the new one is among them: two launches of a file are one sweep.
    launch_lock: Arc<tokio::sync::Mutex<()>>,
    /// Identities of cells of stored sweeps, by their numbers.
    identities: Mutex<BTreeMap<i64, Arc<CellIdentities>>>,
}

type CellIdentities = HashMap<u64, [u8; 32]>;

/// A sweep that is to be launched.
struct LaunchCandidate {
    row: SweepRow,
    spec: Arc<Spec>,
    meaning: Option<[u8; 32]>,
    /// Its cells by their identities, once they are asked for.
    cells_by_identity: OnceLock<Result<HashMap<[u8; 32], u64>, UserError>>,
}

/// What others have of it, as they were then.
struct ComparedSweeps {
    others: Vec<(i64, SweepState, u32, u64, u64)>,
    found: ReuseDecision,
}

/// What others have of it.
enum ReuseDecision {
    /// This one is the same.
    Same(Box<ComparableSweep>),
    /// Some of its trials.
    Parts(ReusableRows),
}

#[derive(Default)]
struct ReusableRows {
    sources: Vec<ReuseSource>,
    twins: Vec<Twin>,
    /// Ids of the sources, and of sweeps that have too many cells.
    source_ids: Vec<String>,
    uncompared_ids: Vec<String>,
    /// A sweep that is running some of them, and how many.
    under_way: Option<(String, u64)>,
}

/// Cells that another sweep has too.
struct SharedCells {
    neighbour: ComparableSweep,
    /// Its cell, that of the new sweep, and what both are.
    pairs: Vec<(u64, u64, [u8; 32])>,
    begun_cells: HashSet<u64>,
}

impl SweepApi {
    /// Launches a sweep without the trials that others have the results of.
    pub(super) async fn launch_missing_trials(
        &self,
        row: SweepRow,
        spec: Spec,
        resume: bool,
        place: Arc<Permit>,
    ) -> Result<v1::LaunchResponse, Status> {
        let meaning = row.source.compute_meaning_hash();
        let wanted = Arc::new(LaunchCandidate {
            row,
            spec: Arc::new(spec),
            meaning,
            cells_by_identity: OnceLock::new(),
        });

        // What takes long is done before it is our turn. It is done again if others have changed by then.
        let before = self.find_reusable(&wanted, &place, None).await?;
        let this = Self(self.0.clone());
        // To the end, even if whoever asked goes away.
        let task = tokio::spawn(async move {
            let _turn = this.0.launch_state.launch_lock.clone().lock_owned().await;
            match this
                .find_reusable(&wanted, &place, Some(before))
                .await?
                .found
            {
                ReuseDecision::Same(same) => this.reuse_sweep(*same, resume).await,
                ReuseDecision::Parts(parts) => this.launch_with_rows(&wanted, parts).await,
            }
        });

        task.await.map_err(|e| Status::internal(e.to_string()))?
    }

    /// A sweep that is there already; what failed of it is run again, and trials whose weights are not there.
    async fn reuse_sweep(
        &self,
        same: ComparableSweep,
        resume: bool,
    ) -> Result<v1::LaunchResponse, Status> {
        let number = same.number;
        let again = match same.state {
            SweepState::Completed if same.spec.measure.save => {
                same.failed + lost_blobs::count_missing_weights(&self.0, number).await?
            }
            SweepState::Completed => same.failed,
            _ => 0,
        };
        let (status, retried) = match same.state {
            SweepState::Paused if resume => (self.steer_sweep(number, Steering::Resume).await?, 0),
            SweepState::Completed if again > 0 => match self.retry_sweep(number).await {
                // Files that were not there are there by now, or cannot be looked at.
                Err(_) if same.failed == 0 => (self.query_status(number).await?, 0),
                retried => (retried?, again),
            },
            _ => (self.query_status(number).await?, 0),
        };

        Ok(v1::LaunchResponse {
            status,
            found: true,
            retried,
            ..Default::default()
        })
    }

    async fn launch_with_rows(
        &self,
        wanted: &LaunchCandidate,
        parts: ReusableRows,
    ) -> Result<v1::LaunchResponse, Status> {
        let ReusableRows {
            sources,
            twins,
            source_ids: from,
            uncompared_ids: unread,
            under_way,
        } = parts;
        if let Some((id, trials)) = under_way {
            let message = format!(
                "{trials} of these trials are being run for the sweep {id}: wait for its end (`ergodic watch {id}`) and launch this \
                 again, or add to that one what it lacks with `ergodic extend {id} SPEC`, or say --again to have them run twice"
            );
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }

        let row = wanted.row.clone();
        let spec = wanted.spec.clone();
        let files: Vec<[u8; 32]> = row.named_files().collect();
        let compared = twins
            .iter()
            .map(|twin| twin.cell)
            .collect::<HashSet<_>>()
            .len() as u64;

        let (number, copied) = if sources.is_empty() && twins.is_empty() {
            (self.store_new_sweep(row, spec).await?, 0)
        } else {
            let seed = spec.seed;
            let audit = spec.scheduling.audit_share;
            self.store_reusing_sweep(
                ReusingSweep {
                    row,
                    seed,
                    audit_share: audit,
                    sources,
                    twins,
                },
                spec,
            )
            .await?
        };

        self.0.catalog.blobs.release(&files);
        let status = self.query_status(number).await?;
        let from = if copied > 0 { from } else { Vec::new() };
        Ok(v1::LaunchResponse {
            status,
            copied,
            from,
            compared,
            unread,
            ..Default::default()
        })
    }

    /// Stores a sweep without rows, and takes it up.
    pub(super) async fn store_new_sweep(
        &self,
        row: SweepRow,
        spec: Arc<Spec>,
    ) -> Result<i64, Status> {
        let (reply, stored) = oneshot::channel();
        self.0
            .engine
            .send_event(EngineEvent::Launch(Box::new(row), spec, reply));
        stored
            .await
            .map_err(|_| stopping_status())?
            .map_err(|e| Status::from(store_error(e)))
    }

    async fn store_reusing_sweep(
        &self,
        gathering: ReusingSweep,
        spec: Arc<Spec>,
    ) -> Result<(i64, u64), Status> {
        let (reply, stored) = oneshot::channel();
        let row = gathering.row.clone();
        self.0
            .engine
            .send_event(EngineEvent::InsertReusing(Box::new(gathering), reply));
        let stored = stored.await.map_err(|_| stopping_status())?;
        let (number, copied) = stored.map_err(|e| Status::from(store_error(e)))?;
        self.add_stored_sweep(SweepRow { number, ..row }, spec)
            .await?;

        Ok((number, copied))
    }

    /// Looks for the trials of a sweep in all others, unless these are what they were before.
    async fn find_reusable(
        &self,
        wanted: &Arc<LaunchCandidate>,
        place: &Arc<Permit>,
        before: Option<ComparedSweeps>,
    ) -> Result<ComparedSweeps, Status> {
        let spec = wanted.spec.clone();
        let data = wanted.row.data.hash;
        let neighbours = move |core: &Core| -> Vec<ComparableSweep> {
            core.sweeps()
                .filter_map(|sweep| sweep.summarize_if_comparable(&spec, data))
                .collect()
        };
        let mut neighbours = self.query_core(neighbours).await?;

        let brief = |one: &ComparableSweep| {
            (
                one.number,
                one.state,
                one.spec.repeats,
                one.done,
                one.failed,
            )
        };
        let others: Vec<_> = neighbours.iter().map(brief).collect();
        if let Some(before) = before.filter(|before| before.others == others) {
            return Ok(before);
        }

        // The latest first.
        neighbours.reverse();
        let looking = wanted.clone();
        let held = place.clone();
        let (same, mut neighbours) = run_blocking(held, move || {
            let same = neighbours
                .iter()
                .position(|neighbour| looking.is_same_as(neighbour));
            (same.map(|at| neighbours.swap_remove(at)), neighbours)
        })
        .await?;
        if let Some(same) = same {
            return Ok(ComparedSweeps {
                others,
                found: ReuseDecision::Same(Box::new(same)),
            });
        }

        neighbours.retain(|one| one.done > one.failed || one.state == SweepState::Running);
        let mut parts = ReusableRows::default();

        for neighbour in neighbours {
            self.add_reusable_from(neighbour, wanted, &mut parts, place)
                .await?;
        }

        if !parts.sources.is_empty() && wanted.spec.stopping_rule.is_some() {
            self.limit_to_wanted_repeats(wanted, &mut parts, place)
                .await?;
        }

        Ok(ComparedSweeps {
            others,
            found: ReuseDecision::Parts(parts),
        })
    }

    /// Adds what one sweep has.
    async fn add_reusable_from(
        &self,
        neighbour: ComparableSweep,
        wanted: &Arc<LaunchCandidate>,
        parts: &mut ReusableRows,
        place: &Arc<Permit>,
    ) -> Result<(), Status> {
        let number = neighbour.number;
        let begun = self
            .query_core(move |core| core.sweep(number)?.begun_cells(MAX_COMPARED_CELLS))
            .await?;
        let cells = |spec: &Spec| spec.grid.cell_count() <= MAX_COMPARED_CELLS as u64;
        let Some(begun) = begun.filter(|_| cells(&wanted.spec) && cells(&neighbour.spec)) else {
            if parts.uncompared_ids.len() < MAX_NAMED_SWEEPS {
                parts.uncompared_ids.push(neighbour.record.id.clone());
            }
            return Ok(());
        };

        let looking = wanted.clone();
        let shared = self.0.clone();
        let common = run_blocking(place.clone(), move || {
            let begun: HashSet<u64> = begun.into_iter().collect();
            // Of one that is running, cells without a row count too.
            let cells = if neighbour.state == SweepState::Running {
                neighbour.spec.grid.iter().collect()
            } else {
                begun.iter().copied().collect::<Vec<u64>>()
            };
            let known = shared.launch_state.cell_identities(&neighbour, &cells)?;

            let all = looking.cells_by_identity()?;
            let pair = |cell: &u64| {
                known
                    .get(cell)
                    .and_then(|hash| Some((*cell, *all.get(hash)?, *hash)))
            };
            let mut pairs: Vec<_> = cells.iter().filter_map(pair).collect();
            pairs.sort_unstable();

            Ok::<_, UserError>(SharedCells {
                neighbour,
                pairs,
                begun_cells: begun,
            })
        });

        self.add_shared_cells(common.await??, wanted, parts).await
    }

    /// Adds cells that another sweep has, as far as its results are what is asked for.
    async fn add_shared_cells(
        &self,
        common: SharedCells,
        wanted: &LaunchCandidate,
        parts: &mut ReusableRows,
    ) -> Result<(), Status> {
        let SharedCells {
            neighbour,
            pairs,
            begun_cells: begun,
        } = common;
        let number = neighbour.number;

        let below = wanted.spec.repeats;
        let selections = wanted.select_from_results(&neighbour.spec);
        let mut cells = Vec::new();
        let mut left = Vec::new();

        for (from, to, identity) in pairs {
            let (class, _) = wanted.spec.grid.locate_trial(TrialKey {
                cell: to,
                repeat: 0,
            });
            match &selections[class as usize] {
                Some(select) => {
                    left.push(from);
                    if begun.contains(&from) {
                        cells.push(ReusedCell {
                            source_cell: from,
                            new_cell: to,
                            repeat_limit: below,
                            identity,
                            selection: select.clone(),
                        });
                    }
                }
                None if begun.contains(&from) => {
                    parts.twins.push(Twin {
                        cell: to,
                        other_sweep: number,
                        other_cell: from,
                    });
                }
                None => {}
            }
        }

        if neighbour.state == SweepState::Running && parts.under_way.is_none() && !left.is_empty() {
            let count = move |core: &Core| {
                core.sweep(number).map_or(0, |sweep| {
                    left.iter()
                        .map(|cell| sweep.count_trials_left(*cell, below))
                        .sum::<u64>()
                })
            };
            let trials = self.query_core(count).await?;

            parts.under_way = (trials > 0).then(|| (neighbour.record.id.clone(), trials));
        }

        if !cells.is_empty() {
            parts.sources.push(ReuseSource {
                sweep: number,
                cells,
            });

            if parts.source_ids.len() < MAX_NAMED_SWEEPS {
                parts.source_ids.push(neighbour.record.id.clone());
            }
        }

        Ok(())
    }

    /// Where results decide how often a cell is repeated, the rows that there are decide which of them are wanted.
    async fn limit_to_wanted_repeats(
        &self,
        wanted: &Arc<LaunchCandidate>,
        parts: &mut ReusableRows,
        place: &Arc<Permit>,
    ) -> Result<(), Status> {
        let shared = self.0.clone();
        let looking = wanted.clone();
        let mut sources = std::mem::take(&mut parts.sources);
        let numbers: Vec<i64> = sources.iter().map(|source| source.sweep).collect();
        let metrics = move |core: &Core| -> Vec<Option<Arc<Spec>>> {
            numbers
                .iter()
                .map(|number| core.sweep(*number).map(|sweep| sweep.spec.clone()))
                .collect()
        };
        let specs = self.query_core(metrics).await?;
        let limited = run_blocking(place.clone(), move || {
            let mut rows = Vec::new();
            let reader = shared.store.open_reader().map_err(store_error)?;

            for (source, spec) in sources.iter().zip(specs) {
                let Some(spec) = spec else { continue };
                let places: HashMap<u64, u64> = source
                    .cells
                    .iter()
                    .map(|cell| (cell.source_cell, cell.new_cell))
                    .collect();

                let deciding = looking.find_deciding_metric(&spec);
                // Rows of which another process found other bits are not taken over.
                let audits = reader.read_audits(source.sweep).map_err(store_error)?;
                let doubted = audits
                    .iter()
                    .filter(|audit| audit.finding == Some(Finding::Different));
                let doubted: HashSet<TrialKey> = doubted.map(|audit| audit.key).collect();
                reader
                    .read_intact_ended_trials(source.sweep, TrialRange::ALL, &mut |ended| {
                        let cell = places
                            .get(&ended.key.cell)
                            .filter(|_| !doubted.contains(&ended.key));
                        let Some(cell) = cell else { return };
                        let key = TrialKey {
                            cell: *cell,
                            ..ended.key
                        };

                        let decides = deciding
                            .and_then(|at| ended.metrics.get(at))
                            .unwrap_or(f64::NAN);

                        if looking.spec.has_trial(key)
                            && !matches!(ended.outcome, Outcome::Failed { .. })
                        {
                            let outcome = ended.outcome;
                            let seconds = ended.seconds;
                            rows.push(StoredRow {
                                key,
                                outcome,
                                watched_metric: f64::NAN,
                                deciding_metric: decides,
                                seconds,
                            });
                        }
                    })
                    .map_err(store_error)?;
            }

            let below = find_wanted_repeats(&looking.row, &looking.spec, rows);
            for cell in sources.iter_mut().flat_map(|source| &mut source.cells) {
                cell.repeat_limit = below.get(&cell.new_cell).copied().unwrap_or(0);
            }

            Ok::<_, UserError>(sources)
        });
        parts.sources = limited.await??;

        Ok(())
    }
}

/// Works away from the runtime's threads.
async fn run_blocking<T: Send + 'static>(
    place: Arc<Permit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let task = tokio::task::spawn_blocking(move || {
        let _held = place;
        work()
    });
    task.await.map_err(|e| Status::internal(e.to_string()))
}

impl LaunchCandidate {
    /// Whether a sweep is what this one would be.
    fn is_same_as(&self, other: &ComparableSweep) -> bool {
        let a = &self.spec;
        let b = &other.spec;
        let brief = |spec: &Spec| {
            (
                spec.grid.cell_count(),
                spec.repeats,
                spec.measure.clone(),
                spec.name.clone(),
            )
        };

        other.state != SweepState::Cancelled
            && brief(a) == brief(b)
            && self.meaning.is_some()
            && other.record.source.compute_meaning_hash() == self.meaning
    }

    /// Its cells by their identities.
    fn cells_by_identity(&self) -> Result<&HashMap<[u8; 32], u64>, UserError> {
        let work_out = || {
            let cells: Vec<u64> = self.spec.grid.iter().collect();
            let identities = compute_identities(&self.spec, self.row.data.hash, &cells)?;
            Ok(identities
                .into_iter()
                .map(|(cell, hash)| (hash, cell))
                .collect())
        };

        self.cells_by_identity
            .get_or_init(work_out)
            .as_ref()
            .map_err(Clone::clone)
    }

    /// For each shape class, in which samples are taken at the same steps, how to make what is asked for out of results of
    /// another sweep; none where these lack something.
    fn select_from_results(&self, other: &Spec) -> Vec<Option<Arc<ResultSelection>>> {
        let grid = &self.spec.grid;
        let of_class = |class| {
            let config = (grid.class_cell_count(class) > 0)
                .then(|| grid.resolve_config(grid.class_cell_at(class, 0)).ok())
                .flatten()?;
            other
                .measure
                .selection_for(&self.spec.measure, &config)
                .map(Arc::new)
        };

        (0..grid.class_count()).map(of_class).collect()
    }

    /// Where the metric that decides how often a cell is repeated stands in another sweep.
    fn find_deciding_metric(&self, other: &Spec) -> Option<usize> {
        let until = self.spec.stopping_rule.as_ref()?;
        other
            .measure
            .metrics
            .iter()
            .position(|metric| *metric == until.metric)
    }
}

impl LaunchState {
    /// The identities of these cells of a sweep.
    fn cell_identities(
        &self,
        of: &ComparableSweep,
        cells: &[u64],
    ) -> Result<Arc<CellIdentities>, UserError> {
        let found = self
            .lock_identities()
            .get(&of.number)
            .cloned()
            .unwrap_or_default();
        let missing: Vec<u64> = cells
            .iter()
            .copied()
            .filter(|cell| !found.contains_key(cell))
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }

        let mut all = CellIdentities::clone(&found);
        all.extend(compute_identities(&of.spec, of.record.data.hash, &missing)?);
        let all = Arc::new(all);
        let mut known = self.lock_identities();
        known.insert(of.number, all.clone());

        while known.len() > 1
            && known.values().map(|cells| cells.len()).sum::<usize>() > MAX_IDENTITIES
        {
            known.pop_first();
        }

        Ok(all)
    }

    fn lock_identities(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Arc<CellIdentities>>> {
        self.identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identities of cells, worked out on several threads.
fn compute_identities(
    spec: &Spec,
    data: Option<[u8; 32]>,
    cells: &[u64],
) -> Result<Vec<(u64, [u8; 32])>, UserError> {
    let data = data.unwrap_or_default();
    let of_cell = |cell: &u64| -> Result<(u64, [u8; 32]), UserError> {
        let config = spec
            .grid
            .resolve_config(*cell)
            .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
        Ok((*cell, spec.compute_cell_hash(&config, &data)))
    };

    let size = cells.len().div_ceil(reader_threads()).max(1);
    std::thread::scope(|scope| {
        let work = |part: &[u64]| part.iter().map(of_cell).collect::<Result<Vec<_>, _>>();
        let parts: Vec<_> = cells
            .chunks(size)
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        let mut all = Vec::with_capacity(cells.len());

        for part in parts {
            all.extend(
                part.join()
                    .map_err(|_| UserError::new(ErrorCode::Internal, "a thread panicked"))??,
            );
        }

        Ok(all)
    })
}
