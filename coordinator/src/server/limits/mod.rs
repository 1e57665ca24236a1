//! How much at once: of everything that peers can make the coordinator hold there is a bound, and whoever asks beyond it is told
//! when to ask again. The numbers are here; the table of them for people is in ARCHITECTURE.md.

mod crowd;
mod layer;
mod pages;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::status::{UserError, overloaded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

pub(crate) use crowd::{Crowd, Seat};
pub(crate) use layer::Limited;
pub(crate) use pages::{Pages, Stream};
pub(crate) use rate::network;

/// Requests that are being answered; one that is answered by a stream counts until that begins.
const REQUESTS: usize = 1024;
/// Bytes of messages of which a part has come.
const ARRIVING: usize = 64 << 20;
/// Bytes of results between their arrival and their answer.
const RESULTS: usize = 64 << 20;
/// Bytes said in sessions that the event loop has not heard.
const SAID: usize = 16 << 20;
/// Sessions of workers.
const SESSIONS: usize = 8192;
/// Clients that follow a sweep.
const WATCHERS: usize = 1024;
/// Clients that read rows, predictions, tables or curves: each has a thread and a view of the store.
const READERS: usize = 64;
/// Bytes that all their answers take, and what is read for them.
const ANSWERS: usize = 256 << 20;
/// Files that are being sent to peers.
const FETCHES: usize = 128;
/// Files that are being kept.
const UPLOADS: usize = 32;
/// Sweeps that are being read and pinned to their dataset, which may have to be loaded.
const LAUNCHES: usize = 4;
/// Sweeps that are being paused, resumed, cancelled and so on.
const CHANGES: usize = 16;

/// Whoever asks for much waits for so long until others have their answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Whoever finds no room is to come again after this time.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// A place among those there are, or so many bytes: free again when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Places of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    most: usize,
    what: &'static str,
}

impl Room {
    fn of(most: usize, what: &'static str) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most, what }
    }

    /// A place, or else the answer that there is none.
    pub(crate) fn place(&self) -> Result<Place, Status> {
        self.bytes(1)
    }

    /// So many bytes, or else the answer that there is no room for them.
    pub(crate) fn bytes(&self, bytes: usize) -> Result<Place, Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.free.clone().try_acquire_many_owned(bytes).map_err(|_| self.full())
    }

    /// So many bytes, as soon as there is room for them.
    pub(crate) async fn wait(&self, bytes: usize) -> Option<Place> {
        let bytes = u32::try_from(bytes.min(self.most)).unwrap_or(u32::MAX);
        self.free.clone().acquire_many_owned(bytes).await.ok()
    }

    /// So many bytes for an answer, after a wait where others have them.
    ///
    /// # Errors
    /// There are never so many, and what to do is said; or not for a while.
    pub(crate) async fn answer(&self, bytes: u64, instead: &str) -> Result<Place, Status> {
        if bytes > self.most as u64 {
            let (wanted, most) = (bytes >> 20, self.most >> 20);
            let message =
                format!("the answer would take about {wanted} MiB, of at most {most} MiB for all answers: {instead}");
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }
        let place = tokio::time::timeout(ANSWER_WITHIN, self.wait(bytes as usize)).await;
        place.ok().flatten().ok_or_else(|| self.full())
    }

    /// The answer that there is no room.
    pub(crate) fn full(&self) -> Status {
        overloaded(&format!("the coordinator is busy: {}", self.what), COME_AGAIN)
    }
}

/// Everything that is limited over all peers together.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    requests: Room,
    arriving: Room,
    pub(crate) results: Room,
    pub(crate) said: Room,
    pub(crate) sessions: Room,
    pub(crate) watchers: Room,
    pub(crate) readers: Room,
    pub(crate) answers: Room,
    pub(crate) fetches: Room,
    pub(crate) uploads: Room,
    pub(crate) launches: Room,
    pub(crate) changes: Room,
}

impl Limits {
    /// All places free.
    pub(crate) fn new() -> Self {
        Self {
            requests: Room::of(REQUESTS, "it answers as many requests as it can"),
            arriving: Room::of(ARRIVING, "too much is arriving at once"),
            results: Room::of(RESULTS, "too many results wait to be stored"),
            said: Room::of(SAID, "too much is said at once"),
            sessions: Room::of(SESSIONS, "it has as many workers as it can"),
            watchers: Room::of(WATCHERS, "too many clients follow sweeps"),
            readers: Room::of(READERS, "too many clients read results"),
            answers: Room::of(ANSWERS, "too much is being worked out for others"),
            fetches: Room::of(FETCHES, "it sends as many files as it can"),
            uploads: Room::of(UPLOADS, "it takes as many files as it can"),
            launches: Room::of(LAUNCHES, "other sweeps are being launched"),
            changes: Room::of(CHANGES, "too many sweeps are being steered"),
        }
    }
}
