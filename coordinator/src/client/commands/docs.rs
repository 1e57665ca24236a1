//! `ergodic docs`: lists what sweep files can name.

use clap::{Args, ValueEnum};
use ergodic_common::config::schema::{list_fields, list_models};
use ergodic_common::dataset::files::download_hint;
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::metric::Metric;
use ergodic_common::quantity::reduce::Reducer;
use ergodic_proto::status::UserError;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::render::{TableData, TextFormat, render_table_data};

/// Width of the text for people, in characters.
const WIDTH: usize = 96;

/// `ergodic docs`
#[derive(Debug, Args)]
pub struct DocsArgs {
    /// What to list [default: the topics]
    #[arg(value_enum)]
    pub topic: Option<DocsTopic>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// A topic of `ergodic docs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DocsTopic {
    /// Fields of a trial, and the values that they accept
    Fields,
    /// Metrics, and their definitions
    Metrics,
    /// Reducers, which make one number of the samples of a trial, for quantities
    Reducers,
    /// Models, and the keys that they take
    Models,
    /// Datasets, their sizes, and how to get their files
    Datasets,
}

/// Prints what a sweep file can name.
///
/// # Errors
/// Stdout cannot be written.
pub fn run_docs(args: &DocsArgs) -> Result<CommandOutcome, UserError> {
    let data = match args.topic {
        None => list_topics(),
        Some(DocsTopic::Fields) => tabulate_fields(),
        Some(DocsTopic::Metrics) => tabulate_metrics(),
        Some(DocsTopic::Reducers) => tabulate_reducers(),
        Some(DocsTopic::Models) => tabulate_models(),
        Some(DocsTopic::Datasets) => tabulate_datasets(),
    };
    print_output(render_table_data(&data, args.format, render_entries))
}

fn list_topics() -> TableData {
    let topics = DocsTopic::value_variants().iter();
    let rows = topics
        .filter_map(ValueEnum::to_possible_value)
        .map(|topic| {
            let about = topic.get_help().map(ToString::to_string);
            vec![json!(topic.get_name()), json!(about)]
        })
        .collect();
    TableData::from_rows(&["topic", "lists"], rows)
}

fn tabulate_fields() -> TableData {
    let rows = list_fields().into_iter().map(|field| {
        vec![
            json!(field.path),
            json!(field.short_name),
            json!(field.values),
        ]
    });
    TableData::from_rows(&["field", "short", "values"], rows.collect())
}

fn tabulate_metrics() -> TableData {
    let mut rows: Vec<Vec<Value>> = Metric::NAMES
        .iter()
        .map(|(name, metric)| build_metric_row(name, metric))
        .collect();
    let of_layer = Metric::LayerNormSq("LAYER".to_owned());
    rows.push(build_metric_row(&of_layer.name(), &of_layer));
    TableData::from_rows(&["metric", "better", "definition"], rows)
}

fn build_metric_row(name: &str, metric: &Metric) -> Vec<Value> {
    let better = metric
        .larger_is_better()
        .map(|larger| if larger { "larger" } else { "smaller" });
    vec![json!(name), json!(better), json!(metric.definition())]
}

fn tabulate_reducers() -> TableData {
    let rows = Reducer::NAMES.iter().map(|(name, reducer)| {
        vec![
            json!(name),
            json!(reducer.example()),
            json!(reducer.definition()),
        ]
    });
    TableData::from_rows(&["reducer", "example", "number"], rows.collect())
}

fn tabulate_models() -> TableData {
    let rows = list_models()
        .into_iter()
        .map(|model| vec![json!(model.kind), json!(model.keys.join(", "))]);
    TableData::from_rows(&["kind", "keys"], rows.collect())
}

fn tabulate_datasets() -> TableData {
    let rows = DatasetName::NAMES.iter().map(|(word, name)| {
        let (train, test) = name.split_sizes();
        let (height, width, channels) = name.image_shape();
        let files = match download_hint(*name) {
            "" => "needs no files",
            hint => hint,
        };
        vec![
            json!(word),
            json!(train),
            json!(test),
            json!(format!("{height}×{width}×{channels}")),
            json!(name.class_count()),
            json!(files),
        ]
    });
    let columns = ["dataset", "train", "test", "shape", "classes", "files"];
    TableData::from_rows(&columns, rows.collect())
}

/// Renders a name per row, and below it what else the row says.
fn render_entries(data: &TableData) -> String {
    let mut out = String::new();
    for row in &data.rows {
        let parts: Vec<String> = data
            .columns
            .iter()
            .zip(row)
            .skip(1)
            .filter(|(_, value)| !value.is_null())
            .map(|(column, value)| match value {
                Value::String(text) if data.columns.last() == Some(column) => text.clone(),
                Value::String(text) => format!("{column}: {text}"),
                other => format!("{column}: {other}"),
            })
            .collect();

        out += row.first().and_then(Value::as_str).unwrap_or_default();
        out.push('\n');
        for line in wrap_words(&parts.join("; "), WIDTH - 4) {
            out += &format!("    {line}\n");
        }
    }
    out
}

/// Breaks a text into lines of at most `width` characters, unless a word is longer.
fn wrap_words(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let line = lines.last_mut().expect("there is a line");
        if line.is_empty() {
            line.push_str(word);
        } else if length < room {
            line.push(' ');
            line.push_str(word);
            room -= 1;
        } else {
            lines.push(word.to_owned());
            room = width;
        }
        room = room.saturating_sub(length);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_topics_have_entries_that_fit() {
        for data in [
            list_topics(),
            tabulate_fields(),
            tabulate_metrics(),
            tabulate_reducers(),
            tabulate_models(),
            tabulate_datasets(),
        ] {
            let text = render_entries(&data);
            let names = text.lines().filter(|line| !line.starts_with(' ')).count();
            assert_eq!(names, data.rows.len());
            assert!(data.rows.len() >= 4, "{text}");
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(WIDTH), "{text}");
        }
    }

    #[test]
    fn definitions_are_sentences() {
        for (name, metric) in Metric::NAMES {
            let definition = metric.definition();
            assert!(definition.ends_with('.'), "{name}: {definition}");
        }
        for (name, reducer) in Reducer::NAMES {
            assert!(reducer.definition().ends_with('.'), "{name}");
            assert!(reducer.example().starts_with(name), "{name}");
        }
        assert!(
            Metric::TestAcc
                .definition()
                .starts_with("Share of the test set")
        );
    }
}
