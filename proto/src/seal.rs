//! Messages that carry a checksum of themselves.
//!
//! TCP's checksum lets one damaged segment in tens of thousands pass, and a flipped bit in a number is a number. What
//! becomes rows, or decides what a trial is, is therefore sealed by its sender and looked at by its receiver, who refuses
//! what is not as it was sent: it is then sent again. Against somebody who means harm only TLS helps.

use prost::Message;

use crate::v1;

/// Bytes of a seal.
const LEN: usize = 16;

/// A message with room for a seal.
pub trait Sealed: Message + Sized {
    /// The field that holds it.
    fn seal(&mut self) -> &mut Vec<u8>;

    /// The message with its seal.
    #[must_use]
    fn sealed(mut self) -> Self {
        let sum = sum(&mut self);
        sum[..LEN].clone_into(self.seal());
        self
    }

    /// Whether the message is as it was sealed; its seal is taken off. One without a seal, of an older program, is
    /// believed.
    fn is_whole(&mut self) -> bool {
        let found = std::mem::take(self.seal());
        found.is_empty() || found == sum(self)[..LEN]
    }
}

/// The hash of a message without its seal. It is taken over its encoding, which has one form for every content: a field
/// that a version adds is known to all that speak the same protocol.
fn sum<M: Sealed>(message: &mut M) -> [u8; 32] {
    message.seal().clear();
    *blake3::hash(&message.encode_to_vec()).as_bytes()
}

impl Sealed for v1::CommitResultsRequest {
    fn seal(&mut self) -> &mut Vec<u8> {
        &mut self.seal
    }
}

impl Sealed for v1::GetSweepResponse {
    fn seal(&mut self) -> &mut Vec<u8> {
        &mut self.seal
    }
}

impl Sealed for v1::CheckpointHead {
    fn seal(&mut self) -> &mut Vec<u8> {
        &mut self.seal
    }
}

impl Sealed for v1::ExtendRequest {
    fn seal(&mut self) -> &mut Vec<u8> {
        &mut self.seal
    }
}

impl Sealed for v1::LaunchRequest {
    fn seal(&mut self) -> &mut Vec<u8> {
        &mut self.seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::CommitResultsRequest {
        let result = v1::TrialResult { metrics: vec![0.5, f64::NAN], digest: vec![7; 32], ..Default::default() };
        v1::CommitResultsRequest { worker: "w".into(), results: vec![result], sweep: "s".into(), ..Default::default() }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let bytes = request().sealed().encode_to_vec();
        let mut decoded = v1::CommitResultsRequest::decode(&*bytes).expect("decoded");
        assert!(decoded.is_whole() && decoded.seal.is_empty());
        let mut refused = 0;
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut message) = v1::CommitResultsRequest::decode(&*damaged) else { continue };
            // Where the seal itself is no longer found, the rest is untouched.
            let unsealed = message.seal.is_empty();
            if message.is_whole() {
                assert!(unsealed, "bit {bit} passes");
                assert_eq!(message.encode_to_vec(), request().encode_to_vec());
            } else {
                refused += 1;
            }
        }
        assert!(refused > 400, "{refused} of {} bits", 8 * bytes.len());
    }
}
