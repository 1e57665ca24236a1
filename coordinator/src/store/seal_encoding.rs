//! The tallies of a seal as bytes, little-endian: a format, the watched metric, audits by finding,
//! durations by shape class, the last failure, and the running statistics of every cell.

use ergodic_common::ids::CellIndex;

use crate::cell_stats::{CellStats, RunningStats};
use crate::records::{AuditCounts, OutcomeCounts};
use crate::sweep_seal::SweepSeal;

/// The first byte. Seals of another format are made anew.
const TALLIES_FORMAT: u8 = 1;
/// Length of a cell's statistics, in bytes.
const CELL_BYTES: usize = 44;

/// Encodes all of a seal but the columns that it has of its own: the counts and the sum of the rows.
pub(super) fn encode_tallies(seal: &SweepSeal) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128 + CELL_BYTES * seal.cells.len());
    bytes.push(TALLIES_FORMAT);
    bytes.extend(seal.watched.to_le_bytes());
    let AuditCounts {
        due,
        same,
        different,
        failed,
    } = seal.audits;
    for count in [due, same, different, failed] {
        bytes.extend(count.to_le_bytes());
    }

    bytes.extend((seal.class_seconds.len() as u32).to_le_bytes());
    for seconds in &seal.class_seconds {
        bytes.push(u8::from(seconds.is_some()));
        bytes.extend(seconds.unwrap_or_default().to_le_bytes());
    }

    let cause = seal.last_failure.as_deref().unwrap_or_default();
    bytes.push(u8::from(seal.last_failure.is_some()));
    bytes.extend((cause.len() as u32).to_le_bytes());
    bytes.extend(cause.as_bytes());

    for (cell, stats) in &seal.cells {
        bytes.extend(cell.0.to_le_bytes());
        for count in [stats.completed, stats.diverged, stats.failed] {
            bytes.extend(count.to_le_bytes());
        }
        bytes.extend(stats.metric.n.to_le_bytes());
        bytes.extend(stats.metric.mean.to_le_bytes());
        bytes.extend(stats.metric.squared_deviations.to_le_bytes());
    }

    bytes
}

/// Decodes the seal of [`encode_tallies`] with its counts and the sum of its rows; `None` for other bytes.
pub(super) fn decode_seal(
    counts: OutcomeCounts,
    row_sum: u64,
    mut bytes: &[u8],
) -> Option<SweepSeal> {
    let bytes = &mut bytes;
    if take(bytes)? != [TALLIES_FORMAT] {
        return None;
    }

    Some(SweepSeal {
        watched: u32::from_le_bytes(take(bytes)?),
        counts,
        row_sum,
        audits: decode_audits(bytes)?,
        class_seconds: decode_class_seconds(bytes)?,
        last_failure: decode_cause(bytes)?,
        cells: decode_cells(bytes)?,
    })
}

/// Takes the first bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Decodes counts of audits, of which no more were made than were due.
fn decode_audits(bytes: &mut &[u8]) -> Option<AuditCounts> {
    let audits = AuditCounts {
        due: u64::from_le_bytes(take(bytes)?),
        same: u64::from_le_bytes(take(bytes)?),
        different: u64::from_le_bytes(take(bytes)?),
        failed: u64::from_le_bytes(take(bytes)?),
    };
    let made = audits
        .same
        .checked_add(audits.different)?
        .checked_add(audits.failed)?;
    (made <= audits.due).then_some(audits)
}

fn decode_class_seconds(bytes: &mut &[u8]) -> Option<Vec<Option<f64>>> {
    let classes = u32::from_le_bytes(take(bytes)?);
    (0..classes)
        .map(|_| {
            let [is_known] = take(bytes)?;
            let seconds = f64::from_le_bytes(take(bytes)?);
            Some((is_known == 1).then_some(seconds))
        })
        .collect()
}

fn decode_cause(bytes: &mut &[u8]) -> Option<Option<String>> {
    let [is_there] = take(bytes)?;
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (cause, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;

    let cause = String::from_utf8(cause.to_vec()).ok()?;
    Some((is_there == 1).then_some(cause))
}

/// Decodes the statistics of cells, which are the rest of the bytes.
fn decode_cells(bytes: &mut &[u8]) -> Option<Vec<(CellIndex, CellStats)>> {
    let mut cells = Vec::with_capacity(bytes.len() / CELL_BYTES);
    while !bytes.is_empty() {
        let cell = CellIndex(u64::from_le_bytes(take(bytes)?));
        let [completed, diverged, failed] = [take(bytes)?, take(bytes)?, take(bytes)?];
        let metric = RunningStats {
            n: u64::from_le_bytes(take(bytes)?),
            mean: f64::from_le_bytes(take(bytes)?),
            squared_deviations: f64::from_le_bytes(take(bytes)?),
        };
        let stats = CellStats {
            metric,
            completed: u32::from_le_bytes(completed),
            diverged: u32::from_le_bytes(diverged),
            failed: u32::from_le_bytes(failed),
        };
        cells.push((cell, stats));
    }

    Some(cells)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seals() -> impl Strategy<Value = SweepSeal> {
        let cell = (any::<(u64, u32, u32, u32, u64)>(), any::<[u64; 2]>());
        let cells = proptest::collection::vec(cell, 0..5);
        let seconds = proptest::collection::vec(proptest::option::of(0.0..9.0), 0..3);
        let cause = proptest::option::of(".*");
        let made = any::<[u32; 4]>();
        (any::<(u32, u64)>(), made, seconds, cause, cells).prop_map(
            |((watched, row_sum), made, class_seconds, last_failure, cells)| {
                let [left, same, different, failed] = made.map(u64::from);
                let audits = AuditCounts {
                    due: left + same + different + failed,
                    same,
                    different,
                    failed,
                };
                let cells = cells.into_iter().map(
                    |((cell, completed, diverged, failed, n), [mean, squared])| {
                        let metric = RunningStats {
                            n,
                            mean: f64::from_bits(mean),
                            squared_deviations: f64::from_bits(squared),
                        };
                        let stats = CellStats {
                            metric,
                            completed,
                            diverged,
                            failed,
                        };
                        (CellIndex(cell), stats)
                    },
                );
                SweepSeal {
                    watched,
                    counts: OutcomeCounts::default(),
                    row_sum,
                    audits,
                    class_seconds,
                    last_failure,
                    cells: cells.collect(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_seal_is_read_as_it_was_written(seal in seals()) {
            let bytes = encode_tallies(&seal);
            let read = decode_seal(seal.counts, seal.row_sum, &bytes);
            let read = read.ok_or_else(|| TestCaseError::fail("it is a seal"))?;
            prop_assert_eq!(encode_tallies(&read), bytes);
            prop_assert_eq!(format!("{read:?}"), format!("{seal:?}"), "in words: NaN is not equal to itself");
        }

        #[test]
        fn a_seal_that_is_cut_off_is_none_or_has_fewer_cells(seal in seals(), cut in any::<prop::sample::Index>()) {
            let bytes = encode_tallies(&seal);
            let length = cut.index(bytes.len());
            if let Some(read) = decode_seal(seal.counts, seal.row_sum, &bytes[..length]) {
                prop_assert!(read.cells.len() < seal.cells.len());
            }
        }

        #[test]
        fn any_bytes_can_be_asked(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_seal(OutcomeCounts::default(), 0, &bytes);
        }
    }
}
