//! `ergodic effects`: prints the effects of axes, the analysis of variance, and the best cells.

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{format_count, format_significant};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::{MetricArgs, SweepTarget};
use crate::client::render::{
    AxisFormats, NamedAxisFormats, TableData, TextColumn, TextFormat, add_lines, exact_value,
    format_estimate, format_provenance, format_short_number, format_trial_count, json_number,
    json_value, render_described_rows, render_human_rows, render_table_data,
};

/// `ergodic effects`
#[derive(Debug, Args)]
pub struct EffectsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub metric: MetricArgs,
    /// Two axes, as in lr,wd, whose interaction is estimated
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    pub interaction: Vec<String>,
    /// Only this part [default: effects or interaction for csv and md, which hold one part; otherwise all]
    #[arg(long, value_enum)]
    pub part: Option<EffectsPart>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// `--part`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EffectsPart {
    /// The effect of each value of each axis.
    Effects,
    /// The share of the variance that each axis explains.
    Shares,
    /// The cells with the best means.
    Best,
    /// The interaction of two axes.
    Interaction,
}

const PARTS: [EffectsPart; 4] = [
    EffectsPart::Effects,
    EffectsPart::Shares,
    EffectsPart::Best,
    EffectsPart::Interaction,
];

/// Estimates the effects of axes and prints them.
///
/// # Errors
/// There is no such sweep, axis or metric, nothing to compare, or nobody answers.
pub async fn run_effects(args: EffectsArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    check_interaction(&args)?;
    let request = v1::EffectsRequest {
        sweep: id.into(),
        metric: args.metric.metric.clone().unwrap_or_default(),
        at: args.metric.at.clone().unwrap_or_default(),
        level: args.metric.level / 100.0,
        interaction: args.interaction.clone(),
    };
    let found = client
        .call(async |client| client.sweeps.effects(request).await)
        .await?;

    print_output(render_effects(&found, &args))
}

fn render_effects(found: &v1::EffectsResponse, args: &EffectsArgs) -> String {
    let single = args.part.unwrap_or(match args.interaction.is_empty() {
        true => EffectsPart::Effects,
        false => EffectsPart::Interaction,
    });
    match args.format {
        TextFormat::Json => render_json_effects(found, args),
        TextFormat::Csv => build_part_data(found, single).to_csv(),
        TextFormat::Md | TextFormat::Latex => add_lines(
            render_table_data(&build_part_data(found, single), args.format, |_| {
                String::new()
            }),
            args.format,
            &format_notes(found),
        ),
        TextFormat::Table => render_human_effects(found, args),
    }
}

fn check_interaction(args: &EffectsArgs) -> Result<(), UserError> {
    if args.part != Some(EffectsPart::Interaction) || !args.interaction.is_empty() {
        return Ok(());
    }

    let message = "--part interaction: expected two axes, as in --interaction lr,wd";
    Err(UserError::new(ErrorCode::BadInput, message))
}

/// Builds the rows of one part.
fn build_part_data(found: &v1::EffectsResponse, part: EffectsPart) -> TableData {
    match part {
        EffectsPart::Effects => build_effect_data(found),
        EffectsPart::Shares => build_share_data(found),
        EffectsPart::Best => build_best_cell_data(found),
        EffectsPart::Interaction => build_interaction_data(found),
    }
}

/// A single value as it is; the values of axes that change together as one text.
fn combine_axis_values(values: &[v1::AxisValue]) -> Value {
    match values {
        [value] => json_value(value),
        _ => json!(values.iter().map(exact_value).collect::<Vec<_>>().join(" ")),
    }
}

fn to_owned_names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

const ESTIMATES: [&str; 5] = ["cells", "mean", "effect", "ci_low", "ci_high"];

fn effect_estimates(effect: &v1::Effect) -> [Value; 5] {
    [
        json!(effect.cells),
        json!(effect.mean),
        json!(effect.effect),
        json!(effect.low),
        json!(effect.high),
    ]
}

fn build_effect_data(found: &v1::EffectsResponse) -> TableData {
    let mut rows = Vec::new();
    for effect in &found.effects {
        let axis = json!(effect.axes.join("+"));
        let key = [axis, combine_axis_values(&effect.values)];
        rows.push(key.into_iter().chain(effect_estimates(effect)).collect());
    }

    TableData {
        columns: [&["axis", "value"], &ESTIMATES[..]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        rows,
        key_columns: 2,
    }
}

fn build_share_data(found: &v1::EffectsResponse) -> TableData {
    let rows = found.shares.iter().map(|share| {
        vec![
            json!(share.name),
            json!(share.df),
            json!(share.squares),
            json!(share.share),
            json!(share.between),
        ]
    });

    let columns = ["term", "df", "squares", "share", "share_between"];
    TableData::from_rows(&columns, rows.collect())
}

fn build_best_cell_data(found: &v1::EffectsResponse) -> TableData {
    let mut columns = vec!["cell".to_owned()];
    columns.extend(found.axes.iter().cloned());
    columns.extend(to_owned_names(&[
        "n",
        "without_value",
        "mean",
        "mean_rank",
        "may_be_best",
        "p_best",
    ]));

    TableData {
        columns,
        rows: found.best.iter().map(build_best_cell_row).collect(),
        key_columns: 1 + found.axes.len(),
    }
}

fn build_best_cell_row(best: &v1::BestCell) -> Vec<Value> {
    let mut row = vec![json!(best.cell)];
    row.extend(best.values.iter().map(json_value));
    row.extend([
        json!(best.n),
        json!(best.lost),
        json_number(Some(best.mean)),
        json!(best.mean_rank),
        json!(best.may_be_best),
        json!(best.probability),
    ]);
    row
}

fn build_interaction_data(found: &v1::EffectsResponse) -> TableData {
    let mut columns = found
        .interaction
        .first()
        .map(|effect| effect.axes.clone())
        .unwrap_or_default();
    let key_columns = columns.len();
    columns.extend(ESTIMATES.map(str::to_owned));

    let mut rows = Vec::new();
    for effect in &found.interaction {
        let values = effect.values.iter().map(json_value);
        rows.push(values.chain(effect_estimates(effect)).collect());
    }

    TableData {
        columns,
        rows,
        key_columns,
    }
}

fn is_part_selected(args: &EffectsArgs, part: EffectsPart) -> bool {
    match args.part {
        Some(wanted) => wanted == part,
        None => part != EffectsPart::Interaction || !args.interaction.is_empty(),
    }
}

fn render_json_effects(found: &v1::EffectsResponse, args: &EffectsArgs) -> String {
    let mut fields = vec![
        format!("  \"sweep\": {}", json!(found.sweep)),
        format!("  \"metric\": {}", json!(found.metric)),
        format!("  \"level\": {}", json!(args.metric.level / 100.0)),
        format!("  \"mean\": {}", json!(found.mean)),
        format!("  \"notes\": {}", json!(found.notes)),
    ];

    for part in PARTS
        .into_iter()
        .filter(|part| is_part_selected(args, *part))
    {
        let name = match part {
            EffectsPart::Effects => "effects",
            EffectsPart::Shares => "shares",
            EffectsPart::Best => "best",
            EffectsPart::Interaction => "interaction",
        };

        let rows = build_part_data(found, part).to_json_lines();
        fields.push(format!("  \"{name}\": [\n{rows}\n  ]"));
    }

    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

fn render_human_effects(found: &v1::EffectsResponse, args: &EffectsArgs) -> String {
    let mean = format_short_number(Some(found.mean));
    let mut out = format!(
        "{} ({}): {}, mean of cells {mean}\n",
        escape_line(&found.name),
        found.sweep,
        found.metric
    );

    for part in PARTS
        .into_iter()
        .filter(|part| is_part_selected(args, *part))
    {
        out += &match part {
            EffectsPart::Effects => render_main_effects(found, args.metric.level),
            EffectsPart::Shares => render_variance_shares(found),
            EffectsPart::Best => render_best_cells(found),
            EffectsPart::Interaction => render_interaction(found),
        };
    }

    for note in format_notes(found) {
        out += &format!("{note}\n");
    }

    out + &format_provenance(
        &format_trial_count(found.done, found.trials),
        &found.data,
        &found.numerics,
    )
}

fn format_notes(found: &v1::EffectsResponse) -> Vec<String> {
    let notes = found.notes.iter();
    notes
        .map(|note| format!("note: {}", escape_line(note)))
        .collect()
}

fn render_text_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    render_human_rows(&to_owned_names(header), &wrap_texts(rows))
}

fn wrap_texts(rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<Value>> {
    rows.map(|row| row.into_iter().map(Value::String).collect())
        .collect()
}

/// The formats of the values of axes.
fn build_axis_formats(effects: &[v1::Effect]) -> NamedAxisFormats {
    NamedAxisFormats::from_values(
        effects
            .iter()
            .flat_map(|effect| effect.axes.iter().zip(&effect.values)),
    )
}

fn render_main_effects(found: &v1::EffectsResponse, level: f64) -> String {
    let interval = format!("{level} % CI of the effect");
    let columns = vec![
        TextColumn::label("axis", 240),
        TextColumn::label("value", 245),
        TextColumn::figure("cells", 200),
        TextColumn::figure("mean", 210),
        TextColumn::figure("effect", 250),
        TextColumn::figure(interval, 230),
    ];
    let words = build_axis_formats(&found.effects);
    let rows = found
        .effects
        .iter()
        .map(|effect| format_effect(effect, &words));

    format!(
        "what each value adds, averaged over the other axes; intervals by resampling whole repeats, or as a note says\n{}",
        render_described_rows(columns, &wrap_texts(rows))
    )
}

fn format_effect(effect: &v1::Effect, words: &NamedAxisFormats) -> Vec<String> {
    let ends = effect.low.zip(effect.high);
    let (figure, interval) = format_estimate(effect.effect, ends);
    // The interval of the effect is also that of the mean, so it is shown only once.
    let (mean, _) = format_estimate(effect.mean, ends);

    vec![
        effect.axes.join("+"),
        words.format_values(&effect.axes, &effect.values),
        effect.cells.to_string(),
        mean,
        figure,
        interval,
    ]
}

fn render_variance_shares(found: &v1::EffectsResponse) -> String {
    let header = ["term", "df", "sum of squares", "of all", "between cells"];
    let rows = found.shares.iter().map(|share| {
        vec![
            share.name.clone(),
            share.df.to_string(),
            format_significant(share.squares, 4),
            format_percent(share.share),
            format_percent(share.between),
        ]
    });

    format!(
        "shares of the variance\n{}",
        render_text_table(&header, rows)
    )
}

fn format_percent(share: Option<f64>) -> String {
    share.map_or_else(
        || format_short_number(None),
        |share| format!("{} %", format_significant(100.0 * share, 3)),
    )
}

fn render_best_cells(found: &v1::EffectsResponse) -> String {
    let Some(first) = found.best.first() else {
        return String::new();
    };

    let mut columns = vec![TextColumn::figure("cell", 250)];
    columns.extend(found.axes.iter().map(|axis| TextColumn::label(axis, 200)));
    columns.extend([
        TextColumn::figure("n", 210),
        TextColumn::figure("mean", 245),
        TextColumn::figure("mean rank", 240),
        TextColumn::figure("p(best)", 235),
        TextColumn::remarks("without_value", 190),
    ]);
    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.best.iter().map(|best| best.values.as_slice()),
    );
    let rows = found
        .best
        .iter()
        .map(|best| format_best_cell(best, first.cell, &words));

    let others = found.may_be_best.saturating_sub(1);
    format!(
        "best cells, by the ranks of trials within repeats; ☆ cannot be told from the best one, ★, at 95 % ({}); \
         p(best): share of resamples of whole repeats in which the cell is the best; larger than the probability \
         that it is\n{}",
        format_count(others, "other"),
        render_described_rows(columns, &wrap_texts(rows))
    )
}

/// Formats a row of the best cells; `first` is the number of the best one.
fn format_best_cell(best: &v1::BestCell, first: u64, words: &AxisFormats) -> Vec<String> {
    let mark = match best.may_be_best {
        true if best.cell == first => "★ ",
        true => "☆ ",
        false => "",
    };
    let lost = match best.lost {
        0 => String::new(),
        lost => format!("{lost} without a value"),
    };

    let mut row = vec![format!("{mark}{}", best.cell)];
    row.extend(words.format_row(&best.values));
    row.extend([
        best.n.to_string(),
        format_short_number(Some(best.mean)),
        format_three_digits(best.mean_rank),
        format_three_digits(best.probability),
        lost,
    ]);
    row
}

fn format_three_digits(x: Option<f64>) -> String {
    x.map_or_else(|| format_short_number(None), |x| format_significant(x, 3))
}

/// Renders the values of one factor as rows, and those of the other as columns.
fn render_interaction(found: &v1::EffectsResponse) -> String {
    let Some(first) = found.interaction.first() else {
        return String::new();
    };

    // The last axis changes fastest, so the first change of the other one ends a row.
    let width = found
        .interaction
        .iter()
        .skip(1)
        .position(|effect| effect.values.first() != first.values.first())
        .map_or(found.interaction.len(), |at| at + 1);
    let words = build_axis_formats(&found.interaction);
    let corner = format!("{} \\ {}", first.axes[0], first.axes[1..].join(" "));

    let mut header = vec![corner];
    for effect in found.interaction.iter().take(width) {
        let at = first_factor_len(effect);
        header.push(words.format_values(&effect.axes[at..], &effect.values[at..]));
    }

    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows = found
        .interaction
        .chunks(width)
        .map(|effects| format_interaction_row(effects, &words));

    format!(
        "interaction: what a pair of values adds to the sum of both effects\n{}",
        render_text_table(&header, rows)
    )
}

fn format_interaction_row(effects: &[v1::Effect], words: &NamedAxisFormats) -> Vec<String> {
    let mut row = Vec::new();
    if let Some(effect) = effects.first() {
        let at = first_factor_len(effect);
        row.push(words.format_values(&effect.axes[..at], &effect.values[..at]));
    }

    let figures = effects.iter().map(|effect| effect.effect);
    row.extend(figures.map(format_short_number));
    row
}

/// Number of axes of the first factor, which is 1; the other axes change together and form the
/// second factor.
fn first_factor_len(effect: &v1::Effect) -> usize {
    effect.values.len().min(effect.axes.len()).min(1)
}
