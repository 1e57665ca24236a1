//! Identifiers that several programs share: fences of leases.

/// A lease and the epoch in which it was granted. Results under a fence count only while the
/// coordinator holds the same pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The number of the lease, unique among all leases of a store.
    pub lease: u64,
    /// The coordinator's epoch when the lease was granted.
    pub epoch: u64,
}
