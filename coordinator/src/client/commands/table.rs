//! `ergodic table`: prints statistics of metrics per cell, or per value of chosen axes.

use arrow_array::RecordBatch;
use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use super::trials::parse_cell_choices;
use crate::app::CommandOutcome;
use crate::client::args::SweepTarget;
use crate::client::failure_causes::{RetryCommand, query_failures};
use crate::client::metric_list::{check_metrics_differ, split_metric_lists};
use crate::client::render::{
    OutputArgs, RowSelection, TableLayout, TextFormat, ViewArgs, check_cells_found,
    choose_batch_columns, column_error, find_cell_rows, format_provenance, format_shown_trials,
};
use crate::client::sweep_set::{SWEEP_AXIS, SweepSet};
use crate::client::{Client, render};

/// `ergodic table`
#[derive(Debug, Args)]
pub struct TableArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, whose rows follow; the column `sweep` tells them apart
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub query: TableQueryArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// What a table shows.
#[derive(Debug, Default, Args)]
pub struct TableQueryArgs {
    /// Axes to group by, as in lr,wd; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES", conflicts_with_all = ["rows", "cols"])]
    pub by: Vec<String>,
    /// What has equal weight in rows of several cells: trials with a value, so cells with more completed trials weigh more, or cells,
    /// as in `effects`; applies to means and their intervals, all else is over trials
    #[arg(long, value_enum, default_value_t)]
    pub weight: PoolingWeight,
    /// Print a grid: axis down the side
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Print a grid: axis along the top
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Metrics, quantities of the sweep file, or expressions, as in "test_acc,mean(test_acc, last 20 %)" [default: test_acc if it is
    /// measured]
    #[arg(long, value_name = "METRICS")]
    pub metric: Vec<String>,
    /// Only the rows with these values of axes, as in lr=0.1,wd=5e-4
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub cell: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: RowSelection,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Statistics by name, as in mean,ci99,boot95,q05,median,iqm,trim10,se,p_diverged; with _all, diverged trials count
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub stat: Vec<String>,
}

/// `--weight`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PoolingWeight {
    /// Each trial that has a value.
    #[default]
    Trials,
    /// Each cell that has values.
    Cells,
}

/// Prints statistics per cell, or per value of axes.
///
/// # Errors
/// There is no such sweep, axis or metric, the output cannot be written, or nobody answers.
pub async fn run_table(args: TableArgs) -> Result<CommandOutcome, UserError> {
    let target = args.output.choose_target()?;
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let columns = &args.view.columns;

    match target.format.as_text_format() {
        Some(format) => {
            let view = TableView {
                format,
                layout: target.table_layout(args.view.wide),
                columns,
                is_of_run: false,
            };
            let text = query_table_text(&mut client, &sweeps, &args.query, view).await?;
            target.write_text(&text, !args.view.no_pager)?;
        }
        None => {
            let batch = query_table_batch(&mut client, &sweeps, &args.query).await?;
            target.write_parquet(&choose_batch_columns(&batch, columns)?)?;
        }
    }

    Ok(CommandOutcome::Done)
}

/// How a table is shown.
#[derive(Debug, Clone, Copy)]
pub struct TableView<'a> {
    /// The format.
    pub format: TextFormat,
    /// The room for it, if it is for people.
    pub layout: TableLayout,
    /// Names of the columns to show; all if there are none.
    pub columns: &'a [String],
    /// Whether the coordinator ends with this command, as that of `ergodic run` does.
    pub is_of_run: bool,
}

impl TableView<'static> {
    /// All columns for stdout.
    pub fn for_stdout(format: TextFormat) -> Self {
        Self {
            format,
            layout: TableLayout::for_stdout(false),
            columns: &[],
            is_of_run: false,
        }
    }
}

/// Queries a table and renders it.
///
/// # Errors
/// There is no such sweep, axis, metric or column, or nobody answers.
pub async fn query_table_text(
    client: &mut Client,
    sweeps: &SweepSet,
    query: &TableQueryArgs,
    view: TableView<'_>,
) -> Result<String, UserError> {
    let grid = query.rows.is_some();
    if grid && !view.columns.is_empty() {
        let message = "--columns: a grid has the columns of its axis: leave out --columns, or --rows and --cols";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    let (mut tables, selection) = query_tables(client, sweeps, query).await?;
    select_table_rows(&mut tables, query, &selection)?;
    if view.format == TextFormat::Csv {
        tell_mixed_losses(&tables);
    }
    let text = match &tables[..] {
        [table] => render_table(table, grid, view)?,
        tables => render_metric_tables(tables, grid, view)?,
    };

    let has_failed = |row: &v1::TableRow| row.summary.is_some_and(|s| s.failed > 0);
    let failed = tables[0].rows.iter().any(has_failed);
    if view.format != TextFormat::Table || !failed {
        return Ok(text);
    }

    let retry = RetryCommand::choose(client, view.is_of_run);
    let failures = describe_failures(client, sweeps, retry).await;
    Ok(insert_before_last_line(text, &failures))
}

/// Says on stderr which losses are another quantity in each sweep, because a file of rows has no place for it.
fn tell_mixed_losses(tables: &[v1::TableResponse]) {
    let mixed = join_texts(tables.iter().map(render::describe_mixed_losses));
    if let Some(mixed) = mixed.as_str() {
        render::print_stderr_line(&format!("note: {}", escape_line(mixed)));
    }
}

/// Inserts lines before the last one, which says what a table is of.
fn insert_before_last_line(mut text: String, lines: &str) -> String {
    let at = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
    text.insert_str(at, lines);
    text
}

/// Lines on why trials of a sweep failed; empty if that cannot be found out, because a table is
/// useful without them.
async fn describe_failures(client: &mut Client, sweeps: &SweepSet, retry: RetryCommand) -> String {
    let mut text = String::new();
    for sweep in sweeps.ids() {
        let failures = query_failures(client, sweep).await.unwrap_or_default();
        let lines = failures.describe(sweep, retry);
        text.extend(lines.into_iter().map(|line| line + "\n"));
    }
    text
}

/// Reduces tables over the same cells to the rows that `--cell`, `--where` and `--top` select.
fn select_table_rows(
    tables: &mut [v1::TableResponse],
    query: &TableQueryArgs,
    selection: &RowSelection,
) -> Result<(), UserError> {
    let choices = parse_cell_choices(query.cell.as_deref())?;
    if !choices.is_empty() {
        for table in tables.iter_mut() {
            let kept = find_cell_rows(table, &choices)?;
            table.rows = kept.iter().map(|at| table.rows[*at].clone()).collect();
        }
    }

    selection.apply_to_tables(tables)
}

/// Queries a table as columns: one row per cell, and per metric if there are several, also of a grid.
async fn query_table_batch(
    client: &mut Client,
    sweeps: &SweepSet,
    query: &TableQueryArgs,
) -> Result<RecordBatch, UserError> {
    let (mut tables, selection) = query_tables(client, sweeps, query).await?;
    let first = &tables[0];
    // Inferred from all rows, so that a column's type does not depend on which rows are shown.
    let axes = render::infer_axis_types(
        first.axes.len(),
        first.rows.iter().map(|row| row.values.as_slice()),
    );

    select_table_rows(&mut tables, query, &selection)?;
    tell_mixed_losses(&tables);
    let records = match &tables[..] {
        [table] => render::build_summary_data(&table.axes, &table.columns, &table.rows),
        tables => render::build_tidy_data(tables),
    };
    records.to_record_batch(&axes).map_err(|e| column_error(&e))
}

/// Queries one table for each metric, of the cells that are selected; also returns the selection of
/// their rows.
async fn query_tables(
    client: &mut Client,
    sweeps: &SweepSet,
    query: &TableQueryArgs,
) -> Result<(Vec<v1::TableResponse>, RowSelection), UserError> {
    let by = grouping_axes(query)?;
    if sweeps.is_several() && !by.iter().any(|axis| axis == SWEEP_AXIS) {
        refuse_grid_without_sweeps(query)?;
    }
    let selection = sweeps.split_selection(&query.selection, &by, &query.stat)?;
    let mut metrics = split_metric_lists(&query.metric);
    check_metrics_differ(&metrics)?;
    if metrics.is_empty() {
        metrics.push(String::new());
    }
    let mut tables = Vec::with_capacity(metrics.len());

    for metric in metrics {
        let request = v1::TableRequest {
            metric,
            by: by.clone(),
            at: query.at.clone().unwrap_or_default(),
            stats: query.stat.clone(),
            cells_alike: query.weight == PoolingWeight::Cells,
            cell_condition: selection.cells.clone(),
            ..v1::TableRequest::default()
        };

        let table = sweeps.query_table(client, request).await?;
        check_cells_found(&selection.cells, &table)?;
        tables.push(table);
    }

    Ok((tables, selection.rows))
}

/// Refuses a grid of several sweeps that would have several rows for each of its places.
fn refuse_grid_without_sweeps(query: &TableQueryArgs) -> Result<(), UserError> {
    if query.rows.is_none() {
        return Ok(());
    }
    let message = "--rows and --cols: a grid of several sweeps has `sweep` as one of its axes, as in --rows sweep --cols lr; without \
                   a grid, --by lr,wd shows all";
    Err(UserError::new(ErrorCode::BadInput, message))
}

/// The axes to group by: those of a grid, or the listed ones.
fn grouping_axes(query: &TableQueryArgs) -> Result<Vec<String>, UserError> {
    match (&query.rows, &query.cols) {
        (Some(rows), Some(columns)) => Ok(vec![rows.clone(), columns.clone()]),
        (None, None) => Ok(query.by.clone()),
        _ => Err(UserError::new(
            ErrorCode::BadInput,
            "--rows and --cols go together: give both",
        )),
    }
}

fn render_table(
    table: &v1::TableResponse,
    grid: bool,
    view: TableView<'_>,
) -> Result<String, UserError> {
    if view.format == TextFormat::Table {
        return render_human_table(table, grid, view);
    }

    let mut data = render::build_summary_data(&table.axes, &table.columns, &table.rows);
    data.choose_columns(view.columns)?;
    Ok(match (view.format, grid) {
        (TextFormat::Json, _) => data.to_json_document(&[
            ("sweep", json!(table.sweep)),
            ("metric", json!(table.metric)),
            ("quantities", json!(render::non_empty(&table.quantities))),
            ("note", json!(render::describe_mixed_losses(table))),
        ]),
        (TextFormat::Md, true) => render::add_lines(
            render::build_pivot_data(table).to_markdown(),
            view.format,
            &render::collect_caveats(table, false),
        ),
        (TextFormat::Latex, true) => render::render_latex_pivot(table),
        // A LaTeX table has composite columns of its own, unless columns are chosen.
        (TextFormat::Latex, false) if view.columns.is_empty() => {
            render::render_latex(std::slice::from_ref(table))
        }
        // Programs read CSV, so it keeps one column per value instead of a grid of texts.
        (format, _) => render::add_lines(
            render::render_table_data(&data, format, |_| String::new()),
            format,
            &render::collect_caveats(table, data.has_column("note")),
        ),
    })
}

fn render_human_table(
    table: &v1::TableResponse,
    grid: bool,
    view: TableView<'_>,
) -> Result<String, UserError> {
    let body = match grid {
        true => render::render_pivot(table, view.layout),
        false => render::render_human_table(table, view.layout, view.columns)?,
    };

    Ok(format!(
        "{}{body}{}{}",
        format_table_heading(table),
        render::render_legend(table),
        format_table_provenance(table)
    ))
}

/// Renders tables of several metrics over the same cells.
fn render_metric_tables(
    tables: &[v1::TableResponse],
    grid: bool,
    view: TableView<'_>,
) -> Result<String, UserError> {
    let format = view.format;
    if format == TextFormat::Table && !grid && tables[0].columns.is_empty() {
        return render_human_side_by_side(tables, view);
    }
    if format == TextFormat::Table {
        let each = tables.iter().map(|table| render_table(table, grid, view));
        return Ok(each.collect::<Result<Vec<_>, _>>()?.join("\n"));
    }

    let mut data = render::build_tidy_data(tables);
    data.choose_columns(view.columns)?;
    Ok(match (format, grid) {
        (TextFormat::Json, _) => data.to_json_document(&[
            ("sweep", json!(tables[0].sweep)),
            ("metrics", json!(metric_names(tables))),
            (
                "quantities",
                join_texts(
                    tables
                        .iter()
                        .map(|table| render::non_empty(&table.quantities)),
                ),
            ),
            (
                "note",
                join_texts(tables.iter().map(render::describe_mixed_losses)),
            ),
        ]),
        (TextFormat::Latex, false) if view.columns.is_empty() => render::render_latex(tables),
        (TextFormat::Md, true) => render::add_lines(
            render::build_tidy_pivots(tables).to_markdown(),
            format,
            &render::collect_joint_caveats(tables, false),
        ),
        (TextFormat::Latex, true) => tables
            .iter()
            .map(render::render_latex_pivot)
            .collect::<Vec<_>>()
            .join("\n"),
        (format, _) => render::add_lines(
            render::render_table_data(&data, format, |_| String::new()),
            format,
            &render::collect_joint_caveats(tables, data.has_column("note")),
        ),
    })
}

fn render_human_side_by_side(
    tables: &[v1::TableResponse],
    view: TableView<'_>,
) -> Result<String, UserError> {
    let heading = format_table_heading(&v1::TableResponse {
        metric: metric_names(tables).join(", "),
        ..tables[0].clone()
    });

    Ok(format!(
        "{heading}{}{}{}",
        render::render_side_by_side(tables, view.layout, view.columns)?,
        render::render_joint_legend(tables),
        format_table_provenance(&tables[0])
    ))
}

/// Texts about several tables, each once; null without any.
fn join_texts<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Value {
    let mut different: Vec<&str> = Vec::new();
    for text in texts.flatten() {
        if !different.contains(&text) {
            different.push(text);
        }
    }
    json!(render::non_empty(&different.join("; ")))
}

fn metric_names(tables: &[v1::TableResponse]) -> Vec<&str> {
    tables.iter().map(|table| table.metric.as_str()).collect()
}

fn format_table_heading(table: &v1::TableResponse) -> String {
    let what = match table.columns.is_empty() {
        true => "mean ± 95 % CI over completed trials".to_owned(),
        false => table.columns.join(" / "),
    };
    let cells = match table.cell_condition.as_str() {
        "" => String::new(),
        condition => format!(", cells with {}", escape_line(condition)),
    };
    format!(
        "{} ({}): {}, {what}{cells}\n",
        escape_line(&table.name),
        table.sweep,
        escape_line(&table.metric)
    )
}

fn format_table_provenance(table: &v1::TableResponse) -> String {
    format_provenance(&format_shown_trials(table), &table.data, &table.numerics)
}
