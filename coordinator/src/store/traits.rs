//! The traits of a store: readers; and, where it is not only read, leadership and one writer.

use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::reader::StoreReader;
use crate::store::snapshot_readers::SnapshotReaders;
use crate::store::types::Leader;
use crate::store::writes::{PendingWrite, StoreWrite, WriteWithOutput};
use ergodic_common::ids::{Epoch, FileHash};

/// The files beside the store that sweeps and rows name by hash.
pub trait ReferencedBlobs: Send {
    /// Whether the file with this hash exists.
    fn has_blob(&self, hash: &FileHash) -> bool;

    /// Removes an unreferenced file; returns its size in bytes. `None` if it did not exist or is
    /// reserved for a peer.
    ///
    /// # Errors
    /// The file cannot be removed.
    fn remove_unreserved(&self, hash: &FileHash) -> std::io::Result<Option<u64>>;
}

/// A store of results that can be read. Some are only read: those which a command opens beside their coordinator.
pub trait ReadableStore: Send + Sync {
    /// Checks that everything written would be found again.
    ///
    /// # Errors
    /// The files of the store were moved or deleted.
    fn check_files_in_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Opens a reader, which sees what was committed before its first read.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// Opens at least one and at most `most` readers that see the same moment.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError>;
}

/// A store of results, for one coordinator or for several that elect a leader.
pub trait Store: ReadableStore {
    /// Claims leadership for the coordinator at `url`, unless another one leads. Returns the
    /// leader.
    ///
    /// # Errors
    /// The store cannot be written.
    fn acquire_leadership(&self, url: &str) -> Result<Leader, StoreError>;

    /// Time for which leadership lasts without renewal; `None` if no other coordinator can take it.
    fn leadership_ttl(&self) -> Option<Duration>;

    /// Renews leadership; returns whether this coordinator still leads.
    ///
    /// # Errors
    /// The store does not respond.
    fn renew_leadership(&self, epoch: Epoch) -> Result<bool, StoreError>;

    /// Resigns leadership, so that another coordinator can lead at once. If that fails, another one
    /// can lead after the TTL.
    fn resign_leadership(&self, epoch: Epoch);

    /// Opens the only writer of this epoch's leader; called once per epoch.
    ///
    /// # Errors
    /// The store cannot be written.
    fn open_writer(&self, epoch: Epoch) -> Result<Box<dyn StoreWriter>, StoreError>;
}

/// The write access to a store.
pub trait StoreWriter: Send {
    /// Applies all writes in one transaction and returns when they are durable. Each has its output then.
    ///
    /// # Errors
    /// None of them is durable, nor will be, with two exceptions. After [`StoreError::FileGone`] and [`StoreError::Deposed`] it is
    /// open whether they are: a file's name may have gone after the commit, and a COMMIT without an answer may have been carried
    /// out before another coordinator took over. Callers treat these as failures too: they acknowledge and book nothing. The next
    /// start reads what became of them.
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError>;
}

impl dyn StoreWriter + '_ {
    /// Applies a write in a transaction of its own and returns its output when it is durable.
    ///
    /// # Errors
    /// As for [`commit_writes`](StoreWriter::commit_writes).
    pub fn commit<W: StoreWrite>(&mut self, write: W) -> Result<W::Output, StoreError> {
        let mut pending = WriteWithOutput::new(write);
        self.commit_writes(&mut [&mut pending])?;
        pending.into_output()
    }
}
