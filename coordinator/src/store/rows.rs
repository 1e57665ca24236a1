//! Numbers as bytes: little-endian, so that a row is the same on every machine and two rows can be compared as bytes.

use ergodic_common::pin::FilePin;
use ergodic_common::trial::{Curve, Predictions};
use ergodic_common::{Outcome, TrialKey};

use ergodic_proto::v1;
use prost::Message as _;

use crate::core::interval::IntervalSet;

/// What a row is checked by when it is read: the beginning of a BLAKE3 hash over its parts, each with its length.
pub fn sum(parts: &[&[u8]]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    i64::from_le_bytes(first)
}

/// The same of a row that belongs to a trial.
pub fn sum_of(sweep: i64, key: TrialKey, parts: &[&[u8]]) -> i64 {
    let place = [sweep as u64, key.cell, u64::from(key.repeat)].map(u64::to_le_bytes);
    sum(&[&[place.as_flattened()], parts].concat())
}

/// Doubles, one after the other.
pub fn from_f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The doubles of [`from_f64s`].
pub fn to_f64s(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

/// Number of steps, steps, then values.
pub fn from_curve(curve: &Curve) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + 8 * (curve.steps.len() + curve.values.len()));
    bytes.extend((curve.steps.len() as u32).to_le_bytes());
    bytes.extend(curve.steps.iter().flat_map(|s| s.to_le_bytes()));
    bytes.extend(curve.values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The curve of [`from_curve`]; `None` for other bytes.
pub fn to_curve(bytes: &[u8]) -> Option<Curve> {
    let (steps, values) = to_steps(bytes)?;
    values.as_chunks::<8>().1.is_empty().then(|| Curve { steps, values: to_f64s(values) })
}

/// Number of steps, steps, then classes.
pub fn from_predictions(predictions: &Predictions) -> Vec<u8> {
    let mut bytes = (predictions.steps.len() as u32).to_le_bytes().to_vec();
    bytes.extend(predictions.steps.iter().flat_map(|s| s.to_le_bytes()));
    bytes.extend(&predictions.classes);
    bytes
}

/// The predictions of [`from_predictions`]; `None` for other bytes.
pub fn to_predictions(bytes: &[u8]) -> Option<Predictions> {
    let (steps, classes) = to_steps(bytes)?;
    Some(Predictions { steps, classes: classes.to_vec() })
}

/// A number of steps, so many steps, and the rest.
fn to_steps(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (steps, rest) = rest.split_at_checked(8 * u32::from_le_bytes(*head) as usize)?;
    Some((steps.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(), rest))
}

/// The wire's messages, one after the other.
pub fn from_files(files: &[FilePin]) -> Vec<u8> {
    files.iter().flat_map(|pin| v1::FilePin::from(pin).encode_length_delimited_to_vec()).collect()
}

/// The files of [`from_files`]; `None` for other bytes.
pub fn to_files(mut bytes: &[u8]) -> Option<Vec<FilePin>> {
    let mut files = Vec::new();
    while !bytes.is_empty() {
        files.push(v1::FilePin::decode_length_delimited(&mut bytes).ok()?.try_into().ok()?);
    }
    Some(files)
}

/// Starts and ends, one after the other.
pub fn from_intervals(set: &IntervalSet) -> Vec<u8> {
    set.ranges().flat_map(|(from, to)| [from, to]).flat_map(u64::to_le_bytes).collect()
}

/// The set of [`from_intervals`]; `None` for other bytes.
pub fn to_intervals(bytes: &[u8]) -> Option<IntervalSet> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let (pairs, odd) = words.as_chunks::<2>();
    let mut set = IntervalSet::default();
    for [from, to] in pairs {
        if from >= to {
            return None;
        }
        set.insert(*from, *to);
    }
    (rest.is_empty() && odd.is_empty()).then_some(set)
}

/// The number of a failure.
pub const FAILED: i64 = 3;

/// An outcome as a number, a step and a text.
pub fn from_outcome(outcome: &Outcome) -> (i64, Option<i64>, Option<&str>) {
    match outcome {
        Outcome::Completed => (1, None, None),
        Outcome::Diverged { step } => (2, Some(*step as i64), None),
        Outcome::Failed { cause } => (FAILED, None, Some(cause)),
    }
}

/// The outcome of [`from_outcome`]; `None` for an unknown number.
pub fn to_outcome(kind: i64, step: Option<i64>, cause: Option<String>) -> Option<Outcome> {
    match kind {
        1 => Some(Outcome::Completed),
        2 => Some(Outcome::Diverged { step: step.unwrap_or_default() as u64 }),
        FAILED => Some(Outcome::Failed { cause: cause.unwrap_or_default() }),
        _ => None,
    }
}
