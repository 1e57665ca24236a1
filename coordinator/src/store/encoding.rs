//! Numbers as bytes: little-endian, so that a row is the same on every machine and two rows can be compared as bytes.

use std::borrow::Cow;

use ergodic_common::pinned_file::FilePin;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, TrialResult};
use ergodic_proto::convert::{pins_from_wire, pins_to_wire};
use ergodic_proto::v1;
use prost::Message as _;

use crate::interval_set::IntervalSet;
use crate::records::{Finding, SweepState};
use crate::result_batch::ResultComparison;

/// Encodes doubles, concatenated.
pub fn encode_f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Decodes the doubles of [`encode_f64s`].
pub fn decode_f64s(bytes: &[u8]) -> Vec<f64> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| f64::from_le_bytes(*b))
        .collect()
}

/// Doubles in their stored form.
#[derive(Debug, Clone, Copy)]
pub struct StoredNumbers<'a>(&'a [[u8; 8]]);

impl<'a> StoredNumbers<'a> {
    /// Wraps the bytes of [`encode_f64s`].
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.as_chunks::<8>().0)
    }

    /// The double at an index.
    pub fn get(&self, at: usize) -> Option<f64> {
        self.0.get(at).map(|bytes| f64::from_le_bytes(*bytes))
    }
}

/// A curve in its stored form. It is decoded where it lies, so that reading one metric of many
/// costs little.
#[derive(Debug, Clone, Copy)]
pub struct CurveView<'a> {
    steps: &'a [[u8; 8]],
    values: StoredNumbers<'a>,
}

impl<'a> CurveView<'a> {
    /// Wraps the bytes of [`encode_curve`]; `None` for other bytes.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (steps, values) = rest.split_at_checked(8 * u32::from_le_bytes(*head) as usize)?;
        Some(Self {
            steps: steps.as_chunks::<8>().0,
            values: StoredNumbers::new(values),
        })
    }

    /// The steps of the rows, ascending.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.steps.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The index of the row at a step.
    pub fn find_step(&self, step: u64) -> Option<usize> {
        self.steps
            .binary_search_by_key(&step, |bytes| u64::from_le_bytes(*bytes))
            .ok()
    }

    /// The value in a column of a row; each row has `width` values.
    pub fn value_at(&self, row: usize, width: usize, column: usize) -> Option<f64> {
        self.values.get(row * width + column)
    }

    /// Decodes the whole curve.
    pub fn to_curve(&self) -> MetricCurve {
        let values = self
            .values
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect();
        MetricCurve {
            steps: self.steps().collect(),
            values,
        }
    }
}

/// Encodes a curve: number of steps, steps, values.
pub fn encode_curve(curve: &MetricCurve) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + 8 * (curve.steps.len() + curve.values.len()));
    bytes.extend((curve.steps.len() as u32).to_le_bytes());
    bytes.extend(curve.steps.iter().flat_map(|s| s.to_le_bytes()));
    bytes.extend(curve.values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// Decodes the curve of [`encode_curve`]; `None` for other bytes.
pub fn decode_curve(bytes: &[u8]) -> Option<MetricCurve> {
    CurveView::new(bytes).map(|curve| curve.to_curve())
}

/// Encodes predictions: number of steps, steps, classes.
pub fn encode_predictions(predictions: &Predictions) -> Vec<u8> {
    let mut bytes = (predictions.steps.len() as u32).to_le_bytes().to_vec();
    bytes.extend(predictions.steps.iter().flat_map(|s| s.to_le_bytes()));
    bytes.extend(&predictions.classes);
    bytes
}

/// Decodes the predictions of [`encode_predictions`]; `None` for other bytes.
pub fn decode_predictions(bytes: &[u8]) -> Option<Predictions> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (steps, classes) = rest.split_at_checked(8 * u32::from_le_bytes(*head) as usize)?;
    let steps = steps
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| u64::from_le_bytes(*b))
        .collect();

    Some(Predictions {
        steps,
        classes: classes.to_vec(),
    })
}

/// Encodes pinned files as concatenated wire messages.
pub fn encode_files(files: &[FilePin]) -> Vec<u8> {
    pins_to_wire(files)
        .iter()
        .flat_map(v1::FilePin::encode_length_delimited_to_vec)
        .collect()
}

/// Decodes the files of [`encode_files`]; `None` for other bytes.
pub fn decode_files(mut bytes: &[u8]) -> Option<Vec<FilePin>> {
    let mut pins = Vec::new();
    while !bytes.is_empty() {
        pins.push(v1::FilePin::decode_length_delimited(&mut bytes).ok()?);
    }

    pins_from_wire(pins).ok()
}

/// Encodes a set of intervals as concatenated starts and ends.
pub fn encode_intervals(set: &IntervalSet) -> Vec<u8> {
    set.ranges()
        .flat_map(|(from, to)| [from, to])
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Decodes the set of [`encode_intervals`].
pub fn decode_intervals(bytes: &[u8]) -> IntervalSet {
    let mut set = IntervalSet::default();
    let words: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| u64::from_le_bytes(*b))
        .collect();
    words
        .as_chunks::<2>()
        .0
        .iter()
        .for_each(|[from, to]| set.insert(*from, *to));

    set
}

/// The number of a failed outcome.
pub const FAILED_OUTCOME: i64 = 3;

/// Encodes an outcome as a number, a step and a text.
pub fn encode_outcome(outcome: &Outcome) -> (i64, Option<i64>, Option<&str>) {
    match outcome {
        Outcome::Completed => (1, None, None),
        Outcome::Diverged { step } => (2, Some(*step as i64), None),
        Outcome::Failed { cause } => (FAILED_OUTCOME, None, Some(cause)),
    }
}

/// Decodes the outcome of [`encode_outcome`]; `None` for an unknown number.
pub fn decode_outcome(kind: i64, step: Option<i64>, cause: Option<String>) -> Option<Outcome> {
    match (kind, step, cause) {
        (1, None, None) => Some(Outcome::Completed),
        (2, Some(step), None) => Some(Outcome::Diverged { step: step as u64 }),
        (FAILED_OUTCOME, None, Some(cause)) => Some(Outcome::Failed { cause }),
        _ => None,
    }
}

/// Encodes predictions, if the result has any.
pub fn encode_present_predictions(result: &TrialResult) -> Option<Vec<u8>> {
    (!result.predictions.steps.is_empty()).then(|| encode_predictions(&result.predictions))
}

fn has_failed(result: &TrialResult) -> bool {
    matches!(result.outcome, Outcome::Failed { .. })
}

/// The names of fields in which a result differs from its row, bit for bit. When, where and with
/// which instructions it was computed does not count. A failure is no result of training, so it
/// contradicts no row.
pub fn differing_fields(
    row: &TrialResult,
    result: &TrialResult,
    comparison: ResultComparison,
) -> Vec<&'static str> {
    if has_failed(row) || has_failed(result) {
        return Vec::new();
    }

    let outcome = ("outcome", row.outcome == result.outcome);
    let digest = ("digest", row.digest == result.digest);
    if comparison == ResultComparison::Digest {
        return name_differing(&[outcome, digest]);
    }

    let same = [
        outcome,
        ("steps", row.steps == result.steps),
        digest,
        (
            "metrics",
            encode_f64s(&row.metrics) == encode_f64s(&result.metrics),
        ),
        (
            "curve",
            encode_curve(&row.curve) == encode_curve(&result.curve),
        ),
        ("weights", row.weights_hash == result.weights_hash),
        (
            "predictions",
            encode_present_predictions(row) == encode_present_predictions(result),
        ),
    ];

    name_differing(&same)
}

fn name_differing(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    let differing = fields.iter().filter(|(_, is_same)| !is_same);
    differing.map(|(name, _)| *name).collect()
}

/// Encodes the finding of an audit as a number; 0 while it is due.
pub fn encode_finding(finding: Option<Finding>) -> i64 {
    match finding {
        None => 0,
        Some(Finding::Same) => 1,
        Some(Finding::Different) => 2,
        Some(Finding::Failed) => 3,
    }
}

/// Decodes the finding of [`encode_finding`]; `None` for an unknown number.
pub fn decode_finding(number: i64) -> Option<Option<Finding>> {
    let all = [
        None,
        Some(Finding::Same),
        Some(Finding::Different),
        Some(Finding::Failed),
    ];
    all.into_iter()
        .find(|finding| encode_finding(*finding) == number)
}

/// Encodes a state as a number.
pub fn encode_state(state: SweepState) -> i64 {
    match state {
        SweepState::Running => 1,
        SweepState::Completed => 2,
        SweepState::Cancelled => 3,
        SweepState::Paused => 4,
    }
}

/// Decodes the state of [`encode_state`]; `None` for an unknown number.
pub fn decode_state(number: i64) -> Option<SweepState> {
    SweepState::ALL
        .into_iter()
        .find(|s| encode_state(*s) == number)
}

/// Replaces the character 0, which PostgreSQL cannot store. It may occur in texts such as the cause
/// of a failure.
pub fn replace_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::TrialKey;
    use ergodic_common::ids::WeightsDigest;

    use super::*;

    #[test]
    fn results_of_programs_differ_by_outcome_and_digest_alone() {
        let row = TrialResult {
            metrics: vec![0.5, 17.0],
            ..TrialResult::completed(TrialKey::new(0, 0))
        };
        let slower = TrialResult {
            metrics: vec![0.5, 18.0],
            steps: 3,
            ..row.clone()
        };
        let other = TrialResult {
            digest: WeightsDigest([1; 32]),
            ..slower.clone()
        };
        let programs = ResultComparison::Digest;
        assert_eq!(differing_fields(&row, &slower, programs), [""; 0]);
        assert_eq!(differing_fields(&row, &other, programs), ["digest"]);
        let trainings = ResultComparison::Everything;
        assert_eq!(
            differing_fields(&row, &slower, trainings),
            ["steps", "metrics"]
        );
    }
}
