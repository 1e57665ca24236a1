//! The threads that run trials, one at a time each. A panic in a trial is that trial's outcome, not the worker's end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ergodic_common::TrialResult;
use ergodic_common::error_code::ErrorCode;
use ergodic_common::trial::CPU_F32;
use ergodic_proto::status::UserError;
use tokio::sync::Notify;

use crate::checkpoint_store::{CheckpointPolicy, TrialCheckpointer};
use crate::device::DeviceChoice;
use crate::failpoint;
use crate::folder::CheckpointDir;
use crate::spool::{Spool, SpoolEntry};
use crate::train::{self, Deadline, FinishedTrial, Isa, Job};
use crate::work_queue::{Assignment, SpoolRef, Uptime, WorkQueue};

/// How often a slot that waits for room in the spool looks again.
const SPOOL_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The desk, and ways to hear of changes on it.
pub struct SharedQueue {
    queue: Mutex<WorkQueue>,
    started: Instant,
    /// Where results are kept until they are acknowledged, if anywhere.
    spool: Option<Arc<Spool>>,
    /// Wakes slots: there may be a trial.
    work_available: Condvar,
    /// Wakes the session: something was finished or taken.
    pub(crate) queue_changed: Notify,
    /// Wakes the delivery.
    pub(crate) results_ready: Notify,
}

impl SharedQueue {
    /// An empty desk for so many slots.
    pub fn new(slots: u32) -> Self {
        Self {
            queue: Mutex::new(WorkQueue::new(slots)),
            started: Instant::now(),
            spool: None,
            work_available: Condvar::new(),
            queue_changed: Notify::new(),
            results_ready: Notify::new(),
        }
    }

    /// The same with a spool.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self {
            spool: spool.map(Arc::new),
            ..self
        }
    }

    /// The spool.
    pub(crate) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Looks at the desk, or changes it. Nothing under this lock waits, trains or panics.
    pub fn with_queue<T>(&self, act: impl FnOnce(&mut WorkQueue) -> T) -> T {
        let result = act(&mut self.lock_queue());
        self.work_available.notify_all();
        result
    }

    /// Time since the worker started.
    pub fn uptime(&self) -> Uptime {
        self.started.elapsed()
    }

    fn lock_queue(&self) -> MutexGuard<'_, WorkQueue> {
        self.queue
            .lock()
            .expect("nothing panics while it holds the desk")
    }

    /// Books the end of a trial, and wakes whoever has to do with it. Without a result, it was stopped.
    ///
    /// Where there is a spool, the result is in it before anybody hears of it. One that finds no room there goes its way all
    /// the same, and the slot begins nothing until it has found it, or is acknowledged.
    pub fn finish_trial(&self, assignment: &Assignment, result: Option<FinishedTrial>) {
        let (place, owed) = match self.spool.as_ref().zip(result.as_ref()) {
            Some((spool, finished)) => spool_result(spool, assignment, finished),
            None => (None, None),
        };
        let wishes = {
            let mut desk = self.lock_queue();
            desk.finish_spooled_trial(assignment.fence, assignment.key, result, place);
            desk.slots_to_request().is_some()
        };

        self.results_ready.notify_one();
        if wishes {
            self.queue_changed.notify_one();
        }
        if let Some((spool, entry)) = self.spool.as_ref().zip(owed) {
            self.wait_for_spool_space(spool, &entry);
        }
    }

    /// Blocks the slot until a result has room in the spool, or needs none any more.
    fn wait_for_spool_space(&self, spool: &Spool, entry: &SpoolEntry) {
        while self.with_queue(|desk| !desk.is_closed() && desk.holds_lease(entry.fence()))
            && spool.retry_append(entry).is_err()
        {
            std::thread::sleep(SPOOL_RETRY_INTERVAL);
        }
        tracing::info!("the slot goes on");
    }

    /// Waits for a trial; `None` once the desk is closed.
    fn wait_for_trial(&self) -> Option<Assignment> {
        let mut desk = self.lock_queue();
        loop {
            if desk.is_closed() {
                return None;
            }
            if let Some(assignment) = desk.begin_trial(self.uptime()) {
                return Some(assignment);
            }

            desk = self
                .work_available
                .wait(desk)
                .expect("nothing panics while it holds the desk");
        }
    }
}

/// Keeps a result in the spool: its place there, or what is owed to it.
fn spool_result(
    spool: &Spool,
    assignment: &Assignment,
    finished: &FinishedTrial,
) -> (Option<SpoolRef>, Option<SpoolEntry>) {
    let entry = spool.encode_entry(assignment.fence, &assignment.sweep.id, finished);
    match spool.append_result(&entry) {
        Ok(place) => (Some(place), None),
        Err(error) => {
            tracing::warn!(%error, "no room in the spool: the slot waits until there is some");
            (None, Some(entry))
        }
    }
}

/// What slots are to train with.
#[derive(Debug, Clone)]
pub struct SlotConfig {
    /// Threads for one trial.
    pub threads: u32,
    /// Instruction set of the trainer's own engine.
    pub isa: Isa,
    /// Where networks run.
    pub device: DeviceChoice,
    /// Folder of unfinished trials.
    pub checkpoint_dir: Option<PathBuf>,
}

/// Starts the slots' threads. The numerics class of what they compute.
///
/// # Errors
/// The operating system gives no thread, or the device or the folder cannot be used.
pub(crate) fn start_slots(
    office: &Arc<SharedQueue>,
    slots: u32,
    equipment: &SlotConfig,
    keeping: Option<&CheckpointPolicy>,
) -> Result<String, UserError> {
    let mut numerics = String::new();
    for n in 0..slots {
        let office = office.clone();
        let equipment = equipment.clone();
        let keeping = keeping.cloned();
        let (report, ready) = std::sync::mpsc::channel();
        let failed =
            |e: String| UserError::new(ErrorCode::Internal, format!("cannot start slot {n}: {e}"));

        // A device belongs to the thread that opened it.
        let slot = move || match TrialRunner::new(&equipment) {
            Ok(machine) => {
                let _ = report.send(Ok(machine.numerics_class().to_owned()));
                run_slot(&office, &machine, keeping.as_ref());
            }
            Err(error) => _ = report.send(Err(error)),
        };
        std::thread::Builder::new()
            .name(format!("slot-{n}"))
            .spawn(slot)
            .map_err(|e| failed(e.to_string()))?;

        numerics = ready.recv().map_err(|e| failed(e.to_string()))??;
    }

    Ok(numerics)
}

/// What a slot trains with.
pub struct TrialRunner {
    isa: Isa,
    /// The device, if it is not the trainer's own engine.
    device: Option<train::CandleDevice>,
    /// Threads for one trial, if more than the slot's own.
    pool: Option<rayon::ThreadPool>,
    /// Where unfinished trials are kept here.
    checkpoint_dir: Option<CheckpointDir>,
}

impl TrialRunner {
    /// For the thread that calls this.
    ///
    /// # Errors
    /// The device or the folder cannot be used.
    pub fn new(equipment: &SlotConfig) -> Result<Self, UserError> {
        let failed = |e: String| UserError::new(ErrorCode::Internal, format!("cannot start: {e}"));
        let pool =
            train::build_thread_pool(equipment.threads).map_err(|e| failed(e.to_string()))?;
        let folder = equipment
            .checkpoint_dir
            .as_deref()
            .map(CheckpointDir::open)
            .transpose()
            .map_err(|e| failed(e.to_string()))?;

        Ok(Self {
            isa: equipment.isa,
            device: equipment.device.open_device()?,
            pool,
            checkpoint_dir: folder,
        })
    }

    /// The class of what it computes.
    pub fn numerics_class(&self) -> &str {
        self.device
            .as_ref()
            .map_or(CPU_F32, |place| &place.numerics_class)
    }
}

fn run_slot(office: &SharedQueue, machine: &TrialRunner, keeping: Option<&CheckpointPolicy>) {
    while let Some(assignment) = office.wait_for_trial() {
        let shelf = keeping.map(|keeping| {
            TrialCheckpointer::new(
                keeping,
                machine.checkpoint_dir.as_ref(),
                office,
                &assignment,
            )
        });
        let result = run_assignment(
            &assignment,
            machine,
            shelf
                .as_ref()
                .map(|shelf| shelf as &dyn train::CheckpointStore),
        );
        office.finish_trial(&assignment, result);

        tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease, "trial ends");
    }
}

/// Runs a trial, from what is kept of it on the shelf; `None` when it was stopped.
pub fn run_assignment(
    assignment: &Assignment,
    machine: &TrialRunner,
    shelf: Option<&dyn train::CheckpointStore>,
) -> Option<FinishedTrial> {
    tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease, "trial begins");
    failpoint::hold_before_trial(assignment.key, || !assignment.is_stopped());
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let sweep = &assignment.sweep;
        let cell = sweep.cached_cell(assignment.key.cell)?;
        let streams = sweep.spec.trial_streams(assignment.key, cell.hash);
        let job = Job {
            config: &cell.config,
            streams: &streams,
            measure: &sweep.spec.measure,
            data: cell.data.as_deref(),
            initial_weights: cell.initial_weights.as_deref(),
            key: assignment.key,
            isa: machine.isa,
            candle_device: machine.device.as_ref(),
            thread_pool: machine.pool.as_ref(),
            checkpoint_store: shelf,
            deadline: assignment.time_limit.map(Deadline::from_now),
        };

        Ok(train::run_trial(&job, &assignment.stop))
    }));

    match attempt {
        Ok(Ok(result)) => result,
        Ok(Err(cause)) => Some(failed_trial(assignment, cause)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no words");
            Some(failed_trial(
                assignment,
                format!("the trial panicked: {}", words),
            ))
        }
    }
}

fn failed_trial(assignment: &Assignment, cause: String) -> FinishedTrial {
    let cause: String = cause.chars().take(1000).collect();
    tracing::error!(trial = %assignment.key, cause, "trial failed");
    let metrics = assignment.sweep.spec.measure.metrics.len();
    FinishedTrial {
        result: TrialResult::failed(assignment.key, cause, metrics),
        weights: None,
    }
}
