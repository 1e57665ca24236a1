//! Where a slot keeps the trial it runs: with the coordinator, and in a folder where there is one.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::checkpoints::{Checkpoints, Flight};
use crate::desk::Assignment;
use crate::failpoint;
use crate::folder::Folder;
use crate::slots::Office;
use crate::train::Shelf;

/// What has run for a shorter time when the worker leaves is not worth a journey.
const WORTHWHILE: Duration = Duration::from_secs(1);
/// How long the last checkpoint may be on its way when the worker leaves.
const LAST_WITHIN: Duration = Duration::from_secs(5);
/// How long a trial that is to stop may take to the end of its step, where it can be kept.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// How trials are kept, and how often.
#[derive(Clone)]
pub(crate) struct Keeping {
    pub(crate) every: Duration,
    pub(crate) checkpoints: Checkpoints,
}

/// The shelf of one attempt.
pub(crate) struct TrialShelf<'a> {
    keeping: &'a Keeping,
    folder: Option<&'a Folder>,
    office: &'a Office,
    assignment: &'a Assignment,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    /// When it was kept last, or begun.
    kept: Instant,
    /// The checkpoint under way.
    flight: Option<Flight>,
    /// When it was first seen that the trial is to stop.
    stopped: Option<Instant>,
}

impl<'a> TrialShelf<'a> {
    pub(crate) fn new(
        keeping: &'a Keeping,
        folder: Option<&'a Folder>,
        office: &'a Office,
        assignment: &'a Assignment,
    ) -> Self {
        let begun = Instant::now();
        let state = Mutex::new(State { kept: begun, flight: None, stopped: None });
        Self { keeping, folder, office, assignment, begun, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state")
    }

    /// Whether the lease was taken away: the coordinator would not have the trial.
    fn is_revoked(&self) -> bool {
        self.office.with(|desk| desk.is_revoked(self.assignment.fence))
    }

    fn is_due(&self) -> bool {
        let mut state = self.lock();
        state.kept.elapsed() >= self.keeping.every && state.flight.as_mut().is_none_or(Flight::is_over)
    }
}

impl Shelf for TrialShelf<'_> {
    fn take(&self, identity: &[u8; 32]) -> Vec<Vec<u8>> {
        let here = self.folder.and_then(|folder| folder.take(identity));
        let there = self.assignment.kept.then(|| self.keeping.checkpoints.fetch(self.assignment)).flatten();
        here.into_iter().chain(there).collect()
    }

    fn wants(&self, steps: u64) -> bool {
        failpoint::pass(self.assignment.key, steps, || !self.assignment.is_stopped() && !self.is_due());
        self.is_due()
    }

    fn keep(&self, identity: &[u8; 32], steps: u64, checkpoint: Vec<u8>) {
        self.lock().kept = Instant::now();
        if let Some(folder) = self.folder {
            folder.keep(identity, &checkpoint);
        }
        let last = self.assignment.is_stopped();
        if last && (self.is_revoked() || self.begun.elapsed() < WORTHWHILE) {
            return;
        }
        // One that is still under way is dropped: this one is further.
        self.lock().flight = None;
        let mut flight = self.keeping.checkpoints.send(self.assignment, steps, checkpoint);
        if last {
            self.keeping.checkpoints.wait(&mut flight, LAST_WITHIN);
        }
        self.lock().flight = Some(flight);
    }

    fn gives_up(&self) -> bool {
        let since = *self.lock().stopped.get_or_insert_with(Instant::now);
        since.elapsed() >= STEP_WITHIN || self.is_revoked()
    }

    /// The coordinator needs no word: it forgets the checkpoint when it has the result.
    fn clear(&self, identity: &[u8; 32]) {
        self.lock().flight = None;
        if let Some(folder) = self.folder {
            folder.clear(identity);
        }
    }
}
