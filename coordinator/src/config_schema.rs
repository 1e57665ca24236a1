//! The part of JSON Schema by which configs of experiments are checked before a sweep starts.
//!
//! Known are `type`, `properties`, `required`, `additionalProperties`, `enum`, `const`, `minimum`, `maximum`, `$ref`, `anyOf` and
//! `oneOf`. The worker, which reads the config itself, decides about everything else.

use std::cell::Cell;

use ergodic_common::spec_file::suggest::suggest_nearest;
use serde_json::{Map, Value};

/// Most references that are followed in a row.
const MAX_DEPTH: usize = 16;
/// Most schemas that are visited for a config. Options that refer to others could be too many to try.
const MAX_VISITS: u32 = 10_000;

/// What is wrong with a config.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongConfig {
    /// The key that is wrong.
    pub(crate) key: String,
    /// What is wrong with it, and what to do.
    pub(crate) message: String,
}

/// Checks a config against the schema of its experiment.
///
/// # Errors
/// A key is unknown or missing, or has a value that does not fit.
pub(crate) fn check_config(schema: &Value, config: &Map<String, Value>) -> Result<(), WrongConfig> {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let wrong = |key: &str, message: String| WrongConfig {
        key: key.to_owned(),
        message,
    };
    let search = SchemaSearch {
        root: schema,
        visits_left: Cell::new(MAX_VISITS),
    };
    let is_closed = schema["additionalProperties"] == Value::Bool(false);
    for (key, value) in config {
        match properties.get(key) {
            Some(property) => search
                .check_value(property, value, MAX_DEPTH)
                .map_err(|message| wrong(key, message))?,
            None if is_closed => {
                let hint = suggest_nearest(key, properties.keys().map(String::as_str));
                return Err(wrong(key, format!("the config has no key '{key}', {hint}")));
            }
            None => {}
        }
    }

    let required = schema["required"].as_array().into_iter().flatten();
    let mut required = required.filter_map(Value::as_str);
    match required.find(|key| !config.contains_key(*key)) {
        Some(key) => Err(wrong(
            key,
            format!("the config needs '{key}': add it to [model], or as an axis to [grid]"),
        )),
        None => Ok(()),
    }
}

/// The check of one config.
struct SchemaSearch<'a> {
    root: &'a Value,
    /// The number of schemas that may still be visited. Without any, every value passes.
    visits_left: Cell<u32>,
}

impl SchemaSearch<'_> {
    /// Checks a value against the schema of a property.
    fn check_value(&self, schema: &Value, value: &Value, depth: usize) -> Result<(), String> {
        if depth == 0 || !self.take_visit() {
            return Ok(());
        }
        if let Some(target) = schema["$ref"].as_str() {
            let target = target.strip_prefix('#');
            let target = target.and_then(|at| self.root.pointer(at));
            return target.map_or(Ok(()), |target| self.check_value(target, value, depth - 1));
        }
        for key in ["anyOf", "oneOf"] {
            let Some(options) = schema[key].as_array() else {
                continue;
            };
            let fits = |option: &Value| self.check_value(option, value, depth - 1).is_ok();
            if !options.iter().any(fits) {
                return Err(explain_options(options, value));
            }
        }

        check_type(&schema["type"], value)?;
        check_listed(schema, value)?;
        check_range(schema, value)
    }

    fn take_visit(&self) -> bool {
        let left = self.visits_left.get();
        self.visits_left.set(left.saturating_sub(1));
        left > 0
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

fn check_range(schema: &Value, value: &Value) -> Result<(), String> {
    let Some(x) = value.as_f64() else {
        return Ok(());
    };
    let bound = |key: &str| schema[key].as_f64();
    if bound("minimum").is_some_and(|low| x < low) {
        return Err(format!(
            "expected at least {}, found {value}",
            schema["minimum"]
        ));
    }
    if bound("maximum").is_some_and(|high| x > high) {
        return Err(format!(
            "expected at most {}, found {value}",
            schema["maximum"]
        ));
    }
    Ok(())
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
}
