//! The output of programs, packed for the wire and the store.

use std::io;

use ergodic_common::program::output::{MAX_OUTPUT_BYTES, MAX_PACKED_BYTES, PackedOutput};

use crate::convert::WireError;
use crate::v1;

/// Level of compression: most of what programs print is text that repeats.
const LEVEL: i32 = 3;

/// Packs the last bytes of an output; `None` if nothing was printed.
pub fn pack_output(printed: u64, bytes: &[u8]) -> Option<PackedOutput> {
    if bytes.is_empty() {
        return None;
    }
    let packed = zstd::bulk::compress(bytes, LEVEL).expect("memory can be written");
    Some(PackedOutput { printed, packed })
}

/// The bytes of an output that somebody packed.
///
/// # Errors
/// The bytes are no such output: something else, or more than is kept of one.
pub fn unpack_output(output: &PackedOutput) -> io::Result<Vec<u8>> {
    let bytes = zstd::bulk::decompress(&output.packed, MAX_OUTPUT_BYTES)?;
    match bytes.len() as u64 <= output.printed {
        true => Ok(bytes),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is longer than what was printed",
        )),
    }
}

impl From<PackedOutput> for v1::TrialOutput {
    fn from(output: PackedOutput) -> Self {
        Self {
            printed: output.printed,
            packed: output.packed,
        }
    }
}

impl TryFrom<v1::TrialOutput> for PackedOutput {
    type Error = WireError;

    fn try_from(wire: v1::TrialOutput) -> Result<Self, WireError> {
        let v1::TrialOutput { printed, packed } = wire;
        let problem = match packed.len() {
            0 => "is empty",
            bytes if bytes > MAX_PACKED_BYTES => "is too long",
            // Numbers of the store are signed.
            _ if i64::try_from(printed).is_err() => "has more bytes than anything prints",
            _ => return Ok(Self { printed, packed }),
        };
        Err(WireError {
            message: "TrialResult",
            field: "output",
            problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nothing compresses.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    #[test]
    fn what_is_packed_comes_back_and_the_worst_case_fits() {
        assert_eq!(pack_output(0, b""), None);
        for bytes in [
            b"epoch 1\n".to_vec(),
            vec![b'x'; MAX_OUTPUT_BYTES],
            noise(MAX_OUTPUT_BYTES),
        ] {
            let output = pack_output(1 << 40, &bytes).expect("something was printed");
            let there = v1::TrialOutput::from(output.clone());
            assert_eq!(PackedOutput::try_from(there), Ok(output.clone()));
            assert_eq!(unpack_output(&output).expect("as it was"), bytes);
        }
    }

    #[test]
    fn what_is_no_output_is_refused_and_never_unpacked_beyond_the_limit() {
        let long = PackedOutput {
            printed: 1 << 40,
            packed: zstd::encode_all(&vec![0; 1 << 28][..], LEVEL).expect("packed"),
        };
        assert!(long.packed.len() < MAX_PACKED_BYTES);
        assert!(unpack_output(&long).is_err());
        let more_than_printed = PackedOutput {
            printed: 3,
            ..pack_output(4, b"abcd").expect("packed")
        };
        assert!(unpack_output(&more_than_printed).is_err());
        let damaged = PackedOutput {
            printed: 10,
            packed: b"no zstd".to_vec(),
        };
        assert!(unpack_output(&damaged).is_err());

        for (printed, bytes) in [(1, 0), (1, MAX_PACKED_BYTES + 1), (u64::MAX, 1)] {
            let packed = vec![0; bytes];
            let refused = PackedOutput::try_from(v1::TrialOutput { printed, packed });
            assert_eq!(refused.expect_err("wrong").field, "output");
        }
    }
}
