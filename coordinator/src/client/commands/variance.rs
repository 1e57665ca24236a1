//! `ergodic variance`: what each random stream does to a metric's variance.

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::render::{
    AxisFormats, TableData, TextFormat, format_short_number, json_value, render_human_rows,
    render_table_data,
};

/// What is to be known, and how it is printed.
#[derive(Debug, Clone)]
pub struct VarianceOptions {
    /// Metric.
    pub metric: Option<String>,
    /// Step.
    pub at: Option<String>,
    /// Level of the intervals, in percent.
    pub level: f64,
    /// Format.
    pub format: TextFormat,
}

/// `ergodic variance`
///
/// # Errors
/// There is no such sweep or metric, the sweep crosses no streams, trials are missing, or nobody answers.
pub async fn decompose_variance(
    client: &mut Client,
    sweep: &str,
    options: &VarianceOptions,
) -> Result<String, UserError> {
    let request = v1::VarianceRequest {
        sweep: sweep.to_owned(),
        metric: options.metric.clone().unwrap_or_default(),
        at: options.at.clone().unwrap_or_default(),
        level: options.level / 100.0,
    };
    let found = client
        .sweeps
        .variance(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let records = build_variance_data(&found);

    if options.format == TextFormat::Json {
        let rows = records.to_json_lines();
        return Ok(format!(
            "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"level\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            json!(found.sweep),
            json!(found.metric),
            json!(options.level / 100.0),
            rows
        ));
    }

    Ok(render_table_data(&records, options.format, |_| {
        render_human_variance(&found, options.level)
    }))
}

/// One row per cell and component; of a cell without any, one row that says why.
fn build_variance_data(found: &v1::VarianceResponse) -> TableData {
    let figures = [
        "component",
        "n",
        "df",
        "variance",
        "share",
        "ci_low",
        "ci_high",
        "note",
    ]
    .map(str::to_owned);
    let rows = found.cells.iter().flat_map(|cell| {
        let start = move || cell.values.iter().map(json_value);
        let note = json!(Some(&cell.note).filter(|note| !note.is_empty()));
        let blank = [Value::Null, json!(cell.n)]
            .into_iter()
            .chain((0..5).map(|_| Value::Null))
            .chain([note.clone()]);
        let none = cell
            .components
            .is_empty()
            .then(|| start().chain(blank).collect::<Vec<Value>>());

        let row = move |component: &v1::VarianceComponent| {
            let figures = [
                json!(component.name),
                json!(cell.n),
                json!(component.df),
                json!(component.variance),
                json!(component.share),
                json!(component.low),
                json!(component.high),
                note.clone(),
            ];

            start().chain(figures).collect::<Vec<Value>>()
        };

        none.into_iter().chain(cell.components.iter().map(row))
    });

    TableData {
        columns: found.axes.iter().cloned().chain(figures).collect(),
        rows: rows.collect(),
        key_columns: found.axes.len(),
    }
}

fn render_human_variance(found: &v1::VarianceResponse, level: f64) -> String {
    let interval = format!("{level} % CI");
    let after = [
        "component",
        "df",
        "variance",
        "share",
        "deviation",
        &interval,
        "",
    ];
    let header: Vec<String> = found
        .axes
        .iter()
        .cloned()
        .chain(after.map(str::to_owned))
        .collect();

    let words = AxisFormats::from_rows(
        found.axes.len(),
        found.cells.iter().map(|cell| cell.values.as_slice()),
    );
    let rows: Vec<Vec<Value>> = found
        .cells
        .iter()
        .flat_map(|cell| format_cell_rows(cell, &words))
        .collect();

    let part = match found.done == found.trials {
        true => format!("{} trials", found.trials),
        false => format!("{} of {} trials so far", found.done, found.trials),
    };
    format!(
        "{} ({}): {}, where the variance of repeats comes from\n{}by the method of moments; interval of the variance: \
         Satterthwaite's, for estimates above 0\n{part} · {} · {}\n",
        escape_line(&found.name),
        found.sweep,
        found.metric,
        render_human_rows(&header, &rows),
        escape_line(&found.data),
        escape_line(&found.numerics)
    )
}

/// Names and note stand in a cell's first row alone.
fn format_cell_rows(cell: &v1::VarianceCell, words: &AxisFormats) -> Vec<Vec<Value>> {
    let first = |at: usize, text: String| if at == 0 { text } else { String::new() };
    let start = |at: usize| {
        words
            .format_row(&cell.values)
            .map(move |text| first(at, text))
    };

    let figure = |x: f64| format_significant(x, 3);
    let nothing = || format_short_number(None);
    let text = |cells: Vec<String>| cells.into_iter().map(Value::String).collect::<Vec<Value>>();

    if cell.components.is_empty() {
        let blank = (0..6).map(|_| nothing()).chain([cell.note.clone()]);
        return vec![text(start(0).chain(blank).collect())];
    }

    let row = |(at, component): (usize, &v1::VarianceComponent)| {
        let ends = component.low.zip(component.high);
        let figures = [
            component.name.clone(),
            component.df.to_string(),
            figure(component.variance),
            component
                .share
                .map_or_else(nothing, |share| format!("{} %", figure(100.0 * share))),
            Some(component.variance)
                .filter(|x| *x >= 0.0)
                .map_or_else(nothing, |x| format_short_number(Some(x.sqrt()))),
            ends.map_or_else(nothing, |(low, high)| {
                format!("{} … {}", figure(low), figure(high))
            }),
            first(at, cell.note.clone()),
        ];

        text(start(at).chain(figures).collect())
    };

    cell.components.iter().enumerate().map(row).collect()
}
