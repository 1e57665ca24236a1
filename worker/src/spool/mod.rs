//! Results on disk until the coordinator has answered for them. They outlive the worker, and may
//! exceed its memory.
//!
//! Nothing is synced: if the process dies, the operating system still writes what it was given; if
//! the machine loses power, lost trials run again. A segment is removed once all its results are
//! acknowledged. Until then acknowledgements are appended to it, so that every segment can be read
//! on its own.

mod format;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use ergodic_common::ErrorCode;
use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, SweepId, WorkerId};
use ergodic_proto::status::UserError;

use self::format::ResultOwner;
use crate::result_batch::{ResultBatch, SpoolRef};
use crate::train::FinishedTrial;

/// Size in bytes at which a new segment begins.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Maximum results, and maximum bytes, in one batch of an earlier worker's results.
const MAX_BATCH_RESULTS: usize = 1024;
const MAX_BATCH_BYTES: usize = 2 << 20;

/// A worker's spool: a folder that no other worker uses.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    worker: WorkerId,
    limit: u64,
    /// Number of results that an earlier worker left.
    leftover_results: u64,
    /// The lock on the folder, held until the process ends.
    _lock: File,
    state: Mutex<SpoolState>,
}

#[derive(Debug, Default)]
struct SpoolState {
    /// The segment that new records are written to.
    current: Option<(u64, File)>,
    next: u64,
    segments: BTreeMap<u64, SpoolSegment>,
    /// Results without an acknowledgement, with the numbers of their segments.
    unacknowledged: HashMap<(Fence, TrialKey), u64>,
    /// Results that are only in memory, because the spool had no space.
    unspooled: HashSet<(Fence, TrialKey)>,
}

#[derive(Debug)]
struct SpoolSegment {
    bytes: u64,
    unacknowledged: u64,
    /// Whether an earlier worker left the segment.
    is_leftover: bool,
}

/// An encoded result that is to be written to the spool.
pub(crate) struct SpoolEntry {
    fence: Fence,
    key: TrialKey,
    record: Vec<u8>,
}

impl SpoolEntry {
    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }
}

impl Spool {
    /// Opens the spool in a folder for the worker with this id, and creates the folder if it is
    /// missing.
    ///
    /// # Errors
    /// Another worker uses the folder, or it cannot be read or written.
    pub fn open(folder: &Path, worker: &WorkerId, limit: u64) -> Result<Self, UserError> {
        let failed = |error: io::Error| {
            UserError::new(
                ErrorCode::BadInput,
                format!("--spool {}: {error}", folder.display()),
            )
        };
        std::fs::create_dir_all(folder).map_err(failed)?;

        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))
            .map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => failed(io::Error::other(
                "another worker uses this folder; give each worker its own",
            )),
            TryLockError::Error(error) => failed(error),
        })?;

        let state = SpoolState::scan_folder(folder).map_err(failed)?;
        let left = state
            .segments
            .values()
            .map(|segment| segment.unacknowledged)
            .sum();

        let folder = folder.to_owned();
        let worker = worker.clone();
        let state = Mutex::new(state);
        Ok(Self {
            folder,
            worker,
            limit,
            leftover_results: left,
            _lock: lock,
            state,
        })
    }

    /// Number of results that an earlier worker left.
    pub fn leftover_results(&self) -> u64 {
        self.leftover_results
    }

    fn lock_state(&self) -> MutexGuard<'_, SpoolState> {
        self.state
            .lock()
            .expect("nothing panics while it holds the spool")
    }

    fn result_owner(&self, fence: Fence, sweep: &SweepId) -> ResultOwner {
        ResultOwner {
            worker: self.worker.clone(),
            fence,
            sweep: sweep.clone(),
        }
    }

    /// Encodes a result as an entry of the spool.
    pub(crate) fn encode_entry(
        &self,
        fence: Fence,
        sweep: &SweepId,
        finished: &FinishedTrial,
    ) -> SpoolEntry {
        let record = format::encode_result(&self.result_owner(fence, sweep), finished);
        SpoolEntry {
            fence,
            key: finished.result.key,
            record,
        }
    }

    /// Writes a result to the spool.
    ///
    /// # Errors
    /// The spool has no space. The result then counts as owed until it is written or acknowledged.
    pub(crate) fn append_result(&self, entry: &SpoolEntry) -> io::Result<SpoolRef> {
        let mut state = self.lock_state();
        let kept = state.append_entry(&self.folder, self.limit, entry);
        if kept.is_err() {
            state.unspooled.insert((entry.fence, entry.key));
        }
        kept
    }

    /// Writes an owed result, unless it was acknowledged meanwhile.
    ///
    /// # Errors
    /// The spool still has no space.
    pub(crate) fn retry_append(&self, entry: &SpoolEntry) -> io::Result<()> {
        let mut state = self.lock_state();
        if state.unspooled.contains(&(entry.fence, entry.key)) {
            state.append_entry(&self.folder, self.limit, entry)?;
            state.unspooled.remove(&(entry.fence, entry.key));
        }
        Ok(())
    }

    /// Loads those results of a batch that are only in the spool.
    pub(crate) fn load_spooled_results(&self, batch: &mut ResultBatch) {
        for place in std::mem::take(&mut batch.spooled) {
            match self.read_result(&place) {
                Ok(finished) => batch.results.push(finished),
                Err(error) => {
                    let file = segment_path(&self.folder, place.segment);
                    tracing::error!(trial = %place.key, file = %file.display(), %error, "a result in the spool is lost");
                }
            }
        }
    }

    fn read_result(&self, place: &SpoolRef) -> io::Result<FinishedTrial> {
        let mut record = vec![0; place.bytes];
        File::open(segment_path(&self.folder, place.segment))?
            .read_exact_at(&mut record, place.offset)?;
        format::decode_result(&record).ok_or_else(|| io::Error::other("its record is damaged"))
    }

    /// Records that the coordinator has answered for the results of these trials.
    pub(crate) fn acknowledge_results(&self, fence: Fence, sweep: &SweepId, keys: &[TrialKey]) {
        let sender = self.result_owner(fence, sweep);
        let mut state = self.lock_state();
        let mut touched: BTreeMap<u64, Vec<TrialKey>> = BTreeMap::new();

        for key in keys {
            state.unspooled.remove(&(fence, *key));
            if let Some(segment) = state.unacknowledged.remove(&(fence, *key)) {
                touched.entry(segment).or_default().push(*key);
            }
        }

        for (segment, keys) in touched {
            state.record_acknowledgement(
                &self.folder,
                segment,
                &format::encode_acknowledgement(&sender, &keys),
                keys.len() as u64,
            );
        }
    }

    /// Numbers of the segments that an earlier worker left.
    pub(crate) fn leftover_segments(&self) -> Vec<u64> {
        self.lock_state()
            .segments
            .iter()
            .filter(|(_, segment)| segment.is_leftover)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Reads the unacknowledged results of an earlier worker's segment as batches, each with the
    /// id of its worker.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub(crate) fn read_leftover_batches(
        &self,
        segment: u64,
    ) -> io::Result<Vec<(WorkerId, ResultBatch)>> {
        let content = format::read_segment(&std::fs::read(segment_path(&self.folder, segment))?);
        let mut by_sender: BTreeMap<ResultOwner, Vec<FinishedTrial>> = BTreeMap::new();

        for kept in content.unacknowledged {
            by_sender.entry(kept.owner).or_default().push(kept.finished);
        }

        Ok(by_sender
            .into_iter()
            .flat_map(|(sender, results)| pack_batches(&sender, results))
            .collect())
    }

    /// Removes an earlier worker's segment, all of whose results were delivered.
    pub(crate) fn discard_segment(&self, segment: u64) {
        self.lock_state().remove_segment(&self.folder, segment);
    }
}

impl SpoolState {
    /// Reads the segments of an earlier worker in a folder. Removes those in which every result is
    /// acknowledged.
    fn scan_folder(folder: &Path) -> io::Result<Self> {
        let mut state = Self::default();
        for number in list_segment_numbers(folder)? {
            let file = segment_path(folder, number);
            let bytes = std::fs::read(segment_path(folder, number))?;
            let content = format::read_segment(&bytes);
            if content.damaged_records > 0 {
                let damaged = content.damaged_records;
                tracing::warn!(file = %file.display(), damaged, "the spool is damaged; the trials of these records run again");
            }

            state.next = number + 1;
            let open = content.unacknowledged.len() as u64;
            state.segments.insert(
                number,
                SpoolSegment {
                    bytes: bytes.len() as u64,
                    unacknowledged: open,
                    is_leftover: true,
                },
            );

            if open == 0 {
                state.remove_segment(folder, number);
            }
        }

        Ok(state)
    }

    fn append_entry(
        &mut self,
        folder: &Path,
        limit: u64,
        entry: &SpoolEntry,
    ) -> io::Result<SpoolRef> {
        let held = self.segments.values().map(|s| s.bytes).sum::<u64>();
        let more = entry.record.len() as u64;
        if held + more > limit {
            return Err(io::Error::other(format!(
                "it holds {held} of at most {limit} bytes (--spool-size)"
            )));
        }

        let segment = self.write_record(folder, &entry.record)?;
        let held = self
            .segments
            .get_mut(&segment)
            .expect("it was just written to");
        let place = SpoolRef {
            key: entry.key,
            segment,
            offset: held.bytes,
            bytes: entry.record.len(),
        };

        held.bytes += more;
        held.unacknowledged += 1;
        self.unacknowledged
            .insert((entry.fence, entry.key), segment);
        Ok(place)
    }

    /// Appends a record to the current segment, or to a new one; returns the number of the segment.
    /// Undoes an incomplete write.
    fn write_record(&mut self, folder: &Path, record: &[u8]) -> io::Result<u64> {
        if self
            .current
            .as_ref()
            .is_some_and(|(number, _)| self.segments[number].bytes >= SEGMENT_BYTES)
        {
            self.current = None;
        }

        let (number, mut file) = match self.current.take() {
            Some(current) => current,
            None => {
                let file = File::options()
                    .append(true)
                    .create_new(true)
                    .open(segment_path(folder, self.next))?;
                self.segments.insert(
                    self.next,
                    SpoolSegment {
                        bytes: 0,
                        unacknowledged: 0,
                        is_leftover: false,
                    },
                );

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

    /// Writes a record that acknowledges results of a segment. If it cannot be written, the next
    /// worker delivers them once more, and the coordinator compares them.
    fn record_acknowledgement(&mut self, folder: &Path, number: u64, record: &[u8], results: u64) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        segment.unacknowledged -= results;

        if segment.unacknowledged == 0 {
            return self.remove_segment(folder, number);
        }

        let whole = segment.bytes;
        let noted = File::options()
            .append(true)
            .open(segment_path(folder, number))
            .and_then(|mut file| {
                file.write_all(record)
                    .inspect_err(|_| _ = file.set_len(whole))
            });

        if noted.is_ok() {
            segment.bytes += record.len() as u64;
        }
    }

    fn remove_segment(&mut self, folder: &Path, number: u64) {
        if self
            .current
            .as_ref()
            .is_some_and(|(current, _)| *current == number)
        {
            self.current = None;
        }

        self.segments.remove(&number);
        if let Err(error) = std::fs::remove_file(segment_path(folder, number)) {
            tracing::warn!(file = %segment_path(folder, number).display(), %error, "cannot remove a segment of the spool");
        }
    }
}

fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}.spool"))
}

/// Numbers of the segments in a folder, ascending.
fn list_segment_numbers(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        numbers.extend(
            name.strip_suffix(".spool")
                .and_then(|number| number.parse::<u64>().ok()),
        );
    }

    Ok(numbers)
}

/// Splits the results of one worker into batches that the coordinator accepts.
fn pack_batches(sender: &ResultOwner, results: Vec<FinishedTrial>) -> Vec<(WorkerId, ResultBatch)> {
    let mut batches: Vec<ResultBatch> = Vec::new();
    let mut bytes = 0;

    for finished in results {
        bytes += finished.wire_size();
        match batches
            .last_mut()
            .filter(|batch| bytes <= MAX_BATCH_BYTES && batch.results.len() < MAX_BATCH_RESULTS)
        {
            Some(batch) => batch.results.push(finished),
            None => {
                bytes = finished.wire_size();
                let fence = sender.fence;
                let sweep = sender.sweep.clone();
                batches.push(ResultBatch {
                    number: 0,
                    fence,
                    sweep,
                    results: vec![finished],
                    spooled: Vec::new(),
                });
            }
        }
    }

    batches
        .into_iter()
        .map(|batch| (sender.worker.clone(), batch))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::format::tests::{finished, sample_owner};
    use crate::spool::*;
    use ergodic_common::ids::{Epoch, LeaseId};

    const FENCE: Fence = Fence {
        lease: LeaseId(3),
        epoch: Epoch(2),
    };
    const LIMIT: u64 = 1 << 20;

    fn append_one(spool: &Spool, repeat: u32) -> io::Result<SpoolRef> {
        spool.append_result(&spool.encode_entry(
            FENCE,
            &sample_owner().sweep,
            &finished(repeat, None),
        ))
    }

    fn acknowledge_repeats(spool: &Spool, repeats: &[u32]) {
        let keys: Vec<TrialKey> = repeats
            .iter()
            .map(|repeat| TrialKey::new(1, *repeat))
            .collect();
        spool.acknowledge_results(FENCE, &sample_owner().sweep, &keys);
    }

    /// Repeats that an earlier worker left, with its id.
    fn leftover_repeats(spool: &Spool) -> Vec<(WorkerId, u32)> {
        let batches = spool
            .leftover_segments()
            .into_iter()
            .flat_map(|segment| spool.read_leftover_batches(segment).expect("readable"));
        let results = |(worker, batch): (WorkerId, ResultBatch)| {
            batch
                .trial_keys()
                .into_iter()
                .map(|key| (worker.clone(), key.repeat.0))
                .collect::<Vec<_>>()
        };

        batches.flat_map(results).collect()
    }

    #[test]
    fn the_next_worker_finds_what_was_not_acknowledged_under_the_name_of_the_one_before() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Spool::open(dir.path(), &"first".into(), LIMIT).expect("opened");
        let dirs: Vec<SpoolRef> = (0..4)
            .map(|repeat| append_one(&first, repeat).expect("room"))
            .collect();
        acknowledge_repeats(&first, &[1, 3]);

        assert_eq!(
            first.read_result(&dirs[2]).expect("readable"),
            finished(2, None)
        );
        drop(first);
        let second = Spool::open(dir.path(), &"second".into(), LIMIT).expect("opened");
        assert_eq!(second.leftover_results(), 2);

        append_one(&second, 7).expect("room");
        let of_first: [(WorkerId, u32); 2] = [("first".into(), 0), ("first".into(), 2)];
        assert_eq!(leftover_repeats(&second), of_first);
        drop(second);
        let third = Spool::open(dir.path(), &"third".into(), LIMIT).expect("opened");
        assert_eq!(
            leftover_repeats(&third),
            [&of_first[..], &[("second".into(), 7)]].concat()
        );

        third
            .leftover_segments()
            .into_iter()
            .for_each(|segment| third.discard_segment(segment));
        assert!(
            list_segment_numbers(dir.path())
                .expect("readable")
                .is_empty()
        );
    }

    #[test]
    fn a_segment_goes_when_its_last_result_is_acknowledged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spool = Spool::open(dir.path(), &"w".into(), LIMIT).expect("opened");
        (0..2).for_each(|repeat| _ = append_one(&spool, repeat).expect("room"));
        acknowledge_repeats(&spool, &[0]);
        assert_eq!(list_segment_numbers(dir.path()).expect("readable").len(), 1);
        acknowledge_repeats(&spool, &[1]);

        assert!(
            list_segment_numbers(dir.path())
                .expect("readable")
                .is_empty()
        );
        append_one(&spool, 2).expect("room");

        assert_eq!(
            list_segment_numbers(dir.path()).expect("readable"),
            BTreeSet::from([1])
        );
    }

    #[test]
    fn a_torn_tail_and_an_empty_file_are_no_obstacle() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let record = format::encode_result(&sample_owner(), &finished(5, None));
        std::fs::write(segment_path(dir.path(), 0), []).expect("written");
        std::fs::write(
            segment_path(dir.path(), 4),
            [&record[..], &record[..30]].concat(),
        )
        .expect("written");

        let spool = Spool::open(dir.path(), &"w".into(), LIMIT).expect("opened");
        assert_eq!(leftover_repeats(&spool), [(sample_owner().worker, 5)]);
        append_one(&spool, 1).expect("room");
        assert_eq!(
            list_segment_numbers(dir.path()).expect("readable"),
            BTreeSet::from([4, 5])
        );
    }

    #[test]
    fn what_has_no_room_is_owed_until_there_is_some_or_it_is_acknowledged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let size = format::encode_result(
            &ResultOwner {
                worker: "w".into(),
                ..sample_owner()
            },
            &finished(1, None),
        )
        .len() as u64;
        let spool = Spool::open(dir.path(), &"w".into(), size).expect("opened");
        append_one(&spool, 0).expect("room");

        let entry = spool.encode_entry(FENCE, &sample_owner().sweep, &finished(1, None));
        let error = spool.append_result(&entry).expect_err("it is full");
        assert!(error.to_string().contains("--spool-size"), "{error}");
        assert!(spool.retry_append(&entry).is_err());
        acknowledge_repeats(&spool, &[0]);
        spool.retry_append(&entry).expect("there is room");

        let late = spool.encode_entry(FENCE, &sample_owner().sweep, &finished(2, None));
        assert!(spool.append_result(&late).is_err());
        acknowledge_repeats(&spool, &[2]);
        spool.retry_append(&late).expect("nothing is owed");
        drop(spool);

        assert_eq!(
            leftover_repeats(&Spool::open(dir.path(), &"x".into(), LIMIT).expect("opened")),
            [("w".into(), 1)]
        );
    }

    #[test]
    fn a_folder_is_one_workers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = Spool::open(dir.path(), &"first".into(), LIMIT).expect("opened");
        let error = Spool::open(dir.path(), &"second".into(), LIMIT).expect_err("in use");
        let place = format!("--spool {}: another worker", dir.path().display());
        assert!(error.message.starts_with(&place), "{}", error.message);
        drop(first);
        Spool::open(dir.path(), &"second".into(), LIMIT).expect("free");
    }
}
