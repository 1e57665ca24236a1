//! `ergodic trials`: prints one row per trial.

use arrow_array::RecordBatch;
use clap::Args;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::app::CommandOutcome;
use crate::client::args::SweepTarget;
use crate::client::render::{
    OutputArgs, TextFormat, build_trial_data, column_error, infer_axis_types, render_first_columns,
    render_table_data,
};
use crate::client::sweep_set::SweepSet;

/// `ergodic trials`
#[derive(Debug, Args)]
pub struct TrialsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, whose rows follow; the column `sweep` tells them apart
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Prints one row per trial.
///
/// # Errors
/// There is no such sweep, the output cannot be written, or nobody answers.
pub async fn run_trials(args: TrialsArgs) -> Result<CommandOutcome, UserError> {
    let target = args.output.choose_target()?;
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let pages = sweeps.query_trials(&mut client).await?;

    match target.format.as_text_format() {
        Some(format) => target.write_text(&render_trials(&pages, format))?,
        None => target.write_parquet(&build_trial_batch(&pages)?)?,
    }

    Ok(CommandOutcome::Done)
}

fn render_trials(pages: &[v1::TrialsResponse], format: TextFormat) -> String {
    render_table_data(&build_trial_data(pages), format, |data| {
        render_first_columns(data, data.columns.len())
    })
}

fn build_trial_batch(pages: &[v1::TrialsResponse]) -> Result<RecordBatch, UserError> {
    let axes = pages.first().map_or(0, |page| page.axes.len());
    let rows = pages
        .iter()
        .flat_map(|page| &page.rows)
        .map(|row| row.values.as_slice());
    let axes = infer_axis_types(axes, rows);
    build_trial_data(pages)
        .to_record_batch(&axes)
        .map_err(|e| column_error(&e))
}
