//! `ergodic trials`: prints one row per trial.

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::expr::WordExpr;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::app::CommandOutcome;
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::axis_choices::parse_axis_choices;
use crate::client::metric_list::{check_metrics_differ, split_metric_lists};
use crate::client::render::{
    OutputArgs, RowSelection, TableData, TableLayout, TextFormat, TrialRows, ViewArgs,
    build_trial_data, choose_batch_columns, column_error, find_cell_rows, infer_axis_types,
    is_trial_column, render_result_data, render_table_data,
};
use crate::client::sweep_set::SweepSet;
use crate::terminal::print_stderr_line;

/// `ergodic trials`
#[derive(Debug, Args)]
pub struct TrialsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, whose rows follow; the column `sweep` tells them apart
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    /// Further columns: quantities of the sweep file or expressions, as in "mean(test_acc, last 20 %)"; a quantity that --where,
    /// --sort or --columns names is one, too
    #[arg(long, value_name = "METRICS")]
    pub metric: Vec<String>,
    /// Only the cells with these values of axes, as in lr=0.1,wd=5e-4
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub cell: Option<String>,
    /// Only trials that satisfy this condition on axes and columns, as in "test_acc > 0.9"; put words in quotes, as in
    /// 'outcome == "failed"'
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Sort by an axis or a column, as in seconds; with a minus sign in front, the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Print at most N trials: the first ones, or without --sort the best completed ones, by the first metric
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Prints one row per trial.
///
/// # Errors
/// There is no such sweep, axis or column, the output cannot be written, or nobody answers.
pub async fn run_trials(args: TrialsArgs) -> Result<CommandOutcome, UserError> {
    let target = args.output.choose_target()?;
    let cells = parse_cell_choices(args.cell.as_deref())?;
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let further = find_further_columns(&mut client, &sweeps, &args).await?;
    let mut trials = TrialRows::from_pages(sweeps.query_trials(&mut client, &further).await?);
    // Inferred from all rows, so that a column's type does not depend on which rows are shown.
    let types = infer_axis_types(
        trials.axes.len(),
        trials.rows.iter().map(|row| row.values.as_slice()),
    );

    let positions = find_cell_rows(&trials, &cells)?;
    trials.keep(&positions);
    if args.condition.is_some() {
        trials.select(&RowSelection {
            condition: args.condition,
            ..RowSelection::default()
        })?;
    }
    if args.top.is_some() && args.sort.is_none() {
        announce_ranking(&mut client, &sweeps, &trials).await?;
    }
    trials.select(&RowSelection {
        sort: args.sort,
        top: args.top,
        ..RowSelection::default()
    })?;

    let data = build_trial_data(&trials);
    match target.format.as_text_format() {
        Some(format) => {
            let layout = target.table_layout(args.view.wide);
            let text = render_trials(data, format, layout, &args.view.columns)?;
            target.write_text(&text, !args.view.no_pager)?;
        }
        None => {
            let batch = data.to_record_batch(&types).map_err(|e| column_error(&e))?;
            target.write_parquet(&choose_batch_columns(&batch, &args.view.columns)?)?;
        }
    }

    Ok(CommandOutcome::Done)
}

/// Says by which metric the best trials are found.
///
/// # Errors
/// The metric is another quantity in some of the trials, or nobody answers.
async fn announce_ranking(
    client: &mut Client,
    sweeps: &SweepSet,
    trials: &TrialRows,
) -> Result<(), UserError> {
    let Some(metric) = trials.metrics.first() else {
        return Ok(());
    };
    if let Some(why) = sweeps.find_mixed_loss(client, metric, trials).await? {
        let message = format!("--top: {why}; or use --sort {metric}");
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    if let Some(larger) = trials.larger_is_better() {
        let which = if larger { "largest" } else { "smallest" };
        print_stderr_line(&format!(
            "the best completed trials are those with the {which} {metric}"
        ));
    }
    Ok(())
}

/// The columns of `--metric`, and the quantities of the sweeps that other options name.
async fn find_further_columns(
    client: &mut Client,
    sweeps: &SweepSet,
    args: &TrialsArgs,
) -> Result<Vec<String>, UserError> {
    let mut columns = split_metric_lists(&args.metric);
    check_metrics_differ(&columns)?;
    let named = list_named_columns(args);
    let mut unknown: Vec<String> = named
        .into_iter()
        .filter(|name| !columns.contains(name) && !is_trial_column(name))
        .collect();
    if unknown.is_empty() {
        return Ok(columns);
    }

    // Most names are those of axes. The sweep files tell which are quantities.
    let defined = sweeps.query_quantity_names(client).await?;
    unknown.retain(|name| defined.contains(name));
    columns.extend(unknown);
    Ok(columns)
}

/// The names in `--where`, `--sort` and `--columns`.
fn list_named_columns(args: &TrialsArgs) -> Vec<String> {
    let condition = args.condition.as_deref().map(WordExpr::parse);
    let mut names: Vec<String> = match &condition {
        Some(Ok(condition)) => condition
            .expr
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let sort = args.sort.iter().map(|key| key.trim_start_matches('-'));
    names.extend(sort.map(str::to_owned));
    names.extend(args.view.columns.iter().cloned());

    names.sort_unstable();
    names.dedup();
    names
}

/// The choices of `--cell`; none without it.
///
/// # Errors
/// The text names no axes with their values.
pub(super) fn parse_cell_choices(text: Option<&str>) -> Result<Vec<v1::AxisChoice>, UserError> {
    text.map_or(Ok(Vec::new()), |text| parse_axis_choices("--cell", text))
}

fn render_trials(
    mut data: TableData,
    format: TextFormat,
    layout: TableLayout,
    columns: &[String],
) -> Result<String, UserError> {
    if format == TextFormat::Table {
        return render_result_data(&data, layout, columns, "");
    }
    data.choose_columns(columns)?;
    Ok(render_table_data(&data, format, |_| String::new()))
}
