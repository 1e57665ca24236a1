//! A table spread over two axes: one for the rows, one for the columns.

use ergodic_proto::v1;
use serde_json::{Value, json};

use super::table::{best_row, figure, incidents, mean_and_interval};
use super::{Records, colours, text_value};
use crate::plot::heat;

/// Mean ± 95 % CI by two axes, the best cell marked; or the columns asked for, one after the other. The table must have exactly these two axes, rows first.
pub fn grid(table: &v1::TableResponse) -> (String, Records) {
    let rows = distinct(table, 0);
    let columns = distinct(table, 1);
    let best = best_row(table).filter(|_| table.columns.is_empty());
    let warmth = Warmth::of(table);
    let mut out = comfy_table::Table::new();
    out.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    let corner = format!("{} \\ {}", table.axes[0], table.axes[1]);
    out.set_header(std::iter::once(corner.clone()).chain(columns.iter().cloned()));
    let mut records = Records {
        columns: std::iter::once(corner).chain(columns.iter().cloned()).collect(),
        rows: Vec::with_capacity(rows.len()),
    };
    for row in &rows {
        let mut line = vec![comfy_table::Cell::new(row)];
        let mut record = vec![json!(row)];
        for column in &columns {
            let at =
                table.rows.iter().position(|r| text_value(&r.values[0]) == *row && text_value(&r.values[1]) == *column);
            let text = at.map_or_else(String::new, |at| cell_text(&table.rows[at]));
            record.push(if text.is_empty() { Value::Null } else { json!(text) });
            let warmth = at.and_then(|at| warmth.as_ref()?.share(&table.rows[at]));
            line.push(styled(text, at.is_some() && at == best, warmth));
        }
        out.add_row(line);
        records.rows.push(record);
    }
    (format!("{out}\n"), records)
}

fn cell_text(row: &v1::TableRow) -> String {
    let Some(s) = &row.summary else { return String::new() };
    let figures: Vec<String> = row.figures.iter().map(|x| figure(&json!(x))).collect();
    let text = if figures.is_empty() { mean_and_interval(s) } else { figures.join(" / ") };
    // A note says it in more words.
    match if row.note.is_empty() { incidents(s) } else { row.note.clone() }.as_str() {
        "" => text,
        known => format!("{text} ({known})"),
    }
}

fn styled(text: String, best: bool, warmth: Option<f64>) -> comfy_table::Cell {
    let text = if best { format!("★ {text}") } else { text };
    let cell = comfy_table::Cell::new(text).set_alignment(comfy_table::CellAlignment::Right);
    let Some((back, front)) = warmth.filter(|_| colours()).map(heat) else { return cell };
    let cell = cell.bg(terminal(back)).fg(terminal(front));
    if best { cell.add_attribute(comfy_table::Attribute::Bold) } else { cell }
}

/// Where a row's first figure lies among all of them.
struct Warmth {
    low: f64,
    high: f64,
}

impl Warmth {
    fn of(table: &v1::TableResponse) -> Option<Self> {
        let all = || table.rows.iter().filter_map(first_figure);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        (low < high).then_some(Self { low, high })
    }

    fn share(&self, row: &v1::TableRow) -> Option<f64> {
        first_figure(row).map(|x| (x - self.low) / (self.high - self.low))
    }
}

fn first_figure(row: &v1::TableRow) -> Option<f64> {
    let mean = || row.summary.and_then(|s| s.mean);
    row.figures.first().copied().or_else(mean).filter(|x| x.is_finite())
}

/// The colour itself where the terminal says that it can show it; the nearest of the 6 × 6 × 6 of xterm elsewhere.
fn terminal([r, g, b]: [u8; 3]) -> comfy_table::Color {
    let all = std::env::var("COLORTERM").is_ok_and(|word| word == "truecolor" || word == "24bit");
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let level = |c: u8| (0..6).min_by_key(|at| LEVELS[usize::from(*at)].abs_diff(c)).unwrap_or(0);
    match all {
        true => comfy_table::Color::Rgb { r, g, b },
        false => comfy_table::Color::AnsiValue(16 + 36 * level(r) + 6 * level(g) + level(b)),
    }
}

/// The values of an axis in the order of the table.
pub(super) fn distinct(table: &v1::TableResponse, axis: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for row in &table.rows {
        let text = text_value(&row.values[axis]);
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_warm_by_their_place_among_all() {
        let row = |mean| v1::TableRow {
            summary: Some(v1::Summary { mean, ..v1::Summary::default() }),
            ..v1::TableRow::default()
        };
        let rows = [Some(0.5), None, Some(1.5), Some(1.0)].map(row);
        let table = v1::TableResponse { rows: rows.to_vec(), ..v1::TableResponse::default() };
        let warmth = Warmth::of(&table).expect("three figures");
        assert_eq!(rows.each_ref().map(|row| warmth.share(row)), [Some(0.0), None, Some(1.0), Some(0.5)]);
        assert!(
            Warmth::of(&v1::TableResponse { rows: rows[..2].to_vec(), ..table }).is_none(),
            "one is neither warm nor cold"
        );
    }
}
