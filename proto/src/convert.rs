//! Conversions between messages and domain types.

use ergodic_common::ids::{CellsFingerprint, Epoch, Fence, FileHash, LeaseId, SweepId};
use ergodic_common::metric::MAX_METRICS;
use ergodic_common::pinned_file::{FileData, FilePin};
use ergodic_common::spec::measure::MAX_PREDICTIONS;
use ergodic_common::spec::source::SpecSource;
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::trial::{MetricCurve, Outcome, Predictions, TrialKey, TrialResult};

use crate::v1;

/// A message with an impossible content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field {field} of {message} {problem}")]
pub struct WireError {
    /// Name of the message.
    pub message: &'static str,
    /// Name of the field.
    pub field: &'static str,
    /// The problem, as the end of a sentence about the field.
    pub problem: &'static str,
}

fn missing_field(message: &'static str, field: &'static str) -> WireError {
    WireError {
        message,
        field,
        problem: "is missing",
    }
}

impl v1::SweepStatus {
    /// The id of the sweep.
    pub fn sweep_id(&self) -> SweepId {
        self.id.as_str().into()
    }
}

impl From<TrialKey> for v1::TrialKey {
    fn from(key: TrialKey) -> Self {
        Self {
            cell: key.cell.0,
            repeat: key.repeat.0,
        }
    }
}

impl From<v1::TrialKey> for TrialKey {
    fn from(key: v1::TrialKey) -> Self {
        Self::new(key.cell, key.repeat)
    }
}

impl From<TrialResult> for v1::TrialResult {
    fn from(result: TrialResult) -> Self {
        let (outcome, diverged_at, cause) = match result.outcome {
            Outcome::Completed => (v1::OutcomeKind::Completed, 0, String::new()),
            Outcome::Diverged { step } => (v1::OutcomeKind::Diverged, step, String::new()),
            Outcome::Failed { cause } => (v1::OutcomeKind::Failed, 0, cause),
        };
        Self {
            key: Some(result.key.into()),
            outcome: outcome.into(),
            diverged_at,
            cause,
            steps: result.steps,
            seconds: result.seconds,
            metrics: result.metrics,
            digest: result.digest.to_vec(),
            curve_steps: result.curve.steps,
            curve_values: result.curve.values,
            prediction_steps: result.predictions.steps,
            predictions: result.predictions.classes,
            weights: result.weights_hash.map(|hash| hash.to_vec()),
            isa: result.isa,
            output: result.output.map(Into::into),
        }
    }
}

impl From<Fence> for v1::Fence {
    fn from(fence: Fence) -> Self {
        Self {
            lease: fence.lease.0,
            epoch: fence.epoch.0,
        }
    }
}

impl From<v1::Fence> for Fence {
    fn from(wire: v1::Fence) -> Self {
        Self {
            lease: LeaseId(wire.lease),
            epoch: Epoch(wire.epoch),
        }
    }
}

/// Maximum number of rows of a curve.
pub const MAX_CURVE_ROWS: usize = 100_000;
/// Maximum length of the cause of a failure, in bytes.
pub const MAX_CAUSE_BYTES: usize = 4096;
/// Maximum length of the name of an instruction set, in bytes.
pub const MAX_ISA_BYTES: usize = 32;

impl TryFrom<v1::TrialResult> for TrialResult {
    type Error = WireError;
    fn try_from(wire: v1::TrialResult) -> Result<Self, WireError> {
        let outcome = outcome_from_wire(&wire)?;
        let curve = MetricCurve {
            steps: wire.curve_steps,
            values: wire.curve_values,
        };
        check_curve(&curve, wire.metrics.len())?;
        if !wire.seconds.is_finite() || wire.seconds < 0.0 {
            return Err(bad_result("seconds", "is not a duration"));
        }

        let predictions = Predictions {
            steps: wire.prediction_steps,
            classes: wire.predictions,
        };
        check_predictions(&predictions)?;
        check_isa(&wire.isa)?;

        Ok(Self {
            key: wire.key.ok_or(missing_field("TrialResult", "key"))?.into(),
            outcome,
            steps: wire.steps,
            seconds: wire.seconds,
            metrics: wire.metrics,
            digest: wire
                .digest
                .try_into()
                .map_err(|_| bad_result("digest", "is not 32 bytes long"))?,
            curve,
            predictions,
            weights_hash: wire
                .weights
                .map(FileHash::try_from)
                .transpose()
                .map_err(|_| bad_result("weights", "is not 32 bytes long"))?,
            isa: wire.isa,
            output: wire.output.map(TryInto::try_into).transpose()?,
        })
    }
}

fn bad_result(field: &'static str, problem: &'static str) -> WireError {
    WireError {
        message: "TrialResult",
        field,
        problem,
    }
}

fn outcome_from_wire(wire: &v1::TrialResult) -> Result<Outcome, WireError> {
    match wire.outcome() {
        v1::OutcomeKind::Completed => Ok(Outcome::Completed),
        v1::OutcomeKind::Diverged => Ok(Outcome::Diverged {
            step: wire.diverged_at,
        }),
        v1::OutcomeKind::Failed if wire.cause.len() > MAX_CAUSE_BYTES => {
            Err(bad_result("cause", "is too long"))
        }
        v1::OutcomeKind::Failed => Ok(Outcome::Failed {
            cause: wire.cause.clone(),
        }),
        v1::OutcomeKind::Unspecified => Err(bad_result("outcome", "is none of the known ones")),
    }
}

fn check_curve(curve: &MetricCurve, metrics: usize) -> Result<(), WireError> {
    if metrics > MAX_METRICS || curve.steps.len() > MAX_CURVE_ROWS {
        return Err(bad_result("metrics", "are too many"));
    }

    if curve.values.len() != curve.steps.len() * metrics {
        return Err(bad_result(
            "curve_values",
            "are not one row of metrics per step",
        ));
    }

    Ok(())
}

fn check_predictions(predictions: &Predictions) -> Result<(), WireError> {
    let looks = predictions.steps.len();
    let classes = predictions.classes.len();
    if classes as u64 > MAX_PREDICTIONS
        || classes.checked_rem(looks).unwrap_or(classes) > 0
        || looks > classes
    {
        return Err(bad_result("predictions", "are not as many for every step"));
    }

    Ok(())
}

fn check_isa(isa: &str) -> Result<(), WireError> {
    let is_name = isa.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if isa.len() > MAX_ISA_BYTES || !is_name {
        return Err(bad_result("isa", "is no name of an instruction set"));
    }

    Ok(())
}

impl From<&SpecSource> for v1::SpecSource {
    fn from(source: &SpecSource) -> Self {
        Self {
            file: source.file.clone(),
            text: source.text.clone(),
            settings: source.settings.clone(),
            files: pins_to_wire(&source.files),
            // Grammar 1 is left out, so that programs that know no other one compute the same
            // checksum.
            grammar: if source.grammar == 1 {
                0
            } else {
                source.grammar
            },
            cells: source.cells_fingerprint.map(|cells| cells.to_vec()),
        }
    }
}

/// Maximum number of files that a sweep file may name.
pub const MAX_FILES: usize = 64;
/// Maximum number of files that a sweep has, with those that it starts from and other sweeps made.
pub const MAX_PINNED_FILES: usize = 4224;

impl TryFrom<v1::SpecSource> for SpecSource {
    type Error = WireError;
    fn try_from(wire: v1::SpecSource) -> Result<Self, WireError> {
        if wire.files.len() > MAX_PINNED_FILES {
            return Err(WireError {
                message: "SpecSource",
                field: "files",
                problem: "are too many",
            });
        }

        let files = pins_from_wire(wire.files)?;

        let cells = wire.cells.map(CellsFingerprint::try_from).transpose();
        let cells = cells.map_err(|_| WireError {
            message: "SpecSource",
            field: "cells",
            problem: "is not 32 bytes long",
        })?;

        let v1::SpecSource {
            file,
            text,
            settings,
            grammar,
            ..
        } = wire;
        Ok(Self {
            file,
            text,
            settings,
            files,
            grammar: grammar.max(1),
            cells_fingerprint: cells,
        })
    }
}

/// The path of the pin that has the shape of a dataset's targets. No file is called so.
const TARGETS_PIN: &str = "ergodic:targets";

/// Number of classes in the message of a dataset with targets, the least that programs take.
const WIRE_CLASSES: u32 = 2;

/// The messages of pinned files.
///
/// Earlier programs compute checksums of the fields that they know, so the message of a dataset gets no further one. A dataset with
/// targets has a second pin instead, whose shape is that of the targets. Earlier programs take both, and refuse the sweep by
/// its grammar.
pub fn pins_to_wire(files: &[FilePin]) -> Vec<v1::FilePin> {
    let mut pins: Vec<v1::FilePin> = Vec::with_capacity(files.len());
    for file in files {
        let Some(data) = file.images.filter(|data| data.targets > 0) else {
            pins.push(file.into());
            continue;
        };
        let images = FileData {
            classes: WIRE_CLASSES,
            targets: 0,
            ..data
        };
        let targets = FileData {
            shape: (1, 1, data.targets),
            floats: true,
            ..images
        };
        let shapes = [(file.path.as_str(), images), (TARGETS_PIN, targets)];
        pins.extend(shapes.map(|(path, data)| {
            let pin = FilePin {
                path: path.to_owned(),
                hash: file.hash,
                images: Some(data),
            };
            v1::FilePin::from(&pin)
        }));
    }

    pins
}

/// Reads the messages of pinned files.
///
/// # Errors
/// A message is impossible, or has targets of no dataset.
pub fn pins_from_wire(
    pins: impl IntoIterator<Item = v1::FilePin>,
) -> Result<Vec<FilePin>, WireError> {
    let mut files: Vec<FilePin> = Vec::new();
    for pin in pins {
        let pin = FilePin::try_from(pin)?;
        if pin.path != TARGETS_PIN {
            files.push(pin);
            continue;
        }
        let last = files.last_mut().filter(|file| file.hash == pin.hash);
        let data = last.and_then(|file| file.images.as_mut());
        let (Some(data), Some(targets)) = (data, pin.images) else {
            return Err(bad_pin("images", "has targets of no dataset"));
        };
        (data.classes, data.targets) = (0, targets.shape.2);
    }

    Ok(files)
}

impl From<&FilePin> for v1::FilePin {
    fn from(pin: &FilePin) -> Self {
        let images = pin.images.map(|data| v1::FileData {
            train: data.sizes.0,
            test: data.sizes.1,
            height: data.shape.0,
            width: data.shape.1,
            channels: data.shape.2,
            classes: data.classes,
            floats: data.floats,
        });

        Self {
            path: pin.path.clone(),
            hash: pin.hash.to_vec(),
            images,
        }
    }
}

impl TryFrom<v1::FilePin> for FilePin {
    type Error = WireError;
    fn try_from(wire: v1::FilePin) -> Result<Self, WireError> {
        let hash: FileHash = wire
            .hash
            .try_into()
            .map_err(|_| bad_pin("hash", "is not 32 bytes long"))?;
        let images = wire
            .images
            .map(|data| file_data_from_wire(data, hash).ok_or(bad_pin("images", "are none")))
            .transpose()?;

        Ok(Self {
            path: wire.path,
            hash,
            images,
        })
    }
}

fn bad_pin(field: &'static str, problem: &'static str) -> WireError {
    WireError {
        message: "FilePin",
        field,
        problem,
    }
}

fn file_data_from_wire(data: v1::FileData, hash: FileHash) -> Option<FileData> {
    let sizes = (data.train, data.test);
    let shape = (data.height, data.width, data.channels);
    let classes = data.classes;
    let is_possible = sizes.0 > 0
        && sizes.1 > 0
        && shape.0 > 0
        && shape.1 > 0
        && shape.2 > 0
        && (2..=256).contains(&classes);

    is_possible.then_some(FileData {
        hash,
        sizes,
        shape,
        classes,
        targets: 0,
        floats: data.floats,
    })
}

impl From<&SpecValue> for v1::AxisValue {
    fn from(value: &SpecValue) -> Self {
        use v1::axis_value::Kind;
        let kind = match value {
            SpecValue::Bool(flag) => Kind::Flag(*flag),
            SpecValue::Int(_) | SpecValue::Float(_) => {
                Kind::Number(value.as_f64().unwrap_or(f64::NAN))
            }
            other => Kind::Text(other.to_string()),
        };

        Self { kind: Some(kind) }
    }
}

/// Converts an axis value; an absent one becomes an empty word.
impl From<&v1::AxisValue> for SpecValue {
    fn from(wire: &v1::AxisValue) -> Self {
        use v1::axis_value::Kind;
        match &wire.kind {
            Some(Kind::Number(x)) => Self::Float(*x),
            Some(Kind::Text(text)) => Self::Str(text.clone()),
            Some(Kind::Flag(flag)) => Self::Bool(*flag),
            None => Self::Str(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::convert::*;
    use ergodic_common::ids::WeightsDigest;
    use ergodic_common::program::output::PackedOutput;

    fn result(outcome: Outcome) -> TrialResult {
        TrialResult {
            key: TrialKey::new(7, 3),
            outcome,
            steps: 10,
            seconds: 0.5,
            metrics: vec![1.0, 2.0],
            digest: WeightsDigest([5; 32]),
            curve: MetricCurve {
                steps: vec![5, 10],
                values: vec![0.1, 0.2, 0.3, 0.4],
            },
            predictions: Predictions {
                steps: vec![5, 10],
                classes: vec![1, 2, 3, 4, 5, 6],
            },
            weights_hash: Some(FileHash([6; 32])),
            isa: "avx2".into(),
            output: Some(PackedOutput {
                printed: 70_000,
                packed: vec![1, 2, 3],
            }),
        }
    }

    #[test]
    fn results_survive_the_wire() {
        for outcome in [
            Outcome::Completed,
            Outcome::Diverged { step: 4 },
            Outcome::Failed { cause: "x".into() },
        ] {
            let there = v1::TrialResult::from(result(outcome.clone()));
            assert_eq!(TrialResult::try_from(there), Ok(result(outcome)));
        }
    }

    #[test]
    fn sweep_files_survive_the_wire_with_what_they_name() {
        let images = FileData {
            hash: FileHash([3; 32]),
            sizes: (10, 5),
            shape: (2, 3, 1),
            classes: 4,
            targets: 0,
            floats: true,
        };
        let pin = FilePin {
            path: "d.safetensors".into(),
            hash: FileHash([3; 32]),
            images: Some(images),
        };
        let with_targets = FileData {
            classes: 0,
            targets: 3,
            ..images
        };
        let files = vec![
            pin.clone(),
            FilePin {
                images: Some(with_targets),
                ..pin.clone()
            },
            FilePin {
                images: None,
                ..pin
            },
        ];
        let source = SpecSource {
            file: "f".into(),
            text: "t".into(),
            settings: vec!["a=1".into()],
            files,
            grammar: 2,
            cells_fingerprint: Some(CellsFingerprint([5; 32])),
        };
        let there = v1::SpecSource::from(&source);
        assert_eq!(SpecSource::try_from(there.clone()), Ok(source));

        let short = v1::SpecSource {
            cells: Some(vec![5; 31]),
            ..there.clone()
        };
        assert_eq!(
            SpecSource::try_from(short).map_err(|e| e.field),
            Err("cells")
        );

        let files = vec![there.files[1].clone(); MAX_PINNED_FILES + 1];
        assert_eq!(
            SpecSource::try_from(v1::SpecSource { files, ..there }).map_err(|e| e.field),
            Err("files")
        );
    }

    /// A program that knows no other grammar neither sends nor expects a number of one, and checks its messages by a checksum.
    #[test]
    fn the_first_grammar_is_the_one_that_is_not_named() {
        for (grammar, named) in [(1, 0), (2, 2), (3, 3)] {
            let source = SpecSource {
                grammar,
                ..SpecSource::default()
            };
            let there = v1::SpecSource::from(&source);
            assert_eq!(there.grammar, named);
            assert_eq!(SpecSource::try_from(there), Ok(source));
        }
    }

    #[test]
    fn impossible_results_are_refused_by_field() {
        let good = || v1::TrialResult::from(result(Outcome::Completed));
        let cases = [
            (
                "key",
                v1::TrialResult {
                    key: None,
                    ..good()
                },
            ),
            (
                "outcome",
                v1::TrialResult {
                    outcome: 0,
                    ..good()
                },
            ),
            (
                "digest",
                v1::TrialResult {
                    digest: vec![1],
                    ..good()
                },
            ),
            (
                "curve_values",
                v1::TrialResult {
                    curve_values: vec![1.0],
                    ..good()
                },
            ),
            (
                "seconds",
                v1::TrialResult {
                    seconds: f64::NAN,
                    ..good()
                },
            ),
            (
                "metrics",
                v1::TrialResult {
                    metrics: vec![0.0; 65],
                    ..good()
                },
            ),
            (
                "metrics",
                v1::TrialResult {
                    metrics: Vec::new(),
                    curve_values: Vec::new(),
                    curve_steps: vec![1; 100_001],
                    ..good()
                },
            ),
            (
                "cause",
                v1::TrialResult {
                    outcome: v1::OutcomeKind::Failed.into(),
                    cause: "x".repeat(4097),
                    ..good()
                },
            ),
            (
                "predictions",
                v1::TrialResult {
                    predictions: vec![0; 5],
                    ..good()
                },
            ),
            (
                "predictions",
                v1::TrialResult {
                    prediction_steps: vec![],
                    ..good()
                },
            ),
            (
                "predictions",
                v1::TrialResult {
                    predictions: vec![],
                    ..good()
                },
            ),
            (
                "predictions",
                v1::TrialResult {
                    predictions: vec![0; 1_000_002],
                    ..good()
                },
            ),
            (
                "weights",
                v1::TrialResult {
                    weights: Some(vec![1; 31]),
                    ..good()
                },
            ),
            (
                "isa",
                v1::TrialResult {
                    isa: "avx2\n".into(),
                    ..good()
                },
            ),
            (
                "isa",
                v1::TrialResult {
                    isa: "x".repeat(33),
                    ..good()
                },
            ),
        ];

        for (field, wire) in cases {
            assert_eq!(TrialResult::try_from(wire).map_err(|e| e.field), Err(field));
        }
    }

    fn pin(path: &str, targets: u32) -> FilePin {
        let images = FileData {
            hash: FileHash([3; 32]),
            sizes: (10, 5),
            shape: (2, 3, 1),
            classes: if targets == 0 { 4 } else { 0 },
            targets,
            floats: false,
        };
        FilePin {
            path: path.into(),
            hash: images.hash,
            images: Some(images),
        }
    }

    #[test]
    fn targets_travel_in_messages_that_earlier_programs_take() {
        let weights = FilePin {
            images: None,
            ..pin("w.safetensors", 0)
        };
        let files = vec![pin("a", 3), weights, pin("b", 0), pin("c", 700)];
        let wire = pins_to_wire(&files);
        assert_eq!(wire.len(), 6);

        // An earlier program reads each by itself.
        for pin in &wire {
            let alone = FilePin::try_from(pin.clone()).expect("possible");
            assert!(alone.images.is_none_or(|data| data.targets == 0));
        }
        assert_eq!(pins_from_wire(wire.clone()), Ok(files));

        for damaged in [&wire[1..2], &[wire[2].clone(), wire[1].clone()][..]] {
            let error = pins_from_wire(damaged.to_vec()).expect_err("no dataset");
            assert_eq!(error.field, "images");
        }
    }
}
