//! The keywords of a schema that configs are checked by, and those that say nothing about one.

use serde_json::Value;

/// Keywords that the check knows.
const CHECKED: [&str; 17] = [
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "multipleOf",
    "oneOf",
    "properties",
    "required",
    "type",
];

/// Keywords that refuse no value: descriptions, and places of other schemas.
const DESCRIPTIVE: [&str; 14] = [
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
];

/// Keywords about lists, which no value of a config is.
const OF_LISTS: [&str; 9] = [
    "additionalItems",
    "contains",
    "items",
    "maxContains",
    "maxItems",
    "minContains",
    "minItems",
    "prefixItems",
    "uniqueItems",
];

/// Keywords whose values are tables of schemas, lists of schemas, and schemas.
const TABLES: [&str; 3] = ["properties", "$defs", "definitions"];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SCHEMAS: [&str; 1] = ["additionalProperties"];

/// What a schema says that the check does not know: a keyword, or a reference to a schema that is not in the document; with its
/// place. `None` if it knows all.
pub(crate) fn find_unknown_keyword(root: &Value) -> Option<String> {
    find_in_schema(root, root, "")
}

/// The schema within a document that a reference names.
pub(super) fn find_reference<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// Each schema of the document is looked at once, and a document is not deep.
fn find_in_schema(root: &Value, schema: &Value, place: &str) -> Option<String> {
    let table = schema.as_object()?;
    for (keyword, value) in table {
        let word = keyword.as_str();
        let is_known = [&CHECKED[..], &DESCRIPTIVE, &OF_LISTS]
            .iter()
            .any(|known| known.contains(&word));
        if !is_known {
            return Some(format!("the keyword '{keyword}'{}", describe_place(place)));
        }
        if let ("$ref", Some(name)) = (word, value.as_str())
            && find_reference(root, name).is_none()
        {
            let place = describe_place(place);
            return Some(format!("the unknown reference '{name}'{place}"));
        }

        let found = list_schemas(word, value)
            .into_iter()
            .find_map(|(name, inner)| {
                find_in_schema(root, inner, &join_places(place, word, &name))
            });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The schemas within the value of a keyword, by name or number.
fn list_schemas<'a>(keyword: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    if SCHEMAS.contains(&keyword) {
        return vec![(String::new(), value)];
    }
    match value {
        Value::Object(table) if TABLES.contains(&keyword) => {
            let schemas = table.iter();
            schemas.map(|(name, inner)| (name.clone(), inner)).collect()
        }
        Value::Array(list) if LISTS.contains(&keyword) => {
            let schemas = list.iter().enumerate();
            schemas.map(|(at, inner)| (at.to_string(), inner)).collect()
        }
        _ => Vec::new(),
    }
}

fn join_places(place: &str, keyword: &str, name: &str) -> String {
    let parts = [place, keyword, name];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

fn describe_place(place: &str) -> String {
    match place {
        "" => String::new(),
        _ => format!(" at {place}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_check_does_not_know_is_named_with_its_place() {
        for (schema, words) in [
            (
                json!({ "properties": { "x": { "type": "string", "pattern": "a+" } } }),
                "the keyword 'pattern' at properties/x",
            ),
            (
                json!({ "$defs": { "A": { "oneOf": [true, { "not": {} }] } } }),
                "the keyword 'not' at $defs/A/oneOf/1",
            ),
            (
                json!({ "unevaluatedProperties": false }),
                "the keyword 'unevaluatedProperties'",
            ),
            (
                json!({ "additionalProperties": { "if": {} } }),
                "the keyword 'if' at additionalProperties",
            ),
            (
                json!({ "properties": { "x": { "$ref": "#/$defs/A" } } }),
                "the unknown reference '#/$defs/A' at properties/x",
            ),
            (
                json!({ "properties": { "x": { "$ref": "http://a/b" } } }),
                "the unknown reference 'http://a/b' at properties/x",
            ),
        ] {
            assert_eq!(find_unknown_keyword(&schema).as_deref(), Some(words));
        }
    }

    /// A key of a config may be called like a keyword.
    #[test]
    fn what_says_nothing_about_a_config_is_no_unknown_keyword() {
        for schema in [
            json!(true),
            json!({ "properties": { "pattern": { "type": "string" }, "not": true } }),
            json!({ "properties": { "x": { "items": { "pattern": "a" }, "minItems": 2 } } }),
            json!({ "properties": { "x": { "default": { "if": 1 }, "examples": [{ "not": 1 }] } } }),
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Config" }),
            json!({ "properties": { "x": { "$ref": "#/$defs/A" } }, "$defs": { "A": { "const": 1 } } }),
        ] {
            assert_eq!(find_unknown_keyword(&schema), None, "{schema}");
        }
    }
}
