use std::sync::mpsc::{Receiver, channel};

use ergodic_common::ids::{Epoch, FileHash, SweepNumber};
use ergodic_common::pinned_file::FilePin;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;

use crate::records::{DataPin, SweepRow, SweepState, SweepTallies};
use crate::store::sqlite::SqliteStore;
use crate::store::writer::*;
use crate::store::{CheckWritable, InsertSweep, Store as _};

/// Every file is there but one, and each has five bytes.
struct FiveBytes;

impl ReferencedBlobs for FiveBytes {
    fn has_blob(&self, hash: &FileHash) -> bool {
        *hash != FileHash([0; 32])
    }

    fn remove_unreserved(&self, _: &FileHash) -> std::io::Result<Option<u64>> {
        Ok(Some(5))
    }
}

/// Counts the writes of each transaction.
struct Counting {
    writer: Box<dyn StoreWriter>,
    transactions: Arc<Mutex<Vec<usize>>>,
}

impl StoreWriter for Counting {
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError> {
        self.transactions
            .lock()
            .expect("nothing panics while it holds the counts")
            .push(writes.len());
        self.writer.commit_writes(writes)
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    handle: WriterHandle,
    writes: WriterLoop,
    transactions: Arc<Mutex<Vec<usize>>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = SqliteStore::open(dir.path()).expect("opened");
        let transactions = Arc::new(Mutex::new(Vec::new()));
        let writer = Counting {
            writer: store.open_writer(Epoch(1)).expect("a writer"),
            transactions: transactions.clone(),
        };
        let (handle, writes) = WriterHandle::new(Box::new(writer), Box::new(FiveBytes));
        Self {
            _dir: dir,
            handle,
            writes,
            transactions,
        }
    }

    /// Queues a write; receives what becomes of it.
    fn enqueue<W: StoreWrite>(&self, write: W) -> Receiver<Result<W::Output, StoreError>> {
        let (answer, answered) = channel();
        self.handle
            .enqueue_write(write, move |outcome| drop(answer.send(outcome)));
        answered
    }

    fn transactions(&self) -> Vec<usize> {
        self.transactions
            .lock()
            .expect("nothing panics while it holds the counts")
            .clone()
    }
}

/// A sweep that names the file of this hash.
fn sweep(id: &str, file: FileHash) -> InsertSweep {
    let pin = FilePin {
        path: "w.safetensors".into(),
        hash: file,
        images: None,
    };
    let source = SpecSource {
        files: vec![pin],
        ..SpecSource::default()
    };
    InsertSweep(SweepRow {
        number: SweepNumber(0),
        id: id.into(),
        source,
        data: DataPin::default(),
        state: SweepState::Running,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    })
}

#[test]
fn writes_that_have_queued_up_are_one_transaction_and_have_outputs_of_their_own() {
    let mut bench = Bench::new();
    let first = bench.enqueue(sweep("a", FileHash([1; 32])));
    let checked = bench.enqueue(CheckWritable);
    let second = bench.enqueue(sweep("b", FileHash([1; 32])));

    bench.writes.commit_queued();
    assert_eq!(bench.transactions(), [3]);
    assert_eq!(
        first.recv().expect("answered").expect("stored"),
        SweepNumber(1)
    );
    assert_eq!(
        second.recv().expect("answered").expect("stored"),
        SweepNumber(2)
    );
    checked.recv().expect("answered").expect("stored");
}

#[test]
fn a_write_that_fails_does_not_fail_its_neighbours() {
    let mut bench = Bench::new();
    let first = bench.enqueue(sweep("a", FileHash([1; 32])));
    let same_id = bench.enqueue(sweep("a", FileHash([1; 32])));
    let lacks_file = bench.enqueue(sweep("b", FileHash([0; 32])));
    let last = bench.enqueue(sweep("c", FileHash([1; 32])));

    bench.writes.commit_queued();
    assert_eq!(bench.transactions(), [3, 1, 1, 1]);
    assert_eq!(
        first.recv().expect("answered").expect("stored"),
        SweepNumber(1)
    );
    assert!(matches!(
        same_id.recv().expect("answered"),
        Err(StoreError::Failed(_))
    ));
    assert!(matches!(
        lacks_file.recv().expect("answered"),
        Err(StoreError::BlobMissing(_))
    ));
    assert_eq!(
        last.recv().expect("answered").expect("stored"),
        SweepNumber(2)
    );
}

#[test]
fn files_are_deleted_between_transactions_unless_a_sweep_names_them() {
    let mut bench = Bench::new();
    let stored = bench.enqueue(sweep("a", FileHash([1; 32])));
    let (answer, deleted) = channel();
    bench
        .handle
        .enqueue_deletion(vec![FileHash([1; 32]), FileHash([2; 32])], move |outcome| {
            drop(answer.send(outcome));
        });
    let later = bench.enqueue(CheckWritable);

    bench.writes.commit_queued();
    stored.recv().expect("answered").expect("stored");
    assert!(deleted.try_recv().is_err(), "it stands alone");

    bench.writes.commit_queued();
    let deleted = deleted.recv().expect("answered").expect("deleted");
    assert_eq!(deleted, DeletedFiles { files: 1, bytes: 5 });
    assert!(later.try_recv().is_err(), "it is written afterwards");

    bench.writes.commit_queued();
    later.recv().expect("answered").expect("stored");
    assert_eq!(bench.transactions(), [1, 1, 1]);
}
