//! `Extend`: adds to a sweep. More repeats of its cells are a change of its file, and the sweep goes on. Any other
//! addition, such as more values or another axis, is a new sweep that starts with the rows of the old one. Cells are
//! identified by what they resolve to, so the cells of the old sweep are found in the new grid at any position. The
//! old sweep ends and stays as it is, so that reports about it stay true.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{CellHash, CellIndex, DatasetHash, FileHash, SweepId, SweepNumber};
use ergodic_common::program::find_version;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::refuse_misleading_extension;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::{oneshot, watch};
use tonic::Status;

use super::context::ServerContext;
use super::engine::events::UserEvent;
use super::limits::Permit;
use super::recovery::{read_intact_rows, reader_threads};
use super::result_starts::check_covered_repeats;
use super::services::access::{Requester, SweepApi};
use super::services::launch::{PreparedSweep, read_new_spec, settle_new_spec};
use super::sweep_changes::stopping_status;
use super::{store_error, sweep_changes};
use crate::core::{StoredRow, Sweep};
use crate::records::{DataPin, SweepRow, SweepState};
use crate::store::SuccessorSweep;
use crate::throttled_log::ThrottledLog;

/// The sweep to extend.
struct SweepToExtend {
    record: Arc<SweepRow>,
    spec: Arc<Spec>,
    state: SweepState,
}

fn bad_input_error(message: impl Into<String>) -> UserError {
    UserError::new(ErrorCode::BadInput, message.into())
}

fn refused_error(message: impl Into<String>) -> UserError {
    UserError::new(ErrorCode::Refused, message.into())
}

impl SweepApi {
    /// The body of `Extend`. Returns when the addition is durable.
    pub(super) async fn extend_sweep(
        &self,
        mut request: v1::ExtendRequest,
        requester: Requester,
    ) -> Result<v1::ExtendResponse, Status> {
        let permit = Arc::new(self.0.limits.launches.try_acquire()?);
        if !request.verify_checksum() {
            return Err(Status::data_loss(
                "the sweep was damaged in transit: extend it again",
            ));
        }

        let old = self
            .with_sweep(&request.sweep, |_, sweep| find_sweep_to_extend(sweep))
            .await??;
        self.check_right_to_run(&requester, &old.spec)?;
        let from = old.record.id.to_string();
        let was_open = old.state.is_open();

        let (number, ended) = match (request.source, request.repeats) {
            (None, 0) => {
                return Err(Status::invalid_argument(
                    "ExtendRequest has neither repeats nor a source",
                ));
            }
            (None, repeats) => (self.add_repeats(old, repeats, permit).await?, false),
            (Some(source), 0) => {
                let source = source
                    .try_into()
                    .map_err(|e: WireError| Status::invalid_argument(e.to_string()))?;
                let successor = self.launch_successor(old, source, &requester, permit);
                (successor.await?, was_open)
            }
            (Some(_), _) => {
                return Err(Status::invalid_argument(
                    "ExtendRequest has both repeats and a source",
                ));
            }
        };

        Ok(v1::ExtendResponse {
            status: self.query_status(number).await?,
            from,
            ended,
        })
    }

    /// Adds repeats of the same cells.
    async fn add_repeats(
        &self,
        old: SweepToExtend,
        repeats: u32,
        permit: Arc<Permit>,
    ) -> Result<SweepNumber, Status> {
        let number = old.record.number;
        let from = old.record.source.clone();
        let before = old.spec.repeats;
        if repeats <= before {
            let message = format!(
                "repeats: the sweep {} has {before} per cell: ask for more than that",
                old.record.id
            );
            return Err(bad_input_error(message).into());
        }

        let to = from.with_repeats(&old.spec, repeats);
        let new_source = to.clone();
        let stored = old.spec.clone();
        let blobs = self.0.catalog.blobs.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = permit;
            let spec = Spec::read_stored(&new_source)
                .and_then(|spec| refuse_misleading_extension(&spec, &stored).map(|()| spec))
                .map_err(|e| bad_input_error(e.to_string()))?;
            check_covered_repeats(&spec, &blobs).map(|()| spec)
        });
        let spec = task.await.map_err(|e| Status::internal(e.to_string()))??;
        let spec = Arc::new(spec);
        sweep_changes::run_exclusively(&self.0, move |context| async move {
            sweep_changes::send_and_wait(&context, |reply| UserEvent::Extend {
                sweep: number,
                from: Box::new(from),
                to: Box::new(to),
                spec,
                reply,
            })
            .await
        })
        .await?;

        tracing::info!(sweep = old.record.id.as_str(), repeats, "sweep extended");
        Ok(number)
    }

    /// Launches a new sweep with the rows of the old one.
    async fn launch_successor(
        &self,
        old: SweepToExtend,
        mut source: SpecSource,
        requester: &Requester,
        permit: Arc<Permit>,
    ) -> Result<SweepNumber, Status> {
        let mut spec = read_new_spec(&source, permit.clone()).await??;
        self.check_right_to_run(requester, &spec)?;
        let class = choose_successor_class(&spec, &old.spec);
        settle_new_spec(&mut spec, &mut source, &class)?;
        source.grammar = spec.min_grammar();
        let spec = self.pin_results(spec, &mut source).await?;

        let stored = old.spec.clone();
        let PreparedSweep { row, spec, .. } = self
            .prepare_sweep(
                spec,
                source,
                requester.name.clone(),
                permit.clone(),
                move |spec| refuse_misleading_extension(spec, &stored),
            )
            .await?;
        let files: Vec<FileHash> = row.named_files().collect();

        let new_spec = spec.clone();
        let new_data = row.data.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = permit;
            let old_data = &old.record.data;
            match_cells(
                &old.record.id,
                (&old.spec, old_data),
                (&new_spec, &new_data),
            )
            .map(|cells| (old, cells))
        });
        let (old, cell_map) = task.await.map_err(|e| Status::internal(e.to_string()))??;
        let source = old.record.source.clone();
        let successor = SuccessorSweep {
            row,
            predecessor: old.record.number,
            cell_map,
        };

        let api = Self(self.0.clone());
        // In a task of its own, so that it completes even if the client disconnects.
        let task = tokio::spawn(async move {
            let row = api.store_successor(successor, source).await?;
            let number = row.number;
            api.add_stored_sweep(row, spec).await.map(|()| number)
        });
        let number = task.await.map_err(|e| Status::internal(e.to_string()))??;

        self.0.catalog.blobs.release(&files);
        Ok(number)
    }

    /// Stores a sweep with the rows of another one, if that still has the file `source`; returns the new row.
    async fn store_successor(
        &self,
        successor: SuccessorSweep,
        source: SpecSource,
    ) -> Result<SweepRow, Status> {
        let from = successor.predecessor;
        let row = successor.row.clone();
        sweep_changes::run_exclusively(&self.0, move |context| async move {
            // The cells were matched against this file, so another one would give them wrong rows.
            let is_unchanged = context
                .engine
                .query_core(move |core| {
                    core.sweep(from)
                        .is_some_and(|sweep| sweep.record.source == source)
                })
                .await
                .map_err(|_| stopping_status())?;
            if !is_unchanged {
                return Err(
                    refused_error("the sweep was changed or removed meanwhile: try again").into(),
                );
            }

            let (reply, stored) = oneshot::channel();
            context.engine.send_event(UserEvent::InsertSuccessor {
                successor: Box::new(successor),
                reply,
            });
            let number = stored
                .await
                .map_err(|_| stopping_status())?
                .map_err(|e| Status::from(store_error(e)))?;

            Ok(SweepRow { number, ..row })
        })
        .await
    }

    /// Adds a sweep that was stored with rows to the engine. Retries until the rows can be read: a client that did
    /// not see the sweep would launch it again.
    pub(super) async fn add_stored_sweep(
        &self,
        row: SweepRow,
        spec: Arc<Spec>,
    ) -> Result<(), Status> {
        let record = Arc::new(row);
        let found = retry_until_read(
            || self.spawn_read(record.clone(), spec.clone()),
            RETRY_DELAY,
            self.0.stopping.clone(),
        )
        .await;
        let (sweep, rows) = found.ok_or_else(stopping_status)?;
        tracing::info!(
            sweep = sweep.id.as_str(),
            rows = rows.len(),
            "sweep launched with the rows of another"
        );

        let (reply, added) = oneshot::channel();
        self.0.engine.send_event(UserEvent::AddStoredSweep {
            sweep: Box::new(sweep),
            rows,
            reply,
        });
        added.await.map_err(|_| stopping_status())
    }

    fn spawn_read(
        &self,
        record: Arc<SweepRow>,
        spec: Arc<Spec>,
    ) -> impl Future<Output = Result<(Sweep, Vec<StoredRow>), UserError>> + use<> {
        let context = self.0.clone();
        let task = tokio::task::spawn_blocking(move || read_stored_sweep(&context, record, spec));
        async move {
            task.await
                .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?
        }
    }
}

fn find_sweep_to_extend(sweep: &Sweep) -> Result<SweepToExtend, UserError> {
    match &sweep.withheld {
        Some(why) => Err(refused_error(format!(
            "the sweep {} is read-only in this program: {why}",
            sweep.id
        ))),
        None => Ok(SweepToExtend {
            record: sweep.record.clone(),
            spec: sweep.spec.clone(),
            state: sweep.state,
        }),
    }
}

/// The numerics class of a successor: where its file names an engine alone, or an experiment without its version, that of the old
/// sweep's rows.
fn choose_successor_class(spec: &Spec, old: &Spec) -> String {
    let experiment = spec
        .program()
        .and_then(|program| program.experiment.as_ref());
    let takes_class_of_old = match experiment {
        Some(experiment) => {
            find_version(&spec.numerics).is_none() && experiment.allows_class(&old.numerics)
        }
        None => old.numerics.split('/').next() == Some(&spec.numerics),
    };
    if takes_class_of_old {
        old.numerics.clone()
    } else {
        spec.numerics.clone()
    }
}

/// Pause before a sweep that could not be read is read again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Reads a sweep that was stored with rows, in the form for the core.
fn read_stored_sweep(
    context: &ServerContext,
    record: Arc<SweepRow>,
    spec: Arc<Spec>,
) -> Result<(Sweep, Vec<StoredRow>), UserError> {
    let readers = context
        .store
        .open_readers(reader_threads())
        .map_err(store_error)?;
    let (rows, _) = read_intact_rows(&readers, record.number, &spec, false).map_err(store_error)?;
    let audits = readers
        .with_reader(|reader| reader.read_audits(record.number))
        .map_err(store_error)?;

    let mut sweep = Sweep::new(record, spec);
    sweep.record_audits(
        audits
            .into_iter()
            .map(|audit| (audit.key, audit.process, audit.finding)),
    );

    Ok((sweep, rows))
}

/// Repeats a read until it succeeds; `None` if the coordinator stops first.
async fn retry_until_read<T, F: Future<Output = Result<T, UserError>>>(
    read: impl Fn() -> F,
    pause: Duration,
    mut stopping: watch::Receiver<bool>,
) -> Option<T> {
    let mut throttled_log = ThrottledLog::default();
    loop {
        match read().await {
            Ok(found) => return Some(found),
            Err(error) => throttled_log.report_error(
                "a new sweep is stored but cannot be read: trying again",
                &error,
            ),
        }

        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return None,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Matches the cells of an old sweep with those of a new one, by number.
///
/// # Errors
/// The new sweep lacks some of them, has fewer repeats, or adds nothing.
fn match_cells(
    id: &SweepId,
    (old, old_data): (&Spec, &DataPin),
    (new, new_data): (&Spec, &DataPin),
) -> Result<Vec<(CellIndex, CellIndex)>, UserError> {
    check_compatible(id, old, new)?;
    if old_data.hash != new_data.hash {
        let message = format!(
            "data: the results of {id} come from other data ({}) than the file asks for ({}): they cannot be reused",
            old_data.provenance, new_data.provenance
        );
        return Err(refused_error(message));
    }

    let cells = pair_cells_by_identity(old, new, old_data.hash.unwrap_or(DatasetHash::NONE))?;
    let missing = cells.iter().filter(|(_, new)| new.is_none());
    if let Some(cell) = missing.map(|(old, _)| *old).min() {
        let message = format!(
            "the file has no cell like cell {cell} of {id} ({}): a sweep that reuses results must have all of their cells, \
             with the same fields of [data], [model] and [train]",
            old.grid.describe_cell(cell)
        );
        return Err(refused_error(message));
    }

    if (new.grid.cell_count(), new.repeats) == (old.grid.cell_count(), old.repeats) {
        return Err(refused_error(format!(
            "the file asks for the same trials as {id}: add cells or repeats"
        )));
    }

    let mut matched: Vec<(CellIndex, CellIndex)> = cells
        .into_iter()
        .filter_map(|(old, new)| Some((old, new?)))
        .collect();
    matched.sort_unstable();
    Ok(matched)
}

/// Pairs the cells of an old and a new sweep by identity, in no particular order.
fn pair_cells_by_identity(
    old: &Spec,
    new: &Spec,
    data: DatasetHash,
) -> Result<Vec<(CellIndex, Option<CellIndex>)>, UserError> {
    let mut pairs: HashMap<CellHash, (CellIndex, Option<CellIndex>)> = HashMap::new();
    for cell in old.grid.iter() {
        pairs.insert(identify_cell(old, cell, data)?, (cell, None));
    }

    for cell in new.grid.iter() {
        if let Some((_, new_cell)) = pairs.get_mut(&identify_cell(new, cell, data)?) {
            *new_cell = Some(cell);
        }
    }

    Ok(pairs.into_values().collect())
}

fn identify_cell(spec: &Spec, cell: CellIndex, data: DatasetHash) -> Result<CellHash, UserError> {
    let config = spec
        .grid
        .resolve_config(cell)
        .map_err(|e| bad_input_error(e.to_string()))?;
    Ok(spec.compute_cell_hash(&config, data))
}

/// Checks that everything that the results of a sweep depend on stays the same.
fn check_compatible(id: &SweepId, old: &Spec, new: &Spec) -> Result<(), UserError> {
    let differs = |field: &str, was: String, is: String| {
        let message = format!(
            "{field}: the results of {id} are of {was}, the file asks for {is}: they cannot be reused"
        );
        Err(refused_error(message))
    };

    if old.numerics != new.numerics {
        return differs("numerics", old.numerics.clone(), new.numerics.clone());
    }

    if old.seed != new.seed {
        return differs(
            "seed",
            format!("seed {}", old.seed),
            format!("seed {}", new.seed),
        );
    }

    if old.seeds != new.seeds {
        let message = format!(
            "seeds: the results of {id} come from other random streams: they cannot be reused"
        );
        return Err(refused_error(message));
    }

    if !new.measures_as(old) {
        let message = format!(
            "measure: what was measured in {id} cannot be changed afterwards: leave [measure] as it is, or launch the file \
             as a new sweep"
        );
        return Err(refused_error(message));
    }

    if new.repeats < old.repeats {
        return differs(
            "repeats",
            format!("{} per cell", old.repeats),
            new.repeats.to_string(),
        );
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crate::server::extend::*;

    #[tokio::test]
    async fn what_cannot_be_read_is_read_again_until_the_coordinator_stops() {
        let (stop, stopping) = watch::channel(false);
        let times = Cell::new(0);
        let read = |enough: u32| {
            times.set(times.get() + 1);
            let found = if times.get() >= enough {
                Ok(times.get())
            } else {
                Err(bad_input_error("too many open files"))
            };
            async move { found }
        };
        assert_eq!(
            retry_until_read(|| read(3), Duration::ZERO, stopping.clone()).await,
            Some(3)
        );

        stop.send_replace(true);
        assert_eq!(
            retry_until_read(|| read(9), Duration::ZERO, stopping).await,
            None
        );

        assert_eq!(times.get(), 4);
    }

    #[test]
    fn a_successor_takes_the_version_of_the_old_experiment_if_it_names_none() {
        let read = |name: &str, class: &str| {
            let text = format!(
                "name = \"t\"\n{class}[model]\nkind = \"custom:{name}\"\nmetrics = {{ loss = \"min\" }}\n"
            );
            let source = SpecSource {
                text,
                ..SpecSource::default()
            };
            Spec::read_stored(&source).expect("a sweep")
        };
        let old = read("walk", "numerics = \"custom/walk/7\"\n");
        for (name, class, expected) in [
            ("walk", "", "custom/walk/7"),
            ("walk", "numerics = \"custom/walk/8\"\n", "custom/walk/8"),
            ("run", "", "custom/run"),
        ] {
            let new = read(name, class);
            assert_eq!(choose_successor_class(&new, &old), expected);
        }
    }
}
