//! The view of a standby: a core as read from the store, which is read again for a query if it is
//! too old. It decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_proto::status::UserError;
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use crate::server::engine::EngineEvent;
use crate::server::recovery::recover_core;
use crate::store::{Leader, ReadableStore};
use crate::throttled_log::ThrottledLog;

/// Age up to which a reading is fresh, however little time it took.
const MAX_READING_AGE: Duration = Duration::from_millis(50);
/// Multiple of the duration of a reading up to which it is fresh, so that a large store is not read
/// all the time.
const MAX_AGE_PER_READ: u32 = 10;

/// Answers queries on a thread of its own.
pub(crate) struct StandbyView {
    pub(crate) store: Arc<dyn ReadableStore>,
    pub(crate) leader: watch::Receiver<Leader>,
    pub(crate) lease_ttl: Duration,
}

/// A core as it was read from the store.
pub(crate) struct CoreReading {
    core: Core,
    at: Instant,
    took: Duration,
}

impl CoreReading {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < MAX_READING_AGE.max(self.took * MAX_AGE_PER_READ)
    }
}

impl StandbyView {
    /// Runs until the event [`EngineEvent::Stop`]. `known` is a reading that was made before.
    pub(crate) fn answer_queries(
        self,
        mut known: Option<CoreReading>,
        mut events: mpsc::UnboundedReceiver<EngineEvent>,
    ) {
        let mut throttled_log = ThrottledLog::default();

        while let Some(event) = events.blocking_recv() {
            match event {
                EngineEvent::Query(question) => match self.fresh_reading(known.take()) {
                    Ok(reading) => {
                        question(&reading.core);
                        known = Some(reading);
                    }
                    // Dropping the question tells its sender that there is no answer.
                    Err(error) => throttled_log.report_error("the store cannot be read", &error),
                },
                EngineEvent::Stop => return,
                // The guard rejects every request on a standby that would send another event.
                _ => {}
            }
        }
    }

    fn fresh_reading(&self, known: Option<CoreReading>) -> Result<CoreReading, UserError> {
        if let Some(reading) = known.filter(CoreReading::is_fresh) {
            return Ok(reading);
        }
        self.read_core()
    }

    /// Reads the store.
    ///
    /// # Errors
    /// The store cannot be read, or has content that no coordinator of this version wrote.
    pub(crate) fn read_core(&self) -> Result<CoreReading, UserError> {
        let at = Instant::now();
        let epoch = self.leader.borrow().epoch;
        let (core, _) = recover_core(self.store.as_ref(), None, epoch, self.lease_ttl, false)?;
        Ok(CoreReading {
            core,
            at,
            took: at.elapsed(),
        })
    }
}
