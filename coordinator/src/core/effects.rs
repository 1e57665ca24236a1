//! What the core asks its caller to do, in order.

use ergodic_common::TrialKey;
use ergodic_common::ids::Fence;
use ergodic_common::spec::scheduling::Share;

use crate::records::{EndedLease, LeaseRow, SweepState, WorkerId};

/// How a user steers a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steering {
    /// Nothing more of it is given out; what is leased is finished.
    Pause,
    /// The sweep goes on.
    Resume,
    /// The sweep ends.
    Cancel,
    /// The sweep's failed trials are run again.
    Retry,
    /// The sweep gets another share of the workers; what is `None` stays as it is.
    Share {
        /// The new priority.
        priority: Option<i32>,
        /// The new weight.
        weight: Option<f64>,
    },
}

/// What to do about an event, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the lease durable, then send it.
    Grant {
        /// The lease as it is to be stored.
        lease: LeaseRow,
        /// The sweep's id.
        sweep: String,
        /// The trials in the order in which they are to be run.
        keys: Vec<TrialKey>,
    },
    /// Ask a worker to give back trials of a lease that it has not begun, if it has as many.
    Retract {
        /// The worker that holds the lease.
        worker: WorkerId,
        /// The lease's fencing token.
        fence: Fence,
        /// Most trials that are to be given back.
        trials: u64,
    },
    /// Make it durable that a lease has no more than these trials.
    ShrinkLease(LeaseRow),
    /// Remove leases from the store; from then on their fences hold no more.
    EndLeases(Vec<EndedLease>),
    /// Tell a worker, if it is connected, that these are no longer its.
    RevokeLeases(WorkerId, Vec<Fence>),
    /// Make a sweep's state durable.
    SetSweepState(i64, SweepState),
    /// Store a failed row for a trial in which three workers crashed.
    GiveUp(GivenUpTrial),
    /// Take a stored give-up back: a worker whose crash was counted has come back.
    RevertGiveUp(GiveUpReversal),
    /// Read the rows of these trials, which have some that the core does not know.
    LookUpRows(i64, Vec<TrialKey>),
    /// Remove the checkpoints of trials of a sweep that are not unfinished any more.
    DiscardCheckpoints(i64, Vec<TrialKey>),
}

/// A change of a sweep by a user: first stored, then applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SweepChange {
    /// Another state.
    State(SweepState),
    /// Another share of the workers.
    Share(Share),
}

/// A trial, or an audit, in which three workers crashed: its failure is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUpTrial {
    /// The number of its sweep.
    pub sweep: i64,
    /// The trial.
    pub key: TrialKey,
    /// The cause of the failure, in words.
    pub cause: String,
    /// Metrics that its sweep measures.
    pub metric_count: usize,
    /// Whether it has a row, and only its audit failed.
    pub is_audit: bool,
}

/// A trial, or an audit, that killed fewer workers than was thought: its failure is to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveUpReversal {
    /// The number of its sweep.
    pub sweep: i64,
    /// The trial.
    pub key: TrialKey,
    /// Whether only its audit was given up.
    pub is_audit: bool,
}
