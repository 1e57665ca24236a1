//! `ergodic list`: lists the sweeps of a coordinator or store.

use chrono::{DateTime, Local, TimeDelta};
use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::app::{CommandOutcome, print_output};
use crate::client::query::query_sweeps;
use crate::client::render::{
    TableData, TextColumn, TextFormat, render_described_rows, render_table_data, shorten_in_middle,
};
use crate::client::source::SourceArgs;
use crate::client::status_text::{count_done_trials, launched_by, status_word};
use crate::client::utc::format_utc;

/// Columns for programs.
const COLUMNS: [&str; 13] = [
    "id",
    "name",
    "state",
    "cells",
    "repeats",
    "trials",
    "done",
    "diverged",
    "failed",
    "priority",
    "weight",
    "launched_by",
    "launched_at",
];
/// Width of a table for people, in characters.
const TABLE_WIDTH: usize = 80;
/// Characters around and between the columns of a table: one on each side, and three between two.
const COLUMN_GAP: usize = 3;
/// Age from which a date has the year instead of the time of day, in days.
const OLD_DAYS: i64 = 180;

/// `ergodic list`
#[derive(Debug, Args)]
pub struct SweepListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: SourceArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Lists sweeps.
///
/// # Errors
/// Nobody answers, or the store cannot be read.
pub async fn run_list(args: SweepListArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    let sweeps = query_sweeps(&mut client).await?;
    if sweeps.is_empty() && args.format == TextFormat::Table {
        return print_output("no sweep yet: launch one with `ergodic launch SPEC`\n".into());
    }

    let data = TableData::from_rows(
        &COLUMNS,
        sweeps
            .iter()
            .map(|sweep| build_sweep_row(sweep, args.format))
            .collect(),
    );
    print_output(render_table_data(&data, args.format, |_| {
        render_sweep_list(&sweeps, Local::now())
    }))
}

fn build_sweep_row(s: &v1::SweepStatus, format: TextFormat) -> Vec<Value> {
    let launched_at = match format {
        // A number of so many seconds would be rounded in a document.
        TextFormat::Md | TextFormat::Latex => json!(format_utc(s.launched_at)),
        TextFormat::Table | TextFormat::Json | TextFormat::Csv => json!(s.launched_at),
    };
    vec![
        json!(s.id),
        json!(s.name),
        json!(status_word(s)),
        json!(s.cells),
        json!(s.repeats),
        json!(s.trials),
        json!(count_done_trials(s)),
        json!(s.diverged),
        json!(s.failed),
        json!(s.priority),
        json!(s.weight),
        json!(launched_by(s)),
        launched_at,
    ]
}

/// Renders sweeps for people, in lines of [`TABLE_WIDTH`] characters at most.
fn render_sweep_list(sweeps: &[v1::SweepStatus], now: DateTime<Local>) -> String {
    let has_failures = sweeps.iter().any(|sweep| sweep.failed > 0);
    let mut columns = vec!["launched", "by", "name", "id", "state", "done"];
    if has_failures {
        columns.push("failed");
    }

    let mut rows: Vec<Vec<String>> = sweeps
        .iter()
        .map(|sweep| {
            let mut row = vec![
                format_launch_time(sweep.launched_at, now),
                escape_line(launched_by(sweep).unwrap_or("–")).into_owned(),
                escape_line(&sweep.name).into_owned(),
                sweep.id.clone(),
                status_word(sweep).to_owned(),
                format!("{}/{}", count_done_trials(sweep), sweep.trials),
            ];
            if has_failures {
                row.push(sweep.failed.to_string());
            }
            row
        })
        .collect();
    fit_owners_and_names(&columns, &mut rows);

    let described = columns.iter().map(|name| describe_column(name)).collect();
    let rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(Value::String).collect())
        .collect();
    render_described_rows(described, &rows)
}

/// Describes a column for people: what names a sweep and says how far it is goes last.
fn describe_column(name: &str) -> TextColumn {
    match name {
        "name" => TextColumn::label(name, 230),
        "id" => TextColumn::figure(name, 250),
        "state" => TextColumn::figure(name, 240),
        "done" => TextColumn::figure(name, 220),
        "failed" => TextColumn::figure(name, 210),
        "by" => TextColumn::label(name, 20),
        _ => TextColumn::figure(name, 30),
    }
}

/// Formats `29 Nov 19:12` or, if that was long ago, `29 Nov 2024`, in the time zone of this machine.
fn format_launch_time(seconds: f64, now: DateTime<Local>) -> String {
    let Some(at) = DateTime::from_timestamp(seconds as i64, 0).filter(|_| seconds > 0.0) else {
        return "–".to_owned();
    };
    let at = at.with_timezone(&Local);
    let format = match now.signed_duration_since(at) < TimeDelta::days(OLD_DAYS) {
        true => "%d %b %H:%M",
        false => "%d %b %Y",
    };
    at.format(format).to_string()
}

/// Position of the owners among the columns; the names are next.
const OWNERS: usize = 1;
const NAMES: usize = 2;

/// Shortens owners and names as far as the width of the table asks for: first owners lose their hosts.
fn fit_owners_and_names(columns: &[&str], rows: &mut [Vec<String>]) {
    let gaps = COLUMN_GAP * columns.len() - 1;
    let fixed: usize = (0..columns.len())
        .filter(|at| ![OWNERS, NAMES].contains(at))
        .map(|at| column_width(columns, rows, at))
        .sum();
    let room = TABLE_WIDTH.saturating_sub(gaps + fixed);
    let names = column_width(columns, rows, NAMES);

    if column_width(columns, rows, OWNERS) + names > room {
        for row in rows.iter_mut() {
            let user = row[OWNERS].split('@').next().unwrap_or_default();
            row[OWNERS] = user.to_owned();
        }
    }

    let owners = column_width(columns, rows, OWNERS);
    let for_owners = owners.min(room.saturating_sub(names).max(room / 3));
    for row in rows.iter_mut() {
        row[OWNERS] = shorten_in_middle(&row[OWNERS], for_owners);
        row[NAMES] = shorten_in_middle(&row[NAMES], room.saturating_sub(for_owners));
    }
}

fn column_width(columns: &[&str], rows: &[Vec<String>], at: usize) -> usize {
    let cells = rows.iter().map(|row| row[at].width());
    cells.max().unwrap_or(0).max(columns[at].width())
}

#[cfg(test)]
mod tests {
    use crate::client::commands::list::*;
    use crate::client::render::{TableLayout, fit_described_rows};

    fn sweep(name: &str, by: &str) -> v1::SweepStatus {
        v1::SweepStatus {
            id: "abcd1234".into(),
            name: name.into(),
            launched_by: by.into(),
            launched_at: 1.7e9,
            trials: 100_000,
            completed: 99_999,
            ..v1::SweepStatus::default()
        }
    }

    #[test]
    fn a_list_fits_eighty_columns_whatever_names_are_in_it() {
        let long = "a-very-long-name-of-a-sweep-over-learning-rates-2".to_owned();
        let unreadable = v1::SweepStatus {
            unreadable: true,
            ..sweep(
                &long,
                "somebody-with-a-long-name@a-machine-with-a-longer-one",
            )
        };
        let failed = v1::SweepStatus {
            failed: 3,
            ..sweep(&"語".repeat(60), "ben@lab")
        };
        let controls = sweep("\u{1b}[2J\n", "");
        let now = Local::now();
        for sweeps in [
            &[sweep("lr", "anna@lab")][..],
            &[unreadable.clone(), sweep("lr", "anna@lab")],
            &[unreadable, failed, controls],
        ] {
            let text = render_sweep_list(sweeps, now);
            for line in text.lines() {
                assert!(line.width() <= TABLE_WIDTH, "{}: {line}", line.width());
            }
            assert!(text.contains("abcd1234") && !text.contains('\u{1b}'));
        }

        let text = render_sweep_list(&[sweep("lr", "anna@lab")], now);
        assert!(text.contains("anna@lab") && text.contains("99999/100000"));
        assert!(!text.contains("failed"));
    }

    #[test]
    fn a_narrow_list_keeps_what_names_a_sweep_and_how_far_it_is() {
        let names = ["launched", "by", "name", "id", "state", "done"];
        let texts = [
            "29 Nov 19:12",
            "anna",
            "mnist-lr-2",
            "abcd1234",
            "running",
            "7/120",
        ];
        let row: Vec<Value> = texts.map(|text| json!(text)).to_vec();
        let layout = TableLayout {
            width: Some(40),
            colours: false,
        };
        let columns = names.map(describe_column).to_vec();
        let text = fit_described_rows(columns, &[row], layout);
        let (table, left_out) = text.split_once("not shown: ").expect(&text);
        assert!(left_out.starts_with("launched, by;"), "{text}");
        for kept in &texts[2..] {
            assert!(table.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn a_recent_launch_has_its_time_and_an_old_one_its_year() {
        let now = Local::now();
        let then = now - TimeDelta::days(3);
        let text = format_launch_time(then.timestamp() as f64, now);
        assert!(text.contains(':'), "{text}");
        let old = now - TimeDelta::days(400);
        let text = format_launch_time(old.timestamp() as f64, now);
        assert!(!text.contains(':') && text.contains("20"), "{text}");
        assert_eq!(format_launch_time(0.0, now), "–");
    }
}
