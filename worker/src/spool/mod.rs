//! Results as files, from before they count as finished until the coordinator has answered for them, so that they outlive
//! the worker, and may be more than fit into memory.
//!
//! Nothing is synced: a process that dies leaves what it has written to the operating system, and what a machine that
//! loses power has lost is computed again. A segment is removed once all that lies in it is acknowledged; until then
//! acknowledgements are written to it, so that each segment can be read alone.

mod format;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use ergodic_common::{ErrorCode, TrialKey};
use ergodic_proto::status::UserError;

use self::format::Sender;
use crate::desk::{Fence, Parcel, Place};
use crate::train::Finished;

/// A segment of this size is followed by another one.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Most results of an earlier worker delivered at once, and most bytes.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 2 << 20;

/// A worker's spool: a folder that no other worker uses.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    worker: String,
    limit: u64,
    /// Results that an earlier worker left.
    left: u64,
    /// Held for as long as the process lives.
    _lock: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is written to.
    current: Option<(u64, File)>,
    next: u64,
    segments: BTreeMap<u64, Segment>,
    /// Results that are not acknowledged, with their segments.
    open: HashMap<(Fence, TrialKey), u64>,
    /// Results that are in memory alone, for which there was no room.
    owed: HashSet<(Fence, TrialKey)>,
}

#[derive(Debug)]
struct Segment {
    bytes: u64,
    open: u64,
    /// Whether an earlier worker left it.
    left: bool,
}

/// A result on its way into the spool.
pub(crate) struct Entry {
    fence: Fence,
    key: TrialKey,
    record: Vec<u8>,
}

impl Entry {
    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }
}

impl Spool {
    /// The spool in a folder, which is made if it is missing, for the worker of this id.
    ///
    /// # Errors
    /// Another worker uses it, or it cannot be read or written.
    pub fn open(folder: &Path, worker: &str, limit: u64) -> Result<Self, UserError> {
        let failed =
            |error: io::Error| UserError::new(ErrorCode::BadInput, format!("--spool {}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                failed(io::Error::other("another worker uses this folder; give each worker its own"))
            }
            TryLockError::Error(error) => failed(error),
        })?;
        let state = State::of(folder).map_err(failed)?;
        let left = state.segments.values().map(|segment| segment.open).sum();
        let (folder, worker, state) = (folder.to_owned(), worker.to_owned(), Mutex::new(state));
        Ok(Self { folder, worker, limit, left, _lock: lock, state })
    }

    /// How many results an earlier worker left.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the spool")
    }

    fn sender(&self, fence: Fence, sweep: &str) -> Sender {
        Sender { worker: self.worker.clone(), fence, sweep: sweep.to_owned() }
    }

    /// A result as it is kept.
    pub(crate) fn entry(&self, fence: Fence, sweep: &str, finished: &Finished) -> Entry {
        let record = format::result(&self.sender(fence, sweep), finished);
        Entry { fence, key: finished.result.key, record }
    }

    /// Keeps a result.
    ///
    /// # Errors
    /// There is no room: it is owed then, until it is acknowledged or [settled](Self::settle).
    pub(crate) fn keep(&self, entry: &Entry) -> io::Result<Place> {
        let mut state = self.lock();
        let kept = state.append(&self.folder, self.limit, entry);
        if kept.is_err() {
            state.owed.insert((entry.fence, entry.key));
        }
        kept
    }

    /// Keeps a result that is owed, if it still is.
    ///
    /// # Errors
    /// There is still no room.
    pub(crate) fn settle(&self, entry: &Entry) -> io::Result<()> {
        let mut state = self.lock();
        if state.owed.contains(&(entry.fence, entry.key)) {
            state.append(&self.folder, self.limit, entry)?;
            state.owed.remove(&(entry.fence, entry.key));
        }
        Ok(())
    }

    /// Fetches the results of a parcel that lie here alone.
    pub(crate) fn fill(&self, parcel: &mut Parcel) {
        for place in std::mem::take(&mut parcel.spooled) {
            match self.fetch(&place) {
                Ok(finished) => parcel.results.push(finished),
                Err(error) => {
                    let file = path(&self.folder, place.segment);
                    tracing::error!(trial = %place.key, file = %file.display(), %error, "a result in the spool is lost");
                }
            }
        }
    }

    fn fetch(&self, place: &Place) -> io::Result<Finished> {
        let mut record = vec![0; place.bytes];
        File::open(path(&self.folder, place.segment))?.read_exact_at(&mut record, place.offset)?;
        format::read_result(&record).ok_or_else(|| io::Error::other("it is not as it was written"))
    }

    /// The coordinator has answered for these trials' results.
    pub(crate) fn acknowledge(&self, fence: Fence, sweep: &str, keys: &[TrialKey]) {
        let sender = self.sender(fence, sweep);
        let mut state = self.lock();
        let mut touched: BTreeMap<u64, Vec<TrialKey>> = BTreeMap::new();
        for key in keys {
            state.owed.remove(&(fence, *key));
            if let Some(segment) = state.open.remove(&(fence, *key)) {
                touched.entry(segment).or_default().push(*key);
            }
        }
        for (segment, keys) in touched {
            state.strike_off(&self.folder, segment, &format::acknowledged(&sender, &keys), keys.len() as u64);
        }
    }

    /// Segments that an earlier worker left.
    pub(crate) fn segments_left(&self) -> Vec<u64> {
        self.lock().segments.iter().filter(|(_, segment)| segment.left).map(|(number, _)| *number).collect()
    }

    /// What is to be delivered of a segment that was left, under the names of those who computed it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn parcels(&self, segment: u64) -> io::Result<Vec<(String, Parcel)>> {
        let content = format::read(&std::fs::read(path(&self.folder, segment))?);
        let mut by_sender: BTreeMap<Sender, Vec<Finished>> = BTreeMap::new();
        for kept in content.open {
            by_sender.entry(kept.sender).or_default().push(kept.finished);
        }
        Ok(by_sender.into_iter().flat_map(|(sender, results)| pack(&sender, results)).collect())
    }

    /// All in a segment that was left is delivered.
    pub(crate) fn discard(&self, segment: u64) {
        self.lock().remove(&self.folder, segment);
    }
}

impl State {
    /// What is in a folder: an earlier worker's segments. Those without an open result are removed.
    fn of(folder: &Path) -> io::Result<Self> {
        let mut state = Self::default();
        for number in numbers(folder)? {
            let (file, bytes) = (path(folder, number), std::fs::read(path(folder, number))?);
            let content = format::read(&bytes);
            if content.damaged > 0 {
                let damaged = content.damaged;
                tracing::warn!(file = %file.display(), damaged, "the spool is damaged: these trials are run again");
            }
            state.next = number + 1;
            let open = content.open.len() as u64;
            state.segments.insert(number, Segment { bytes: bytes.len() as u64, open, left: true });
            if open == 0 {
                state.remove(folder, number);
            }
        }
        Ok(state)
    }

    fn append(&mut self, folder: &Path, limit: u64, entry: &Entry) -> io::Result<Place> {
        let (held, more) = (self.segments.values().map(|s| s.bytes).sum::<u64>(), entry.record.len() as u64);
        if held + more > limit {
            return Err(io::Error::other(format!("it holds {held} of at most {limit} bytes (--spool-size)")));
        }
        let segment = self.write(folder, &entry.record)?;
        let held = self.segments.get_mut(&segment).expect("it was just written to");
        let place = Place { key: entry.key, segment, offset: held.bytes, bytes: entry.record.len() };
        held.bytes += more;
        held.open += 1;
        self.open.insert((entry.fence, entry.key), segment);
        Ok(place)
    }

    /// Writes to the current segment, or a new one, whose number it gives. What could not be written whole is taken back.
    fn write(&mut self, folder: &Path, record: &[u8]) -> io::Result<u64> {
        if self.current.as_ref().is_some_and(|(number, _)| self.segments[number].bytes >= SEGMENT_BYTES) {
            self.current = None;
        }
        let (number, mut file) = match self.current.take() {
            Some(current) => current,
            None => {
                let file = File::options().append(true).create_new(true).open(path(folder, self.next))?;
                self.segments.insert(self.next, Segment { bytes: 0, open: 0, left: false });
                self.next += 1;
                (self.next - 1, file)
            }
        };
        let written = file.write_all(record);
        let whole = written.is_ok() || file.set_len(self.segments[&number].bytes).is_ok();
        if whole {
            self.current = Some((number, file));
        }
        written.map(|()| number)
    }

    /// So many results of a segment are acknowledged, which this record says. Where it cannot be written, they are
    /// delivered once more after a death, and compared.
    fn strike_off(&mut self, folder: &Path, number: u64, record: &[u8], results: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        segment.open -= results;
        if segment.open == 0 {
            return self.remove(folder, number);
        }
        let whole = segment.bytes;
        let noted = File::options()
            .append(true)
            .open(path(folder, number))
            .and_then(|mut file| file.write_all(record).inspect_err(|_| _ = file.set_len(whole)));
        if noted.is_ok() {
            segment.bytes += record.len() as u64;
        }
    }

    fn remove(&mut self, folder: &Path, number: u64) {
        if self.current.as_ref().is_some_and(|(current, _)| *current == number) {
            self.current = None;
        }
        self.segments.remove(&number);
        if let Err(error) = std::fs::remove_file(path(folder, number)) {
            tracing::warn!(file = %path(folder, number).display(), %error, "cannot remove a part of the spool");
        }
    }
}

fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}.spool"))
}

/// Numbers of the segments in a folder, in order.
fn numbers(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        numbers.extend(name.strip_suffix(".spool").and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Results of one sender as parcels of a size that a coordinator takes.
fn pack(sender: &Sender, results: Vec<Finished>) -> Vec<(String, Parcel)> {
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut bytes = 0;
    for finished in results {
        bytes += finished.size();
        match parcels.last_mut().filter(|parcel| bytes <= BATCH_BYTES && parcel.results.len() < BATCH) {
            Some(parcel) => parcel.results.push(finished),
            None => {
                bytes = finished.size();
                let (fence, sweep) = (sender.fence, sender.sweep.clone());
                parcels.push(Parcel { number: 0, fence, sweep, results: vec![finished], spooled: Vec::new() });
            }
        }
    }
    parcels.into_iter().map(|parcel| (sender.worker.clone(), parcel)).collect()
}
