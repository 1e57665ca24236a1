//! `ergodic distance`: prints distances between the predictions of cells.

use std::collections::BTreeSet;

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::axis_choices::parse_axis_choices;
use crate::client::render::{
    AxisFormats, TableData, TextFormat, format_provenance, format_short_number, format_trial_count,
    json_value, non_empty, render_human_rows, render_table_data,
};

/// `ergodic distance`
#[derive(Debug, Args)]
pub struct DistanceArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Two cells, each as in lr=0.1,wd=5e-4 or by its number, with a test of their difference [default: all pairs of cells]
    #[arg(long, num_args = 2, value_names = ["CELL", "CELL"])]
    pub between: Vec<String>,
    /// Step of the predictions, as in "20 epochs" or final [default: between two cells, every step with predictions; otherwise the
    /// last]
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Number of random permutations in the test
    #[arg(long, default_value_t = 9999, value_name = "N")]
    pub permutations: u32,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Measures the distances between the predictions of cells and prints them.
///
/// # Errors
/// There is no such sweep, axis, value, cell or moment, nothing to compare, or nobody answers.
pub async fn run_distance(args: DistanceArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::DistanceRequest {
        sweep: id.into(),
        between: args
            .between
            .iter()
            .map(|text| parse_cell_choice(text))
            .collect::<Result<_, _>>()?,
        at: args.at.unwrap_or_default(),
        permutations: args.permutations,
    };
    let is_pair = !request.between.is_empty();

    let found = client
        .call(async |client| client.sweeps.distance(request).await)
        .await?;
    print_output(render_distances(&found, is_pair, args.format))
}

fn render_distances(found: &v1::DistanceResponse, is_pair: bool, format: TextFormat) -> String {
    let records = build_distance_data(found, is_pair);
    if format == TextFormat::Json {
        let rows = records.to_json_lines();
        return format!(
            "{{\n  \"sweep\": {},\n  \"points\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(found.sweep),
            found.points,
            rows
        );
    }

    render_table_data(&records, format, |_| {
        if is_pair {
            render_human_pair(found)
        } else {
            render_human_all_pairs(found)
        }
    })
}

/// Parses a cell as typed: its number, or values of axes.
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

/// Builds rows with both cells and the figures. Columns that only a test of two cells has are left
/// out otherwise.
fn build_distance_data(found: &v1::DistanceResponse, is_pair: bool) -> TableData {
    let last = found.cells.len();
    let known = found
        .rows
        .iter()
        .filter(|row| (row.a.max(row.b) as usize) < last);

    TableData {
        columns: distance_columns(&found.axes, is_pair),
        rows: known
            .map(|row| build_distance_row(found, row, is_pair))
            .collect(),
        key_columns: 2 * (1 + found.axes.len()),
    }
}

fn distance_columns(axes: &[String], is_pair: bool) -> Vec<String> {
    let mut columns = Vec::new();
    for side in ["a", "b"] {
        columns.push(format!("{side}.cell"));
        columns.extend(axes.iter().map(|axis| format!("{side}.{axis}")));
    }

    columns.extend(["at", "n", "distance", "null"].map(str::to_owned));
    if is_pair {
        columns.extend(["statistic", "p", "test"].map(str::to_owned));
    }

    columns.extend(
        [
            "agreement",
            "agreement_same",
            "agreement_a",
            "agreement_b",
            "note",
        ]
        .map(str::to_owned),
    );
    columns
}

fn build_distance_row(
    found: &v1::DistanceResponse,
    row: &v1::Distance,
    is_pair: bool,
) -> Vec<Value> {
    let mut values = Vec::new();
    for cell in [row.a, row.b].map(|at| &found.cells[at as usize]) {
        values.push(json!(cell.cell));
        values.extend(cell.values.iter().map(json_value));
    }

    values.extend([
        json!(row.at),
        json!(row.n),
        json!(row.distance),
        json!(row.null),
    ]);
    if is_pair {
        let method = row.p.map(|_| if row.exact { "exact" } else { "random" });
        values.extend([json!(row.statistic), json!(row.p), json!(method)]);
    }

    values.extend(agreement_shares(row).map(|share| json!(share)));
    values.push(json!(non_empty(&row.note)));
    values
}

/// Shares of agreeing trials: of different repeats, of the same repeat, within the first cell, within the second.
fn agreement_shares(row: &v1::Distance) -> [Option<f64>; 4] {
    [
        row.agreement,
        row.agreement_same,
        row.agreement_a,
        row.agreement_b,
    ]
}

/// Formats each cell's values: `lr=0.1 wd=0`.
fn format_cell_names(found: &v1::DistanceResponse) -> Vec<String> {
    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.cells.iter().map(|cell| cell.values.as_slice()),
    );
    found
        .cells
        .iter()
        .map(|cell| format_cell_name(cell, &found.axes, &words))
        .collect()
}

fn format_cell_name(cell: &v1::DistanceCell, axes: &[String], words: &AxisFormats) -> String {
    let parts: Vec<String> = axes
        .iter()
        .zip(words.format_row(&cell.values))
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    if parts.is_empty() {
        format!("cell {}", cell.cell)
    } else {
        parts.join(" ")
    }
}

fn format_distance_provenance(found: &v1::DistanceResponse) -> String {
    format_provenance(
        &format_trial_count(found.done, found.trials),
        &found.data,
        &found.numerics,
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

    let rows: Vec<Vec<Value>> = found.rows.iter().map(format_pair_row).collect();

    let names = format_cell_names(found);
    format!(
        "{} ({}): predictions of two cells for {} probe points\nA: {}\nB: {}\n{}distance: ℓ1, in [0, 2], between n/2 \
         repeats of A and n/2 others of B; null: the same between halves of one cell; both over 32 random splits, whose own \
         noise is not shown; p: by swaps of the cells within repeats\nagreement: probability that two trials of different \
         repeats predict the same class\n{}",
        escape_line(&found.name),
        found.sweep,
        found.points,
        names.first().map_or("", String::as_str),
        names.get(1).map_or("", String::as_str),
        render_human_rows(&header.map(str::to_owned), &rows),
        format_distance_provenance(found)
    )
}

fn format_pair_row(row: &v1::Distance) -> Vec<Value> {
    let figures = [row.distance, row.null, row.p].map(format_short_number);
    let shares = agreement_shares(row).map(format_short_number);

    [row.at.clone(), row.n.to_string()]
        .into_iter()
        .chain(figures)
        .chain(shares)
        .chain([row.note.clone()])
        .map(Value::String)
        .collect()
}

/// Maximum number of cells of a matrix. With more, pairs are listed.
const MAX_MATRIX_CELLS: usize = 12;

fn render_human_all_pairs(found: &v1::DistanceResponse) -> String {
    let at = found.rows.first().map_or("", |row| row.at.as_str());
    let n = found.rows.iter().map(|row| row.n).max().unwrap_or(0);
    // Several pairs may have the same note; the set prints it once.
    let notes: BTreeSet<&str> = found
        .rows
        .iter()
        .filter_map(|row| non_empty(&row.note))
        .collect();
    let notes: String = notes.into_iter().map(|note| format!("{note}\n")).collect();

    let body = if found.cells.len() <= MAX_MATRIX_CELLS {
        render_matrices(found, n)
    } else {
        render_pair_list(found)
    };
    let title = format!(
        "{} ({}): {at}, {}",
        escape_line(&found.name),
        found.sweep,
        format_count(found.points.into(), "probe point")
    );

    let end = format_distance_provenance(found);
    format!("{title}, the {n} repeats that all cells with predictions have\n{body}{notes}{end}")
}

/// Renders the distances of all cells, then their agreement.
fn render_matrices(found: &v1::DistanceResponse, n: u64) -> String {
    let distances = render_matrix(found, |row| {
        if row.a == row.b {
            row.null
        } else {
            row.distance
        }
    });
    let agreement = render_matrix(found, |row| row.agreement);

    format!(
        "ℓ1 distance, in [0, 2], between {} repeats of one cell and {} others of the other; on the diagonal the null, \
         between halves of one cell; over 32 random splits, whose own noise is not shown\n{distances}agreement: probability \
         that two trials of different repeats predict the same class\n{agreement}",
        n / 2,
        n / 2
    )
}

fn render_matrix(
    found: &v1::DistanceResponse,
    figure: impl Fn(&v1::Distance) -> Option<f64>,
) -> String {
    let numbers: Vec<String> = found
        .cells
        .iter()
        .map(|cell| cell.cell.to_string())
        .collect();
    let header: Vec<String> = ["cell".to_owned(), String::new()]
        .into_iter()
        .chain(numbers.iter().cloned())
        .collect();

    let mut rows = Vec::new();
    for (a, name) in format_cell_names(found).into_iter().enumerate() {
        let figures = (0..numbers.len())
            .map(|b| format_short_number(find_pair(found, a, b).and_then(&figure)));
        let row = [numbers[a].clone(), name].into_iter().chain(figures);
        rows.push(row.map(Value::String).collect::<Vec<Value>>());
    }

    render_human_rows(&header, &rows)
}

/// Finds the row of two cells, in either order.
fn find_pair(found: &v1::DistanceResponse, a: usize, b: usize) -> Option<&v1::Distance> {
    found
        .rows
        .iter()
        .find(|row| (row.a as usize, row.b as usize) == (a.min(b), a.max(b)))
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
