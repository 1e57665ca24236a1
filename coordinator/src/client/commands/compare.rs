//! `ergodic compare`: compares cells with a baseline, repeat by repeat.

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_rounded;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::{MetricArgs, SweepTarget};
use crate::client::axis_choices::parse_axis_choices;
use crate::client::latest::resolve_sweep_id;
use crate::client::render::{
    AxisFormats, TableData, TextColumn, TextFormat, add_lines, format_estimate, format_provenance,
    format_short_number, format_trial_count, json_value, non_empty, render_described_rows,
    render_table_data,
};

/// `ergodic compare`
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Another sweep, whose cells are the baselines
    #[arg(index = 2, value_name = "SWEEP", conflicts_with = "baseline")]
    pub baseline_sweep: Option<String>,
    /// Baseline, as in lr=0.1,wd=5e-4; axes that are not named keep the value of the cell that is compared
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: Option<String>,
    /// Match the cells of two sweeps by these axes [default: cells that resolve to the same]
    #[arg(
        long = "match",
        value_delimiter = ',',
        value_name = "AXES",
        requires = "baseline_sweep"
    )]
    pub match_axes: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub metric: MetricArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Compares cells with a baseline and prints the differences.
///
/// # Errors
/// There is no such sweep, axis, value or metric, nothing to compare, or nobody answers.
pub async fn run_compare(args: CompareArgs) -> Result<CommandOutcome, UserError> {
    if args.baseline.is_none() && args.baseline_sweep.is_none() {
        let message = "with what? Name another sweep, as in `ergodic compare A B`, or cells of the same one, as in --baseline lr=0.1";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    let (mut client, id) = args.sweep.connect().await?;
    let request = build_request(&mut client, &id, &args).await?;
    let compared = query_comparison(&mut client, request).await?;

    print_output(render_contrasts(&compared, args.metric.level, args.format))
}

/// The request that the arguments stand for.
async fn build_request(
    client: &mut Client,
    sweep: &SweepId,
    args: &CompareArgs,
) -> Result<v1::CompareRequest, UserError> {
    let baseline_sweep = match &args.baseline_sweep {
        Some(other) => resolve_sweep_id(client, other).await?.into(),
        None => String::new(),
    };
    let baseline = args.baseline.as_deref();
    let metric = &args.metric;

    Ok(v1::CompareRequest {
        sweep: sweep.to_string(),
        baseline: baseline.map_or_else(
            || Ok(Vec::new()),
            |text| parse_axis_choices("--baseline", text),
        )?,
        metric: metric.metric.clone().unwrap_or_default(),
        at: metric.at.clone().unwrap_or_default(),
        level: metric.level / 100.0,
        baseline_sweep,
        match_axes: args.match_axes.clone(),
    })
}

/// The differences in a format; `level` is in percent.
fn render_contrasts(compared: &v1::CompareResponse, level: f64, format: TextFormat) -> String {
    let records = build_contrast_data(compared);
    if format == TextFormat::Json {
        let rows = records.to_json_lines();
        return format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"baseline\": {},\n{}  \"level\": {},\n  \"note\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(compared.sweep),
            json!(compared.metric),
            json!(compared.baseline),
            render_json_pairing(compared),
            json!(level / 100.0),
            json!(non_empty(&compared.note)),
            rows
        );
    }

    let text = render_table_data(&records, format, |_| {
        render_human_contrasts(compared, level)
    });
    let lines: Vec<String> = format_note(compared).into_iter().collect();
    add_lines(text, format, &lines)
}

/// The note on all differences.
fn format_note(compared: &v1::CompareResponse) -> Option<String> {
    non_empty(&compared.note).map(|note| format!("note: {}", escape_line(note)))
}

/// Queries the cells against a baseline as typed; `level` is a share.
///
/// # Errors
/// As for [`run_compare`].
pub(crate) async fn query_contrasts(
    client: &mut Client,
    sweep: &SweepId,
    baseline: &str,
    metric: Option<&str>,
    at: Option<&str>,
    level: f64,
) -> Result<v1::CompareResponse, UserError> {
    let request = v1::CompareRequest {
        sweep: sweep.to_string(),
        baseline: parse_axis_choices("--baseline", baseline)?,
        metric: metric.unwrap_or_default().to_owned(),
        at: at.unwrap_or_default().to_owned(),
        level,
        ..v1::CompareRequest::default()
    };
    query_comparison(client, request).await
}

async fn query_comparison(
    client: &mut Client,
    request: v1::CompareRequest,
) -> Result<v1::CompareResponse, UserError> {
    let is_of_two = !request.baseline_sweep.is_empty();
    match send_comparison(client, request.clone()).await {
        Err(refusal) if is_of_two && refusal.code == ErrorCode::BadInput => {
            Err(explain_refusal(client, request, refusal).await)
        }
        answered => answered,
    }
}

async fn send_comparison(
    client: &mut Client,
    request: v1::CompareRequest,
) -> Result<v1::CompareResponse, UserError> {
    client
        .call(async |client| client.sweeps.compare(request).await)
        .await
}

/// A word that means no sweep.
const NO_SWEEP: &str = "?";

/// Explains why a comparison of two sweeps was refused, also by a coordinator of a version that knows none: it misses a baseline,
/// whatever the other sweep is, and even if there is no such sweep.
async fn explain_refusal(
    client: &mut Client,
    request: v1::CompareRequest,
    refusal: UserError,
) -> UserError {
    let of_no_sweep = v1::CompareRequest {
        baseline_sweep: NO_SWEEP.to_owned(),
        ..request
    };
    let is_outdated = send_comparison(client, of_no_sweep)
        .await
        .is_err_and(|same| same == refusal);
    if !is_outdated {
        return refusal;
    }

    let info = client
        .call(async |client| client.sweeps.info(v1::InfoRequest {}).await)
        .await;
    outdated_error(info.map(|info| info.build).unwrap_or_default().as_str())
}

/// The error for a coordinator of a version that compares no sweeps with each other.
fn outdated_error(build: &str) -> UserError {
    let build = match build {
        "" => String::new(),
        build => format!(", ergodic {},", escape_line(build)),
    };
    let message = format!(
        "the coordinator's version{build} is too old to compare two sweeps: update the coordinator to this version, {BUILD}, or compare \
         cells of one sweep with --baseline"
    );
    UserError::new(ErrorCode::Version, message)
}

/// The fields of a comparison of two sweeps; empty for one within a sweep.
fn render_json_pairing(compared: &v1::CompareResponse) -> String {
    if compared.baseline_sweep.is_empty() {
        return String::new();
    }
    format!(
        "  \"baseline_sweep\": {},\n  \"unpaired_reason\": {},\n",
        json!(compared.baseline_sweep),
        json!(non_empty(&compared.unpaired_reason))
    )
}

const COLUMNS: [&str; 18] = [
    "n",
    "mean",
    "baseline",
    "difference",
    "std",
    "ci_low",
    "ci_high",
    "above",
    "below",
    "sign_p",
    "sign_holm",
    "wilcoxon_p",
    "wilcoxon_holm",
    "wilcoxon",
    "correlation",
    "unpaired",
    "saved",
    "note",
];

/// Columns of a comparison whose repeats are not paired.
const UNPAIRED_COLUMNS: [&str; 10] = [
    "n",
    "baseline_n",
    "mean",
    "baseline",
    "difference",
    "ci_low",
    "ci_high",
    "welch_p",
    "welch_holm",
    "note",
];

fn build_contrast_data(compared: &v1::CompareResponse) -> TableData {
    let unpaired = !compared.unpaired_reason.is_empty();
    let figures: &[&str] = if unpaired {
        &UNPAIRED_COLUMNS
    } else {
        &COLUMNS
    };
    let build_row = if unpaired {
        build_unpaired_row
    } else {
        build_contrast_row
    };

    let columns = compared.axes.iter().cloned();
    TableData {
        columns: columns
            .chain(figures.iter().map(|name| (*name).to_owned()))
            .collect(),
        rows: compared.rows.iter().map(build_row).collect(),
        key_columns: compared.axes.len(),
    }
}

fn build_unpaired_row(row: &v1::Contrast) -> Vec<Value> {
    let figures = [
        json!(row.n),
        json!(row.baseline_n),
        json!(row.mean),
        json!(row.baseline),
        json!(row.difference),
        json!(row.low),
        json!(row.high),
        json!(row.welch_p),
        json!(row.welch_holm),
        json!(non_empty(&row.note)),
    ];
    row.values.iter().map(json_value).chain(figures).collect()
}

fn build_contrast_row(row: &v1::Contrast) -> Vec<Value> {
    let method = match row.wilcoxon_exact {
        true => "exact",
        false => "normal",
    };
    let figures = [
        json!(row.n),
        json!(row.mean),
        json!(row.baseline),
        json!(row.difference),
        json!(row.std),
        json!(row.low),
        json!(row.high),
        json!(row.above),
        json!(row.below),
        json!(row.sign_p),
        json!(row.sign_holm),
        json!(row.wilcoxon_p),
        json!(row.wilcoxon_holm),
        json!(row.wilcoxon_p.map(|_| method)),
        json!(row.correlation),
        json!(row.unpaired),
        json!(row.saved),
        json!(non_empty(&row.note)),
    ];

    row.values.iter().map(json_value).chain(figures).collect()
}

fn render_human_contrasts(compared: &v1::CompareResponse, level: f64) -> String {
    let unpaired = !compared.unpaired_reason.is_empty();
    let words = AxisFormats::from_rows(
        compared.axes.len(),
        compared.rows.iter().map(|row| row.values.as_slice()),
    );
    let format_row = if unpaired {
        format_unpaired_row
    } else {
        format_contrast_row
    };
    let rows: Vec<Vec<Value>> = compared
        .rows
        .iter()
        .map(|row| format_row(row, &words))
        .collect();

    let note = format_note(compared).map_or_else(String::new, |note| note + "\n");
    format!(
        "{} ({}): {} against {}, {}\n{}{}\n{note}{}",
        escape_line(&compared.name),
        compared.sweep,
        compared.metric,
        escape_line(&compared.baseline),
        describe_pairing(compared),
        render_described_rows(describe_columns(compared, level), &rows),
        describe_tests(unpaired),
        format_compared_provenance(compared)
    )
}

/// The last line; of two sweeps with different trials or data, a line for each.
fn format_compared_provenance(compared: &v1::CompareResponse) -> String {
    let trials = format_trial_count(compared.done, compared.trials);
    let here = format_provenance(&trials, &compared.data, &compared.numerics);
    let Some(done) = compared.baseline_done else {
        return here;
    };

    let trials = format_trial_count(done, compared.baseline_trials);
    let there = format_provenance(
        &trials,
        &compared.baseline_data,
        &compared.baseline_numerics,
    );
    match here == there {
        true => here,
        false => format!(
            "{} ({}): {here}{}: {there}",
            escape_line(&compared.name),
            compared.sweep,
            escape_line(&compared.baseline)
        ),
    }
}

fn describe_pairing(compared: &v1::CompareResponse) -> String {
    match non_empty(&compared.unpaired_reason) {
        None => "paired by repeat".to_owned(),
        Some(reason) => format!("not paired, because {}", escape_line(reason)),
    }
}

fn describe_tests(unpaired: bool) -> &'static str {
    if unpaired {
        "intervals and p by Welch's t-test, with Holm's correction over the cells"
    } else {
        "p with Holm's correction over the cells, ≈ by the normal approximation; saved: further repeats of each cell that an \
         unpaired comparison would need"
    }
}

/// The columns for people: on a narrow terminal, cells and differences go last.
fn describe_columns(compared: &v1::CompareResponse, level: f64) -> Vec<TextColumn> {
    let interval = TextColumn::figure(format!("{level} % CI"), 240);
    let difference = TextColumn::figure("difference", 250);
    let remarks = TextColumn::remarks("note", 150);
    let axes = compared.axes.iter();
    let mut columns: Vec<TextColumn> = axes.map(|axis| TextColumn::label(axis, 245)).collect();
    columns.push(TextColumn::figure("n", 235));
    if !compared.unpaired_reason.is_empty() {
        columns.extend([
            TextColumn::figure("baseline n", 210),
            difference,
            interval,
            TextColumn::figure("Welch p", 230),
            remarks,
        ]);
        return columns;
    }

    columns.extend([
        difference,
        interval,
        TextColumn::figure("above/below", 200),
        TextColumn::figure("sign p", 210),
        TextColumn::figure("Wilcoxon p", 230),
        TextColumn::figure("saved", 100),
        remarks,
    ]);
    columns
}

fn format_unpaired_row(row: &v1::Contrast, words: &AxisFormats) -> Vec<Value> {
    let (difference, interval) = format_estimate(row.difference, row.low.zip(row.high));
    let cells = [
        row.n.to_string(),
        row.baseline_n.unwrap_or_default().to_string(),
        difference,
        interval,
        format_short_number(row.welch_holm),
        row.note.clone(),
    ];

    words
        .format_row(&row.values)
        .chain(cells)
        .map(Value::String)
        .collect()
}

fn format_contrast_row(row: &v1::Contrast, words: &AxisFormats) -> Vec<Value> {
    let (difference, interval) = format_estimate(row.difference, row.low.zip(row.high));
    let approximate = if row.wilcoxon_p.is_some() && !row.wilcoxon_exact {
        "≈ "
    } else {
        ""
    };
    let saved = row.saved.map_or_else(
        || format_short_number(None),
        |saved| format_rounded(saved, 0),
    );

    let cells = [
        row.n.to_string(),
        difference,
        interval,
        format!("{}/{}", row.above, row.below),
        format_short_number(row.sign_holm),
        format!("{approximate}{}", format_short_number(row.wilcoxon_holm)),
        saved,
        row.note.clone(),
    ];

    words
        .format_row(&row.values)
        .chain(cells)
        .map(Value::String)
        .collect()
}

#[cfg(test)]
mod tests {
    use ergodic_common::grid::reserved_names::explain_reserved_axis;

    use super::*;

    #[test]
    fn no_axis_of_a_new_sweep_has_the_name_of_a_column() {
        for name in COLUMNS.iter().chain(&UNPAIRED_COLUMNS) {
            assert!(explain_reserved_axis(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_trials_of_both_sweeps_are_told_where_they_differ() {
        let compared = v1::CompareResponse {
            name: "a".into(),
            sweep: "id-a".into(),
            baseline: "b (id-b)".into(),
            done: 6,
            trials: 6,
            data: "glyphs".into(),
            numerics: "cpu".into(),
            ..v1::CompareResponse::default()
        };
        let alone = format_compared_provenance(&compared);
        assert_eq!(alone, "6 trials · glyphs · cpu\n");

        let both = v1::CompareResponse {
            baseline_done: Some(4),
            baseline_trials: 5,
            baseline_data: "mnist".into(),
            baseline_numerics: "cpu".into(),
            ..compared.clone()
        };
        assert_eq!(
            format_compared_provenance(&both),
            "a (id-a): 6 trials · glyphs · cpu\nb (id-b): 4 of 5 trials so far · mnist · cpu\n"
        );
        let alike = v1::CompareResponse {
            baseline_done: Some(6),
            baseline_trials: 6,
            baseline_data: "glyphs".into(),
            ..both
        };
        assert_eq!(format_compared_provenance(&alike), alone);
    }
}
