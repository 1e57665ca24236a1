//! Verdicts on the claims of a sweep: their query, and their rows for people and programs.

use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Map, Value, json};

use super::Client;
use super::render::{
    TableData, TextColumn, format_estimate, format_provenance, format_trial_count, non_empty,
};

/// Queries the verdicts on the claims of a sweep, or on those of a file, which has a name and a text.
///
/// # Errors
/// There is no such sweep or no claim, a claim cannot be evaluated, or nobody answers.
pub async fn query_verdicts(
    client: &mut Client,
    sweep: &SweepId,
    file: Option<(&str, String)>,
) -> Result<v1::VerdictResponse, UserError> {
    let (file, claims) = file.unwrap_or_default();
    let request = v1::VerdictRequest {
        sweep: sweep.to_string(),
        file: file.to_owned(),
        claims,
    };
    client
        .call(async |client| client.sweeps.verdict(request).await)
        .await
}

/// A verdict as it is printed.
pub fn verdict_word(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Agrees => "agrees",
        v1::Verdict::Disagrees => "disagrees",
        v1::Verdict::NotEnough | v1::Verdict::Unspecified => "not enough",
    }
}

/// Number of effects with this verdict.
pub fn count_verdicts(found: &v1::VerdictResponse, verdict: v1::Verdict) -> usize {
    let rows = found.rows.iter();
    rows.filter(|row| row.verdict() == verdict).count()
}

/// The verdict on all claims together: one that is contradicted is enough to contradict all.
pub fn join_verdicts(found: &v1::VerdictResponse) -> v1::Verdict {
    if count_verdicts(found, v1::Verdict::Disagrees) > 0 {
        v1::Verdict::Disagrees
    } else if count_verdicts(found, v1::Verdict::Agrees) == found.rows.len() {
        v1::Verdict::Agrees
    } else {
        v1::Verdict::NotEnough
    }
}

/// The names of the claims with this verdict, each once.
pub fn claims_with_verdict(found: &v1::VerdictResponse, verdict: v1::Verdict) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in found.rows.iter().filter(|row| row.verdict() == verdict) {
        if !names.contains(&row.claim.as_str()) {
            names.push(&row.claim);
        }
    }
    names
}

const COLUMNS: [&str; 17] = [
    "claim", "what", "cells", "form", "of", "verdict", "effect", "level", "alpha", "ci_low",
    "ci_high", "region", "n", "needed", "post_hoc", "control", "note",
];

/// Every field of every verdict.
pub fn build_verdict_data(found: &v1::VerdictResponse) -> TableData {
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
        json!(row.alpha),
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

/// What the verdicts are of, for programs.
pub fn describe_verdicts(found: &v1::VerdictResponse) -> Map<String, Value> {
    let hash = found.claims_hash.as_slice();
    let facts = [
        ("sweep", json!(found.sweep)),
        ("name", json!(found.name)),
        ("scale", json!(non_empty(&found.scale))),
        ("seed", json!(found.seed)),
        ("claims", json!(non_empty(&hex::encode(hash)))),
        ("trials", json!(found.trials)),
        ("done", json!(found.done)),
        ("data", json!(found.data)),
        ("numerics", json!(found.numerics)),
        ("verdict", json!(verdict_word(join_verdicts(found)))),
    ];
    let facts = facts.into_iter();
    facts.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Renders facts and rows as a JSON document, with a line for each fact and each row.
pub fn render_verdict_json(facts: &Map<String, Value>, rows: &TableData) -> String {
    let mut lines = String::new();
    for (key, value) in facts {
        lines += &format!("  {}: {value},\n", json!(key));
    }
    format!(
        "{{\n{lines}  \"rows\": [\n{}\n  ]\n}}\n",
        rows.to_json_lines()
    )
}

/// The header of [`format_verdict_row`].
pub const PRINTED_COLUMNS: [&str; 9] = [
    "verdict", "claim", "what", "cells", "effect", "interval", "region", "n", "",
];

/// The columns of [`format_verdict_row`]: what is claimed gives way before what was found.
pub fn describe_printed_columns() -> [TextColumn; 9] {
    [
        TextColumn::figure("verdict", 250),
        TextColumn::label("claim", 245),
        TextColumn::label("what", 40),
        TextColumn::label("cells", 200),
        TextColumn::figure("effect", 240),
        TextColumn::figure("interval", 235),
        TextColumn::figure("region", 230),
        TextColumn::figure("n", 225),
        TextColumn::remarks("note", 30),
    ]
}

/// The cells of a verdict for people.
pub fn format_verdict_row(row: &v1::ClaimRow) -> [String; 9] {
    let (effect, interval) = format_estimate(row.effect, row.low.zip(row.high));
    [
        verdict_word(row.verdict()).to_owned(),
        row.claim.clone(),
        non_empty(&row.what).map_or_else(|| row.of.join(", "), str::to_owned),
        row.cells.clone(),
        effect,
        interval,
        row.region.clone(),
        row.n.to_string(),
        describe_caveats(row),
    ]
}

/// What else there is to say about a verdict.
fn describe_caveats(row: &v1::ClaimRow) -> String {
    let needed = row.needed.map(|n| format!("about {n} repeats would do"));
    let notes = [
        row.control.then(|| "control, must be wrong".to_owned()),
        row.post_hoc.then(|| "post hoc".to_owned()),
        non_empty(&row.note).map(str::to_owned),
        needed,
    ];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    notes.join("; ")
}

/// Formats `3 agree, 0 disagree, 1 not enough`.
pub fn format_verdict_counts(found: &v1::VerdictResponse) -> String {
    let counts = [
        (v1::Verdict::Agrees, "agree"),
        (v1::Verdict::Disagrees, "disagree"),
        (v1::Verdict::NotEnough, "not enough"),
    ];
    let counts = counts.map(|(verdict, word)| format!("{} {word}", count_verdicts(found, verdict)));
    counts.join(", ")
}

/// The lines below verdicts: what the intervals are, and what the trials are of.
pub fn format_verdict_legend(found: &v1::VerdictResponse) -> String {
    format!(
        "{}\n{}",
        describe_levels(&found.rows),
        format_provenance(
            &format_trial_count(found.done, found.trials),
            &found.data,
            &found.numerics
        )
    )
}

/// What the intervals are, if they are all of one level.
pub fn describe_levels(rows: &[v1::ClaimRow]) -> String {
    let level = rows.first().map_or(0.9, |row| row.level);
    let rule = "a claim agrees if the interval lies in its region, and disagrees if it lies outside, with Holm's correction";
    if rows.iter().all(|row| row.level == level) {
        format!("interval: {:.0} % CI; {rule}", 100.0 * level)
    } else {
        rule.to_owned()
    }
}

/// Formats `decay (tt6azdt2)`.
pub fn format_verdict_title(found: &v1::VerdictResponse) -> String {
    format!("{} ({})", escape_line(&found.name), found.sweep)
}

#[cfg(test)]
mod tests {
    use crate::client::render::{TableLayout, fit_described_rows};
    use crate::client::verdicts::*;

    fn found(verdicts: &[v1::Verdict]) -> v1::VerdictResponse {
        let row = |verdict: &v1::Verdict| v1::ClaimRow {
            verdict: (*verdict).into(),
            claim: verdict_word(*verdict).to_owned(),
            ..v1::ClaimRow::default()
        };
        v1::VerdictResponse {
            rows: verdicts.iter().map(row).collect(),
            ..v1::VerdictResponse::default()
        }
    }

    #[test]
    fn the_verdict_on_all_is_that_of_the_worst_claim() {
        use v1::Verdict::{Agrees, Disagrees, NotEnough};
        for (verdicts, joined) in [
            (&[Agrees, Agrees][..], Agrees),
            (&[Agrees, NotEnough], NotEnough),
            (&[Agrees, NotEnough, Disagrees], Disagrees),
        ] {
            assert_eq!(join_verdicts(&found(verdicts)), joined);
        }
        let several = found(&[Agrees, NotEnough, Agrees, Agrees]);
        assert_eq!(claims_with_verdict(&several, Agrees), ["agrees"]);
        assert_eq!(
            format_verdict_counts(&several),
            "3 agree, 0 disagree, 1 not enough"
        );
    }

    #[test]
    fn what_was_found_is_shown_at_eighty_columns() {
        let row = v1::ClaimRow {
            claim: "the schedule cuts the effective learning rate by ten".into(),
            what: "ratio of the effective learning rate after the step and before it".into(),
            cells: "train.lr = 0.1, train.wd = 5e-4, model.norm = batch".into(),
            effect: Some(0.1012),
            low: Some(0.0987),
            high: Some(0.1042),
            region: "[0.09, 0.11]".into(),
            n: 12,
            verdict: v1::Verdict::NotEnough.into(),
            post_hoc: true,
            ..v1::ClaimRow::default()
        };
        let cells = format_verdict_row(&row).map(Value::String).to_vec();
        let layout = TableLayout {
            width: Some(80),
            colours: false,
        };
        let text = fit_described_rows(describe_printed_columns().to_vec(), &[cells], layout);
        for shown in [
            "not enough",
            "the s",
            "0.1012",
            "0.0987 … 0.1042",
            "[0.09, 0.11]",
            " 12",
        ] {
            assert!(text.contains(shown), "{shown}: {text}");
        }
        assert!(
            text.contains("not shown: ") && !text.contains(", ;"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }

    #[test]
    fn the_json_document_has_facts_and_rows() {
        let verdicts = v1::VerdictResponse {
            seed: 7,
            claims_hash: vec![0xab; 32],
            ..found(&[v1::Verdict::Agrees])
        };
        let text = render_verdict_json(
            &describe_verdicts(&verdicts),
            &build_verdict_data(&verdicts),
        );
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["seed"], 7);
        assert_eq!(read["scale"], Value::Null);
        assert_eq!(read["claims"], "ab".repeat(32));
        assert_eq!(read["rows"][0]["verdict"], "agrees");
    }
}
