//! `Explain`: the reason for the state of a sweep, cell or trial.

use ergodic_common::TrialKey;
use ergodic_common::ids::{SweepId, SweepNumber};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;
use v1::explain_finding::Finding as WireFinding;

use crate::core::explanation::UserAction;
use crate::core::quarantine::CRASH_LIMIT;
use crate::core::queries::{SweepMatch, TrialLocation};
use crate::core::{Core, Sweep, UnreadableSweep};
use crate::explanation_text::render_explanation;
use crate::records::SweepState;
use crate::server::findings::{
    build_finding, build_finding_with_actions, build_reason, no_details, to_audit_finding,
    to_cell_findings, to_end_finding, to_sweep_finding,
};
use crate::server::services::access::{SweepApi, check_has_trial};
use crate::server::services::stored_outputs::OutputTrial;
use crate::server::status::state_to_wire;
use crate::server::store_error;

/// The core's knowledge about a trial.
struct TrialFacts {
    sweep: SweepNumber,
    id: SweepId,
    state: SweepState,
    location: TrialLocation,
    /// Number of steps at which its checkpoint was taken.
    checkpoint_steps: Option<u64>,
    cell_findings: Vec<v1::ExplainFinding>,
    sweep_findings: Vec<v1::ExplainFinding>,
    /// Whether it is a process, which may print something.
    is_program: bool,
}

impl SweepApi {
    /// The body of `Explain`.
    pub(crate) async fn answer_explain(
        &self,
        request: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Status> {
        let (sweep, mut findings) = match request.trial {
            None => self.with_any_sweep(&request.sweep, explain_match).await?,
            Some(key) => self.explain_trial(&request.sweep, key.into()).await?,
        };
        findings.extend(
            self.0
                .storage_trouble()
                .map(|why| build_finding(WireFinding::StorageTrouble(build_reason(why)))),
        );

        let mut answer = v1::ExplainResponse {
            lines: Vec::new(),
            findings,
            sweep: sweep.into(),
            trial: request.trial,
        };
        // For clients that know no findings, or not all.
        answer.lines = render_explanation(&answer);
        Ok(answer)
    }

    /// The full id of a sweep, and what became of a trial of it.
    async fn explain_trial(
        &self,
        word: &str,
        key: TrialKey,
    ) -> Result<(SweepId, Vec<v1::ExplainFinding>), Status> {
        let facts = self
            .with_sweep(word, move |core, sweep| {
                collect_trial_facts(core, sweep, key)
            })
            .await??;
        let sweep = facts.sweep;
        let checkpoint_steps = facts.checkpoint_steps;
        let id = facts.id.clone();

        let row = match facts.location {
            TrialLocation::Done => {
                let row = self
                    .read_store(move |reader| reader.read_trial(sweep, key).map_err(store_error));
                row.await?
            }
            _ => None,
        };
        let trial = OutputTrial { sweep, key };
        let attempts = self
            .explain_attempts(trial, row.as_ref(), facts.is_program)
            .await?;
        let is_running = matches!(facts.location, TrialLocation::Leased { running: true, .. });
        let running = (is_running && facts.is_program).then(|| attempts.explain_running());

        let mut findings = explain_unfinished(facts);
        findings.extend(row.map(to_end_finding));
        findings.extend(attempts.of_row.or(running));
        findings.extend(self.explain_audit(sweep, key).await?);
        findings.extend(
            checkpoint_steps.map(|steps| {
                build_finding(WireFinding::Checkpoint(v1::ExplainCheckpoint { steps }))
            }),
        );

        findings.extend(attempts.earlier);

        Ok((id, findings))
    }

    /// Explains a trial's audit, if it has one.
    async fn explain_audit(
        &self,
        number: SweepNumber,
        key: TrialKey,
    ) -> Result<Option<v1::ExplainFinding>, Status> {
        let read = self.read_store(move |reader| {
            let audit = reader.read_audit(number, key);
            let row = reader.read_trial(number, key);
            Ok((audit.map_err(store_error)?, row.map_err(store_error)?))
        });
        let (Some(audit), row) = read.await? else {
            return Ok(None);
        };

        let first = v1::ExplainProcess {
            worker: row.map(|row| row.worker).unwrap_or_default(),
            process: audit.process.to_string(),
        };
        if let Some(finding) = audit.finding {
            return Ok(Some(to_audit_finding(finding, audit, first)));
        }

        let progress = self
            .query_core(move |core| {
                let sweep = core.sweep(number)?;
                Some((core.locate_audit(sweep, key), sweep.state))
            })
            .await?;
        Ok(Some(explain_open_audit(progress, first)))
    }
}

/// The full id of a sweep, and why it is where it is.
fn explain_match(core: &Core, sweep: SweepMatch<'_>) -> (SweepId, Vec<v1::ExplainFinding>) {
    match sweep {
        SweepMatch::Readable(sweep) => (sweep.id.clone(), explain_sweep(core, sweep)),
        SweepMatch::Unreadable(UnreadableSweep { record, why }) => {
            let findings = vec![
                build_finding(WireFinding::Unreadable(build_reason(why.clone()))),
                build_finding_with_actions(
                    WireFinding::Removable(no_details()),
                    &[UserAction::Remove],
                ),
            ];
            (record.id.clone(), findings)
        }
    }
}

fn explain_sweep(core: &Core, sweep: &Sweep) -> Vec<v1::ExplainFinding> {
    core.explain_sweep(sweep)
        .into_iter()
        .map(to_sweep_finding)
        .collect()
}

fn collect_trial_facts(core: &Core, sweep: &Sweep, key: TrialKey) -> Result<TrialFacts, UserError> {
    check_has_trial(sweep, key)?;
    let program = sweep.spec.program();

    Ok(TrialFacts {
        sweep: sweep.number,
        id: sweep.id.clone(),
        state: sweep.state,
        location: core.locate_trial(sweep, key),
        checkpoint_steps: core.checkpoint_steps(sweep.number, key),
        cell_findings: to_cell_findings(sweep, key),
        sweep_findings: explain_sweep(core, sweep),
        is_program: program.is_some_and(|program| program.experiment.is_none()),
    })
}

/// Explains a trial's cell and, if the trial has no row yet, why.
fn explain_unfinished(facts: TrialFacts) -> Vec<v1::ExplainFinding> {
    let mut findings = facts.cell_findings;

    match facts.location {
        TrialLocation::Done => {}
        TrialLocation::Unneeded => {
            findings.push(build_finding(WireFinding::NotNeeded(no_details())));
        }
        TrialLocation::Leased {
            fence,
            worker,
            running,
        } => findings.push(build_finding(WireFinding::Leased(v1::ExplainLease {
            worker,
            running,
            lease: fence.lease.0,
            epoch: fence.epoch.0,
        }))),
        TrialLocation::Quarantined(workers) => {
            let fate = match facts.state {
                SweepState::Cancelled => WireFinding::NeverRun(no_details()),
                _ if workers.len() < CRASH_LIMIT => WireFinding::RunsAlone(no_details()),
                _ => WireFinding::GivenUp(no_details()),
            };
            let crashes = WireFinding::Crashes(v1::ExplainCrashes { workers });

            findings.extend([crashes, fate].map(build_finding));
            findings.extend(facts.sweep_findings);
        }
        TrialLocation::Pending => {
            findings.push(build_finding(WireFinding::Waiting(no_details())));
            if facts.state.is_open() {
                findings.extend(facts.sweep_findings);
            } else {
                findings.push(build_finding(WireFinding::NeverRun(no_details())));
            }
        }
    }

    findings
}

/// Explains the progress of an audit without a finding, of a row that `first` computed. `progress`
/// is `None` for a removed sweep.
fn explain_open_audit(
    progress: Option<(TrialLocation, SweepState)>,
    first: v1::ExplainProcess,
) -> v1::ExplainFinding {
    if let Some((
        TrialLocation::Leased {
            worker, running, ..
        },
        _,
    )) = progress
    {
        return build_finding(WireFinding::AuditLeased(v1::ExplainAuditLease {
            first: Some(first),
            worker,
            running,
        }));
    }

    let state = progress.map_or(v1::SweepState::Unspecified, |(_, state)| {
        state_to_wire(state)
    });
    build_finding(WireFinding::AuditDue(v1::ExplainAuditDue {
        // An audit without a process may run anywhere: nobody knows who computed the row, or its
        // file is lost.
        any_process: first.process.is_empty(),
        first: Some(first),
        state: state.into(),
    }))
}
