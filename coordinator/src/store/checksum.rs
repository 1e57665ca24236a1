//! Checksums of rows. They cover the name of the table and all fields, so that no row passes for
//! another.

use std::cell::RefCell;

use ergodic_common::ids::SweepNumber;
use ergodic_common::{TrialKey, TrialResult};

use crate::records::{LeaseRow, SweepRow};
use crate::store::encoding::{
    encode_f64s, encode_files, encode_outcome, encode_state, replace_nul,
};
use crate::store::outputs::StoredOutput;
use crate::store::sql::param::SqlParam;
use crate::store::types::Attempt;

thread_local! {
    /// A buffer for everything that is hashed, because BLAKE3 is faster on many kilobytes at once
    /// than on small parts.
    static CHECKSUM_BUFFER: RefCell<RowBytes> = const { RefCell::new(RowBytes(Vec::new())) };
}

/// The checksum of a row with these fields.
fn row_checksum(table: &str, fields: &[SqlParam<'_>]) -> i64 {
    hash_row(table, |row| {
        for field in fields {
            row.append_param(*field);
        }
    })
}

/// The checksum of a row: eight bytes of BLAKE3 over the table's name and the fields, each with
/// kind and length.
fn hash_row(table: &str, append_fields: impl FnOnce(&mut RowBytes)) -> i64 {
    CHECKSUM_BUFFER.with_borrow_mut(|row| {
        row.0.clear();
        row.append_field(0, table.as_bytes());
        append_fields(row);

        let hash = blake3::hash(&row.0);
        let (head, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash has 32 bytes");
        i64::from_le_bytes(*head)
    })
}

/// The fields of a row, each with kind and length.
struct RowBytes(Vec<u8>);

impl RowBytes {
    fn append_param(&mut self, field: SqlParam<'_>) {
        match field {
            SqlParam::Bytes(None) | SqlParam::OptionalText(None) => self.append_null(),
            SqlParam::Int(value) => self.append_int(value),
            SqlParam::Real(value) => self.append_real(value),
            SqlParam::Text(value) | SqlParam::OptionalText(Some(value)) => self.append_text(value),
            SqlParam::Bytes(Some(value)) => self.append_bytes(value),
        }
    }

    /// Appends a field that may be null.
    fn append_optional<T>(&mut self, field: Option<T>, append: impl FnOnce(&mut Self, T)) {
        match field {
            Some(field) => append(self, field),
            None => self.append_null(),
        }
    }

    fn append_null(&mut self) {
        self.append_field(1, &[]);
    }

    fn append_int(&mut self, value: i64) {
        self.append_number(2, value.to_le_bytes());
    }

    fn append_real(&mut self, value: f64) {
        // A database may return -0.0 as 0.0. Adding 0.0 gives both one checksum.
        self.append_number(3, (value + 0.0).to_le_bytes());
    }

    fn append_text(&mut self, value: &str) {
        self.append_field(4, replace_nul(value).as_bytes());
    }

    fn append_bytes(&mut self, value: &[u8]) {
        self.append_field(5, value);
    }

    /// Appends a number as [`Self::append_field`] does, in one piece of known size: most fields of a row are numbers.
    fn append_number(&mut self, kind: u8, number: [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = number;
        self.0
            .extend_from_slice(&[kind, 8, 0, 0, 0, a, b, c, d, e, f, g, h]);
    }

    /// Appends a field with its kind and length.
    fn append_field(&mut self, kind: u8, field: &[u8]) {
        // Kind and length are appended at once, because each growth of the buffer has a price.
        let [a, b, c, d] = (field.len() as u32).to_le_bytes();
        self.0.extend_from_slice(&[kind, a, b, c, d]);
        self.0.extend_from_slice(field);
    }
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
    /// The checksum of the row. A table checks every row of its sweep, and appending fields by kind
    /// takes half as long as going through a list of parameters.
    pub fn checksum(&self, sweep: SweepNumber) -> i64 {
        hash_row("trials", |row| {
            row.append_int(sweep.0);
            row.append_int(self.key.cell.0 as i64);
            row.append_int(self.key.repeat.0.into());
            row.append_int(self.outcome);
            row.append_optional(self.step, RowBytes::append_int);
            row.append_optional(self.cause, RowBytes::append_text);
            row.append_int(self.steps);
            row.append_real(self.seconds);
            row.append_text(self.worker);
            row.append_bytes(self.digest);
            row.append_bytes(self.metrics);
            row.append_text(self.isa);
            row.append_optional(self.weights, RowBytes::append_bytes);
        })
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

/// The checksum of a row of `outputs`.
pub fn output_checksum(sweep: SweepNumber, stored: &StoredOutput) -> i64 {
    let fields = [
        sweep.into(),
        stored.key.cell.into(),
        stored.key.repeat.into(),
        stored.attempt.into(),
        stored.output.printed.into(),
        SqlParam::Bytes(Some(&stored.output.packed)),
    ];

    row_checksum("outputs", &fields)
}

/// The checksum of a row of `seals`.
pub fn seal_checksum(sweep: SweepNumber, counts: [i64; 3], row_sum: i64, tallies: &[u8]) -> i64 {
    let [completed, diverged, failed] = counts;
    let fields = [
        sweep.into(),
        completed.into(),
        diverged.into(),
        failed.into(),
        row_sum.into(),
        SqlParam::Bytes(Some(tallies)),
    ];

    row_checksum("seals", &fields)
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
