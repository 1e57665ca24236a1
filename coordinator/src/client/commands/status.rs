//! `ergodic status`: prints the status of one sweep, for people or as one record.

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{format_count, format_shortest};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Map, Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::query::query_status;
use crate::client::render::{TableData, TextFormat, non_empty, render_table_data};
use crate::client::status_text::{
    StatusSource, count_done_trials, expected_trials, format_audit_status, format_halving_status,
    format_precision_status, format_progress, format_sweep_size, launched_by, remaining_audits,
    status_word,
};
use crate::client::wait_reason::{is_waiting, query_wait_reason};

/// Runs `ergodic status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Prints the status of a sweep.
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub async fn run_status(args: StatusArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let status = query_status(&mut client, &id).await?;
    let asks_why = args.format == TextFormat::Table && !client.is_on_store() && is_waiting(&status);
    let wait_reason = match asks_why {
        // The reason is an addition, so a status is shown without it.
        true => query_wait_reason(&mut client, &id).await.ok().flatten(),
        false => None,
    };

    print_output(match args.format {
        TextFormat::Table => {
            render_human_status(&status, StatusSource::of_client(&client), wait_reason)
        }
        format => render_status(&status, format),
    })
}

/// The status of a sweep that a coordinator told, in a format.
pub fn render_status(s: &v1::SweepStatus, format: TextFormat) -> String {
    let fields = status_fields(s);
    if format == TextFormat::Json {
        let object: Map<_, _> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        return format!("{}\n", Value::Object(object));
    }

    let data = TableData {
        columns: fields.iter().map(|(k, _)| (*k).to_owned()).collect(),
        rows: vec![fields.into_iter().map(|(_, v)| v).collect()],
        key_columns: 0,
    };
    render_table_data(&data, format, |_| {
        render_human_status(s, StatusSource::Coordinator, None)
    })
}

type NamedValue = (&'static str, Value);

/// All fields of a sweep's status for machines, in the order of the columns.
fn status_fields(s: &v1::SweepStatus) -> Vec<NamedValue> {
    let mut fields = identity_fields(s);
    fields.extend(count_fields(s));
    fields.extend(audit_fields(s));
    fields.extend(stopping_rule_fields(s));
    fields.extend(progress_fields(s));
    fields
}

fn identity_fields(s: &v1::SweepStatus) -> Vec<NamedValue> {
    vec![
        ("id", json!(s.id)),
        ("name", json!(s.name)),
        ("state", json!(status_word(s))),
        ("withheld", json!(non_empty(&s.withheld))),
        ("priority", json!(s.priority)),
        ("weight", json!(s.weight)),
        ("launched_by", json!(launched_by(s))),
        ("numerics", json!(s.numerics)),
        ("data", json!(s.data)),
    ]
}

fn count_fields(s: &v1::SweepStatus) -> [NamedValue; 12] {
    [
        ("cells", json!(s.cells)),
        ("repeats", json!(s.repeats)),
        ("trials", json!(s.trials)),
        ("done", json!(count_done_trials(s))),
        ("completed", json!(s.completed)),
        ("diverged", json!(s.diverged)),
        ("failed", json!(s.failed)),
        ("leased", json!(s.leased)),
        ("releases", json!(s.releases)),
        ("duplicates", json!(s.duplicates)),
        ("mismatches", json!(s.mismatches)),
        ("fenced", json!(s.fenced)),
    ]
}

fn audit_fields(s: &v1::SweepStatus) -> [NamedValue; 6] {
    let audit = s.audit.as_ref();
    [
        ("audit", json!(audit.map_or(0.0, |audit| audit.share))),
        ("audits_due", json!(audit.map(|audit| audit.due))),
        ("audits_same", json!(audit.map(|audit| audit.same))),
        (
            "audits_different",
            json!(audit.map(|audit| audit.different)),
        ),
        ("audits_failed", json!(audit.map(|audit| audit.failed))),
        ("audits_left", json!(audit.map(remaining_audits))),
    ]
}

/// Fields about the stopping rule and its progress.
fn stopping_rule_fields(s: &v1::SweepStatus) -> Vec<NamedValue> {
    let precision = s.precision.as_ref();
    let halving = s.halving.as_ref();
    let min_repeats = precision.map(|p| p.min).or(halving.map(|h| h.min));

    vec![
        ("checkpoints", json!(s.checkpoints)),
        ("until_metric", json!(precision.map(|p| &p.metric))),
        ("until_ci95", json!(precision.map(|p| p.ci95))),
        ("least_repeats", json!(min_repeats)),
        ("cells_known", json!(precision.map(|p| p.reached))),
        ("cells_exhausted", json!(precision.map(|p| p.exhausted))),
        ("halving_metric", json!(halving.map(|h| &h.metric))),
        ("halving_factor", json!(halving.map(|h| h.factor))),
        ("rung", json!(halving.map(|h| h.rung))),
        ("cells_standing", json!(halving.map(|h| h.climbing))),
        ("cells_ready", json!(halving.map(|h| h.ready))),
        ("expected_trials", json!(expected_trials(s))),
    ]
}

fn progress_fields(s: &v1::SweepStatus) -> [NamedValue; 8] {
    let best_mean = Some(s.best_mean).filter(|_| s.best_n > 0);
    [
        ("workers", json!(s.workers)),
        ("slots", json!(s.slots)),
        ("rate", json!(s.rate)),
        ("eta_seconds", json!(s.eta_seconds)),
        ("best_cell", json!(s.best_cell)),
        ("best_mean", json!(best_mean)),
        ("leader", json!(non_empty(&s.leader))),
        ("trouble", json!(non_empty(&s.trouble))),
    ]
}

/// The status for people. `wait_reason` says why none of the trials runs.
fn render_human_status(
    s: &v1::SweepStatus,
    source: StatusSource,
    wait_reason: Option<String>,
) -> String {
    let mut out = format!(
        "{} ({}) is {}\n",
        escape_line(&s.name),
        s.id,
        status_word(s)
    );

    if !s.withheld.is_empty() {
        out += &format!(
            "  NONE OF ITS TRIALS ARE RUN: {}\n",
            escape_line(&s.withheld)
        );
    }
    if s.unreadable {
        return out + &format!("  `ergodic rm {}` removes it\n", s.id);
    }

    for line in describe_content(s)
        .into_iter()
        .chain(describe_progress(s, source))
        .chain(wait_reason.map(|why| escape_line(&why).into_owned()))
        .chain(describe_trouble(s))
    {
        out += &format!("  {line}\n");
    }

    out
}

/// Describes the size of a sweep, its data, and its share of the workers.
fn describe_content(s: &v1::SweepStatus) -> Vec<String> {
    let mut lines = vec![
        format!("{} on {}", format_sweep_size(s), escape_line(&s.numerics)),
        format!("data: {}", escape_line(&s.data)),
    ];

    if let Some(by) = launched_by(s) {
        lines.push(format!("launched by {}", escape_line(by)));
    }

    if (s.priority, s.weight) != (0, 1.0) {
        let weight = format_shortest(s.weight);
        lines.push(format!("priority {}, weight {weight}", s.priority));
    }

    lines
}

fn describe_progress(s: &v1::SweepStatus, source: StatusSource) -> Vec<String> {
    let mut lines = vec![format!(
        "{} done, {} in leases  {}",
        count_done_trials(s),
        s.leased,
        format_progress(s, source)
    )];

    if s.releases + s.duplicates + s.fenced > 0 {
        lines.push(format!(
            "lost leases reassigned: {}, results compared with a stored row: {}, late batches: {}",
            s.releases, s.duplicates, s.fenced
        ));
    }

    lines.extend(format_precision_status(s).or(format_halving_status(s)));
    lines.extend(format_audit_status(s));

    if s.checkpoints > 0 {
        lines.push(format!(
            "checkpoints of unfinished trials: {}; `ergodic explain {} CELL/REPEAT` shows the step",
            s.checkpoints, s.id
        ));
    }

    lines
}

/// Describes problems of this answer or of the sweep.
fn describe_trouble(s: &v1::SweepStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if !s.leader.is_empty() {
        lines.push(format!(
            "this is what the store holds; only the leader, at {}, knows workers and rates",
            escape_line(&s.leader)
        ));
    }

    if !s.trouble.is_empty() {
        lines.push(format!(
            "TROUBLE: the coordinator cannot store results: {}",
            escape_line(&s.trouble)
        ));
    }

    if s.mismatches > 0 && s.may_differ {
        lines.push(format!(
            "{} of trials that ran twice differed from the stored row, as results of a program may",
            format_count(s.mismatches, "result")
        ));
    } else if s.mismatches > 0 {
        lines.push(format!(
            "ALARM: {} differed from the stored row",
            format_count(s.mismatches, "result")
        ));
    }

    lines
}

#[cfg(test)]
mod tests {
    use crate::client::commands::status::*;

    #[test]
    fn why_nothing_runs_stands_below_the_progress() {
        let waiting = v1::SweepStatus {
            name: "lr".to_owned(),
            id: "abcdefgh".to_owned(),
            state: v1::SweepState::Running.into(),
            ..v1::SweepStatus::default()
        };
        assert!(is_waiting(&waiting));
        let why = Some("waits: xyz has a higher priority".to_owned());
        let text = render_human_status(&waiting, StatusSource::Coordinator, why);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.contains("no worker yet"));
        assert_eq!(
            at.map(|at| lines[at + 1]),
            Some("  waits: xyz has a higher priority"),
            "{text}"
        );
    }
}
