//! `ergodic effects`: what each axis does, where the variance is, and which cell is best.

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::render::{
    AxisFormats, NamedAxisFormats, TableData, TextFormat, exact_value, format_estimate,
    format_short_number, json_number, json_value, render_human_rows, render_latex_data,
};

/// What is to be known, and how it is printed.
#[derive(Debug, Clone)]
pub struct EffectsOptions {
    /// Metric.
    pub metric: Option<String>,
    /// Step.
    pub at: Option<String>,
    /// Level of the intervals, in percent.
    pub level: f64,
    /// Two axes, or none.
    pub interaction: Vec<String>,
    /// Only this part.
    pub part: Option<EffectsPart>,
    /// Format.
    pub format: TextFormat,
}

/// `--part`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EffectsPart {
    /// What each value of each axis adds.
    Effects,
    /// Where the variance is.
    Shares,
    /// The cells with the best means.
    Best,
    /// What pairs of values of two axes add.
    Interaction,
}

const PARTS: [EffectsPart; 4] = [
    EffectsPart::Effects,
    EffectsPart::Shares,
    EffectsPart::Best,
    EffectsPart::Interaction,
];

/// `ergodic effects`
///
/// # Errors
/// There is no such sweep, axis or metric, nothing to compare, or nobody answers.
pub async fn estimate_effects(
    client: &mut Client,
    sweep: &str,
    options: &EffectsOptions,
) -> Result<String, UserError> {
    if options.part == Some(EffectsPart::Interaction) && options.interaction.is_empty() {
        let message = "--part interaction: of which two axes? Name them, as in --interaction lr,wd";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    let request = v1::EffectsRequest {
        sweep: sweep.to_owned(),
        metric: options.metric.clone().unwrap_or_default(),
        at: options.at.clone().unwrap_or_default(),
        level: options.level / 100.0,
        interaction: options.interaction.clone(),
    };
    let found = client
        .sweeps
        .effects(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();

    let single = options
        .part
        .unwrap_or(match options.interaction.is_empty() {
            true => EffectsPart::Effects,
            false => EffectsPart::Interaction,
        });
    Ok(match options.format {
        TextFormat::Json => render_json_effects(&found, options),
        TextFormat::Csv => build_part_data(&found, single).to_csv(),
        TextFormat::Md => build_part_data(&found, single).to_markdown(),
        TextFormat::Latex => render_latex_data(&build_part_data(&found, single)),
        TextFormat::Table => render_human_effects(&found, options),
    })
}

/// One part as rows.
fn build_part_data(found: &v1::EffectsResponse, part: EffectsPart) -> TableData {
    match part {
        EffectsPart::Effects => build_effect_data(found),
        EffectsPart::Shares => build_share_data(found),
        EffectsPart::Best => build_best_cell_data(found),
        EffectsPart::Interaction => build_interaction_data(found),
    }
}

/// Values as they are; of axes that move together, one text.
fn combine_axis_values(values: &[v1::AxisValue]) -> Value {
    match values {
        [value] => json_value(value),
        _ => json!(values.iter().map(exact_value).collect::<Vec<_>>().join(" ")),
    }
}

fn to_owned_names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

fn effect_estimates(effect: &v1::Effect) -> Vec<Value> {
    vec![
        json!(effect.cells),
        json!(effect.mean),
        json!(effect.effect),
        json!(effect.low),
        json!(effect.high),
    ]
}

fn build_effect_data(found: &v1::EffectsResponse) -> TableData {
    let row = |effect: &v1::Effect| {
        [
            vec![
                json!(effect.axes.join("+")),
                combine_axis_values(&effect.values),
            ],
            effect_estimates(effect),
        ]
        .concat()
    };

    TableData {
        columns: to_owned_names(&[
            "axis", "value", "cells", "mean", "effect", "ci_low", "ci_high",
        ]),
        rows: found.effects.iter().map(row).collect(),
        key_columns: 2,
    }
}

fn build_share_data(found: &v1::EffectsResponse) -> TableData {
    let row = |share: &v1::VarianceShare| {
        vec![
            json!(share.name),
            json!(share.df),
            json!(share.squares),
            json!(share.share),
            json!(share.between),
        ]
    };

    TableData {
        columns: to_owned_names(&["term", "df", "squares", "share", "share_between"]),
        rows: found.shares.iter().map(row).collect(),
        key_columns: 0,
    }
}

fn build_best_cell_data(found: &v1::EffectsResponse) -> TableData {
    let row = |best: &v1::BestCell| {
        let before = [json!(best.cell)]
            .into_iter()
            .chain(best.values.iter().map(json_value));
        let ranked = [
            json!(best.mean_rank),
            json!(best.may_be_best),
            json!(best.probability),
        ];
        let after = [
            json!(best.n),
            json!(best.lost),
            json_number(Some(best.mean)),
        ]
        .into_iter()
        .chain(ranked);

        before.chain(after).collect()
    };

    let axes = ["cell".to_owned()]
        .into_iter()
        .chain(found.axes.iter().cloned());
    TableData {
        columns: axes
            .chain(to_owned_names(&[
                "n",
                "without_value",
                "mean",
                "mean_rank",
                "may_be_best",
                "p_best",
            ]))
            .collect(),
        rows: found.best.iter().map(row).collect(),
        key_columns: 1 + found.axes.len(),
    }
}

fn build_interaction_data(found: &v1::EffectsResponse) -> TableData {
    let axes = found
        .interaction
        .first()
        .map(|effect| effect.axes.clone())
        .unwrap_or_default();

    let row = |effect: &v1::Effect| {
        effect
            .values
            .iter()
            .map(json_value)
            .chain(effect_estimates(effect))
            .collect()
    };

    let of_axes = axes.len();
    let columns = axes.into_iter().chain(to_owned_names(&[
        "cells", "mean", "effect", "ci_low", "ci_high",
    ]));
    TableData {
        columns: columns.collect(),
        rows: found.interaction.iter().map(row).collect(),
        key_columns: of_axes,
    }
}

fn is_part_selected(options: &EffectsOptions, part: EffectsPart) -> bool {
    match options.part {
        Some(wanted) => wanted == part,
        None => part != EffectsPart::Interaction || !options.interaction.is_empty(),
    }
}

fn render_json_effects(found: &v1::EffectsResponse, options: &EffectsOptions) -> String {
    let mut fields = vec![
        format!("  \"sweep\": {}", json!(found.sweep)),
        format!("  \"metric\": {}", json!(found.metric)),
        format!("  \"level\": {}", json!(options.level / 100.0)),
        format!("  \"mean\": {}", json!(found.mean)),
        format!("  \"notes\": {}", json!(found.notes)),
    ];

    for part in PARTS
        .into_iter()
        .filter(|part| is_part_selected(options, *part))
    {
        let name = match part {
            EffectsPart::Effects => "effects",
            EffectsPart::Shares => "shares",
            EffectsPart::Best => "best",
            EffectsPart::Interaction => "interaction",
        };

        let rows = build_part_data(found, part).to_json_lines();
        fields.push(format!("  \"{name}\": [\n{}\n  ]", rows));
    }

    format!("{{\n{}\n}}\n", fields.join(",\n"))
}

fn render_human_effects(found: &v1::EffectsResponse, options: &EffectsOptions) -> String {
    let part = match found.done == found.trials {
        true => format!("{} trials", found.trials),
        false => format!("{} of {} trials so far", found.done, found.trials),
    };
    let mean = format_short_number(Some(found.mean));
    let mut out = format!(
        "{} ({}): {}, mean of cells {mean}\n",
        escape_line(&found.name),
        found.sweep,
        found.metric
    );

    for part in PARTS
        .into_iter()
        .filter(|part| is_part_selected(options, *part))
    {
        out += &match part {
            EffectsPart::Effects => render_main_effects(found, options.level),
            EffectsPart::Shares => render_variance_shares(found),
            EffectsPart::Best => render_best_cells(found),
            EffectsPart::Interaction => render_interaction(found),
        };
    }

    found
        .notes
        .iter()
        .for_each(|note| out += &format!("note: {note}\n"));
    format!(
        "{out}{part} · {} · {}\n",
        escape_line(&found.data),
        escape_line(&found.numerics)
    )
}

fn render_text_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<Value>> = rows
        .map(|row| row.into_iter().map(Value::String).collect())
        .collect();
    render_human_rows(&to_owned_names(header), &rows)
}

/// The values of axes in words.
fn build_axis_formats(effects: &[v1::Effect]) -> NamedAxisFormats {
    NamedAxisFormats::from_values(
        effects
            .iter()
            .flat_map(|effect| effect.axes.iter().zip(&effect.values)),
    )
}

fn render_main_effects(found: &v1::EffectsResponse, level: f64) -> String {
    let interval = format!("{level} % CI of the effect");
    let header = ["axis", "value", "cells", "mean", "effect", &interval];
    let words = build_axis_formats(&found.effects);
    let row = |effect: &v1::Effect| {
        let interval = effect.low.zip(effect.high);
        let (figure, ends) = format_estimate(effect.effect, interval);
        // A mean is as uncertain as what it is above or below the others.
        let mean = format_estimate(effect.mean, interval).0;
        let first = [
            effect.axes.join("+"),
            words.format_values(&effect.axes, &effect.values),
            effect.cells.to_string(),
        ];

        first.into_iter().chain([mean, figure, ends]).collect()
    };
    let rows = render_text_table(&header, found.effects.iter().map(row));

    format!(
        "what each value adds, averaged over the other axes; intervals by resampling whole repeats, or as a note says\n{rows}"
    )
}

fn render_variance_shares(found: &v1::EffectsResponse) -> String {
    let percent = |x: Option<f64>| {
        x.map_or_else(
            || format_short_number(None),
            |x| format!("{} %", format_significant(100.0 * x, 3)),
        )
    };
    let row = |share: &v1::VarianceShare| {
        let squares = format_significant(share.squares, 4);
        vec![
            share.name.clone(),
            share.df.to_string(),
            squares,
            percent(share.share),
            percent(share.between),
        ]
    };
    let rows = render_text_table(
        &["term", "df", "sum of squares", "of all", "between cells"],
        found.shares.iter().map(row),
    );

    format!("where the variance is\n{rows}")
}

fn render_best_cells(found: &v1::EffectsResponse) -> String {
    if found.best.is_empty() {
        return String::new();
    }

    let axes: Vec<&str> = found.axes.iter().map(String::as_str).collect();
    let header = [
        &["cell"],
        &axes[..],
        &["n", "mean", "mean rank", "p(best)", ""],
    ]
    .concat();

    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.best.iter().map(|best| best.values.as_slice()),
    );
    let row = |best: &v1::BestCell| {
        let lost = if best.lost > 0 {
            format!("{} without a value", best.lost)
        } else {
            String::new()
        };

        let mark = match best.may_be_best {
            true if best.cell == found.best[0].cell => "★ ",
            true => "☆ ",
            false => "",
        };
        let first = [format!("{mark}{}", best.cell)]
            .into_iter()
            .chain(words.format_row(&best.values));

        let digits = |x: Option<f64>| {
            x.map_or_else(|| format_short_number(None), |x| format_significant(x, 3))
        };
        let figures = [
            format_short_number(Some(best.mean)),
            digits(best.mean_rank),
            digits(best.probability),
        ];

        first
            .chain([best.n.to_string()])
            .chain(figures)
            .chain([lost])
            .collect()
    };
    let rows = render_text_table(&header, found.best.iter().map(row));

    let others = found.may_be_best.saturating_sub(1);
    format!(
        "best cells, by the ranks of trials within repeats; ☆ cannot be told from the best one, ★, at 95 % ({others} others); p(best): \
         share of resamples of whole repeats in which the cell is the best, more than the probability that it is\n{rows}"
    )
}

/// The values of the one factor down the side, those of the other along the top.
fn render_interaction(found: &v1::EffectsResponse) -> String {
    let Some(first) = found.interaction.first() else {
        return String::new();
    };

    // The last axis' values are the other factor's: they change fastest.
    let width = found
        .interaction
        .iter()
        .skip(1)
        .position(|effect| effect.values.first() != first.values.first());
    let width = width.map_or(found.interaction.len(), |at| at + 1);

    let words = build_axis_formats(&found.interaction);
    let cut = |effect: &v1::Effect| effect.values.len().min(effect.axes.len()).min(1);
    let side = |effect: &v1::Effect| {
        words.format_values(&effect.axes[..cut(effect)], &effect.values[..cut(effect)])
    };
    let top = |effect: &v1::Effect| {
        words.format_values(&effect.axes[cut(effect)..], &effect.values[cut(effect)..])
    };

    let corner = format!("{} \\ {}", first.axes[0], first.axes[1..].join(" "));
    let tops: Vec<String> = found.interaction.iter().take(width).map(top).collect();
    let header: Vec<&str> = [corner.as_str()]
        .into_iter()
        .chain(tops.iter().map(String::as_str))
        .collect();

    let row = |effects: &[v1::Effect]| {
        let figures = effects
            .iter()
            .map(|effect| format_short_number(effect.effect));
        effects
            .first()
            .map(side)
            .into_iter()
            .chain(figures)
            .collect()
    };
    let rows = render_text_table(&header, found.interaction.chunks(width).map(row));

    format!("interaction: what a pair of values adds to what both add\n{rows}")
}
