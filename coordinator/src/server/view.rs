//! What a coordinator that stands by knows: the core as the store has it, read anew when it is asked and the last reading is of
//! some age. It decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_proto::status::UserError;
use tokio::sync::{mpsc, watch};

use super::complaints::Complaints;
use super::engine::Event;
use super::recover::recover;
use crate::core::Core;
use crate::store::{Leader, Store};

/// An answer is of a reading no older than this,
const FRESH_FOR: Duration = Duration::from_millis(50);
/// or than so many times what it took, so that a large store is not read all the time.
const COST: u32 = 10;

/// Answers questions, from a thread of its own.
pub(super) struct View {
    pub(super) store: Arc<dyn Store>,
    pub(super) leader: watch::Receiver<Leader>,
    pub(super) lease_ttl: Duration,
}

/// The core as it was read.
struct Reading {
    core: Core,
    at: Instant,
    took: Duration,
}

impl View {
    /// Runs until told to stop.
    pub(super) fn run(self, mut events: mpsc::UnboundedReceiver<Event>) {
        let (mut known, mut complaints): (Option<Reading>, _) = (None, Complaints::default());
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Ask(question) => match self.reading(known.take()) {
                    Ok(reading) => {
                        question(&reading.core);
                        known = Some(reading);
                    }
                    // Whoever asked is told that there is no answer.
                    Err(error) => complaints.say("the store cannot be read", &error),
                },
                Event::Stop => return,
                // Nothing else comes past the guard.
                _ => {}
            }
        }
    }

    fn reading(&self, known: Option<Reading>) -> Result<Reading, UserError> {
        let good = |reading: &Reading| reading.at.elapsed() < FRESH_FOR.max(reading.took * COST);
        if let Some(reading) = known.filter(good) {
            return Ok(reading);
        }
        let (at, epoch) = (Instant::now(), self.leader.borrow().epoch);
        let (core, _) = recover(self.store.as_ref(), None, epoch, self.lease_ttl, false)?;
        Ok(Reading { core, at, took: at.elapsed() })
    }
}
