//! The sentences of `ergodic explain`: one for each finding of the wire. The client prints them; the coordinator sends them along for
//! clients that do not know a finding.

mod output;
mod sweep;
mod trial;

use ergodic_common::TrialKey;
use ergodic_proto::v1;

/// The sentences of an answer. A finding that this program does not know has the coordinator's sentence.
pub(crate) fn render_explanation(answer: &v1::ExplainResponse) -> Vec<String> {
    let count = answer.findings.len().max(answer.lines.len());
    let trial = answer.trial.map(TrialKey::from);

    (0..count)
        .filter_map(|i| {
            let finding = answer.findings.get(i);
            finding
                .and_then(|finding| render_finding(finding, &answer.sweep, trial))
                .or_else(|| answer.lines.get(i).cloned())
        })
        .collect()
}

/// A finding about a sweep, given by its id, or a trial of it in a sentence; `None` for what this program does not know.
fn render_finding(
    finding: &v1::ExplainFinding,
    sweep: &str,
    trial: Option<TrialKey>,
) -> Option<String> {
    let finding = finding.finding.as_ref()?;
    sweep::render_sweep_finding(finding, sweep)
        .or_else(|| trial::render_cell_finding(finding))
        .or_else(|| trial::render_trial_finding(finding, trial?))
        .or_else(|| trial::render_audit_finding(finding))
        .or_else(|| output::render_output_finding(finding, sweep, trial?))
}

#[cfg(test)]
mod tests {
    use ergodic_proto::v1::explain_finding::Finding;

    use crate::explanation_text::*;

    fn finding(finding: Finding) -> v1::ExplainFinding {
        v1::ExplainFinding {
            finding: Some(finding),
            actions: Vec::new(),
        }
    }

    #[test]
    fn a_finding_that_is_not_known_has_the_sentence_of_the_coordinator() {
        let paused = v1::ExplainStopped {
            state: v1::SweepState::Paused.into(),
        };
        let newer = v1::ExplainStopped { state: 1000 };
        let answer = v1::ExplainResponse {
            lines: ["one", "two", "three", "four"].map(str::to_owned).to_vec(),
            findings: vec![
                finding(Finding::Stopped(paused)),
                v1::ExplainFinding::default(),
                finding(Finding::Stopped(newer)),
            ],
            sweep: "abcdefgh".to_owned(),
            trial: None,
        };

        let lines = render_explanation(&answer);
        assert!(lines[0].contains("`ergodic resume abcdefgh`"), "{lines:?}");
        assert_eq!(lines[1..], ["two", "three", "four"]);
    }

    #[test]
    fn findings_are_json_under_the_names_of_the_wire() {
        let ended = v1::ExplainEnd {
            outcome: v1::OutcomeKind::Failed.into(),
            cause: "lost".to_owned(),
            ..v1::ExplainEnd::default()
        };
        let finding = v1::ExplainFinding {
            finding: Some(Finding::Ended(ended)),
            actions: vec![v1::ExplainAction::JoinWorker.into()],
        };

        let json = serde_json::to_value(&finding).expect("JSON");
        assert_eq!(json["kind"], "ended");
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["cause"], "lost");
        assert_eq!(json["actions"], serde_json::json!(["join_worker"]));
    }

    #[test]
    fn no_field_hides_the_kind_of_a_finding() {
        let found = v1::ExplainAuditFound {
            finding: v1::ExplainAuditFinding::Same.into(),
            ..v1::ExplainAuditFound::default()
        };
        let json = serde_json::to_value(finding(Finding::AuditFound(found))).expect("JSON");
        assert_eq!(json["kind"], "audit_found");
        assert_eq!(json["finding"], "same");
    }

    #[test]
    fn values_of_a_cell_are_plain_json() {
        use v1::axis_value::Kind;
        let value = |kind| v1::ExplainAxisValue {
            axis: "lr".to_owned(),
            value: Some(v1::AxisValue { kind: Some(kind) }),
            text: "0.1".to_owned(),
        };
        let cell = v1::ExplainCell {
            cell: 3,
            values: vec![value(Kind::Number(0.1)), value(Kind::Flag(true))],
        };

        let json = serde_json::to_value(finding(Finding::Cell(cell))).expect("JSON");
        assert_eq!(json["values"][0]["value"], 0.1);
        assert_eq!(json["values"][1]["value"], true);
    }

    #[test]
    fn adaptive_repeats_and_audits_are_told_in_numbers() {
        let precision = v1::ExplainPrecision {
            metric: "test_loss".to_owned(),
            ci95: 0.05,
            cells: 7,
            known: 5,
            reached: vec![
                v1::ExplainReached {
                    repeats: 10,
                    cells: 4,
                },
                v1::ExplainReached {
                    repeats: 20,
                    cells: 1,
                },
            ],
            exhausted: 1,
            most: 200,
            open: 1,
            expected_trials: 500,
        };
        let halving = v1::ExplainHalving {
            metric: "test_loss".to_owned(),
            factor: 2,
            cells: 5,
            rung: 20,
            standing: 1,
            ready: 1,
            most: 20,
        };
        let audits = v1::ExplainAudits {
            due: 3,
            same: 1,
            different: 0,
            failed: 0,
            state: v1::SweepState::Completed.into(),
        };

        let answer = v1::ExplainResponse {
            findings: [
                Finding::Precision(precision),
                Finding::Halving(halving),
                Finding::Audits(audits),
            ]
            .map(finding)
            .to_vec(),
            sweep: "abcdefgh".to_owned(),
            ..v1::ExplainResponse::default()
        };

        assert_eq!(
            render_explanation(&answer),
            [
                "In 5 of 7 cells the mean of test_loss is known to ± 0.05 (cells by repeats: 4 at 10, 1 at 20); \
                 not reached with all 200 repeats: 1; 1 continue, and by their spread so far the sweep will take about 500 trials in all.",
                "By successive halving, the best of 5 cells is repeated 20 times (1 of 1 done).",
                "Audit: 1 of 3 trials was run again by another worker process: 1 yielded the same bits, 0 different bits, 0 failed. \
                 For 2 no other worker process was available: `ergodic retry abcdefgh` runs them once there is one.",
            ]
        );
    }
}
