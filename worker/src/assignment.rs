//! A trial for a slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_common::ids::Fence;

use crate::link::sweeps::LoadedSweep;

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
}

impl Assignment {
    /// Whether the trial must stop before its end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
