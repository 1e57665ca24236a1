//! Launching what is missing. A trial is what it resolves to: one that another sweep of the store has the result of is not run
//! again, but its row copied. A file that asks for exactly what a sweep has is that sweep.
//!
//! Cells are compared by their identities, which are worked out here and not in the event loop: of the new sweep's cells, and of
//! those cells of others that have rows, where seed, streams, data and numerics class are the same. They are remembered, up to a bound.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ergodic_common::reuse::ResultSelection;
use ergodic_common::{ErrorCode, Outcome, Spec, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::oneshot;
use tonic::Status;

use super::change::stopping;
use super::engine::Event;
use super::limits::Place;
use super::recover::threads;
use super::sweeps::Sweeps;
use super::{lost, store_error};
use crate::core::audits::Finding;
use crate::core::reuse::{Neighbour, wanted_below};
use crate::core::{Core, Steering, StoredRow, SweepRow, SweepState};
use crate::store::{ReuseSource, ReusedCell, ReusingSweep, TrialRange, Twin};

/// Most cells of a sweep that are looked for in others, or in which trials are looked for.
const CELLS: usize = 300_000;
/// Identities that are remembered.
const REMEMBERED: usize = 1_000_000;
/// Ids that an answer names.
const NAMED: usize = 16;

/// What launches share.
#[derive(Debug, Default)]
pub(crate) struct Launching {
    /// Held from the look at other sweeps until the new one is among them: two launches of a file are one sweep.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Identities of cells of stored sweeps, by their numbers.
    known: Mutex<BTreeMap<i64, Arc<Identities>>>,
}

type Identities = HashMap<u64, [u8; 32]>;

/// A sweep that is to be launched.
struct Wanted {
    row: SweepRow,
    spec: Arc<Spec>,
    meaning: Option<[u8; 32]>,
    /// Its cells by their identities, once they are asked for.
    cells: OnceLock<Result<HashMap<[u8; 32], u64>, UserError>>,
}

/// What others have of it, as they were then.
struct Compared {
    others: Vec<(i64, SweepState, u32, u64, u64)>,
    found: Comparison,
}

/// What others have of it.
enum Comparison {
    /// This one is the same.
    Same(Box<Neighbour>),
    /// Some of its trials.
    Parts(Parts),
}

#[derive(Default)]
struct Parts {
    sources: Vec<ReuseSource>,
    twins: Vec<Twin>,
    /// Ids of the sources, and of sweeps that have too many cells.
    from: Vec<String>,
    unread: Vec<String>,
    /// A sweep that is running some of them, and how many.
    under_way: Option<(String, u64)>,
}

/// Cells that another sweep has too.
struct Shared {
    neighbour: Neighbour,
    /// Its cell, that of the new sweep, and what both are.
    pairs: Vec<(u64, u64, [u8; 32])>,
    begun: HashSet<u64>,
}

impl Sweeps {
    /// Launches a sweep without the trials that others have the results of.
    pub(super) async fn launch_missing(
        &self,
        row: SweepRow,
        spec: Spec,
        resume: bool,
        place: Arc<Place>,
    ) -> Result<v1::LaunchResponse, Status> {
        let meaning = row.source.compute_meaning_hash();
        let wanted = Arc::new(Wanted { row, spec: Arc::new(spec), meaning, cells: OnceLock::new() });
        // What takes long is done before it is our turn. It is done again if others have changed by then.
        let before = self.compare(&wanted, &place, None).await?;
        let this = Self(self.0.clone());
        // To the end, even if whoever asked goes away.
        let task = tokio::spawn(async move {
            let _turn = this.0.launching.turn.clone().lock_owned().await;
            match this.compare(&wanted, &place, Some(before)).await?.found {
                Comparison::Same(same) => this.take_for(*same, resume).await,
                Comparison::Parts(parts) => this.launch_with(&wanted, parts).await,
            }
        });
        task.await.map_err(|e| Status::internal(e.to_string()))?
    }

    /// A sweep that is there already; what failed of it is run again, and trials whose weights are not there.
    async fn take_for(&self, same: Neighbour, resume: bool) -> Result<v1::LaunchResponse, Status> {
        let number = same.number;
        let again = match same.state {
            SweepState::Completed if same.spec.measure.save => same.failed + lost::missing(&self.0, number).await?,
            SweepState::Completed => same.failed,
            _ => 0,
        };
        let (status, retried) = match same.state {
            SweepState::Paused if resume => (self.steered(number, Steering::Resume).await?, 0),
            SweepState::Completed if again > 0 => match self.retried(number).await {
                // Files that were not there are there by now, or cannot be looked at.
                Err(_) if same.failed == 0 => (self.status_of(number).await?, 0),
                retried => (retried?, again),
            },
            _ => (self.status_of(number).await?, 0),
        };
        Ok(v1::LaunchResponse { status, found: true, retried, ..Default::default() })
    }

    async fn launch_with(&self, wanted: &Wanted, parts: Parts) -> Result<v1::LaunchResponse, Status> {
        let Parts { sources, twins, from, unread, under_way } = parts;
        if let Some((id, trials)) = under_way {
            let message = format!(
                "{trials} of these trials are being run for the sweep {id}: wait for its end (`ergodic watch {id}`) and launch this \
                 again, or add to that one what it lacks with `ergodic extend {id} SPEC`, or say --again to have them run twice"
            );
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }
        let (row, spec) = (wanted.row.clone(), wanted.spec.clone());
        let files: Vec<[u8; 32]> = row.named_files().collect();
        let compared = twins.iter().map(|twin| twin.cell).collect::<HashSet<_>>().len() as u64;
        let (number, copied) = if sources.is_empty() && twins.is_empty() {
            (self.store_new(row, spec).await?, 0)
        } else {
            let (seed, audit) = (spec.seed, spec.scheduling.audit_share);
            self.gather(ReusingSweep { row, seed, audit_share: audit, sources, twins }, spec).await?
        };
        self.0.catalog.shelf.settle(&files);
        let (status, from) = (self.status_of(number).await?, if copied > 0 { from } else { Vec::new() });
        Ok(v1::LaunchResponse { status, copied, from, compared, unread, ..Default::default() })
    }

    /// Stores a sweep without rows, and takes it up.
    pub(super) async fn store_new(&self, row: SweepRow, spec: Arc<Spec>) -> Result<i64, Status> {
        let (reply, stored) = oneshot::channel();
        self.0.engine.tell(Event::Launch(Box::new(row), spec, reply));
        stored.await.map_err(|_| stopping())?.map_err(|e| Status::from(store_error(e)))
    }

    async fn gather(&self, gathering: ReusingSweep, spec: Arc<Spec>) -> Result<(i64, u64), Status> {
        let (reply, stored) = oneshot::channel();
        let row = gathering.row.clone();
        self.0.engine.tell(Event::Gather(Box::new(gathering), reply));
        let stored = stored.await.map_err(|_| stopping())?;
        let (number, copied) = stored.map_err(|e| Status::from(store_error(e)))?;
        self.take_up(SweepRow { number, ..row }, spec).await?;
        Ok((number, copied))
    }

    /// Looks for the trials of a sweep in all others, unless these are what they were before.
    async fn compare(
        &self,
        wanted: &Arc<Wanted>,
        place: &Arc<Place>,
        before: Option<Compared>,
    ) -> Result<Compared, Status> {
        let (spec, data) = (wanted.spec.clone(), wanted.row.data.hash);
        let neighbours = move |core: &Core| -> Vec<Neighbour> {
            core.sweeps().filter_map(|sweep| sweep.neighbour(&spec, data)).collect()
        };
        let mut neighbours = self.ask(neighbours).await?;
        let brief = |one: &Neighbour| (one.number, one.state, one.spec.repeats, one.done, one.failed);
        let others: Vec<_> = neighbours.iter().map(brief).collect();
        if let Some(before) = before.filter(|before| before.others == others) {
            return Ok(before);
        }
        // The latest first.
        neighbours.reverse();
        let (looking, held) = (wanted.clone(), place.clone());
        let (same, mut neighbours) = blocking(held, move || {
            let same = neighbours.iter().position(|neighbour| looking.is(neighbour));
            (same.map(|at| neighbours.swap_remove(at)), neighbours)
        })
        .await?;
        if let Some(same) = same {
            return Ok(Compared { others, found: Comparison::Same(Box::new(same)) });
        }
        neighbours.retain(|one| one.done > one.failed || one.state == SweepState::Running);
        let mut parts = Parts::default();
        for neighbour in neighbours {
            self.compare_with(neighbour, wanted, &mut parts, place).await?;
        }
        if !parts.sources.is_empty() && wanted.spec.stopping_rule.is_some() {
            self.leave_out_what_is_not_wanted(wanted, &mut parts, place).await?;
        }
        Ok(Compared { others, found: Comparison::Parts(parts) })
    }

    /// Adds what one sweep has.
    async fn compare_with(
        &self,
        neighbour: Neighbour,
        wanted: &Arc<Wanted>,
        parts: &mut Parts,
        place: &Arc<Place>,
    ) -> Result<(), Status> {
        let number = neighbour.number;
        let begun = self.ask(move |core| core.sweep(number)?.begun_cells(CELLS)).await?;
        let cells = |spec: &Spec| spec.grid.cell_count() <= CELLS as u64;
        let Some(begun) = begun.filter(|_| cells(&wanted.spec) && cells(&neighbour.spec)) else {
            if parts.unread.len() < NAMED {
                parts.unread.push(neighbour.record.id.clone());
            }
            return Ok(());
        };
        let (looking, shared) = (wanted.clone(), self.0.clone());
        let common = blocking(place.clone(), move || {
            let begun: HashSet<u64> = begun.into_iter().collect();
            // Of one that is running, cells without a row count too.
            let cells = if neighbour.state == SweepState::Running {
                neighbour.spec.grid.iter().collect()
            } else {
                begun.iter().copied().collect::<Vec<u64>>()
            };
            let known = shared.launching.identities(&neighbour, &cells)?;
            let all = looking.cells()?;
            let pair = |cell: &u64| known.get(cell).and_then(|hash| Some((*cell, *all.get(hash)?, *hash)));
            let mut pairs: Vec<_> = cells.iter().filter_map(pair).collect();
            pairs.sort_unstable();
            Ok::<_, UserError>(Shared { neighbour, pairs, begun })
        });
        self.add(common.await??, wanted, parts).await
    }

    /// Adds cells that another sweep has, as far as its results are what is asked for.
    async fn add(&self, common: Shared, wanted: &Wanted, parts: &mut Parts) -> Result<(), Status> {
        let Shared { neighbour, pairs, begun } = common;
        let (number, below) = (neighbour.number, wanted.spec.repeats);
        let selections = wanted.selections(&neighbour.spec);
        let (mut cells, mut left) = (Vec::new(), Vec::new());
        for (from, to, identity) in pairs {
            let (class, _) = wanted.spec.grid.locate_trial(TrialKey { cell: to, repeat: 0 });
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
                    parts.twins.push(Twin { cell: to, other_sweep: number, other_cell: from });
                }
                None => {}
            }
        }
        if neighbour.state == SweepState::Running && parts.under_way.is_none() && !left.is_empty() {
            let count = move |core: &Core| {
                core.sweep(number).map_or(0, |sweep| left.iter().map(|cell| sweep.left_of(*cell, below)).sum::<u64>())
            };
            let trials = self.ask(count).await?;
            parts.under_way = (trials > 0).then(|| (neighbour.record.id.clone(), trials));
        }
        if !cells.is_empty() {
            parts.sources.push(ReuseSource { sweep: number, cells });
            if parts.from.len() < NAMED {
                parts.from.push(neighbour.record.id.clone());
            }
        }
        Ok(())
    }

    /// Where results decide how often a cell is repeated, the rows that there are decide which of them are wanted.
    async fn leave_out_what_is_not_wanted(
        &self,
        wanted: &Arc<Wanted>,
        parts: &mut Parts,
        place: &Arc<Place>,
    ) -> Result<(), Status> {
        let (shared, looking, mut sources) = (self.0.clone(), wanted.clone(), std::mem::take(&mut parts.sources));
        let numbers: Vec<i64> = sources.iter().map(|source| source.sweep).collect();
        let metrics = move |core: &Core| -> Vec<Option<Arc<Spec>>> {
            numbers.iter().map(|number| core.sweep(*number).map(|sweep| sweep.spec.clone())).collect()
        };
        let specs = self.ask(metrics).await?;
        let limited = blocking(place.clone(), move || {
            let mut rows = Vec::new();
            let reader = shared.store.open_reader().map_err(store_error)?;
            for (source, spec) in sources.iter().zip(specs) {
                let Some(spec) = spec else { continue };
                let places: HashMap<u64, u64> =
                    source.cells.iter().map(|cell| (cell.source_cell, cell.new_cell)).collect();
                let deciding = looking.deciding_in(&spec);
                // Rows of which another process found other bits are not taken over.
                let audits = reader.read_audits(source.sweep).map_err(store_error)?;
                let doubted = audits.iter().filter(|audit| audit.finding == Some(Finding::Different));
                let doubted: HashSet<TrialKey> = doubted.map(|audit| audit.key).collect();
                reader
                    .read_intact_ended_trials(source.sweep, TrialRange::ALL, &mut |ended| {
                        let cell = places.get(&ended.key.cell).filter(|_| !doubted.contains(&ended.key));
                        let Some(cell) = cell else { return };
                        let key = TrialKey { cell: *cell, ..ended.key };
                        let decides = deciding.and_then(|at| ended.metrics.get(at)).unwrap_or(f64::NAN);
                        if looking.spec.has_trial(key) && !matches!(ended.outcome, Outcome::Failed { .. }) {
                            let (outcome, seconds) = (ended.outcome, ended.seconds);
                            rows.push(StoredRow { key, outcome, metric: f64::NAN, decides, seconds });
                        }
                    })
                    .map_err(store_error)?;
            }
            let below = wanted_below(&looking.row, &looking.spec, rows);
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
async fn blocking<T: Send + 'static>(
    place: Arc<Place>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let task = tokio::task::spawn_blocking(move || {
        let _held = place;
        work()
    });
    task.await.map_err(|e| Status::internal(e.to_string()))
}

impl Wanted {
    /// Whether a sweep is what this one would be.
    fn is(&self, other: &Neighbour) -> bool {
        let (a, b) = (&self.spec, &other.spec);
        let brief = |spec: &Spec| (spec.grid.cell_count(), spec.repeats, spec.measure.clone(), spec.name.clone());
        other.state != SweepState::Cancelled
            && brief(a) == brief(b)
            && self.meaning.is_some()
            && other.record.source.compute_meaning_hash() == self.meaning
    }

    /// Its cells by their identities.
    fn cells(&self) -> Result<&HashMap<[u8; 32], u64>, UserError> {
        let work_out = || {
            let cells: Vec<u64> = self.spec.grid.iter().collect();
            let identities = identities(&self.spec, self.row.data.hash, &cells)?;
            Ok(identities.into_iter().map(|(cell, hash)| (hash, cell)).collect())
        };
        self.cells.get_or_init(work_out).as_ref().map_err(Clone::clone)
    }

    /// For each shape class, in which samples are taken at the same steps, how to make what is asked for out of results of
    /// another sweep; none where these lack something.
    fn selections(&self, other: &Spec) -> Vec<Option<Arc<ResultSelection>>> {
        let grid = &self.spec.grid;
        let of_class = |class| {
            let config = (grid.class_cell_count(class) > 0)
                .then(|| grid.resolve_config(grid.class_cell_at(class, 0)).ok())
                .flatten()?;
            other.measure.selection_for(&self.spec.measure, &config).map(Arc::new)
        };
        (0..grid.class_count()).map(of_class).collect()
    }

    /// Where the metric that decides how often a cell is repeated stands in another sweep.
    fn deciding_in(&self, other: &Spec) -> Option<usize> {
        let until = self.spec.stopping_rule.as_ref()?;
        other.measure.metrics.iter().position(|metric| *metric == until.metric)
    }
}

impl Launching {
    /// The identities of these cells of a sweep.
    fn identities(&self, of: &Neighbour, cells: &[u64]) -> Result<Arc<Identities>, UserError> {
        let found = self.known().get(&of.number).cloned().unwrap_or_default();
        let missing: Vec<u64> = cells.iter().copied().filter(|cell| !found.contains_key(cell)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let mut all = Identities::clone(&found);
        all.extend(identities(&of.spec, of.record.data.hash, &missing)?);
        let all = Arc::new(all);
        let mut known = self.known();
        known.insert(of.number, all.clone());
        while known.len() > 1 && known.values().map(|cells| cells.len()).sum::<usize>() > REMEMBERED {
            known.pop_first();
        }
        Ok(all)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Arc<Identities>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identities of cells, worked out on several threads.
fn identities(spec: &Spec, data: Option<[u8; 32]>, cells: &[u64]) -> Result<Vec<(u64, [u8; 32])>, UserError> {
    let data = data.unwrap_or_default();
    let of_cell = |cell: &u64| -> Result<(u64, [u8; 32]), UserError> {
        let config = spec.grid.resolve_config(*cell).map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
        Ok((*cell, spec.compute_cell_hash(&config, &data)))
    };
    let size = cells.len().div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        let work = |part: &[u64]| part.iter().map(of_cell).collect::<Result<Vec<_>, _>>();
        let parts: Vec<_> = cells.chunks(size).map(|part| scope.spawn(move || work(part))).collect();
        let mut all = Vec::with_capacity(cells.len());
        for part in parts {
            all.extend(part.join().map_err(|_| UserError::new(ErrorCode::Internal, "a thread panicked"))??);
        }
        Ok(all)
    })
}
