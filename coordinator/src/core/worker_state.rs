//! What the core knows of a worker.

use std::collections::BTreeMap;

use ergodic_common::TrialKey;
use ergodic_common::ids::{LeaseId, SweepNumber};

use super::clock::CoreTime;
use crate::experiments::KnownExperiment;

/// What the programs on a worker can take besides slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerSupply {
    /// Bytes of memory; `None` if the worker knows no limit.
    pub memory: Option<u64>,
    /// Number of GPUs.
    pub gpus: u32,
}

/// A worker that has joined, or is remembered because of its leases.
#[derive(Debug)]
pub struct Worker {
    /// The worker's name, for people.
    pub name: String,
    /// The build of the worker's program.
    pub build: String,
    /// Number of trials at a time.
    pub slots: u32,
    /// Numerics classes that the worker offers.
    pub numerics: Vec<String>,
    /// Whether the worker runs programs.
    pub programs: bool,
    /// The experiments of the worker program.
    pub experiments: Vec<KnownExperiment>,
    /// What programs can take besides slots; `None` for a worker that does not tell.
    pub supply: Option<WorkerSupply>,
    /// Whether the worker's session is open.
    pub connected: bool,
    /// Whether its session broke off shortly after a sign of life: unless it comes back, it has crashed.
    pub(crate) session_broke_off: bool,
    /// Time of the last message from the worker.
    pub last_seen_at: CoreTime,
    /// Running trials with the numbers of their leases, as last reported.
    pub running: Vec<(LeaseId, TrialKey)>,
    /// Number of granted trials that have not begun, as last reported.
    pub queued: u64,
    /// Number of rows stored from the worker.
    pub stored_rows: u64,
    /// Duration of a trial on this worker, relative to the usual one.
    pub(crate) pace: f64,
    /// Time of the last results from the worker.
    pub(crate) last_results_at: CoreTime,
    /// Idle slots of an unanswered request for a lease.
    pub(crate) requested_slots: Option<u32>,
    /// Time from which the worker begins no further trial, because its time is limited or it is leaving.
    pub begins_until: Option<CoreTime>,
    /// Whether somebody has asked the worker to leave.
    pub drain_requested: bool,
    /// Sweeps that the worker could not run, with time and reason.
    pub(crate) unable_sweeps: BTreeMap<SweepNumber, (CoreTime, String)>,
}

impl Worker {
    /// Whether the worker begins further trials.
    pub(crate) fn begins_trials(&self, now: CoreTime) -> bool {
        self.begins_until.is_none_or(|until| now < until)
    }

    /// Time left to begin trials, in seconds; `None` without a limit.
    pub fn begins_for_seconds(&self, now: CoreTime) -> Option<f64> {
        let until = self.begins_until?;
        Some(until.saturating_sub(now).as_secs_f64())
    }
}
