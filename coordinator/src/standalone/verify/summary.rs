//! What is found of all experiments together.

use std::path::Path;

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use super::findings::ExperimentFindings;
use crate::app::CommandOutcome;
use crate::client::commands::verdict::outcome_of_verdict;
use crate::client::render::{TableData, TextFormat, render_table_data, write_atomic_file};
use crate::client::utc::format_utc_date;
use crate::client::verdicts::{
    build_verdict_data, claims_with_verdict, format_verdict_row, join_verdicts,
};

/// The outcome of the command: a claim that disagrees counts more than one that is not decided, and that more than a failed trial.
pub(super) fn outcome_of_findings(all: &[ExperimentFindings<'_>]) -> CommandOutcome {
    for verdict in [v1::Verdict::Disagrees, v1::Verdict::NotEnough] {
        if count_experiments(all, verdict) > 0 {
            return outcome_of_verdict(verdict);
        }
    }
    match all.iter().any(|findings| findings.status.failed > 0) {
        true => CommandOutcome::TrialsFailed,
        false => CommandOutcome::Done,
    }
}

/// Renders what was found, in a format. For people, the verdicts were printed as they were found, and only the last line is left.
pub(super) fn render_findings(all: &[ExperimentFindings<'_>], format: TextFormat) -> String {
    match format {
        TextFormat::Table => format!("{}\n", format_summary(all)),
        TextFormat::Json => render_json(all),
        TextFormat::Csv => build_whole_table(all).to_csv(),
        TextFormat::Md | TextFormat::Latex => {
            render_table_data(&build_short_table(all), format, |_| String::new())
        }
    }
}

/// Writes the table of all verdicts, `verdicts.md`, into a directory.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write_verdict_table(
    dir: &Path,
    all: &[ExperimentFindings<'_>],
) -> Result<(), UserError> {
    let table = build_short_table(all).to_markdown();
    write_atomic_file(&dir.join("verdicts.md"), table.as_bytes())
}

fn count_experiments(all: &[ExperimentFindings<'_>], verdict: v1::Verdict) -> usize {
    let joined = all.iter().map(|findings| join_verdicts(&findings.verdicts));
    joined.filter(|found| *found == verdict).count()
}

/// Formats `11 of 13 experiments agree; 1 disagrees: 09-too-soon (the control); 1 not enough: 12-depth (the gain)`.
fn format_summary(all: &[ExperimentFindings<'_>]) -> String {
    let agree = count_experiments(all, v1::Verdict::Agrees);
    let verb = if agree == 1 || all.len() == 1 {
        "agrees"
    } else {
        "agree"
    };
    let experiments = format_count(all.len() as u64, "experiment");
    let mut out = format!("{agree} of {experiments} {verb}");
    for (verdict, one, several) in [
        (v1::Verdict::Disagrees, "disagrees", "disagree"),
        (v1::Verdict::NotEnough, "not enough", "not enough"),
    ] {
        let count = count_experiments(all, verdict);
        if count > 0 {
            let word = if count == 1 { one } else { several };
            out += &format!("; {count} {word}: {}", name_experiments(all, verdict));
        }
    }
    out
}

/// Names the experiments with a verdict, each with the claims that have it.
fn name_experiments(all: &[ExperimentFindings<'_>], verdict: v1::Verdict) -> String {
    let named = all
        .iter()
        .filter(|findings| join_verdicts(&findings.verdicts) == verdict)
        .map(|findings| {
            let claims = claims_with_verdict(&findings.verdicts, verdict).join(", ");
            escape_line(&format!("{} ({claims})", findings.experiment.label)).into_owned()
        });
    named.collect::<Vec<_>>().join(", ")
}

fn render_json(all: &[ExperimentFindings<'_>]) -> String {
    let mut documents = Vec::with_capacity(all.len());
    for findings in all {
        let mut facts = findings.describe_facts();
        let rows = build_verdict_data(&findings.verdicts).to_json_objects();
        facts.insert("rows".to_owned(), json!(rows));
        documents.push(format!("    {}", Value::Object(facts)));
    }

    format!(
        "{{\n  \"agree\": {},\n  \"disagree\": {},\n  \"not_enough\": {},\n  \"experiments\": [\n{}\n  ]\n}}\n",
        count_experiments(all, v1::Verdict::Agrees),
        count_experiments(all, v1::Verdict::Disagrees),
        count_experiments(all, v1::Verdict::NotEnough),
        documents.join(",\n")
    )
}

/// Every field of every verdict, behind the experiment and its sweep.
fn build_whole_table(all: &[ExperimentFindings<'_>]) -> TableData {
    let mut table = TableData::default();
    for findings in all {
        let data = build_verdict_data(&findings.verdicts);
        let found = &findings.verdicts;
        for row in data.rows {
            let mut cells = vec![
                json!(findings.experiment.label),
                json!(found.sweep),
                json!(found.scale),
                json!(found.seed),
                json!(found.numerics),
            ];
            cells.extend(row);
            table.rows.push(cells);
        }
        let own = ["experiment", "sweep", "scale", "seed", "numerics"].map(str::to_owned);
        table.columns = own.into_iter().chain(data.columns).collect();
    }
    table
}

const SHORT_COLUMNS: [&str; 12] = [
    "experiment",
    "claim",
    "cells",
    "verdict",
    "effect",
    "interval",
    "region",
    "n",
    "note",
    "date",
    "scale",
    "numerics",
];

/// The verdicts as they are printed, for a README or a paper. The date is that of the launch.
fn build_short_table(all: &[ExperimentFindings<'_>]) -> TableData {
    let mut rows = Vec::new();
    for findings in all {
        let found = &findings.verdicts;
        for row in &found.rows {
            let [verdict, claim, _, cells, effect, interval, region, n, note] =
                format_verdict_row(row);
            let cells = [
                findings.experiment.label.clone(),
                claim,
                cells,
                verdict,
                effect,
                interval,
                region,
                n,
                note,
                format_utc_date(findings.status.launched_at),
                found.scale.clone(),
                found.numerics.clone(),
            ];
            rows.push(cells.into_iter().map(Value::String).collect());
        }
    }
    TableData::from_rows(&SHORT_COLUMNS, rows)
}

#[cfg(test)]
mod tests {
    use v1::Verdict::{Agrees, Disagrees, NotEnough};

    use crate::standalone::verify::findings::tests::{made_up_experiment, made_up_findings};
    use crate::standalone::verify::summary::*;

    #[test]
    fn the_last_line_counts_experiments_and_names_those_that_do_not_agree() {
        let experiments = ["a", "b", "c"].map(made_up_experiment);
        let [a, b, c] = &experiments;
        let mut all = vec![made_up_findings(a, Agrees), made_up_findings(b, Agrees)];
        assert_eq!(format_summary(&all), "2 of 2 experiments agree");
        let one = [made_up_findings(a, NotEnough)];
        assert_eq!(
            format_summary(&one),
            "0 of 1 experiment agrees; 1 not enough: a (the jump)"
        );
        assert!(matches!(outcome_of_findings(&all), CommandOutcome::Done));
        all[0].status.failed = 1;
        assert!(matches!(
            outcome_of_findings(&all),
            CommandOutcome::TrialsFailed
        ));

        all[1] = made_up_findings(b, NotEnough);
        assert!(matches!(
            outcome_of_findings(&all),
            CommandOutcome::ClaimsUndecided
        ));
        all.push(made_up_findings(c, Disagrees));
        assert!(matches!(
            outcome_of_findings(&all),
            CommandOutcome::ClaimsDisagree
        ));
        assert_eq!(
            format_summary(&all),
            "1 of 3 experiments agrees; 1 disagrees: c (the jump); 1 not enough: b (the jump)"
        );
    }

    #[test]
    fn each_format_has_every_verdict() {
        let experiment = made_up_experiment("a");
        let all = [made_up_findings(&experiment, Disagrees)];
        let table = render_findings(&all, TextFormat::Md);
        let last = "| a | the jump | lr=0.2 | disagrees | 9.9821 | 9.9810 … 9.9832 | in [9.5, 10.5] | 10 | small n | 2026-11-28 | desk | cpu-f32/6 |";
        assert_eq!(table.lines().last(), Some(last));

        let document: Value =
            serde_json::from_str(&render_findings(&all, TextFormat::Json)).expect("JSON");
        assert_eq!(document["disagree"], 1);
        assert_eq!(
            document["experiments"][0]["rows"][1]["verdict"],
            "disagrees"
        );
        assert_eq!(document["experiments"][0]["scale"], "desk");
        let csv = render_findings(&all, TextFormat::Csv);
        assert!(
            csv.starts_with("experiment,sweep,scale,seed,numerics,claim,"),
            "{csv}"
        );
        assert_eq!(csv.lines().count(), 3);
    }
}
