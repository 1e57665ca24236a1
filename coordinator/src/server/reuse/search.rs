//! Searches stored sweeps for the trials of a new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ergodic_common::ids::{CellHash, CellIndex, SweepId, SweepNumber};
use ergodic_common::spec::result_reuse::ResultSelection;
use ergodic_common::{Outcome, Spec, TrialKey};
use ergodic_proto::status::UserError;
use tonic::Status;

use super::candidate::LaunchCandidate;
use crate::core::reuse::{ComparableSweep, find_wanted_repeats};
use crate::core::{Core, StoredRow};
use crate::records::{Finding, SweepState};
use crate::server::cell_identities::LaunchState;
use crate::server::limits::Permit;
use crate::server::services::access::SweepApi;
use crate::server::store_error;
use crate::store::{ReuseSource, ReusedCell, StoreReader, TrialRange, Twin};

/// Maximum number of cells of a sweep that takes part in the search.
const MAX_COMPARED_CELLS: usize = 300_000;
/// Maximum number of ids in an answer.
const MAX_NAMED_SWEEPS: usize = 16;

/// The result of a search, with the stored sweeps as they were.
pub(super) struct ComparedSweeps {
    others: Vec<SweepExtent>,
    pub(super) decision: ReuseDecision,
}

/// Number, state, repeats, done and failed trials of a sweep. A search gives another result only if
/// one of these changes.
type SweepExtent = (SweepNumber, SweepState, u32, u64, u64);

/// The decision about a new sweep.
pub(super) enum ReuseDecision {
    /// This stored sweep is the same.
    Same(Box<ComparableSweep>),
    /// Stored sweeps have some of its trials.
    Parts(ReusableRows),
}

#[derive(Default)]
pub(super) struct ReusableRows {
    pub(super) sources: Vec<ReuseSource>,
    pub(super) twins: Vec<Twin>,
    /// Ids of the sources of rows.
    pub(super) source_ids: Vec<SweepId>,
    /// Ids of sweeps with too many cells.
    pub(super) uncompared_ids: Vec<SweepId>,
    /// A sweep that is running some of the trials, and their number.
    pub(super) under_way: Option<(SweepId, u64)>,
}

/// Cells that two sweeps have in common.
struct SharedCells {
    neighbour: ComparableSweep,
    /// Number in the other sweep, number in the new one, and identity of each cell.
    pairs: Vec<(CellIndex, CellIndex, CellHash)>,
    begun_cells: HashSet<CellIndex>,
}

impl SweepApi {
    /// Searches all other sweeps for the trials of a new one, unless they are unchanged since the
    /// search `before`.
    pub(super) async fn find_reusable(
        &self,
        wanted: &Arc<LaunchCandidate>,
        permit: &Arc<Permit>,
        before: Option<ComparedSweeps>,
    ) -> Result<ComparedSweeps, Status> {
        let mut neighbours = self.find_comparable(wanted).await?;
        let others: Vec<SweepExtent> = neighbours.iter().map(describe_extent).collect();
        if let Some(before) = before.filter(|before| before.others == others) {
            return Ok(before);
        }

        // Later sweeps come first, so that they are preferred.
        neighbours.reverse();
        let candidate = wanted.clone();
        let (same, neighbours) = run_blocking(permit.clone(), move || {
            let same = neighbours
                .iter()
                .position(|neighbour| candidate.is_same_as(neighbour));
            (same.map(|index| neighbours.swap_remove(index)), neighbours)
        })
        .await?;

        let decision = match same {
            Some(same) => ReuseDecision::Same(Box::new(same)),
            None => ReuseDecision::Parts(self.collect_reusable(neighbours, wanted, permit).await?),
        };
        Ok(ComparedSweeps { others, decision })
    }

    async fn find_comparable(
        &self,
        wanted: &LaunchCandidate,
    ) -> Result<Vec<ComparableSweep>, Status> {
        let spec = wanted.spec.clone();
        let data = wanted.row.data.hash;
        self.query_core(move |core| {
            core.sweeps()
                .filter_map(|sweep| sweep.summarize_if_comparable(&spec, data))
                .collect()
        })
        .await
    }

    async fn collect_reusable(
        &self,
        neighbours: Vec<ComparableSweep>,
        wanted: &Arc<LaunchCandidate>,
        permit: &Arc<Permit>,
    ) -> Result<ReusableRows, Status> {
        let mut parts = ReusableRows::default();
        for neighbour in neighbours {
            let may_have_rows = neighbour.done > neighbour.failed;
            if may_have_rows || neighbour.state == SweepState::Running {
                self.add_reusable_from(neighbour, wanted, &mut parts, permit)
                    .await?;
            }
        }

        if !parts.sources.is_empty() && wanted.spec.stopping_rule.is_some() {
            self.limit_to_wanted_repeats(wanted, &mut parts, permit)
                .await?;
        }

        Ok(parts)
    }

    /// Adds the trials of one sweep.
    async fn add_reusable_from(
        &self,
        neighbour: ComparableSweep,
        wanted: &Arc<LaunchCandidate>,
        parts: &mut ReusableRows,
        permit: &Arc<Permit>,
    ) -> Result<(), Status> {
        let number = neighbour.number;
        let begun = self
            .query_core(move |core| core.sweep(number)?.begun_cells(MAX_COMPARED_CELLS))
            .await?;
        let is_small = can_be_compared(&wanted.spec) && can_be_compared(&neighbour.spec);
        let Some(begun) = begun.filter(|_| is_small) else {
            if parts.uncompared_ids.len() < MAX_NAMED_SWEEPS {
                parts.uncompared_ids.push(neighbour.record.id.clone());
            }
            return Ok(());
        };

        let candidate = wanted.clone();
        let context = self.0.clone();
        let shared_cells = run_blocking(permit.clone(), move || {
            pair_cells(neighbour, &begun, &candidate, &context.launch_state)
        });

        self.add_shared_cells(shared_cells.await??, wanted, parts)
            .await
    }

    /// Adds cells in common with another sweep, as far as its results are what the new one
    /// measures.
    async fn add_shared_cells(
        &self,
        shared_cells: SharedCells,
        wanted: &LaunchCandidate,
        parts: &mut ReusableRows,
    ) -> Result<(), Status> {
        let neighbour = &shared_cells.neighbour;
        let id = &neighbour.record.id;
        let selections = wanted.select_from_results(&neighbour.spec);
        let split = split_shared_cells(&shared_cells, wanted, &selections);
        parts.twins.extend(split.twins);

        let is_running = neighbour.state == SweepState::Running;
        if is_running && parts.under_way.is_none() && !split.selectable.is_empty() {
            let trials = self
                .count_trials_left(neighbour.number, split.selectable, wanted.spec.repeats)
                .await?;
            parts.under_way = (trials > 0).then(|| (id.clone(), trials));
        }

        if !split.reused.is_empty() {
            parts.sources.push(ReuseSource {
                sweep: neighbour.number,
                cells: split.reused,
            });

            if parts.source_ids.len() < MAX_NAMED_SWEEPS {
                parts.source_ids.push(id.clone());
            }
        }

        Ok(())
    }

    /// Number of trials that a sweep has still to run in these cells, among the repeats below
    /// `repeats`.
    async fn count_trials_left(
        &self,
        number: SweepNumber,
        cells: Vec<CellIndex>,
        repeats: u32,
    ) -> Result<u64, Status> {
        self.query_core(move |core| {
            core.sweep(number).map_or(0, |sweep| {
                cells
                    .iter()
                    .map(|cell| sweep.count_trials_left(*cell, repeats))
                    .sum()
            })
        })
        .await
    }

    /// Drops rows that the new sweep's stopping rule, applied to the existing rows, does not want.
    async fn limit_to_wanted_repeats(
        &self,
        wanted: &Arc<LaunchCandidate>,
        parts: &mut ReusableRows,
        permit: &Arc<Permit>,
    ) -> Result<(), Status> {
        let mut sources = std::mem::take(&mut parts.sources);
        let numbers: Vec<SweepNumber> = sources.iter().map(|source| source.sweep).collect();
        let specs = self
            .query_core(move |core| find_specs(core, &numbers))
            .await?;

        let context = self.0.clone();
        let candidate = wanted.clone();
        let limited = run_blocking(permit.clone(), move || {
            let reader = context.store.open_reader().map_err(store_error)?;
            let mut rows = Vec::new();
            for (source, spec) in sources.iter().zip(specs) {
                if let Some(spec) = spec {
                    read_source_rows(reader.as_ref(), source, &spec, &candidate, &mut rows)?;
                }
            }

            let limits = find_wanted_repeats(&candidate.row, &candidate.spec, rows);
            for cell in sources.iter_mut().flat_map(|source| &mut source.cells) {
                cell.repeat_limit = limits.get(&cell.new_cell).copied().unwrap_or(0);
            }

            Ok::<_, UserError>(sources)
        });
        parts.sources = limited.await??;

        Ok(())
    }
}

/// Runs `work` outside the runtime's threads.
async fn run_blocking<T: Send + 'static>(
    permit: Arc<Permit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let task = tokio::task::spawn_blocking(move || {
        let _held = permit;
        work()
    });
    task.await.map_err(|e| Status::internal(e.to_string()))
}

fn describe_extent(sweep: &ComparableSweep) -> SweepExtent {
    (
        sweep.number,
        sweep.state,
        sweep.spec.repeats,
        sweep.done,
        sweep.failed,
    )
}

fn can_be_compared(spec: &Spec) -> bool {
    spec.grid.cell_count() <= MAX_COMPARED_CELLS as u64
}

/// Pairs the cells of `neighbour` with the same cells of the new sweep.
fn pair_cells(
    neighbour: ComparableSweep,
    begun: &[CellIndex],
    candidate: &LaunchCandidate,
    launch_state: &LaunchState,
) -> Result<SharedCells, UserError> {
    let begun_cells: HashSet<CellIndex> = begun.iter().copied().collect();
    // A running sweep will have rows of its remaining cells too.
    let cells: Vec<CellIndex> = if neighbour.state == SweepState::Running {
        neighbour.spec.grid.iter().collect()
    } else {
        begun_cells.iter().copied().collect()
    };

    let identities = launch_state.cell_identities(&neighbour, &cells)?;
    let new_cells = candidate.cells_by_identity()?;
    let mut pairs: Vec<_> = cells
        .iter()
        .filter_map(|cell| {
            let identity = identities.get(cell)?;
            Some((*cell, *new_cells.get(identity)?, *identity))
        })
        .collect();
    pairs.sort_unstable();

    Ok(SharedCells {
        neighbour,
        pairs,
        begun_cells,
    })
}

/// The uses of the cells that two sweeps have in common.
#[derive(Default)]
struct SplitCells {
    /// Cells of the other sweep whose results have everything that the new one measures.
    selectable: Vec<CellIndex>,
    /// The selectable cells that have rows.
    reused: Vec<ReusedCell>,
    /// Cells with rows that lack something that the new sweep measures.
    twins: Vec<Twin>,
}

fn split_shared_cells(
    shared_cells: &SharedCells,
    wanted: &LaunchCandidate,
    selections: &[Option<Arc<ResultSelection>>],
) -> SplitCells {
    let mut split = SplitCells::default();
    for &(source_cell, new_cell, identity) in &shared_cells.pairs {
        let has_rows = shared_cells.begun_cells.contains(&source_cell);
        let class = wanted.spec.grid.class_of(new_cell);

        let Some(selection) = &selections[class.position()] else {
            if has_rows {
                split.twins.push(Twin {
                    cell: new_cell,
                    other_sweep: shared_cells.neighbour.number,
                    other_cell: source_cell,
                });
            }
            continue;
        };

        split.selectable.push(source_cell);
        if has_rows {
            split.reused.push(ReusedCell {
                source_cell,
                new_cell,
                repeat_limit: wanted.spec.repeats,
                identity,
                selection: selection.clone(),
            });
        }
    }

    split
}

fn find_specs(core: &Core, numbers: &[SweepNumber]) -> Vec<Option<Arc<Spec>>> {
    numbers
        .iter()
        .map(|number| core.sweep(*number).map(|sweep| sweep.spec.clone()))
        .collect()
}

/// Reads the rows of a source in the form of the new sweep, except failed ones.
fn read_source_rows(
    reader: &dyn StoreReader,
    source: &ReuseSource,
    spec: &Spec,
    candidate: &LaunchCandidate,
    rows: &mut Vec<StoredRow>,
) -> Result<(), UserError> {
    let new_cells: HashMap<CellIndex, CellIndex> = source
        .cells
        .iter()
        .map(|cell| (cell.source_cell, cell.new_cell))
        .collect();
    let deciding = candidate.find_deciding_metric(spec);
    let doubted = read_doubted_trials(reader, source.sweep)?;

    reader
        .read_intact_ended_trials(source.sweep, TrialRange::ALL, &mut |ended| {
            let Some(cell) = new_cells
                .get(&ended.key.cell)
                .filter(|_| !doubted.contains(&ended.key))
            else {
                return;
            };
            let key = TrialKey {
                cell: *cell,
                ..ended.key
            };
            let deciding_metric = deciding
                .and_then(|index| ended.metrics.get(index))
                .unwrap_or(f64::NAN);

            if candidate.spec.has_trial(key) && !matches!(ended.outcome, Outcome::Failed { .. }) {
                rows.push(StoredRow {
                    key,
                    outcome: ended.outcome,
                    watched_metric: f64::NAN,
                    deciding_metric,
                    seconds: ended.seconds,
                });
            }
        })
        .map_err(store_error)?;

    Ok(())
}

/// Trials whose rows are not copied, because an audit found other bits.
fn read_doubted_trials(
    reader: &dyn StoreReader,
    sweep: SweepNumber,
) -> Result<HashSet<TrialKey>, UserError> {
    let audits = reader.read_audits(sweep).map_err(store_error)?;
    Ok(audits
        .iter()
        .filter(|audit| audit.finding == Some(Finding::Different))
        .map(|audit| audit.key)
        .collect())
}
