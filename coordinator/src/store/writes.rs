//! Writes: types that name what is made durable, and say what becomes of it.

use std::any::Any;

use super::error::StoreError;
use super::sql::StoreTransaction;
use ergodic_common::ids::FileHash;

/// A change to make durable.
pub trait StoreWrite: Send + 'static {
    /// What became of it, known once it is applied and true once that is durable.
    type Output: Send + 'static;

    /// Applies it within a transaction, which the caller begins and ends.
    ///
    /// # Errors
    /// The store failed, or what is there already is damaged: the transaction is to be rolled back.
    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Self::Output, StoreError>;

    /// Hashes of the files that the write names.
    fn named_files(&self) -> Vec<FileHash> {
        Vec::new()
    }

    /// Whether it brings results, which need room on the disk.
    fn holds_results(&self) -> bool {
        false
    }
}

/// Several writes, in their order.
impl<W: StoreWrite> StoreWrite for Vec<W> {
    type Output = Vec<W::Output>;

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Self::Output, StoreError> {
        self.iter().map(|write| write.apply(sql)).collect()
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.iter().flat_map(StoreWrite::named_files).collect()
    }

    fn holds_results(&self) -> bool {
        self.iter().any(StoreWrite::holds_results)
    }
}

/// One write after another.
impl<A: StoreWrite, B: StoreWrite> StoreWrite for (A, B) {
    type Output = (A::Output, B::Output);

    fn apply(&self, sql: &StoreTransaction<'_>) -> Result<Self::Output, StoreError> {
        Ok((self.0.apply(sql)?, self.1.apply(sql)?))
    }

    fn named_files(&self) -> Vec<FileHash> {
        [self.0.named_files(), self.1.named_files()].concat()
    }

    fn holds_results(&self) -> bool {
        self.0.holds_results() || self.1.holds_results()
    }
}

/// A write of whatever type on its way into the store, which keeps its output.
pub trait PendingWrite: Send {
    /// Applies the write. A transaction that is tried again replaces the output of the earlier one.
    ///
    /// # Errors
    /// The write fails.
    fn apply(&mut self, sql: &StoreTransaction<'_>) -> Result<(), StoreError>;

    /// Hashes of the files that the write names.
    fn named_files(&self) -> Vec<FileHash>;

    /// Whether it brings results.
    fn holds_results(&self) -> bool;

    /// The write, for whoever observes a writer.
    fn write(&self) -> &dyn Any;

    /// The output of the write, if it was applied.
    fn output(&self) -> Option<&dyn Any>;
}

/// A write and its output.
#[derive(Debug)]
pub struct WriteWithOutput<W: StoreWrite> {
    write: W,
    output: Option<W::Output>,
}

impl<W: StoreWrite> WriteWithOutput<W> {
    /// A write that is yet to be applied.
    pub fn new(write: W) -> Self {
        Self {
            write,
            output: None,
        }
    }

    /// The output of the write, of the transaction that was committed.
    ///
    /// # Errors
    /// The transaction was committed without applying the write.
    pub fn into_output(self) -> Result<W::Output, StoreError> {
        self.output
            .ok_or_else(|| StoreError::Failed("a write was committed without being applied".into()))
    }
}

impl<W: StoreWrite> PendingWrite for WriteWithOutput<W> {
    fn apply(&mut self, sql: &StoreTransaction<'_>) -> Result<(), StoreError> {
        self.output = Some(self.write.apply(sql)?);
        Ok(())
    }

    fn named_files(&self) -> Vec<FileHash> {
        self.write.named_files()
    }

    fn holds_results(&self) -> bool {
        self.write.holds_results()
    }

    fn write(&self) -> &dyn Any {
        &self.write
    }

    fn output(&self) -> Option<&dyn Any> {
        self.output.as_ref().map(|output| output as &dyn Any)
    }
}
