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
/// misunderstand a message, or does not know a field of a message that has a [checksum]. A
/// coordinator accepts workers of this version and of the previous one.
pub const PROTOCOL_VERSION: u32 = 2;

/// Metadata key by which clients name their user, as user@host.
pub const USER_METADATA: &str = "ergodic-user-bin";

/// Maximum message that either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Maximum number of results in one batch.
pub const MAX_BATCH_RESULTS: usize = 4096;
