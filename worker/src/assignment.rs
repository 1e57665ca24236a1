//! A trial for a slot, and what else a worker knows of the trials of its leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepId};

use crate::link::sweeps::LoadedSweep;
use crate::program::tail::OutputTail;

/// A trial for a slot.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The lease that the trial belongs to.
    pub fence: Fence,
    /// The key of the trial.
    pub key: TrialKey,
    /// The sweep of the trial.
    pub sweep: Arc<LoadedSweep>,
    /// Set when the trial must stop before its end.
    pub stop: Arc<AtomicBool>,
    /// Time limit of the trial, if there is one.
    pub time_limit: Option<Duration>,
    /// Whether the coordinator has a checkpoint of the trial.
    pub has_checkpoint: bool,
    /// Names of the GPUs that the trial has, or has a share of.
    pub gpus: Vec<String>,
    /// Takes what the trial prints, if it is a program.
    pub(crate) output: OutputTail,
}

impl Assignment {
    /// Whether the trial must stop before its end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Where a trial is in a worker.
#[derive(Debug)]
pub(crate) enum TrialPlace {
    /// The trial has not begun.
    Queued,
    /// The trial runs, and prints this if it is a program.
    Running(OutputTail),
    /// Nowhere: it has ended, or was returned.
    Gone,
}

/// A lease that this worker gives back before its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GivenBackLease {
    pub(crate) fence: Fence,
    pub(crate) sweep: SweepId,
    /// Why this worker cannot run its trials.
    pub(crate) why: String,
}
