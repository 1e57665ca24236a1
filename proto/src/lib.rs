//! The wire: generated messages and services of `ergodic.v1`, and conversions to and from domain
//! types.
//!
//! Domain types never derive a wire type; everything a peer sends passes one of the `TryFrom`s in [`convert`], which name
//! the field that is wrong.

use ergodic_common::TrialResult;
use prost::Message as _;

pub mod archive;
pub mod atomic_file;
pub mod backoff;
pub mod bounds;
pub mod cache_folder;
pub mod channel;
pub mod checksum;
pub mod convert;
pub mod identity;
mod json;
pub mod limited_file;
pub mod log;
pub mod output;
pub mod rpc;
pub mod status;
pub mod token;
pub mod transfer;

/// Messages and services generated from `ergodic/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("ergodic.v1");
}

/// Encodes a trial's result, for programs that pass one outside of gRPC.
pub fn result_to_bytes(result: TrialResult) -> Vec<u8> {
    v1::TrialResult::from(result).encode_to_vec()
}

/// Decodes what [`result_to_bytes`] encoded; `None` for anything else.
pub fn result_from_bytes(bytes: &[u8]) -> Option<TrialResult> {
    v1::TrialResult::decode(bytes).ok()?.try_into().ok()
}

/// The protocol version. It is raised by one whenever a program of the previous version could
/// misunderstand a message, or does not know a field of a message that has a [checksum].
/// [`accepts_protocol`] says which versions work together.
pub const PROTOCOL_VERSION: u32 = 2;

/// The oldest protocol version that a coordinator of [`PROTOCOL_VERSION`] accepts.
pub const OLDEST_PROTOCOL_VERSION: u32 = PROTOCOL_VERSION - 1;

/// Whether a coordinator accepts a worker by their protocol versions: its own version and the one
/// before, so that a fleet can be upgraded without a stop, the coordinator first. Clients name no
/// version: what they ask means the same in the version after theirs.
pub fn accepts_protocol(coordinator: u32, worker: u32) -> bool {
    // A message without a version has 0.
    worker > 0 && (worker == coordinator || worker.checked_add(1) == Some(coordinator))
}

/// Metadata key by which clients name their user, as user@host.
pub const USER_METADATA: &str = "ergodic-user-bin";

/// Maximum message that either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Maximum number of results in one batch.
pub const MAX_BATCH_RESULTS: usize = 4096;

#[cfg(test)]
mod tests {
    use crate::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, accepts_protocol};

    #[test]
    fn a_coordinator_accepts_its_own_protocol_and_the_one_before() {
        for (coordinator, worker, is_accepted) in [
            (2, 2, true),
            (2, 1, true),
            (2, 3, false),
            (7, 5, false),
            (1, 1, true),
            // A message that names no version.
            (1, 0, false),
            (u32::MAX, u32::MAX - 1, true),
        ] {
            let accepted = accepts_protocol(coordinator, worker);
            assert_eq!(accepted, is_accepted, "{coordinator} {worker}");
        }

        assert!(accepts_protocol(PROTOCOL_VERSION, OLDEST_PROTOCOL_VERSION));
    }
}
