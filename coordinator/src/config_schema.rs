//! The part of JSON Schema by which configs of experiments are checked before a sweep starts.
//!
//! A config has no tables and no lists in it, so that few keywords say anything about one. Those that are not checked here are found
//! by [`find_unknown_keyword`], and a launch refuses their schema, because it could not tell which configs fit.

mod keywords;

use std::cell::Cell;

use ergodic_common::spec_file::suggest::suggest_nearest;
use keywords::find_reference;
pub(crate) use keywords::find_unknown_keyword;
use serde_json::{Map, Value};

/// Most references and options that are followed in a row.
const MAX_DEPTH: usize = 16;
/// Most schemas that are visited for a config. Options that refer to others could be too many to try.
const MAX_VISITS: usize = 10_000;

/// Bounds of numbers: the keyword, what a number must be to the bound, and the words for it.
const BOUNDS: [(&str, Comparison, &str); 4] = [
    ("minimum", |x, bound| x >= bound, "at least"),
    ("maximum", |x, bound| x <= bound, "at most"),
    ("exclusiveMinimum", |x, bound| x > bound, "more than"),
    ("exclusiveMaximum", |x, bound| x < bound, "less than"),
];

type Comparison = fn(f64, f64) -> bool;

/// What is wrong with a config.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongConfig {
    /// The key that is wrong; the one of `[model]` that names the experiment if it is none alone.
    pub(crate) key: String,
    /// What is wrong with it, and what to do.
    pub(crate) message: String,
}

impl WrongConfig {
    fn at(key: &str, message: String) -> Self {
        Self {
            key: key.to_owned(),
            message,
        }
    }
}

/// Checks a config against the schema of its experiment.
///
/// # Errors
/// A key is unknown or missing, or has a value that does not fit.
pub(crate) fn check_config(schema: &Value, config: &Map<String, Value>) -> Result<(), WrongConfig> {
    let search = SchemaSearch {
        root: schema,
        visits_left: Cell::new(MAX_VISITS),
    };
    search.check_keys(schema, config)?;
    search.check_forms(schema, config, MAX_DEPTH)
}

/// The check of one config.
struct SchemaSearch<'a> {
    root: &'a Value,
    /// The number of schemas that may still be visited. Without any, every value passes.
    visits_left: Cell<usize>,
}

impl<'a> SchemaSearch<'a> {
    /// Checks a config against what a schema says of its keys.
    fn check_keys(&self, schema: &Value, config: &Map<String, Value>) -> Result<(), WrongConfig> {
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let others = &schema["additionalProperties"];
        for (key, value) in config {
            match properties.get(key) {
                Some(property) => self
                    .check_value(property, value, MAX_DEPTH)
                    .map_err(|message| WrongConfig::at(key, message))?,
                None if *others == Value::Bool(false) => {
                    let hint = suggest_nearest(key, properties.keys().map(String::as_str));
                    let message = format!("the config has no key '{key}', {hint}");
                    return Err(WrongConfig::at(key, message));
                }
                None => self
                    .check_value(others, value, MAX_DEPTH)
                    .map_err(|message| WrongConfig::at(key, message))?,
            }
        }

        let required = schema["required"].as_array().into_iter().flatten();
        let mut required = required.filter_map(Value::as_str);
        match required.find(|key| !config.contains_key(*key)) {
            Some(key) => Err(WrongConfig::at(
                key,
                format!("the config needs '{key}': add it to [model], or as an axis to [grid]"),
            )),
            None => Ok(()),
        }
    }

    /// Checks a config against the schemas that a schema refers to: all of `allOf`, and one of the forms that it may have.
    fn check_forms(
        &self,
        schema: &Value,
        config: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), WrongConfig> {
        let parts = schema["allOf"].as_array().into_iter().flatten();
        self.find_target(schema)
            .into_iter()
            .chain(parts)
            .try_for_each(|part| self.check_part(part, config, depth))?;

        for key in ["anyOf", "oneOf"] {
            let Some(forms) = schema[key].as_array() else {
                continue;
            };
            let mut wrong = Vec::new();
            for form in forms {
                match self.check_part(form, config, depth) {
                    Ok(()) => break,
                    Err(why) => wrong.push(why),
                }
            }
            if wrong.len() == forms.len() {
                return Err(choose_explanation(forms, config, &mut wrong));
            }
        }
        Ok(())
    }

    /// Checks a config against a schema that another one refers to.
    fn check_part(
        &self,
        part: &Value,
        config: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), WrongConfig> {
        let required = part["required"].as_array().map_or(0, Vec::len);
        if depth == 0 || !self.take_visits(1 + config.len() + required) {
            return Ok(());
        }
        self.check_keys(part, config)?;
        self.check_forms(part, config, depth - 1)
    }

    /// Checks a value against the schema of a property.
    fn check_value(&self, schema: &Value, value: &Value, depth: usize) -> Result<(), String> {
        let listed = schema["enum"].as_array().map_or(0, Vec::len);
        if depth == 0 || !self.take_visits(1 + listed) {
            return Ok(());
        }
        if *schema == Value::Bool(false) {
            return Err(format!("no value fits, and {value} is one: remove the key"));
        }
        let parts = schema["allOf"].as_array().into_iter().flatten();
        self.find_target(schema)
            .into_iter()
            .chain(parts)
            .try_for_each(|part| self.check_value(part, value, depth - 1))?;
        for key in ["anyOf", "oneOf"] {
            let Some(options) = schema[key].as_array() else {
                continue;
            };
            let fitting = options
                .iter()
                .filter(|option| self.check_value(option, value, depth - 1).is_ok())
                .take(2)
                .count();
            if fitting == 0 {
                return Err(explain_options(options, value));
            }
            if key == "oneOf" && fitting > 1 && self.visits_left.get() > 0 {
                return Err(format!(
                    "{value} fits several of the types that this key may have, and the experiment takes what fits one: choose another \
                     value"
                ));
            }
        }

        check_type(&schema["type"], value)?;
        check_listed(schema, value)?;
        check_number(schema, value)?;
        check_length(schema, value)
    }

    /// The schema that a schema refers to.
    fn find_target(&self, schema: &Value) -> Option<&'a Value> {
        find_reference(self.root, schema["$ref"].as_str()?)
    }

    /// Counts visits; false if none is left.
    fn take_visits(&self, count: usize) -> bool {
        let left = self.visits_left.get();
        self.visits_left.set(left.saturating_sub(count));
        left > 0
    }
}

/// What is wrong with a config that has none of several forms: with the one whose words it has, if there is one.
fn choose_explanation(
    forms: &[Value],
    config: &Map<String, Value>,
    wrong: &mut Vec<WrongConfig>,
) -> WrongConfig {
    let has_words = |form: &Value| {
        let properties = form["properties"].as_object().into_iter().flatten();
        let mut words = properties.filter(|(_, property)| property.get("const").is_some());
        words.clone().count() > 0
            && words.all(|(key, property)| config.get(key) == property.get("const"))
    };
    match forms.iter().position(has_words) {
        Some(at) => wrong.swap_remove(at),
        None => WrongConfig::at(
            "kind",
            format!(
                "the config has none of the {} forms that the experiment takes: see the type of its config",
                forms.len()
            ),
        ),
    }
}

/// Explains that a value is none of several, whose words are named if they have some.
fn explain_options(options: &[Value], value: &Value) -> String {
    let words: Vec<&str> = options.iter().filter_map(|o| o["const"].as_str()).collect();
    match (value.as_str(), words.is_empty()) {
        (Some(word), false) => {
            format!("unknown value '{word}', {}", suggest_nearest(word, words))
        }
        (None, false) => format!("expected one of {}, found {value}", words.join(", ")),
        _ => format!(
            "{value} does not fit: see the type of this key in the config of the experiment"
        ),
    }
}

fn check_type(types: &Value, value: &Value) -> Result<(), String> {
    let names: Vec<&str> = match types {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let fits = |name: &&str| match *name {
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" | "array" | "object" => false,
        _ => true,
    };
    match names.iter().any(fits) {
        true => Ok(()),
        false => {
            let names: Vec<&str> = names.into_iter().map(describe_type).collect();
            Err(format!("expected {}, found {value}", names.join(" or ")))
        }
    }
}

fn describe_type(name: &str) -> &str {
    match name {
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "a string",
        "boolean" => "true or false",
        "array" => "a list, which no key can be",
        "object" => "a table, which no key can be",
        _ => "nothing",
    }
}

fn check_listed(schema: &Value, value: &Value) -> Result<(), String> {
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("expected {}, found {value}", schema["const"]));
    }
    let Some(listed) = schema["enum"].as_array() else {
        return Ok(());
    };
    if listed.contains(value) {
        return Ok(());
    }
    let words: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    let word = value.as_str().unwrap_or_default();
    Err(format!(
        "unknown value {value}, {}",
        suggest_nearest(word, words)
    ))
}

fn check_number(schema: &Value, value: &Value) -> Result<(), String> {
    let Some(x) = value.as_f64() else {
        return Ok(());
    };
    for (keyword, compare, words) in BOUNDS {
        if schema[keyword]
            .as_f64()
            .is_some_and(|bound| !compare(x, bound))
        {
            let bound = &schema[keyword];
            return Err(format!("expected {words} {bound}, found {value}"));
        }
    }
    match schema["multipleOf"].as_f64() {
        Some(unit) if !is_multiple(x, unit) => {
            Err(format!("expected a multiple of {unit}, found {value}"))
        }
        _ => Ok(()),
    }
}

/// Whether a number is a multiple of another one, but for the rounding of a decimal fraction.
fn is_multiple(x: f64, unit: f64) -> bool {
    let count = x / unit;
    (count - count.round()).abs() <= 1e-9 * count.abs().max(1.0)
}

fn check_length(schema: &Value, value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let letters = text.chars().count() as u64;
    let [least, most] = ["minLength", "maxLength"].map(|keyword| schema[keyword].as_u64());
    match (least, most) {
        (Some(least), _) if letters < least => Err(format!(
            "expected at least {least} letters, found {letters} in {value}"
        )),
        (_, Some(most)) if letters > most => Err(format!(
            "expected at most {most} letters, found {letters} in {value}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config_schema::*;

    fn check(property: Value, value: Value) -> Result<(), String> {
        let schema = json!({
            "properties": { "x": property },
            "$defs": { "Kind": { "oneOf": [{ "const": "sgd" }, { "type": "string", "const": "adam" }] } },
        });
        let config = Map::from_iter([("x".to_owned(), value)]);
        check_config(&schema, &config).map_err(|wrong| wrong.message)
    }

    #[test]
    fn values_that_fit_pass_and_others_are_told_what_to_be() {
        let kind = json!({ "$ref": "#/$defs/Kind" });
        let width = json!({ "type": "integer", "format": "uint32", "minimum": 1, "maximum": 9 });
        let maybe = json!({ "type": ["number", "null"] });
        let either = json!({ "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/Kind" }] });
        let listed = json!({ "type": "string", "enum": ["a", "b"] });
        for (property, value) in [
            (&kind, json!("adam")),
            (&width, json!(3)),
            (&maybe, json!(0.5)),
            (&maybe, json!(2)),
            (&either, json!("sgd")),
            (&listed, json!("b")),
            (&json!({ "pattern": "a+" }), json!("b")),
            (&json!({ "$ref": "#/nowhere" }), json!(true)),
            (&json!(true), json!(true)),
        ] {
            assert_eq!(
                check(property.clone(), value.clone()),
                Ok(()),
                "{property} {value}"
            );
        }

        for (property, value, words) in [
            (
                &kind,
                json!("adm"),
                "unknown value 'adm', did you mean 'adam'?",
            ),
            (&kind, json!(1), "expected one of sgd, adam, found 1"),
            (&width, json!(0), "expected at least 1, found 0"),
            (&width, json!(10), "expected at most 9, found 10"),
            (&width, json!(1.5), "expected a whole number, found 1.5"),
            (
                &maybe,
                json!("a"),
                "expected a number or nothing, found \"a\"",
            ),
            (&either, json!("x"), "does not fit"),
            (&listed, json!("c"), "unknown value \"c\", "),
            (
                &json!({ "type": "boolean" }),
                json!(1),
                "expected true or false, found 1",
            ),
            (
                &json!({ "type": "array" }),
                json!(1),
                "expected a list, which no key can be",
            ),
        ] {
            let error = check(property.clone(), value).expect_err("a refusal");
            assert!(error.contains(words), "{property}: {error}");
        }
    }

    #[test]
    fn references_that_never_end_are_followed_for_a_while() {
        let schema = json!({ "properties": { "x": { "$ref": "#/properties/x" } } });
        let config = Map::from_iter([("x".to_owned(), json!(1))]);
        assert_eq!(check_config(&schema, &config), Ok(()));
    }

    #[test]
    fn options_that_refer_to_many_others_are_tried_for_a_while() {
        let refer = |level: usize| json!({ "$ref": format!("#/$defs/L{level}") });
        let mut levels: Map<String, Value> = (0..7)
            .map(|n| (format!("L{n}"), json!({ "anyOf": vec![refer(n + 1); 40] })))
            .collect();
        levels.insert("L7".into(), json!({ "type": "boolean" }));
        let check = |at: usize| {
            let schema = json!({ "properties": { "x": refer(at) }, "$defs": levels.clone() });
            let config = Map::from_iter([("x".to_owned(), json!(1))]);
            check_config(&schema, &config)
        };
        assert_eq!(check(0), Ok(()));
        assert!(check(6).is_err());
    }

    #[test]
    fn a_config_of_many_keys_is_checked_to_its_end() {
        let keys: Vec<String> = (0..1000).map(|n| format!("k{n:03}")).collect();
        let number = || json!({ "type": "number" });
        let properties: Map<String, Value> = keys.iter().map(|k| (k.clone(), number())).collect();
        let schema = json!({ "properties": properties });
        let mut config: Map<String, Value> = keys.iter().map(|k| (k.clone(), json!(1))).collect();
        config.insert("k999".into(), json!("a"));
        assert!(check_config(&schema, &config).is_err());
    }

    #[test]
    fn bounds_lengths_and_combinations_are_checked() {
        let share = json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.01 });
        let word = json!({ "type": "string", "minLength": 2, "maxLength": 3 });
        let both = json!({ "allOf": [{ "type": "integer" }, { "minimum": 3 }] });
        let one = json!({ "oneOf": [{ "type": "integer" }, { "minimum": 3 }] });
        let listed = json!({ "$ref": "#/$defs/Kind", "enum": ["adam"] });
        for (property, value) in [
            (&share, json!(0.07)),
            (&word, json!("äöü")),
            (&both, json!(3)),
            (&one, json!(2)),
            (&one, json!(3.5)),
            (&listed, json!("adam")),
        ] {
            assert_eq!(check(property.clone(), value), Ok(()), "{property}");
        }

        for (property, value, words) in [
            (&share, json!(0), "expected more than 0, found 0"),
            (&share, json!(1), "expected less than 1, found 1"),
            (
                &share,
                json!(0.075),
                "expected a multiple of 0.01, found 0.075",
            ),
            (&word, json!("ä"), "expected at least 2 letters, found 1 in"),
            (&word, json!("abcd"), "expected at most 3 letters, found 4"),
            (&both, json!(2), "expected at least 3, found 2"),
            (&both, json!(3.5), "expected a whole number, found 3.5"),
            (
                &one,
                json!(3),
                "3 fits several of the types that this key may have",
            ),
            (&one, json!(1.5), "does not fit"),
            (&listed, json!("sgd"), "unknown value \"sgd\", "),
            (&json!(false), json!(1), "no value fits"),
        ] {
            let error = check(property.clone(), value).expect_err("a refusal");
            assert!(error.contains(words), "{property}: {error}");
        }
    }

    /// As of a config that is an enum with a tag, or has a flattened part.
    #[test]
    fn a_config_of_several_forms_is_checked_by_the_form_that_it_names() {
        let form = |word: &str, key: &str| {
            json!({
                "properties": { "kind": { "const": word }, key: { "type": "number" } },
                "required": ["kind", key],
                "additionalProperties": false,
            })
        };
        let forms = json!({ "oneOf": [form("sgd", "lr"), { "$ref": "#/$defs/Walk" }], "$defs": { "Walk": form("walk", "scale") } });
        let parts = json!({ "allOf": [{ "required": ["a"] }], "properties": { "b": { "type": "boolean" } } });
        let other = json!({ "additionalProperties": { "type": "string" } });
        let check = |schema: &Value, config: Value| {
            let config = config.as_object().expect("a table").clone();
            check_config(schema, &config)
                .map_err(|wrong| format!("{}: {}", wrong.key, wrong.message))
        };
        for (schema, config) in [
            (&forms, json!({ "kind": "sgd", "lr": 1 })),
            (&forms, json!({ "kind": "walk", "scale": 1 })),
            (&parts, json!({ "a": 1, "b": true })),
            (&other, json!({ "a": "b" })),
        ] {
            assert_eq!(check(schema, config), Ok(()));
        }

        for (schema, config, words) in [
            (
                &forms,
                json!({ "kind": "sgd", "rl": 1 }),
                "rl: the config has no key 'rl', did you mean 'lr'?",
            ),
            (
                &forms,
                json!({ "kind": "sgd", "lr": "a" }),
                "lr: expected a number, found \"a\"",
            ),
            (
                &forms,
                json!({ "kind": "walk", "lr": 1 }),
                "kind: the config has none of the 2 forms that the experiment takes",
            ),
            (&parts, json!({ "b": true }), "a: the config needs 'a'"),
            (
                &parts,
                json!({ "a": 1, "b": 1 }),
                "b: expected true or false",
            ),
            (&other, json!({ "a": 1 }), "a: expected a string, found 1"),
        ] {
            let error = check(schema, config).expect_err("a refusal");
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn forms_that_refer_to_many_others_are_tried_for_a_while() {
        let refer = |level: usize| json!({ "$ref": format!("#/$defs/L{level}") });
        let mut levels: Map<String, Value> = (0..7)
            .map(|n| (format!("L{n}"), json!({ "anyOf": vec![refer(n + 1); 40] })))
            .collect();
        levels.insert("L7".into(), json!({ "required": ["x"] }));
        let schema = json!({ "$ref": "#/$defs/L0", "$defs": levels });
        assert_eq!(check_config(&schema, &Map::new()), Ok(()));
    }
}
