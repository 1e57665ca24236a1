//! The format of a segment: a sequence of records, each with its length and a checksum, as pure
//! functions over bytes.
//!
//! A record is four bytes of length, sixteen bytes of BLAKE3, and its content. The content is a
//! byte for its kind, four bytes of length, a batch as on the wire and, for a result that names a
//! file of trained weights, that file. A result is a batch of one; an acknowledgement is a batch of
//! keys. Records that do not match their checksum are skipped.

use std::collections::BTreeSet;

use ergodic_common::{TrialKey, TrialResult};
use ergodic_proto::v1;
use prost::Message as _;

use crate::train::FinishedTrial;
use ergodic_common::ids::{Fence, SweepId, WorkerId};

/// Bytes of the length of a record.
const LENGTH_BYTES: usize = 4;
/// Bytes of a record before its content.
const HEADER_BYTES: usize = LENGTH_BYTES + 16;
/// Names the format, so that records of another format do not match their checksum.
const CHECKSUM_CONTEXT: &str = "ergodic 2026 spool record v1";

const RESULT_TAG: u8 = 0;
const ACKNOWLEDGED_TAG: u8 = 1;

/// The worker and the lease that a result is delivered for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResultOwner {
    pub(crate) worker: WorkerId,
    pub(crate) fence: Fence,
    pub(crate) sweep: SweepId,
}

/// A result with its worker and lease.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpooledResult {
    pub(crate) owner: ResultOwner,
    pub(crate) finished: FinishedTrial,
}

/// The records of a segment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SegmentContent {
    /// Results without an acknowledgement.
    pub(crate) unacknowledged: Vec<SpooledResult>,
    /// Bytes at the end that are no complete record, because the writer died there.
    pub(crate) torn_bytes: usize,
    /// Number of records that do not match their checksum.
    pub(crate) damaged_records: usize,
}

/// Encodes the record of a result.
pub(crate) fn encode_result(sender: &ResultOwner, finished: &FinishedTrial) -> Vec<u8> {
    let weights = finished.weights.as_deref().unwrap_or_default();
    encode_record(
        RESULT_TAG,
        &encode_batch(sender, vec![finished.result.clone().into()]),
        weights,
    )
}

/// Encodes the record that acknowledges the results of these trials.
pub(crate) fn encode_acknowledgement(sender: &ResultOwner, keys: &[TrialKey]) -> Vec<u8> {
    encode_record(
        ACKNOWLEDGED_TAG,
        &encode_batch(
            sender,
            keys.iter()
                .map(|key| v1::TrialResult {
                    key: Some((*key).into()),
                    ..Default::default()
                })
                .collect(),
        ),
        &[],
    )
}

fn encode_batch(sender: &ResultOwner, results: Vec<v1::TrialResult>) -> Vec<u8> {
    let fence = Some(sender.fence.into());
    let worker = sender.worker.to_string();
    let sweep = sender.sweep.to_string();
    v1::CommitResultsRequest {
        worker,
        fence,
        results,
        sweep,
        checksum: Vec::new(),
    }
    .encode_to_vec()
}

fn encode_record(what: u8, batch: &[u8], weights: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES];
    record.push(what);
    record.extend((batch.len() as u32).to_le_bytes());
    record.extend(batch);
    record.extend(weights);
    let (head, content) = record.split_at_mut(HEADER_BYTES);
    head[..LENGTH_BYTES].copy_from_slice(&(content.len() as u32).to_le_bytes());

    head[LENGTH_BYTES..].copy_from_slice(&record_checksum(content));
    record
}

fn record_checksum(content: &[u8]) -> [u8; HEADER_BYTES - LENGTH_BYTES] {
    let hash = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT)
        .update(content)
        .finalize();
    std::array::from_fn(|n| hash.as_bytes()[n])
}

/// Reads all records of a segment.
pub(crate) fn read_segment(mut bytes: &[u8]) -> SegmentContent {
    let mut content = SegmentContent::default();
    let mut ended = BTreeSet::new();

    while let Some((whole, rest)) = split_record(bytes) {
        match decode_record(whole) {
            Some(RecordContent::Result(kept)) => content.unacknowledged.push(*kept),
            Some(RecordContent::Acknowledged(sender, keys)) => {
                ended.extend(keys.into_iter().map(|key| (sender.clone(), key)))
            }
            None => content.damaged_records += 1,
        }

        bytes = rest;
    }

    content.torn_bytes = bytes.len();
    content
        .unacknowledged
        .retain(|kept| !ended.contains(&(kept.owner.clone(), kept.finished.result.key)));
    content
}

/// Decodes the result in a record; `None` if the record is damaged.
pub(crate) fn decode_result(record: &[u8]) -> Option<FinishedTrial> {
    match decode_record(record)? {
        RecordContent::Result(kept) => Some(kept.finished),
        RecordContent::Acknowledged(..) => None,
    }
}

enum RecordContent {
    Result(Box<SpooledResult>),
    Acknowledged(ResultOwner, Vec<TrialKey>),
}

/// Splits off the first record by its length; returns it and the rest.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(*bytes.first_chunk::<LENGTH_BYTES>()?) as usize;
    bytes.split_at_checked(HEADER_BYTES + length)
}

fn decode_record(record: &[u8]) -> Option<RecordContent> {
    let (head, content) = record.split_at_checked(HEADER_BYTES)?;
    if head[LENGTH_BYTES..] != record_checksum(content) {
        return None;
    }

    let (what, content) = content.split_first()?;
    let (length, content) = content.split_first_chunk::<LENGTH_BYTES>()?;
    let (batch, weights) = content.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let batch = v1::CommitResultsRequest::decode(batch).ok()?;
    let fence = batch.fence?.into();
    let sender = ResultOwner {
        worker: batch.worker.into(),
        fence,
        sweep: batch.sweep.into(),
    };

    match *what {
        RESULT_TAG => {
            let result: TrialResult = batch.results.into_iter().next()?.try_into().ok()?;
            let weights = result.weights_hash.is_some().then(|| weights.to_vec());
            Some(RecordContent::Result(Box::new(SpooledResult {
                owner: sender,
                finished: FinishedTrial { result, weights },
            })))
        }
        ACKNOWLEDGED_TAG => Some(RecordContent::Acknowledged(
            sender,
            batch
                .results
                .into_iter()
                .filter_map(|result| result.key.map(TrialKey::from))
                .collect(),
        )),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ergodic_common::ids::{Epoch, LeaseId};
    use proptest::prelude::*;

    use crate::spool::format::*;

    pub(crate) fn sample_owner() -> ResultOwner {
        ResultOwner {
            worker: "w".repeat(32).into(),
            fence: Fence {
                lease: LeaseId(3),
                epoch: Epoch(2),
            },
            sweep: "a1b2c3d4".into(),
        }
    }

    pub(crate) fn finished(repeat: u32, weights: Option<Vec<u8>>) -> FinishedTrial {
        let hash = weights.as_ref().map(|file| blake3::hash(file).into());
        let key = TrialKey::new(1, repeat);
        let result = TrialResult {
            metrics: vec![0.5, f64::from(repeat)],
            weights_hash: hash,
            ..TrialResult::completed(key)
        };
        FinishedTrial { result, weights }
    }

    fn three() -> Vec<Vec<u8>> {
        let of = |n| encode_result(&sample_owner(), &finished(n, (n == 1).then(|| vec![9; 40])));
        (0..3).map(of).collect()
    }

    fn repeats(content: &SegmentContent) -> Vec<u32> {
        content
            .unacknowledged
            .iter()
            .map(|kept| kept.finished.result.key.repeat.0)
            .collect()
    }

    #[test]
    fn what_was_written_is_read_and_what_was_acknowledged_is_not() {
        assert_eq!(read_segment(&[]), SegmentContent::default());
        let mut bytes = three().concat();
        let content = read_segment(&bytes);
        assert_eq!(
            (
                repeats(&content),
                content.torn_bytes,
                content.damaged_records
            ),
            (vec![0, 1, 2], 0, 0)
        );

        assert_eq!(
            content.unacknowledged[1],
            SpooledResult {
                owner: sample_owner(),
                finished: finished(1, Some(vec![9; 40]))
            }
        );

        let keys = [TrialKey::new(1, 0), TrialKey::new(1, 2)];
        bytes.extend(encode_acknowledgement(
            &ResultOwner {
                worker: "v".into(),
                ..sample_owner()
            },
            &keys,
        ));

        assert_eq!(
            repeats(&read_segment(&bytes)),
            [0, 1, 2],
            "another worker's word"
        );
        bytes.extend(encode_acknowledgement(&sample_owner(), &keys));

        assert_eq!(repeats(&read_segment(&bytes)), [1]);
    }

    #[test]
    fn a_torn_tail_costs_the_record_that_it_is_part_of_at_every_byte() {
        let records = three();
        let bytes = records.concat();
        let first_two = records[..2].concat().len();

        for cut in 0..bytes.len() {
            let content = read_segment(&bytes[..cut]);
            let whole = (1..=3)
                .take_while(|n| records[..*n].concat().len() <= cut)
                .count();
            assert_eq!(
                (content.unacknowledged.len(), content.damaged_records),
                (whole, 0),
                "cut at {cut}"
            );

            assert_eq!(content.torn_bytes, cut - records[..whole].concat().len());
        }

        assert_eq!(read_segment(&bytes[..first_two]).torn_bytes, 0);
    }

    #[test]
    fn no_flipped_bit_makes_another_result() {
        let bytes = three().concat();
        let as_written = read_segment(&three().concat()).unacknowledged;

        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let content = read_segment(&damaged);
            assert!(
                content.damaged_records > 0 || content.torn_bytes > 0,
                "bit {bit} passes"
            );

            assert!(
                content.unacknowledged.len() < 3
                    && content
                        .unacknowledged
                        .iter()
                        .all(|kept| as_written.contains(kept)),
                "bit {bit}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read_segment(&bytes).unacknowledged.is_empty());
        }

        #[test]
        fn bytes_before_the_end_of_a_segment_never_cost_what_lies_before_them(n in 0u32..5, tail in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes: Vec<u8> = (0..n).flat_map(|n| encode_result(&sample_owner(), &finished(n, None))).collect();
            bytes.extend(tail);
            prop_assert_eq!(repeats(&read_segment(&bytes)), (0..n).collect::<Vec<_>>());
        }
    }
}
