//! What a store offers: leadership, one writer, and readers.

use std::time::Duration;

use crate::store::error::StoreError;
use crate::store::reader::StoreReader;
use crate::store::snapshot_readers::SnapshotReaders;
use crate::store::types::Leader;
use crate::store::writes::{PendingWrite, StoreWrite, WriteWithOutput};

/// Files that sweeps and rows name by their hashes, beside the store.
pub trait ReferencedBlobs: Send {
    /// Whether the file of this hash is there.
    fn has_blob(&self, hash: &[u8; 32]) -> bool;

    /// Removes a file that nothing names; how many bytes it had, if it was there and is not reserved for a peer.
    ///
    /// # Errors
    /// The file cannot be removed.
    fn remove_unreserved(&self, hash: &[u8; 32]) -> std::io::Result<Option<u64>>;
}

/// Where results are stored, for one coordinator, or for several that elect a leader.
pub trait Store: Send + Sync {
    /// Leads from now on, as the coordinator at `url`, unless another one does; who leads.
    ///
    /// # Errors
    /// The store cannot be written.
    fn acquire_leadership(&self, url: &str) -> Result<Leader, StoreError>;

    /// How long leadership lasts unless it is renewed; `None` where no other coordinator can take it.
    fn leadership_ttl(&self) -> Option<Duration>;

    /// Goes on leading; whether that is so still.
    ///
    /// # Errors
    /// The store does not answer.
    fn renew_leadership(&self, epoch: u64) -> Result<bool, StoreError>;

    /// Leads no more, so that another one may at once. Where that fails, it may in a while.
    fn resign_leadership(&self, epoch: u64);

    /// Whether what is written would be found again.
    ///
    /// # Errors
    /// The files of the store were moved or deleted.
    fn check_files_in_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Opens the only writer of the leader of this epoch; called once per epoch.
    ///
    /// # Errors
    /// The store cannot be written.
    fn open_writer(&self, epoch: u64) -> Result<Box<dyn StoreWriter>, StoreError>;

    /// A view of what was committed by the moment of its first look.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// Several views of the same moment, at least one and at most `most`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn open_readers(&self, most: usize) -> Result<SnapshotReaders, StoreError>;
}

/// Applies writes.
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
    /// Those of [`commit_writes`](StoreWriter::commit_writes).
    pub fn commit<W: StoreWrite>(&mut self, write: W) -> Result<W::Output, StoreError> {
        let mut pending = WriteWithOutput::new(write);
        self.commit_writes(&mut [&mut pending])?;
        pending.into_output()
    }
}
