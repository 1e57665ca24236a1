//! `ergodic verdict`: judges the claims about a sweep.

use std::io::ErrorKind;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::render::{
    TableData, TextFormat, format_estimate, format_provenance, format_trial_count, non_empty,
    render_human_rows, render_table_data,
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
        help = "File with [quantity] and [[claim]]; its claims are marked post hoc [default: the claims of the sweep]",
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
    let claims = match &args.claims {
        Some(path) => read_claims(path)?,
        None => String::new(),
    };
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::VerdictRequest {
        sweep: id.to_string(),
        file: args.claims.unwrap_or_default(),
        claims,
    };
    let found = client
        .call(async |client| client.sweeps.verdict(request).await)
        .await?;

    print_output(render_verdicts(&found, args.format))?;
    Ok(overall_outcome(&found))
}

fn read_claims(path: &str) -> Result<String, UserError> {
    std::fs::read_to_string(path).map_err(|error| {
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

/// One claim that is contradicted is enough to contradict all together.
fn overall_outcome(found: &v1::VerdictResponse) -> CommandOutcome {
    if count_verdicts(found, v1::Verdict::Disagrees) > 0 {
        CommandOutcome::ClaimsDisagree
    } else if count_verdicts(found, v1::Verdict::Agrees) == found.rows.len() {
        CommandOutcome::Done
    } else {
        CommandOutcome::ClaimsUndecided
    }
}

fn render_verdicts(found: &v1::VerdictResponse, format: TextFormat) -> String {
    let records = build_verdict_data(found);
    if format == TextFormat::Json {
        return format!(
            "{{\n  \"sweep\": {},\n  \"numerics\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(found.sweep),
            json!(found.numerics),
            records.to_json_lines()
        );
    }

    render_table_data(&records, format, |_| render_human_verdicts(found))
}

fn verdict_word(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Agrees => "agrees",
        v1::Verdict::Disagrees => "disagrees",
        v1::Verdict::NotEnough | v1::Verdict::Unspecified => "not enough",
    }
}

const COLUMNS: [&str; 16] = [
    "claim", "what", "cells", "form", "of", "verdict", "effect", "level", "ci_low", "ci_high",
    "region", "n", "needed", "post_hoc", "control", "note",
];

fn build_verdict_data(found: &v1::VerdictResponse) -> TableData {
    TableData {
        columns: COLUMNS.map(str::to_owned).to_vec(),
        rows: found.rows.iter().map(build_verdict_row).collect(),
        key_columns: 3,
    }
}

fn build_verdict_row(row: &v1::ClaimRow) -> Vec<Value> {
    vec![
        json!(row.claim),
        json!(non_empty(&row.what)),
        json!(non_empty(&row.cells)),
        json!(row.form),
        json!(row.of.join(", ")),
        json!(verdict_word(row.verdict())),
        json!(row.effect),
        json!(row.level),
        json!(row.low),
        json!(row.high),
        json!(row.region),
        json!(row.n),
        json!(row.needed),
        json!(row.post_hoc),
        json!(row.control),
        json!(non_empty(&row.note)),
    ]
}

fn count_verdicts(found: &v1::VerdictResponse, verdict: v1::Verdict) -> usize {
    let rows = found.rows.iter();
    rows.filter(|row| row.verdict() == verdict).count()
}

fn render_human_verdicts(found: &v1::VerdictResponse) -> String {
    let [agree, disagree, open] = [
        v1::Verdict::Agrees,
        v1::Verdict::Disagrees,
        v1::Verdict::NotEnough,
    ]
    .map(|verdict| count_verdicts(found, verdict));

    let header = [
        "verdict", "claim", "what", "cells", "effect", "interval", "region", "n", "",
    ];
    let rows: Vec<Vec<Value>> = found.rows.iter().map(format_verdict_row).collect();
    format!(
        "{} ({}): {agree} agree, {disagree} disagree, {open} not enough\n{}{}\n{}",
        escape_line(&found.name),
        found.sweep,
        render_human_rows(&header.map(str::to_owned), &rows),
        describe_levels(&found.rows),
        format_provenance(
            &format_trial_count(found.done, found.trials),
            &found.data,
            &found.numerics
        )
    )
}

fn format_verdict_row(row: &v1::ClaimRow) -> Vec<Value> {
    let (effect, interval) = format_estimate(row.effect, row.low.zip(row.high));
    let what = non_empty(&row.what).map_or_else(|| row.of.join(", "), str::to_owned);
    let needed = row.needed.map(|n| format!("about {n} repeats would do"));
    let notes = [
        row.control.then(|| "control, must be wrong".to_owned()),
        row.post_hoc.then(|| "post hoc".to_owned()),
        non_empty(&row.note).map(str::to_owned),
        needed,
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();

    let cells = [
        verdict_word(row.verdict()).to_owned(),
        row.claim.clone(),
        what,
        row.cells.clone(),
        effect,
        interval,
        row.region.clone(),
        row.n.to_string(),
        notes.join("; "),
    ];
    cells.into_iter().map(Value::String).collect()
}

/// What the intervals are, if they are all of one level.
fn describe_levels(rows: &[v1::ClaimRow]) -> String {
    let level = rows.first().map_or(0.9, |row| row.level);
    let rule = "a claim agrees if the interval lies in its region, and disagrees if it lies outside, with Holm's correction";
    if rows.iter().all(|row| row.level == level) {
        format!("interval: {:.0} % CI; {rule}", 100.0 * level)
    } else {
        rule.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(verdicts: &[v1::Verdict]) -> v1::VerdictResponse {
        let row = |verdict: &v1::Verdict| v1::ClaimRow {
            verdict: (*verdict).into(),
            ..v1::ClaimRow::default()
        };
        v1::VerdictResponse {
            rows: verdicts.iter().map(row).collect(),
            ..v1::VerdictResponse::default()
        }
    }

    #[test]
    fn the_outcome_is_that_of_the_worst_claim() {
        use v1::Verdict::{Agrees, Disagrees, NotEnough};
        let outcome = |verdicts: &[v1::Verdict]| overall_outcome(&found(verdicts));
        assert!(matches!(outcome(&[Agrees, Agrees]), CommandOutcome::Done));
        assert!(matches!(
            outcome(&[Agrees, NotEnough]),
            CommandOutcome::ClaimsUndecided
        ));
        assert!(matches!(
            outcome(&[Agrees, NotEnough, Disagrees]),
            CommandOutcome::ClaimsDisagree
        ));
    }
}
