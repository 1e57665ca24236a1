//! The wire: generated messages and services of `ergodic.v1`, and their conversions to and from the vocabulary.
//!
//! Domain types never derive a wire type; everything a peer sends passes one of the `TryFrom`s in [`convert`], which name
//! the field that is wrong.

use ergodic_common::TrialResult;
use prost::Message as _;

pub mod archive;
pub mod atomic_file;
pub mod backoff;
pub mod bounds;
pub mod channel;
pub mod checksum;
pub mod convert;
pub mod identity;
mod json;
pub mod log;
pub mod rpc;
pub mod status;
pub mod token;
pub mod transfer;

/// Generated from `ergodic/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("ergodic.v1");
}

/// A trial's result as bytes, for programs that hand one over outside of gRPC.
pub fn result_to_bytes(result: TrialResult) -> Vec<u8> {
    v1::TrialResult::from(result).encode_to_vec()
}

/// The reverse of [`result_to_bytes`]; `None` for anything else.
pub fn result_from_bytes(bytes: &[u8]) -> Option<TrialResult> {
    v1::TrialResult::decode(bytes).ok()?.try_into().ok()
}

/// The protocol version. Raised by one whenever a program of the version before could misunderstand a message, or
/// does not know a field of a message that is protected by a [checksum]; a coordinator takes workers of this version and of the one before.
pub const PROTOCOL_VERSION: u32 = 2;

/// Metadata in which clients say who asks, as user@host.
pub const USER_METADATA: &str = "ergodic-user-bin";

/// Largest message either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Most results in one batch.
pub const MAX_BATCH_RESULTS: usize = 4096;
