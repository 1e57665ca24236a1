//! `ergodic verdict`: judges the claims about a sweep.

use std::io::ErrorKind;
use std::path::Path;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::spec::MAX_TEXT_BYTES;
use ergodic_proto::limited_file::read_limited_text;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::Value;

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::render::{TextFormat, render_described_rows, render_table_data};
use crate::client::verdicts::{
    build_verdict_data, describe_printed_columns, describe_verdicts, format_verdict_counts,
    format_verdict_legend, format_verdict_row, format_verdict_title, join_verdicts, query_verdicts,
    render_verdict_json,
};

/// `ergodic verdict`
#[derive(Debug, Args)]
pub struct VerdictArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// File of claims.
    #[arg(
        long,
        help = "File with [quantity] and [[claim]], or a sweep file; its claims are marked post hoc [default: the claims of the sweep]",
        value_name = "FILE"
    )]
    pub claims: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Judges claims and prints the verdicts.
///
/// # Errors
/// There is no such sweep or no claim, a claim cannot be evaluated, or nobody answers.
pub async fn run_verdict(args: VerdictArgs) -> Result<CommandOutcome, UserError> {
    let claims = args.claims.as_deref().map(read_claims).transpose()?;
    let (mut client, id) = args.sweep.connect().await?;
    let file = args.claims.as_deref().zip(claims);
    let found = query_verdicts(&mut client, &id, file).await?;

    print_output(render_verdicts(&found, args.format))?;
    Ok(outcome_of_verdict(join_verdicts(&found)))
}

fn read_claims(path: &str) -> Result<String, UserError> {
    read_limited_text(Path::new(path), MAX_TEXT_BYTES as u64).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::NotFound => format!("--claims: there is no file '{path}'"),
            ErrorKind::IsADirectory => {
                format!("--claims: expected a file, found the directory '{path}'")
            }
            ErrorKind::InvalidData => format!("--claims: '{path}' is not text in UTF-8"),
            _ => format!("--claims: cannot read '{path}': {error}"),
        };
        UserError::new(ErrorCode::BadInput, message)
    })
}

/// The outcome of a command that judged claims.
pub fn outcome_of_verdict(verdict: v1::Verdict) -> CommandOutcome {
    match verdict {
        v1::Verdict::Agrees => CommandOutcome::Done,
        v1::Verdict::Disagrees => CommandOutcome::ClaimsDisagree,
        v1::Verdict::NotEnough | v1::Verdict::Unspecified => CommandOutcome::ClaimsUndecided,
    }
}

fn render_verdicts(found: &v1::VerdictResponse, format: TextFormat) -> String {
    let records = build_verdict_data(found);
    match format {
        TextFormat::Json => render_verdict_json(&describe_verdicts(found), &records),
        _ => render_table_data(&records, format, |_| render_human_verdicts(found)),
    }
}

fn render_human_verdicts(found: &v1::VerdictResponse) -> String {
    let rows = found.rows.iter().map(format_verdict_row);
    let rows: Vec<Vec<Value>> = rows.map(|row| row.map(Value::String).to_vec()).collect();
    format!(
        "{}: {}\n{}{}",
        format_verdict_title(found),
        format_verdict_counts(found),
        render_described_rows(describe_printed_columns().to_vec(), &rows),
        format_verdict_legend(found)
    )
}
