//! The threads that run trials, one at a time each. A panic in a trial is that trial's outcome, not the worker's end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, TrialResult};
use ergodic_proto::status::UserError;
use tokio::sync::Notify;

use crate::desk::{Assignment, Desk, Now, Place};
use crate::device::DeviceChoice;
use crate::failpoint;
use crate::folder::Folder;
use crate::shelf::{Keeping, TrialShelf};
use crate::spool::{Entry, Spool};
use crate::train::{self, Deadline, Finished, Isa, Job};

/// How often a slot that waits for room in the spool looks again.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// The desk, and ways to hear of changes on it.
pub struct Office {
    desk: Mutex<Desk>,
    started: Instant,
    /// Where results are kept until they are acknowledged, if anywhere.
    spool: Option<Arc<Spool>>,
    /// Wakes slots: there may be a trial.
    work: Condvar,
    /// Wakes the session: something was finished or taken.
    pub(crate) changed: Notify,
    /// Wakes the delivery.
    pub(crate) finished: Notify,
}

impl Office {
    /// An empty desk for so many slots.
    pub fn new(slots: u32) -> Self {
        Self {
            desk: Mutex::new(Desk::new(slots)),
            started: Instant::now(),
            spool: None,
            work: Condvar::new(),
            changed: Notify::new(),
            finished: Notify::new(),
        }
    }

    /// The same with a spool.
    #[must_use]
    pub fn spooling(self, spool: Option<Spool>) -> Self {
        Self { spool: spool.map(Arc::new), ..self }
    }

    /// The spool.
    pub(crate) fn spool(&self) -> Option<&Arc<Spool>> {
        self.spool.as_ref()
    }

    /// Looks at the desk, or changes it. Nothing under this lock waits, trains or panics.
    pub fn with<T>(&self, act: impl FnOnce(&mut Desk) -> T) -> T {
        let result = act(&mut self.lock());
        self.work.notify_all();
        result
    }

    /// Time since the worker started.
    pub fn now(&self) -> Now {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("nothing panics while it holds the desk")
    }

    /// Books the end of a trial, and wakes whoever has to do with it. Without a result, it was stopped.
    ///
    /// Where there is a spool, the result is in it before anybody hears of it. One that finds no room there goes its way all
    /// the same, and the slot begins nothing until it has found it, or is acknowledged.
    pub fn finish(&self, assignment: &Assignment, result: Option<Finished>) {
        let (place, owed) = match self.spool.as_ref().zip(result.as_ref()) {
            Some((spool, finished)) => keep(spool, assignment, finished),
            None => (None, None),
        };
        let wishes = {
            let mut desk = self.lock();
            desk.finish_spooled(assignment.fence, assignment.key, result, place);
            desk.wish().is_some()
        };
        self.finished.notify_one();
        if wishes {
            self.changed.notify_one();
        }
        if let Some((spool, entry)) = self.spool.as_ref().zip(owed) {
            self.wait_for_room(spool, &entry);
        }
    }

    /// Blocks the slot until a result has room in the spool, or needs none any more.
    fn wait_for_room(&self, spool: &Spool, entry: &Entry) {
        while self.with(|desk| !desk.is_closed() && desk.holds(entry.fence())) && spool.settle(entry).is_err() {
            std::thread::sleep(ROOM_AGAIN);
        }
        tracing::info!("the slot goes on");
    }

    /// Waits for a trial; `None` once the desk is closed.
    fn next(&self) -> Option<Assignment> {
        let mut desk = self.lock();
        loop {
            if desk.is_closed() {
                return None;
            }
            if let Some(assignment) = desk.begin(self.now()) {
                return Some(assignment);
            }
            desk = self.work.wait(desk).expect("nothing panics while it holds the desk");
        }
    }
}

/// Keeps a result in the spool: its place there, or what is owed to it.
fn keep(spool: &Spool, assignment: &Assignment, finished: &Finished) -> (Option<Place>, Option<Entry>) {
    let entry = spool.entry(assignment.fence, &assignment.sweep.id, finished);
    match spool.keep(&entry) {
        Ok(place) => (Some(place), None),
        Err(error) => {
            tracing::warn!(%error, "no room in the spool: the slot waits until there is some");
            (None, Some(entry))
        }
    }
}

/// What slots are to train with.
#[derive(Debug, Clone)]
pub struct Equipment {
    /// Threads for one trial.
    pub threads: u32,
    /// Instruction set of the trainer's own engine.
    pub isa: Isa,
    /// Where networks run.
    pub device: DeviceChoice,
    /// Folder of unfinished trials.
    pub shelf: Option<PathBuf>,
}

/// Starts the slots' threads. The numerics class of what they compute.
///
/// # Errors
/// The operating system gives no thread, or the device or the folder cannot be used.
pub(crate) fn start(
    office: &Arc<Office>,
    slots: u32,
    equipment: &Equipment,
    keeping: Option<&Keeping>,
) -> Result<String, UserError> {
    let mut numerics = String::new();
    for n in 0..slots {
        let (office, equipment, keeping) = (office.clone(), equipment.clone(), keeping.cloned());
        let (report, ready) = std::sync::mpsc::channel();
        let failed = |e: String| UserError::new(ErrorCode::Internal, format!("cannot start slot {n}: {e}"));
        // A device belongs to the thread that opened it.
        let slot = move || match Machine::new(&equipment) {
            Ok(machine) => {
                let _ = report.send(Ok(machine.numerics().to_owned()));
                work(&office, &machine, keeping.as_ref());
            }
            Err(error) => _ = report.send(Err(error)),
        };
        std::thread::Builder::new().name(format!("slot-{n}")).spawn(slot).map_err(|e| failed(e.to_string()))?;
        numerics = ready.recv().map_err(|e| failed(e.to_string()))??;
    }
    Ok(numerics)
}

/// What a slot trains with.
pub struct Machine {
    isa: Isa,
    /// The device, if it is not the trainer's own engine.
    place: Option<train::Place>,
    /// Threads for one trial, if more than the slot's own.
    pool: Option<rayon::ThreadPool>,
    /// Where unfinished trials are kept here.
    folder: Option<Folder>,
}

impl Machine {
    /// For the thread that calls this.
    ///
    /// # Errors
    /// The device or the folder cannot be used.
    pub fn new(equipment: &Equipment) -> Result<Self, UserError> {
        let failed = |e: String| UserError::new(ErrorCode::Internal, format!("cannot start: {e}"));
        let pool = train::pool(equipment.threads).map_err(|e| failed(e.to_string()))?;
        let folder = equipment.shelf.as_deref().map(Folder::open).transpose().map_err(|e| failed(e.to_string()))?;
        Ok(Self { isa: equipment.isa, place: equipment.device.open()?, pool, folder })
    }

    /// The class of what it computes.
    pub fn numerics(&self) -> &str {
        self.place.as_ref().map_or(CPU_F32, |place| &place.numerics)
    }
}

fn work(office: &Office, machine: &Machine, keeping: Option<&Keeping>) {
    while let Some(assignment) = office.next() {
        let shelf = keeping.map(|keeping| TrialShelf::new(keeping, machine.folder.as_ref(), office, &assignment));
        let result = run(&assignment, machine, shelf.as_ref().map(|shelf| shelf as &dyn train::Shelf));
        office.finish(&assignment, result);
        tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease, "trial ends");
    }
}

/// Runs a trial, from what is kept of it on the shelf; `None` when it was stopped.
pub fn run(assignment: &Assignment, machine: &Machine, shelf: Option<&dyn train::Shelf>) -> Option<Finished> {
    tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease, "trial begins");
    failpoint::begin(assignment.key, || !assignment.is_stopped());
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let sweep = &assignment.sweep;
        let cell = sweep.cell(assignment.key.cell)?;
        let streams = sweep.spec.trial_streams(assignment.key, cell.hash);
        let job = Job {
            config: &cell.config,
            streams: &streams,
            measure: &sweep.spec.measure,
            data: cell.data.as_deref(),
            start: cell.start.as_deref(),
            key: assignment.key,
            isa: machine.isa,
            place: machine.place.as_ref(),
            pool: machine.pool.as_ref(),
            shelf,
            deadline: assignment.limit.map(Deadline::after),
        };
        Ok(train::run(&job, &assignment.stop))
    }));
    match attempt {
        Ok(Ok(result)) => result,
        Ok(Err(cause)) => Some(failed(assignment, cause)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            Some(failed(assignment, format!("the trial panicked: {}", words)))
        }
    }
}

fn failed(assignment: &Assignment, cause: String) -> Finished {
    let cause: String = cause.chars().take(1000).collect();
    tracing::error!(trial = %assignment.key, cause, "trial failed");
    let metrics = assignment.sweep.spec.measure.metrics.len();
    Finished { result: TrialResult::failed(assignment.key, cause, metrics), weights: None }
}
