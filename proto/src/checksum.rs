//! Checksums that messages carry of themselves.
//!
//! TCP's checksum misses one in tens of thousands of damaged segments, and a flipped bit in a
//! number gives another valid number. Therefore messages that become rows, or decide what a trial
//! is, carry a checksum. A receiver refuses a message that does not match, and the sender repeats
//! it. Only TLS protects against attackers.

use prost::Message;

use crate::v1;

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;

/// A message with a field for a checksum.
pub trait Checksummed: Message + Sized {
    /// The field of the checksum.
    fn checksum_field(&mut self) -> &mut Vec<u8>;

    /// The message with its checksum.
    #[must_use]
    fn with_checksum(mut self) -> Self {
        let sum = compute_checksum(&mut self);
        sum[..CHECKSUM_BYTES].clone_into(self.checksum_field());
        self
    }

    /// Whether the message matches its checksum, which is removed. A message of an older program
    /// without one passes.
    fn verify_checksum(&mut self) -> bool {
        let found = std::mem::take(self.checksum_field());
        found.is_empty() || found == compute_checksum(self)[..CHECKSUM_BYTES]
    }
}

/// The hash of a message without its checksum. It covers the encoding, which is unique for every
/// content: all programs of one protocol version know the same fields.
fn compute_checksum<M: Checksummed>(message: &mut M) -> [u8; 32] {
    message.checksum_field().clear();
    *blake3::hash(&message.encode_to_vec()).as_bytes()
}

impl Checksummed for v1::CommitResultsRequest {
    fn checksum_field(&mut self) -> &mut Vec<u8> {
        &mut self.checksum
    }
}

impl Checksummed for v1::GetSweepResponse {
    fn checksum_field(&mut self) -> &mut Vec<u8> {
        &mut self.checksum
    }
}

impl Checksummed for v1::CheckpointHead {
    fn checksum_field(&mut self) -> &mut Vec<u8> {
        &mut self.checksum
    }
}

impl Checksummed for v1::ExtendRequest {
    fn checksum_field(&mut self) -> &mut Vec<u8> {
        &mut self.checksum
    }
}

impl Checksummed for v1::LaunchRequest {
    fn checksum_field(&mut self) -> &mut Vec<u8> {
        &mut self.checksum
    }
}

#[cfg(test)]
mod tests {
    use crate::checksum::*;

    fn request() -> v1::CommitResultsRequest {
        let result = v1::TrialResult {
            metrics: vec![0.5, f64::NAN],
            digest: vec![7; 32],
            ..Default::default()
        };
        v1::CommitResultsRequest {
            worker: "w".into(),
            results: vec![result],
            sweep: "s".into(),
            ..Default::default()
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let bytes = request().with_checksum().encode_to_vec();
        let mut decoded = v1::CommitResultsRequest::decode(&*bytes).expect("decoded");
        assert!(decoded.verify_checksum() && decoded.checksum.is_empty());
        let mut refused = 0;

        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut message) = v1::CommitResultsRequest::decode(&*damaged) else {
                continue;
            };

            // Where the seal itself is no longer found, the rest is untouched.
            let unsealed = message.checksum.is_empty();
            if message.verify_checksum() {
                assert!(unsealed, "bit {bit} passes");
                assert_eq!(message.encode_to_vec(), request().encode_to_vec());
            } else {
                refused += 1;
            }
        }

        assert!(refused > 400, "{refused} of {} bits", 8 * bytes.len());
    }
}
