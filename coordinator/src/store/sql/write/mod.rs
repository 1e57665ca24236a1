//! Writes as statements, in a transaction that the caller begins and commits.

pub(super) mod audits;
mod commit;
mod give_up;
mod leases;
mod probes;
mod removal;
pub(super) mod results;
pub(super) mod sweeps;

pub use audits::RestoreAudits;
pub use commit::StoreResults;
pub use give_up::{GiveUpAudit, GiveUpTrial, RevertGiveUp};
pub use leases::{EndLeases, InsertLease, ShrinkLease};
pub use probes::{CheckWritable, EnsureIdentity};
pub use removal::{ClearRows, FindUnreferenced, RemoveSweep};
pub use results::{LookUpRows, RedoTrials, RestoreRows, RetryFailed, SetRowsAside};
pub use sweeps::{InsertSweep, SetCellsDigest, SetShare, SetSweepState};
