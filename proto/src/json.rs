//! Enumerations of the wire as JSON: the last part of their names, in small letters.

use serde::Serializer;

use crate::v1;

/// Writes the state of a sweep as a word.
pub(crate) fn write_state<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let state = v1::SweepState::try_from(*value).unwrap_or_default();
    serializer.serialize_str(&short_name(state.as_str_name(), "SWEEP_STATE_"))
}

/// Writes how a trial ended as a word.
pub(crate) fn write_outcome<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let outcome = v1::OutcomeKind::try_from(*value).unwrap_or_default();
    serializer.serialize_str(&short_name(outcome.as_str_name(), "OUTCOME_KIND_"))
}

/// Writes what an audit found as a word.
pub(crate) fn write_audit_finding<S: Serializer>(
    value: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let finding = v1::ExplainAuditFinding::try_from(*value).unwrap_or_default();
    serializer.serialize_str(&short_name(finding.as_str_name(), "EXPLAIN_AUDIT_FINDING_"))
}

/// Writes what a user can do as a list of words.
pub(crate) fn write_actions<S: Serializer>(
    values: &[i32],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| {
        let action = v1::ExplainAction::try_from(*value).unwrap_or_default();
        short_name(action.as_str_name(), "EXPLAIN_ACTION_")
    }))
}

/// `SWEEP_STATE_PAUSED` without its prefix, as `paused`.
fn short_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}
