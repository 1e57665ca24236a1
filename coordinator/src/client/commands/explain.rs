//! `ergodic explain`: explains the state of a sweep or of one trial.

use clap::Args;
use ergodic_common::TrialKey;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use ergodic_proto::v1::explain_finding::Finding;
use serde_json::json;

use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::render::{DocumentFormat, non_empty, print_stderr_line};
use crate::explanation_text::render_explanation;

/// `ergodic explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// A trial of the sweep, as cell/repeat
    pub trial: Option<TrialKey>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DocumentFormat,
}

/// Prints what became of a sweep or of one trial.
///
/// # Errors
/// There is no such sweep or trial, or nobody answers.
pub async fn run_explain(args: ExplainArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    print_output(explain_sweep(&mut client, &id, args.trial, args.format).await?)
}

fn is_about_missing_workers(finding: &v1::ExplainFinding) -> bool {
    matches!(finding.finding, Some(Finding::NoWorker(_)))
}

/// Runs `ergodic explain`.
///
/// # Errors
/// There is no such sweep or trial, or the coordinator does not respond.
pub async fn explain_sweep(
    client: &mut Client,
    sweep: &SweepId,
    trial: Option<TrialKey>,
    format: DocumentFormat,
) -> Result<String, UserError> {
    let request = v1::ExplainRequest {
        sweep: sweep.to_string(),
        trial: trial.map(Into::into),
    };
    let mut answer = client
        .sweeps
        .explain(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();

    if client.is_on_store() && answer.findings.iter().any(is_about_missing_workers) {
        answer
            .findings
            .retain(|finding| !is_about_missing_workers(finding));
        print_stderr_line(
            "a store does not tell which workers are joined: if a coordinator runs on it, `ergodic explain` with --coordinator URL does",
        );
    }

    let lines = render_explanation(&answer);
    Ok(match format {
        DocumentFormat::Json => {
            let trial = answer.trial.map(|key| TrialKey::from(key).to_string());
            let document = json!({
                "sweep": non_empty(&answer.sweep),
                "trial": trial,
                "lines": lines,
                "findings": answer.findings,
            });
            format!("{document}\n")
        }
        DocumentFormat::Table => lines
            .iter()
            .map(|line| format!("{}\n", escape_line(line)))
            .collect(),
    })
}
