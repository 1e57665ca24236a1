//! The durable state: sweeps, leases and results. Only results are rows; pending trials are
//! computed.
//!
//! Each store has one [`StoreWriter`] on one thread, which applies writes in batches, one
//! transaction each. Any number of [`StoreReader`]s see what was committed.

pub mod checksum;
pub mod encoding;
mod error;
pub mod location;
mod outputs;
pub mod postgres;
mod reader;
mod seal_encoding;
mod snapshot_readers;
mod sql;
pub mod sqlite;
mod traits;
pub mod trial_range;
mod types;
pub mod writer;
mod writes;

pub use encoding::CurveView;
pub use error::{Damage, StoreError};
pub use outputs::{OutputReader, StoredOutput};
pub use reader::StoreReader;
pub use snapshot_readers::SnapshotReaders;
pub use sql::{
    CheckWritable, ClearRows, EndLeases, EnsureIdentity, ExtendSweep, FindUnreferenced,
    GiveUpAudit, GiveUpTrial, InsertLease, InsertReusing, InsertSuccessor, InsertSweep, LookUpRows,
    RedoTrials, RemoveSweep, RestoreAudits, RestoreOutputs, RestoreRows, RetryFailed, RevertGiveUp,
    SealSweep, SetCellsDigest, SetRowsAside, SetShare, SetSweepState, ShrinkLease, StoreResults,
    StoreTransaction,
};
pub(crate) use sqlite::files::create_directory;
pub(crate) use sqlite::view::{is_store, list_stores};
pub use traits::{ReadableStore, ReferencedBlobs, Store, StoreWriter};
pub use trial_range::TrialRange;
pub use types::{
    Attempt, Audit, ClearedRows, EndedTrial, FoundRows, Leader, RedoneTrial, ReopenedTrials,
    ReuseSource, ReusedCell, ReusingSweep, RowCursor, SampledTrial, SealChange, StoredTrial,
    SuccessorSweep, Twin,
};
pub use writes::{PendingWrite, StoreWrite, WriteWithOutput};
