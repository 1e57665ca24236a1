//! What a table is of: its trials, their data, and the numerics class.

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_count;
use ergodic_proto::v1;

/// Formats `45 trials` or `12 of 45 trials so far`.
pub fn format_trial_count(done: u64, trials: u64) -> String {
    match done == trials {
        true => format_count(trials, "trial"),
        false => format!("{done} of {} so far", format_count(trials, "trial")),
    }
}

/// Formats the trials in the rows of a table, and those of the sweep if rows were left out: `12 shown of 45 trials`.
pub fn format_shown_trials(table: &v1::TableResponse) -> String {
    let ended = |s: v1::Summary| s.n + s.diverged + s.failed;
    let shown: Option<u64> = table.rows.iter().map(|row| row.summary.map(ended)).sum();
    let whole = format_trial_count(table.done, table.trials);
    match shown {
        Some(shown) if shown < table.done => format!("{shown} shown of {whole}"),
        _ => whole,
    }
}

/// Formats the last line of a table: `45 trials · glyphs … · cpu-f32/6`, with the trials that it is about.
pub fn format_provenance(trials: &str, data: &str, numerics: &str) -> String {
    format!(
        "{trials} · {} · {}\n",
        escape_line(data),
        escape_line(numerics)
    )
}

#[cfg(test)]
mod tests {
    use crate::client::render::provenance::*;

    fn table(rows: &[u64], done: u64, trials: u64) -> v1::TableResponse {
        let row = |n: &u64| v1::TableRow {
            summary: Some(v1::Summary {
                n: *n,
                diverged: 1,
                ..v1::Summary::default()
            }),
            ..v1::TableRow::default()
        };
        v1::TableResponse {
            rows: rows.iter().map(row).collect(),
            done,
            trials,
            ..v1::TableResponse::default()
        }
    }

    #[test]
    fn trials_of_rows_that_are_left_out_are_not_counted_as_shown() {
        for (rows, done, trials, words) in [
            (&[2, 2][..], 6, 6, "6 trials"),
            (&[2], 6, 6, "3 shown of 6 trials"),
            (&[], 6, 6, "0 shown of 6 trials"),
            (&[2], 4, 6, "3 shown of 4 of 6 trials so far"),
            (&[0], 1, 1, "1 trial"),
            (&[0], 1, 2, "1 of 2 trials so far"),
        ] {
            assert_eq!(format_shown_trials(&table(rows, done, trials)), words);
        }
    }
}
