//! `ergodic distance`: how far what cells predict is apart.

use std::collections::BTreeSet;

use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use super::compare::parse_axis_choices;
use crate::client::Client;
use crate::client::render::{
    AxisFormats, TableData, TextFormat, format_short_number, json_value, render_human_rows,
    render_table_data,
};

/// What is to be compared, and how it is printed.
#[derive(Debug, Clone)]
pub struct DistanceOptions {
    /// Two cells as typed, `lr=0.1,wd=5e-4` or a number; or none.
    pub between: Vec<String>,
    /// Moment.
    pub at: Option<String>,
    /// Random swaps.
    pub permutations: u32,
    /// Format.
    pub format: TextFormat,
}

/// `ergodic distance`
///
/// # Errors
/// There is no such sweep, axis, value, cell or moment, nothing to compare, or nobody answers.
pub async fn measure_distances(
    client: &mut Client,
    sweep: &str,
    options: &DistanceOptions,
) -> Result<String, UserError> {
    let request = v1::DistanceRequest {
        sweep: sweep.to_owned(),
        between: options
            .between
            .iter()
            .map(|text| parse_cell_choice(text))
            .collect::<Result<_, _>>()?,
        at: options.at.clone().unwrap_or_default(),
        permutations: options.permutations,
    };
    let is_pair = !request.between.is_empty();

    let found = client
        .sweeps
        .distance(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let records = build_distance_data(&found, is_pair);

    if options.format == TextFormat::Json {
        let rows = records.to_json_lines();
        return Ok(format!(
            "{{\n  \"sweep\": {},\n  \"points\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(found.sweep),
            found.points,
            rows
        ));
    }

    Ok(render_table_data(&records, options.format, |_| {
        if is_pair {
            render_human_pair(&found)
        } else {
            render_human_all_pairs(&found)
        }
    }))
}

/// A cell as typed: its number, or values of axes.
fn parse_cell_choice(text: &str) -> Result<v1::CellChoice, UserError> {
    match text.trim().parse() {
        Ok(number) => Ok(v1::CellChoice {
            cell: Some(number),
            values: Vec::new(),
        }),
        Err(_) => Ok(v1::CellChoice {
            cell: None,
            values: parse_axis_choices("--between", text)?,
        }),
    }
}

/// The one cell and the other, then figures; what only a test between two cells has is left out without one.
fn build_distance_data(found: &v1::DistanceResponse, is_pair: bool) -> TableData {
    let sides = ["a", "b"];
    let of_cells = sides.iter().flat_map(|side| {
        let axes = found.axes.iter().map(move |axis| format!("{side}.{axis}"));
        [format!("{side}.cell")].into_iter().chain(axes)
    });
    let before = ["at", "n", "distance", "null"];

    let test = ["statistic", "p", "test"];
    let after = [
        "agreement",
        "agreement_same",
        "agreement_a",
        "agreement_b",
        "note",
    ];

    let test = if is_pair { &test[..] } else { &[] };
    let figures = before
        .iter()
        .chain(test)
        .chain(&after)
        .map(|name| (*name).to_owned());

    let row = |row: &v1::Distance| {
        let cells = [row.a, row.b]
            .into_iter()
            .flat_map(|at| found.cells.get(at as usize));
        let cells = cells.flat_map(|cell| {
            [json!(cell.cell)]
                .into_iter()
                .chain(cell.values.iter().map(json_value))
        });

        let how = row.p.map(|_| if row.exact { "exact" } else { "random" });
        let before = [
            json!(row.at),
            json!(row.n),
            json!(row.distance),
            json!(row.null),
        ];

        let test = if is_pair {
            vec![json!(row.statistic), json!(row.p), json!(how)]
        } else {
            Vec::new()
        };

        let shares = [
            row.agreement,
            row.agreement_same,
            row.agreement_a,
            row.agreement_b,
        ]
        .map(|x| json!(x));

        let note = Some(&row.note).filter(|note| !note.is_empty());
        cells
            .chain(before)
            .chain(test)
            .chain(shares)
            .chain([json!(note)])
            .collect::<Vec<Value>>()
    };
    let known = |row: &&v1::Distance| (row.a.max(row.b) as usize) < found.cells.len();

    let columns: Vec<String> = of_cells.chain(figures).collect();
    let axes = 2 * (1 + found.axes.len());
    TableData {
        columns,
        rows: found.rows.iter().filter(known).map(row).collect(),
        key_columns: axes,
    }
}

/// Each cell's values in one word: `lr=0.1 wd=0`.
fn format_cell_names(found: &v1::DistanceResponse) -> Vec<String> {
    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.cells.iter().map(|cell| cell.values.as_slice()),
    );
    let name = |cell: &v1::DistanceCell| {
        let parts = found
            .axes
            .iter()
            .zip(words.format_row(&cell.values))
            .map(|(axis, value)| format!("{axis}={value}"));
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() {
            format!("cell {}", cell.cell)
        } else {
            parts.join(" ")
        }
    };

    found.cells.iter().map(name).collect()
}

fn format_provenance(found: &v1::DistanceResponse) -> String {
    let part = match found.done == found.trials {
        true => format!("{} trials", found.trials),
        false => format!("{} of {} trials so far", found.done, found.trials),
    };
    format!(
        "{part} · {} · {}\n",
        escape_line(&found.data),
        escape_line(&found.numerics)
    )
}

fn render_human_pair(found: &v1::DistanceResponse) -> String {
    let header = [
        "at",
        "n",
        "distance",
        "null",
        "p",
        "agreement",
        "same repeat",
        "within A",
        "within B",
        "",
    ];

    let row = |row: &v1::Distance| {
        let shares = [
            row.agreement,
            row.agreement_same,
            row.agreement_a,
            row.agreement_b,
        ]
        .map(format_short_number);

        let first = [row.at.clone(), row.n.to_string()];
        let figures = [row.distance, row.null, row.p].map(format_short_number);
        let cells = first
            .into_iter()
            .chain(figures)
            .chain(shares)
            .chain([row.note.clone()]);
        cells.map(Value::String).collect::<Vec<Value>>()
    };
    let rows: Vec<Vec<Value>> = found.rows.iter().map(row).collect();

    let names = format_cell_names(found);
    format!(
        "{} ({}): what two cells predict for {} probe points\nA: {}\nB: {}\n{}distance: ℓ1, in [0, 2], of n/2 repeats of A \
         and n/2 others of B; null: the same of halves of one cell; both over 32 random splits, whose own noise is \
         not shown; p: by swaps of the cells within repeats\nagreement: \
         probability that two trials of different repeats predict the same class\n{}",
        escape_line(&found.name),
        found.sweep,
        found.points,
        names.first().map_or("", String::as_str),
        names.get(1).map_or("", String::as_str),
        render_human_rows(&header.map(str::to_owned), &rows),
        format_provenance(found)
    )
}

/// Most cells that stand side by side.
const MAX_MATRIX_CELLS: usize = 12;

fn render_human_all_pairs(found: &v1::DistanceResponse) -> String {
    let first = found.rows.first();
    let (at, n) = first.map_or((String::new(), 0), |row| {
        (
            row.at.clone(),
            found.rows.iter().map(|r| r.n).max().unwrap_or(0),
        )
    });

    // What is so of several pairs is said once.
    let notes: BTreeSet<&str> = found
        .rows
        .iter()
        .map(|row| row.note.as_str())
        .filter(|note| !note.is_empty())
        .collect();
    let notes: String = notes.into_iter().map(|note| format!("{note}\n")).collect();

    let body = if found.cells.len() <= MAX_MATRIX_CELLS {
        let distances = render_matrix(found, |row| {
            if row.a == row.b {
                row.null
            } else {
                row.distance
            }
        });

        let agreement = render_matrix(found, |row| row.agreement);
        format!(
            "ℓ1 distance, in [0, 2], of {} repeats of the one cell and {} others of the other; on the diagonal the null, of \
             halves of one cell; over 32 random splits, whose own noise is not shown\n{distances}agreement: probability that \
             two trials of different repeats predict the same class\n{agreement}",
            n / 2,
            n / 2
        )
    } else {
        render_pair_list(found)
    };

    let title = format!(
        "{} ({}): {at}, {} probe points",
        escape_line(&found.name),
        found.sweep,
        found.points
    );

    let end = format_provenance(found);
    format!("{title}, the {n} repeats that all cells with predictions have\n{body}{notes}{end}")
}

fn render_matrix(
    found: &v1::DistanceResponse,
    figure: impl Fn(&v1::Distance) -> Option<f64>,
) -> String {
    let cells = 0..found.cells.len();
    let names = format_cell_names(found);
    let number = |at: usize| found.cells[at].cell.to_string();
    let header: Vec<String> = ["cell".to_owned(), String::new()]
        .into_iter()
        .chain(cells.clone().map(number))
        .collect();

    let of = |a: usize, b: usize| {
        let same = |row: &&v1::Distance| (row.a as usize, row.b as usize) == (a.min(b), a.max(b));
        format_short_number(found.rows.iter().find(same).and_then(&figure))
    };
    let row = |a: usize| {
        let figures = cells.clone().map(|b| of(a, b));
        [number(a), names[a].clone()]
            .into_iter()
            .chain(figures)
            .map(Value::String)
            .collect::<Vec<Value>>()
    };

    render_human_rows(&header, &cells.clone().map(row).collect::<Vec<_>>())
}

fn render_pair_list(found: &v1::DistanceResponse) -> String {
    let header = ["cell", "beside", "distance", "null", "agreement"].map(str::to_owned);
    let all = format_cell_names(found);
    let row = |row: &v1::Distance| {
        let names = [row.a, row.b].map(|at| all.get(at as usize).cloned().unwrap_or_default());
        let figures = [row.distance, row.null, row.agreement].map(format_short_number);
        names
            .into_iter()
            .chain(figures)
            .map(Value::String)
            .collect::<Vec<Value>>()
    };

    render_human_rows(&header, &found.rows.iter().map(row).collect::<Vec<_>>())
}
