//! More of a sweep. More repeats of its cells are a change of its file: it grows where it is. Whatever another file asks
//! for, more values or another axis, is a new sweep that begins with the rows of the old one: a cell is what it resolves
//! to, so that those of the old one are found in the new grid wherever they stand there. The old sweep ends and stays as it
//! is, so that what was said of it stays true.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::{refuse_misleading_extension, settings_for_new_sweep};
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
use super::services::access::SweepApi;
use super::services::launch::{PreparedSweep, track_requester};
use super::sweep_changes::stopping_status;
use super::{store_error, sweep_changes};
use crate::core::queries::describe_cell;
use crate::core::{Core, StoredRow, Sweep};
use crate::records::{DataPin, SweepRow, SweepState};
use crate::store::SuccessorSweep;
use crate::throttled_log::ThrottledLog;

/// The sweep that is to be extended.
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
    /// Answers when what is to be added is durable.
    pub(super) async fn extend_sweep(
        &self,
        mut request: v1::ExtendRequest,
        by: String,
    ) -> Result<v1::ExtendResponse, Status> {
        let place = Arc::new(self.0.limits.launches.try_acquire()?);
        if !request.verify_checksum() {
            return Err(Status::data_loss(
                "the sweep was damaged on its way here: extend it again",
            ));
        }

        let found = |sweep: &Sweep| match &sweep.withheld {
            Some(why) => Err(refused_error(format!(
                "the sweep {} is only shown by this program: {why}",
                sweep.id
            ))),
            None => Ok(SweepToExtend {
                record: sweep.record.clone(),
                spec: sweep.spec.clone(),
                state: sweep.state,
            }),
        };
        let old = self
            .with_sweep(&request.sweep, move |_, sweep| found(sweep))
            .await??;
        let from = old.record.id.clone();

        let was_open = old.state.is_open();
        let (number, ended) = match (request.source, request.repeats) {
            (None, 0) => {
                return Err(Status::invalid_argument(
                    "ExtendRequest has neither repeats nor a source",
                ));
            }
            (None, repeats) => (self.add_repeats(old, repeats, place).await?, false),
            (Some(source), 0) => {
                let source = source
                    .try_into()
                    .map_err(|e: WireError| Status::invalid_argument(e.to_string()))?;
                (
                    self.launch_successor(old, source, by, place).await?,
                    was_open,
                )
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

    /// More repeats of the same cells.
    async fn add_repeats(
        &self,
        old: SweepToExtend,
        repeats: u32,
        place: Arc<Permit>,
    ) -> Result<i64, Status> {
        let number = old.record.number;
        let from = old.record.source.clone();
        let has = old.spec.repeats;
        if repeats <= has {
            let message = format!(
                "repeats: the sweep {} has {has} per cell: ask for more than that",
                old.record.id
            );
            return Err(bad_input_error(message).into());
        }

        let to = from.with_repeats(&old.spec, repeats);
        let read = to.clone();
        let stored = old.spec.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            Spec::read_stored(&read)
                .and_then(|spec| refuse_misleading_extension(&spec, &stored).map(|()| spec))
        });
        let spec = task
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| bad_input_error(e.to_string()))?;
        let spec = Arc::new(spec);
        sweep_changes::run_exclusively(&self.0, move |shared| async move {
            sweep_changes::send_and_wait(&shared, |reply| {
                UserEvent::Extend(number, from, to, spec, reply)
            })
            .await
        })
        .await?;

        tracing::info!(sweep = old.record.id, repeats, "sweep extended");
        Ok(number)
    }

    /// A new sweep with the rows of the old one.
    async fn launch_successor(
        &self,
        old: SweepToExtend,
        mut source: SpecSource,
        by: String,
        place: Arc<Permit>,
    ) -> Result<i64, Status> {
        let read = source.clone();
        let (_asker, asked) = track_requester();
        let spec =
            tokio::task::spawn_blocking(move || Spec::read_new_while_wanted(&read, &asked)).await;
        let spec = spec
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| bad_input_error(e.to_string()))?;

        // A class by its engine alone is that of the rows.
        let engine = old.spec.numerics.split('/').next() == Some(&spec.numerics);
        let numerics = if engine {
            &old.spec.numerics
        } else {
            &spec.numerics
        };

        source.settings.extend(settings_for_new_sweep(&spec));
        source.settings.push(format!("numerics=\"{numerics}\""));
        let stored = old.spec.clone();
        let refuse = move |spec: &Spec| refuse_misleading_extension(spec, &stored);
        let PreparedSweep { row, spec, .. } = self
            .prepare_sweep(source, by, place.clone(), refuse)
            .await?;
        let files: Vec<[u8; 32]> = row.named_files().collect();

        let spec = Arc::new(spec);
        let wanted = spec.clone();
        let was = old.record.data.clone();
        let id = old.record.id.clone();
        let now = row.data.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            match_cells(&id, (&old.spec, &was), (&wanted, &now)).map(|cells| (old, cells))
        });
        let (old, cells) = task.await.map_err(|e| Status::internal(e.to_string()))??;
        let from = old.record.number;

        let source = old.record.source.clone();
        let inheritance = SuccessorSweep {
            row,
            predecessor: from,
            cell_map: cells,
        };

        let this = Self(self.0.clone());
        // To the end, even if whoever asked goes away.
        let number = tokio::spawn(async move {
            let row = this.store_successor(inheritance, source).await?;
            let number = row.number;
            this.add_stored_sweep(row, spec).await.map(|()| number)
        });
        let number = number
            .await
            .map_err(|e| Status::internal(e.to_string()))??;

        self.0.catalog.blobs.release(&files);
        Ok(number)
    }

    /// Stores a new sweep with the rows of another one, if that one has the same file still; the new one, as it is
    /// stored.
    async fn store_successor(
        &self,
        inheritance: SuccessorSweep,
        source: SpecSource,
    ) -> Result<SweepRow, Status> {
        let from = inheritance.predecessor;
        let row = inheritance.row.clone();
        sweep_changes::run_exclusively(&self.0, move |shared| async move {
            // Its cells were matched with those of the file that it had then.
            let same = move |core: &Core| {
                core.sweep(from)
                    .is_some_and(|sweep| sweep.record.source == source)
            };
            if !shared
                .engine
                .query_core(same)
                .await
                .map_err(|_| stopping_status())?
            {
                return Err(
                    refused_error("the sweep was changed or removed meanwhile: try again").into(),
                );
            }

            let (reply, stored) = oneshot::channel();
            shared
                .engine
                .send_event(UserEvent::InsertSuccessor(Box::new(inheritance), reply));
            let number = stored
                .await
                .map_err(|_| stopping_status())?
                .map_err(|e| Status::from(store_error(e)))?;

            Ok(SweepRow { number, ..row })
        })
        .await
    }

    /// Takes up a sweep that was stored with rows. It is there, and would be launched a second time by whoever does not
    /// see it: what hinders its reading is waited for.
    pub(super) async fn add_stored_sweep(
        &self,
        row: SweepRow,
        spec: Arc<Spec>,
    ) -> Result<(), Status> {
        let record = Arc::new(row);
        let read = || {
            let shared = self.0.clone();
            let record = record.clone();
            let spec = spec.clone();
            let task =
                tokio::task::spawn_blocking(move || read_stored_sweep(&shared, record, spec));
            async move {
                task.await
                    .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?
            }
        };
        let found = retry_until_read(read, RETRY_DELAY, self.0.stopping.clone()).await;
        let (sweep, rows) = found.ok_or_else(stopping_status)?;
        tracing::info!(
            sweep = sweep.id,
            rows = rows.len(),
            "sweep launched with the rows of another"
        );

        let (reply, taken) = oneshot::channel();
        self.0
            .engine
            .send_event(UserEvent::AddStoredSweep(Box::new(sweep), rows, reply));
        taken.await.map_err(|_| stopping_status())
    }
}

/// How long to wait before a sweep that could not be read is read again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A sweep that was stored with rows, and what the core keeps of these.
fn read_stored_sweep(
    shared: &ServerContext,
    record: Arc<SweepRow>,
    spec: Arc<Spec>,
) -> Result<(Sweep, Vec<StoredRow>), UserError> {
    let readers = shared
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

/// Reads until that succeeds; nothing if the coordinator stops before.
async fn retry_until_read<T, F: Future<Output = Result<T, UserError>>>(
    read: impl Fn() -> F,
    pause: Duration,
    mut stopping: watch::Receiver<bool>,
) -> Option<T> {
    let mut complaints = ThrottledLog::default();
    loop {
        match read().await {
            Ok(found) => return Some(found),
            Err(error) => complaints.report_error(
                "a new sweep is stored and cannot be read: it is tried again",
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

/// The cells of an old sweep, each with its number in a new one.
///
/// # Errors
/// The new one does not have all of them, or asks for less, or for nothing else.
fn match_cells(
    id: &str,
    (old, old_data): (&Spec, &DataPin),
    (new, new_data): (&Spec, &DataPin),
) -> Result<Vec<(u64, u64)>, UserError> {
    check_compatible(id, old, new)?;
    if old_data.hash != new_data.hash {
        let message = format!(
            "data: the results of {id} are of other data ({}) than the file asks for ({}): they cannot be taken over",
            old_data.provenance, new_data.provenance
        );
        return Err(refused_error(message));
    }

    let data = old_data.hash.unwrap_or_default();
    let identity = |spec: &Spec, cell: u64| -> Result<[u8; 32], UserError> {
        let config = spec
            .grid
            .resolve_config(cell)
            .map_err(|e| bad_input_error(e.to_string()))?;
        Ok(spec.compute_cell_hash(&config, &data))
    };

    let mut places: HashMap<[u8; 32], (u64, Option<u64>)> = HashMap::new();
    for cell in old.grid.iter() {
        places.insert(identity(old, cell)?, (cell, None));
    }

    for cell in new.grid.iter() {
        if let Some((_, place)) = places.get_mut(&identity(new, cell)?) {
            *place = Some(cell);
        }
    }

    let mut cells = Vec::with_capacity(places.len());
    let mut missing = None;

    for (cell, place) in places.into_values() {
        match place {
            Some(place) => cells.push((cell, place)),
            None => missing = Some(missing.map_or(cell, |other: u64| other.min(cell))),
        }
    }

    if let Some(cell) = missing {
        let message = format!(
            "the file has no cell like the cell {cell} of {id} ({}): a sweep that takes over results has all cells that \
             they are of, with the same fields of [data], [model] and [train]",
            describe_cell(old, cell)
        );
        return Err(refused_error(message));
    }

    if (new.grid.cell_count(), new.repeats) == (old.grid.cell_count(), old.repeats) {
        return Err(refused_error(format!(
            "the file asks for the trials that {id} has, and for no others"
        )));
    }

    cells.sort_unstable();
    Ok(cells)
}

/// What all results of a sweep have in common must stay.
fn check_compatible(id: &str, old: &Spec, new: &Spec) -> Result<(), UserError> {
    let differs = |field: &str, was: String, is: String| {
        let message = format!(
            "{field}: the results of {id} are of {was}, the file asks for {is}: they cannot be taken over"
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
            "seeds: the results of {id} have other random streams: they cannot be taken over"
        );
        return Err(refused_error(message));
    }

    if old.measure != new.measure {
        let message = format!(
            "measure: what was measured in {id} cannot be changed afterwards: leave [measure] as it is, or launch the file"
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
}
