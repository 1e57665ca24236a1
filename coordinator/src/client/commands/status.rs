//! `ergodic status`: one sweep, for people or as one record.

use ergodic_common::escape::escape_line;
use ergodic_common::spec_file::node::format_shortest;
use ergodic_proto::v1;
use serde_json::json;

use crate::client::render::{TableData, TextFormat, render_table_data};
use crate::client::status_text::{
    count_done_trials, expected_trials, format_audit_status, format_halving_status,
    format_precision_status, format_progress, format_sweep_size, launched_by, remaining_audits,
    status_word,
};

/// `ergodic status`
pub fn render_status(s: &v1::SweepStatus, format: TextFormat) -> String {
    let facts: Vec<(&str, serde_json::Value)> = vec![
        ("id", json!(s.id)),
        ("name", json!(s.name)),
        ("state", json!(status_word(s))),
        (
            "withheld",
            if s.withheld.is_empty() {
                json!(null)
            } else {
                json!(s.withheld)
            },
        ),
        ("priority", json!(s.priority)),
        ("weight", json!(s.weight)),
        ("launched_by", json!(launched_by(s))),
        ("numerics", json!(s.numerics)),
        ("data", json!(s.data)),
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
        ("audit", json!(s.audit.map_or(0.0, |audit| audit.share))),
        ("audits_due", json!(s.audit.map(|audit| audit.due))),
        ("audits_same", json!(s.audit.map(|audit| audit.same))),
        (
            "audits_different",
            json!(s.audit.map(|audit| audit.different)),
        ),
        ("audits_failed", json!(s.audit.map(|audit| audit.failed))),
        ("audits_left", json!(s.audit.as_ref().map(remaining_audits))),
        ("checkpoints", json!(s.checkpoints)),
        (
            "until_metric",
            json!(s.precision.as_ref().map(|p| &p.metric)),
        ),
        ("until_ci95", json!(s.precision.as_ref().map(|p| p.ci95))),
        (
            "least_repeats",
            json!(
                s.precision
                    .as_ref()
                    .map(|p| p.min)
                    .or(s.halving.as_ref().map(|h| h.min))
            ),
        ),
        (
            "cells_known",
            json!(s.precision.as_ref().map(|p| p.reached)),
        ),
        (
            "cells_exhausted",
            json!(s.precision.as_ref().map(|p| p.exhausted)),
        ),
        (
            "halving_metric",
            json!(s.halving.as_ref().map(|h| &h.metric)),
        ),
        (
            "halving_factor",
            json!(s.halving.as_ref().map(|h| h.factor)),
        ),
        ("rung", json!(s.halving.as_ref().map(|h| h.rung))),
        (
            "cells_standing",
            json!(s.halving.as_ref().map(|h| h.climbing)),
        ),
        ("cells_ready", json!(s.halving.as_ref().map(|h| h.ready))),
        ("expected_trials", json!(expected_trials(s))),
        ("workers", json!(s.workers)),
        ("slots", json!(s.slots)),
        ("rate", json!(s.rate)),
        ("eta_seconds", json!(s.eta_seconds)),
        ("best_cell", json!(s.best_cell)),
        (
            "best_mean",
            if s.best_n > 0 {
                json!(s.best_mean)
            } else {
                json!(null)
            },
        ),
        (
            "leader",
            if s.leader.is_empty() {
                json!(null)
            } else {
                json!(s.leader)
            },
        ),
        (
            "trouble",
            if s.trouble.is_empty() {
                json!(null)
            } else {
                json!(s.trouble)
            },
        ),
    ];

    if format == TextFormat::Json {
        let object: serde_json::Map<_, _> =
            facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        return format!("{}\n", serde_json::Value::Object(object));
    }

    let records = TableData {
        columns: facts.iter().map(|(k, _)| (*k).to_owned()).collect(),
        rows: vec![facts.into_iter().map(|(_, v)| v).collect()],
        key_columns: 0,
    };
    render_table_data(&records, format, |_| render_human_status(s))
}

fn render_human_status(s: &v1::SweepStatus) -> String {
    let mut out = format!(
        "{} ({}) is {}\n",
        escape_line(&s.name),
        s.id,
        status_word(s)
    );

    if !s.withheld.is_empty() {
        out += &format!("  NOTHING OF IT IS RUN: {}\n", escape_line(&s.withheld));
    }
    if s.unreadable {
        return out + &format!("  `ergodic rm {}` removes it\n", s.id);
    }

    out += &format!(
        "  {} on {}\n",
        format_sweep_size(s),
        escape_line(&s.numerics)
    );
    out += &format!("  data: {}\n", escape_line(&s.data));

    out += &launched_by(s).map_or_else(String::new, |by| {
        format!("  launched by {}\n", escape_line(by))
    });

    if (s.priority, s.weight) != (0, 1.0) {
        out += &format!(
            "  priority {}, weight {}\n",
            s.priority,
            format_shortest(s.weight)
        );
    }

    out += &format!(
        "  {} done, {} in leases  {}\n",
        count_done_trials(s),
        s.leased,
        format_progress(s)
    );

    if s.releases + s.duplicates + s.fenced > 0 {
        out += &format!(
            "  lost leases given out again: {}, results compared with a stored row: {}, late batches: {}\n",
            s.releases, s.duplicates, s.fenced
        );
    }

    let growth = format_precision_status(s).or(format_halving_status(s));
    out += &growth.map_or_else(String::new, |known| format!("  {known}\n"));
    out += &format_audit_status(s).map_or_else(String::new, |audits| format!("  {audits}\n"));

    if s.checkpoints > 0 {
        out += &format!(
            "  checkpoints of unfinished trials: {}; `explain {} CELL/REPEAT` says of which step\n",
            s.checkpoints, s.id
        );
    }

    if !s.leader.is_empty() {
        out += &format!(
            "  as it is stored; the coordinator at {} leads, and knows of workers and rates\n",
            escape_line(&s.leader)
        );
    }

    if !s.trouble.is_empty() {
        out += &format!(
            "  TROUBLE: the coordinator cannot store results: {}\n",
            escape_line(&s.trouble)
        );
    }

    if s.mismatches > 0 {
        out += &format!(
            "  ALARM: {} results differed from the stored row\n",
            s.mismatches
        );
    }

    out
}
