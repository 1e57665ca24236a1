//! Why none of a sweep's trials is running, in a few words, from the findings of `ergodic explain`.

use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use v1::explain_finding::Finding;

use super::Client;
use crate::explanation_text::render_explanation;

/// Whether a sweep runs, but none of its trials does, as far as who answers can tell.
pub fn is_waiting(status: &v1::SweepStatus) -> bool {
    status.state() == v1::SweepState::Running
        && status.leased == 0
        && status.leader.is_empty()
        && status.withheld.is_empty()
}

/// Queries why none of a sweep's trials is running; `None` if nothing is in their way.
///
/// # Errors
/// There is no such sweep, or no leader responds: a standby knows nothing of this.
pub async fn query_wait_reason(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<Option<String>, UserError> {
    let request = v1::ExplainRequest {
        sweep: sweep.to_string(),
        trial: None,
    };
    let answer = client
        .sweeps
        .explain(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    Ok(find_wait_reason(&answer))
}

/// The first thing that keeps a running sweep from running trials.
fn find_wait_reason(answer: &v1::ExplainResponse) -> Option<String> {
    let findings = answer
        .findings
        .iter()
        .filter_map(|found| found.finding.as_ref());
    let ranked = findings.filter_map(|finding| Some((rank_obstacle(finding)?, finding)));
    let (_, finding) = ranked.min_by_key(|(rank, _)| *rank)?;

    Some(match finding {
        Finding::HigherPriority(higher) => {
            let verb = if higher.sweeps.len() == 1 {
                "has"
            } else {
                "have"
            };
            format!(
                "waits: {} {verb} a higher priority",
                higher.sweeps.join(", ")
            )
        }
        Finding::SharedWorkers(shared) => {
            format!(
                "waits: it shares the workers with {}",
                shared.sweeps.join(", ")
            )
        }
        other => format!("waits: {}", render_sentence(other, &answer.sweep)?),
    })
}

/// What is more in the way has a smaller number; `None` for what is no obstacle.
fn rank_obstacle(finding: &Finding) -> Option<u8> {
    match finding {
        Finding::StorageTrouble(_) => Some(0),
        Finding::NoWorker(_) => Some(1),
        Finding::MissingClass(_) => Some(2),
        Finding::HigherPriority(_) => Some(3),
        Finding::WorkerUnable(_) => Some(4),
        Finding::WorkerAway(_) => Some(5),
        Finding::SharedWorkers(_) => Some(6),
        _ => None,
    }
}

/// The sentence of `ergodic explain` about a finding.
fn render_sentence(finding: &Finding, sweep: &str) -> Option<String> {
    let alone = v1::ExplainResponse {
        findings: vec![v1::ExplainFinding {
            finding: Some(finding.clone()),
            actions: Vec::new(),
        }],
        sweep: sweep.to_owned(),
        ..v1::ExplainResponse::default()
    };
    let mut lines = render_explanation(&alone).into_iter();
    lines
        .next()
        .map(|line| line.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use crate::client::wait_reason::*;

    fn reason(findings: Vec<Finding>) -> Option<String> {
        let wrap = |finding| v1::ExplainFinding {
            finding: Some(finding),
            actions: Vec::new(),
        };
        find_wait_reason(&v1::ExplainResponse {
            findings: findings.into_iter().map(wrap).collect(),
            ..v1::ExplainResponse::default()
        })
    }

    #[test]
    fn the_worst_obstacle_is_named() {
        let capacity = || {
            Finding::Capacity(v1::ExplainCapacity {
                workers: 1,
                slots: 2,
                names: Vec::new(),
            })
        };
        let shared = || {
            Finding::SharedWorkers(v1::ExplainWeight {
                weight: 1.0,
                sweeps: vec!["abc".into(), "def".into()],
            })
        };
        let higher = Finding::HigherPriority(v1::ExplainPriority {
            priority: 0,
            sweeps: vec!["xyz".into()],
        });

        assert_eq!(reason(vec![capacity()]), None);
        assert_eq!(
            reason(vec![capacity(), shared()]).as_deref(),
            Some("waits: it shares the workers with abc, def")
        );
        assert_eq!(
            reason(vec![capacity(), shared(), higher]).as_deref(),
            Some("waits: xyz has a higher priority")
        );
        let none = reason(vec![Finding::NoWorker(v1::ExplainNothing {}), shared()]);
        assert!(none.is_some_and(|why| why.starts_with("waits: No worker is joined: start one")));
    }
}
