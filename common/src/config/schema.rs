//! What fields and models there are, from the tables that sweep files are checked with.

use super::activation::ACTIVATIONS;
use super::data::{AUGMENTS, ORDERS};
use super::model::{KIND_FIELDS, MODEL_KINDS, ModelKindWord, SCHEMES};
use super::norm::NORMS;
use super::train::{LOSSES, OPTIMIZERS, WEIGHT_DECAY_SCOPES};
use super::{NUMERIC_FIELDS, OTHER_FIELDS, SHORT_NAMES};
use crate::dataset::name::DatasetName;

/// A field of a trial, which the file may set, and `[grid]` may vary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSchema {
    /// The dotted path of the field, as in `train.lr`.
    pub path: &'static str,
    /// The short name of the field, if it has one.
    pub short_name: Option<&'static str>,
    /// The values that it accepts, in words.
    pub values: String,
}

/// A model, with the fields that it takes and not every model does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSchema {
    /// The word for the model in `model.kind`.
    pub kind: &'static str,
    /// The keys of `[model]` that it takes.
    pub keys: Vec<&'static str>,
}

/// All fields, by section.
pub fn list_fields() -> Vec<FieldSchema> {
    let numbers = NUMERIC_FIELDS
        .iter()
        .map(|(path, range)| (*path, range.describe()));
    let others = OTHER_FIELDS
        .iter()
        .map(|path| (*path, describe_values(path)));

    let mut fields: Vec<FieldSchema> = numbers
        .chain(others)
        .map(|(path, values)| FieldSchema {
            path,
            short_name: SHORT_NAMES
                .iter()
                .find(|(_, full)| *full == path)
                .map(|(short, _)| *short),
            values,
        })
        .collect();
    fields.sort_by_key(|field| field.path);
    fields
}

/// The models that a sweep of trainings can name.
pub fn list_models() -> Vec<ModelSchema> {
    let kinds = MODEL_KINDS
        .iter()
        .filter(|(_, kind)| *kind != ModelKindWord::Empty);
    kinds
        .map(|(word, kind)| {
            let keys = KIND_FIELDS
                .iter()
                .filter(|(_, owners)| owners.contains(kind))
                .map(|(key, _)| *key);
            ModelSchema {
                kind: word,
                keys: keys.collect(),
            }
        })
        .collect()
}

/// The words that a field accepts; none if it accepts other values than words.
fn accepted_words(path: &str) -> Vec<&'static str> {
    match path {
        "data.dataset" => list_words(&DatasetName::NAMES),
        "data.order" => list_words(&ORDERS),
        "data.augment" => list_words(&AUGMENTS),
        "model.kind" => list_models().iter().map(|model| model.kind).collect(),
        "model.activation" => list_words(&ACTIVATIONS),
        "model.norm" => list_words(&NORMS),
        "model.init.scheme" => list_words(&SCHEMES),
        "train.wd_on" => list_words(&WEIGHT_DECAY_SCOPES),
        "train.loss" => list_words(&LOSSES),
        "train.optimizer.kind" => list_words(&OPTIMIZERS),
        _ => Vec::new(),
    }
}

fn list_words<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// The values that a field which is no number accepts.
fn describe_values(path: &str) -> String {
    let words = accepted_words(path).join(", ");
    match path {
        "data.dataset" => format!("{words}, or the path of a .safetensors file"),
        "train.loss" => format!("{words}, or a table"),
        "model.hidden" => "a list of widths, such as [64, 64], or { width = 64, depth = 2 }".to_owned(),
        "model.layers" => {
            "a list of layers, such as [{ conv = 16 }, { pool = \"max2\" }, { linear = \"classes\" }]".to_owned()
        }
        "model.start" => "a list of numbers".to_owned(),
        "model.init.file" => "the path of a .safetensors file".to_owned(),
        "model.init.results" => "a table such as { sweep = \"ID\", trials = 8 }".to_owned(),
        "model.init.layers" => "a table of factors by layer, such as { fc1 = 0.5 }".to_owned(),
        "train.schedule" => {
            "a list such as [{ epoch = 3, lr = \"x0.1\" }], or a table such as { kind = \"cosine\" }"
                .to_owned()
        }
        "train.average" => "a table such as { kind = \"ema\", decay = 0.999 }".to_owned(),
        "train.added_noise" => "a table such as { images = 32, pairs = 4 }".to_owned(),
        "train.average.every" => "a number of epochs, or a length like \"50 steps\"".to_owned(),
        _ if words.is_empty() => "true or false".to_owned(),
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Spec, SpecSource};

    /// What is wrong with a sweep with this value of a field.
    fn refusal(path: &str, value: &str) -> String {
        let source = SpecSource {
            text: "name = \"t\"\n[model]\nkind = \"mlp\"\n[train]\nsteps = 20\nlr = 0.1\nbatch_size = 10\n".into(),
            settings: vec![format!("{path}={value}")],
            ..SpecSource::default()
        };
        Spec::read_new(&source).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn every_word_is_known_to_the_reader_and_every_switch_is_one() {
        let fields = list_fields();
        assert_eq!(fields.len(), NUMERIC_FIELDS.len() + OTHER_FIELDS.len());

        for field in fields {
            for word in accepted_words(field.path) {
                let refused = refusal(field.path, word);
                assert!(
                    !refused.contains("unknown value"),
                    "{}: {refused}",
                    field.path
                );
            }
            if field.values == "true or false" {
                let refused = refusal(field.path, "7");
                assert!(
                    refused.contains("true or false"),
                    "{}: {refused}",
                    field.path
                );
            }
        }
    }

    #[test]
    fn every_key_of_a_model_is_one() {
        for model in list_models() {
            for key in model.keys {
                let path = format!("model.{key}");
                let fields = list_fields();
                assert!(fields.iter().any(|field| field.path == path), "{path}");
            }
        }
    }
}
