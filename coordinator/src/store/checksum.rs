//! Checksums of rows. They cover the name of the table and all fields, so that no row passes for
//! another.

use std::cell::RefCell;

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};

use crate::records::{LeaseRow, SweepRow};
use crate::store::encoding::{
    encode_f64s, encode_files, encode_outcome, encode_state, replace_nul,
};
use crate::store::sql::param::SqlParam;
use crate::store::types::Attempt;

thread_local! {
    /// A buffer for everything that is hashed, because BLAKE3 is faster on many kilobytes at once
    /// than on small parts.
    static CHECKSUM_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The checksum of a row: eight bytes of BLAKE3 over the table's name and the fields, each with
/// kind and length.
fn row_checksum(table: &str, fields: &[SqlParam<'_>]) -> i64 {
    CHECKSUM_BUFFER.with_borrow_mut(|bytes| {
        bytes.clear();
        append_field(bytes, 0, table.as_bytes());

        for field in fields {
            match *field {
                SqlParam::Bytes(None) | SqlParam::OptionalText(None) => append_field(bytes, 1, &[]),
                SqlParam::Int(value) => append_number(bytes, 2, value.to_le_bytes()),
                // A database may return -0.0 as 0.0. Adding 0.0 gives both one checksum.
                SqlParam::Real(value) => append_number(bytes, 3, (value + 0.0).to_le_bytes()),
                SqlParam::Text(value) | SqlParam::OptionalText(Some(value)) => {
                    append_field(bytes, 4, replace_nul(value).as_bytes())
                }
                SqlParam::Bytes(Some(value)) => append_field(bytes, 5, value),
            }
        }

        let hash = blake3::hash(bytes);
        let (head, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash has 32 bytes");
        i64::from_le_bytes(*head)
    })
}

/// Appends a number as [`append_field`] does, in one piece of known size: most fields of a row are numbers.
fn append_number(bytes: &mut Vec<u8>, kind: u8, number: [u8; 8]) {
    let [a, b, c, d, e, f, g, h] = number;
    bytes.extend_from_slice(&[kind, 8, 0, 0, 0, a, b, c, d, e, f, g, h]);
}

/// Appends a field with its kind and length.
fn append_field(bytes: &mut Vec<u8>, kind: u8, field: &[u8]) {
    // Kind and length are appended at once, because each growth of the buffer has a price.
    let [a, b, c, d] = (field.len() as u32).to_le_bytes();
    bytes.extend_from_slice(&[kind, a, b, c, d]);
    bytes.extend_from_slice(field);
}

/// A row of `trials` as stored, without its curve and its checksum.
#[derive(Debug, Clone, Copy)]
pub struct TrialFields<'a> {
    /// The key of the trial.
    pub key: TrialKey,
    /// The number of the outcome; with `step` and `cause`, the result of [`encode_outcome`].
    pub outcome: i64,
    /// The step of a divergence.
    pub step: Option<i64>,
    /// The cause of a failure.
    pub cause: Option<&'a str>,
    /// Number of completed steps.
    pub steps: i64,
    /// Duration, in seconds.
    pub seconds: f64,
    /// Name of the worker.
    pub worker: &'a str,
    /// Digest of the weights.
    pub digest: &'a [u8],
    /// Metrics, encoded by [`encode_f64s`].
    pub metrics: &'a [u8],
    /// The instruction set.
    pub isa: &'a str,
    /// Hash of the file of weights, if it was stored.
    pub weights: Option<&'a [u8]>,
}

impl TrialFields<'_> {
    /// The checksum of the row.
    pub fn checksum(&self, sweep: SweepNumber) -> i64 {
        let fields = [
            sweep.into(),
            self.key.cell.into(),
            self.key.repeat.into(),
            self.outcome.into(),
            self.step.map_or(SqlParam::Bytes(None), SqlParam::Int),
            self.cause.map_or(SqlParam::Bytes(None), SqlParam::Text),
            self.steps.into(),
            SqlParam::Real(self.seconds),
            self.worker.into(),
            SqlParam::Bytes(Some(self.digest)),
            SqlParam::Bytes(Some(self.metrics)),
            self.isa.into(),
            SqlParam::Bytes(self.weights),
        ];

        row_checksum("trials", &fields)
    }
}

/// The checksum of a row of `trials`.
pub fn trial_checksum(sweep: SweepNumber, worker: &str, result: &TrialResult) -> i64 {
    let (outcome, step, cause) = encode_outcome(&result.outcome);
    let fields = TrialFields {
        key: result.key,
        outcome,
        step,
        cause,
        steps: result.steps as i64,
        seconds: result.seconds,
        worker,
        digest: &result.digest.0,
        metrics: &encode_f64s(&result.metrics),
        isa: &result.isa,
        weights: result.weights_hash.as_ref().map(|hash| &hash.0[..]),
    };

    fields.checksum(sweep)
}

/// The checksum of a row of `curves`, by the trial that it belongs to.
pub fn curve_checksum(sweep: SweepNumber, key: TrialKey, data: &[u8]) -> i64 {
    row_checksum(
        "curves",
        &[
            sweep.into(),
            key.cell.into(),
            key.repeat.into(),
            SqlParam::Bytes(Some(data)),
        ],
    )
}

/// The checksum of a row of `predictions`.
pub fn predictions_checksum(sweep: SweepNumber, key: TrialKey, data: &[u8]) -> i64 {
    row_checksum(
        "predictions",
        &[
            sweep.into(),
            key.cell.into(),
            key.repeat.into(),
            SqlParam::Bytes(Some(data)),
        ],
    )
}

/// The checksum of a row of `attempts`.
pub fn attempt_checksum(sweep: SweepNumber, key: TrialKey, number: i64, attempt: &Attempt) -> i64 {
    let fields = [
        sweep.into(),
        key.cell.into(),
        key.repeat.into(),
        number.into(),
        attempt.cause.as_str().into(),
        attempt.worker.as_str().into(),
        SqlParam::Real(attempt.seconds),
    ];

    row_checksum("attempts", &fields)
}

/// The checksum of a row of `leases`, with its trials as they are stored.
pub fn lease_checksum(row: &LeaseRow, trials: &[u8]) -> i64 {
    let mut fields = vec![
        row.fence.lease.into(),
        row.fence.epoch.into(),
        row.sweep.into(),
        row.class.into(),
        (&row.worker).into(),
        SqlParam::Bytes(Some(trials)),
    ];

    // Leases of fresh trials keep the checksum that they had before leases of audits existed.
    fields.extend(row.audits.as_ref().map(SqlParam::from));
    row_checksum("leases", &fields)
}

/// The checksum of a row of `sweeps`.
pub fn sweep_checksum(row: &SweepRow) -> i64 {
    let files = encode_files(&row.source.files);
    let mut fields = vec![
        row.number.into(),
        row.id.as_str().into(),
        row.source.file.as_str().into(),
        row.source.text.as_str().into(),
        SqlParam::Bytes(Some(&files)),
        SqlParam::Bytes(row.data.hash.as_ref().map(|hash| &hash.0[..])),
        row.data.train.into(),
        row.data.provenance.as_str().into(),
        encode_state(row.state).into(),
        SqlParam::Real(row.launched_at),
        row.tallies.lost_leases.into(),
        row.tallies.duplicates.into(),
        row.tallies.mismatches.into(),
        row.tallies.fenced.into(),
        i64::from(row.share.priority).into(),
        SqlParam::Real(row.share.weight),
    ];
    fields.extend(
        row.source
            .settings
            .iter()
            .map(|setting| SqlParam::from(setting.as_str())),
    );

    // Sweeps without a known user keep the checksum that they had before users were stored.
    if !row.launched_by.is_empty() {
        fields.extend([
            SqlParam::from("launched by"),
            SqlParam::from(row.launched_by.as_str()),
        ]);
    }

    // Sweeps of grammar 1 keep the checksum that earlier programs gave them.
    if row.source.grammar > 1 || row.source.cells_fingerprint.is_some() {
        fields.push(row.source.grammar.into());
        fields.push(SqlParam::Bytes(
            row.source
                .cells_fingerprint
                .as_ref()
                .map(|cells| &cells.0[..]),
        ));
    }

    row_checksum("sweeps", &fields)
}
