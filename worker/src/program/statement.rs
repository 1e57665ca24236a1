//! One line of JSON by which a program says something.

use serde_json::{Map, Value};

/// Largest step: JSON readers and floats keep all whole numbers up to it.
const MAX_STEP: u64 = 1 << 53;

/// What a line says.
#[derive(Debug, PartialEq)]
pub(crate) enum Statement {
    /// Values at a step.
    Sample {
        step: u64,
        /// Values by metric; `None` for one that is not finite.
        values: Vec<(String, Option<f64>)>,
        /// Classes that the program predicts, if the line has some.
        predictions: Option<Vec<u8>>,
    },
    /// The trial diverged at this step.
    Diverged(u64),
    /// The checkpoint of this step is complete.
    Checkpoint(u64),
}

impl Statement {
    /// Parses a line. `None` for an empty one.
    ///
    /// # Errors
    /// The line is no JSON object, or a field has a wrong type.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_str(&replace_non_finite(text));
        let value = parsed.map_err(|error| {
            format!("it is no JSON ({error}): write a line like {{\"step\": 10, \"loss\": 0.3}}")
        })?;
        let Value::Object(mut fields) = value else {
            return Err("it is no JSON object: write {\"step\": 10, \"loss\": 0.3}".into());
        };

        if let Some(step) = take_lone_step(&mut fields, "diverged")? {
            return Ok(Some(Self::Diverged(step)));
        }
        if let Some(step) = take_lone_step(&mut fields, "checkpoint")? {
            return Ok(Some(Self::Checkpoint(step)));
        }
        read_sample(fields).map(Some)
    }
}

/// Takes the step of a line that may have one field alone.
fn take_lone_step(fields: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = fields.remove(name) else {
        return Ok(None);
    };
    if let Some(other) = fields.keys().next() {
        return Err(format!(
            "'{name}' and '{other}' are on one line: write '{name}' on a line of its own"
        ));
    }
    read_step(name, &value).map(Some)
}

fn read_step(name: &str, value: &Value) -> Result<u64, String> {
    let step = value.as_u64().filter(|step| *step <= MAX_STEP);
    step.ok_or_else(|| {
        format!("'{name}' is {value}, not the number of a step: write a whole number, 0 or more")
    })
}

fn read_sample(mut fields: Map<String, Value>) -> Result<Statement, String> {
    let step = fields
        .remove("step")
        .ok_or("it has no 'step': write {\"step\": 10, \"loss\": 0.3}")?;
    let step = read_step("step", &step)?;
    let predictions = fields.remove("predictions");
    let predictions = predictions.map(|value| read_classes(&value)).transpose()?;
    let values = fields.into_iter().map(|(name, value)| match value {
        Value::Null => Ok((name, None)),
        Value::Number(x) => Ok((name, x.as_f64().filter(|x| x.is_finite()))),
        other => Err(format!("'{name}' is {other}, not a number")),
    });

    Ok(Statement::Sample {
        step,
        values: values.collect::<Result<_, _>>()?,
        predictions,
    })
}

fn read_classes(value: &Value) -> Result<Vec<u8>, String> {
    let wrong = "'predictions' is no list of classes: write whole numbers from 0 to 255";
    let list = value.as_array().ok_or(wrong)?;
    let classes = list
        .iter()
        .map(|class| u8::try_from(class.as_u64()?).ok())
        .collect::<Option<Vec<u8>>>();
    classes.ok_or_else(|| wrong.into())
}

/// Replaces what stands for a number that is not finite by `null`, except in strings. JSON has no such numbers: Python writes `NaN` and
/// `-Infinity`, the C library and awk write `-nan` and `inf`, and exact arithmetic writes 1e999.
fn replace_non_finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_in_string = false;
    while let Some(c) = rest.chars().next() {
        let word = match is_in_string {
            true => "",
            false => take_word(rest),
        };
        if !word.is_empty() {
            out.push_str(if is_non_finite(word) { "null" } else { word });
            rest = &rest[word.len()..];
            continue;
        }

        let escaped = is_in_string && c == '\\';
        let taken = rest.chars().take(1 + usize::from(escaped));
        let bytes = taken.map(char::len_utf8).sum();
        is_in_string ^= c == '"';
        out.push_str(&rest[..bytes]);
        rest = &rest[bytes..];
    }
    out
}

/// The letters, digits, signs and points that a text begins with: a whole number or word of JSON, if it is one.
fn take_word(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    &text[..end]
}

/// Whether a word stands for no finite number, or for one beyond the largest `f64`.
fn is_non_finite(word: &str) -> bool {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    let is_name = ["nan", "inf", "infinity"]
        .iter()
        .any(|name| unsigned.eq_ignore_ascii_case(name));
    // JSON has no '+' before a number.
    let digits = word.strip_prefix('-').unwrap_or(word);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit());
    is_name || (is_number && digits.parse().is_ok_and(f64::is_infinite))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::program::statement::*;

    fn parse(line: &str) -> Result<Option<Statement>, String> {
        Statement::parse(line.as_bytes())
    }

    fn sample(step: u64, values: &[(&str, Option<f64>)]) -> Result<Option<Statement>, String> {
        let values = values.iter().map(|(name, x)| ((*name).to_owned(), *x));
        Ok(Some(Statement::Sample {
            step,
            values: values.collect(),
            predictions: None,
        }))
    }

    #[test]
    fn lines_say_samples_divergence_checkpoints_and_predictions() {
        assert_eq!(
            parse(r#"{"step": 10, "loss": 0.3}"#),
            sample(10, &[("loss", Some(0.3))])
        );
        assert_eq!(
            parse(r#"{"diverged": 120}"#),
            Ok(Some(Statement::Diverged(120)))
        );
        assert_eq!(
            parse(" {\"checkpoint\": 500}\r"),
            Ok(Some(Statement::Checkpoint(500)))
        );
        assert_eq!(
            parse(r#"{"step": 5, "predictions": [3, 1]}"#),
            Ok(Some(Statement::Sample {
                step: 5,
                values: Vec::new(),
                predictions: Some(vec![3, 1]),
            }))
        );
        assert_eq!(parse("  "), Ok(None));
    }

    #[test]
    fn numbers_that_are_not_finite_are_understood_in_all_spellings() {
        let long = format!("-{}", "9".repeat(400));
        for word in [
            "NaN",
            "-NaN",
            "nan",
            "-nan",
            "+nan",
            "Infinity",
            "-Infinity",
            "infinity",
            "inf",
            "-inf",
            "+inf",
            "Inf",
            "INF",
            "null",
            "1e999",
            "-1e999",
            "1.5E+400",
            &long,
        ] {
            for line in [
                format!("{{\"step\": 1, \"loss\": {word}, \"acc\": 1}}"),
                format!("{{\"acc\":1,\"step\":1,\"loss\":{word}}}"),
            ] {
                let expected = sample(1, &[("acc", Some(1.0)), ("loss", None)]);
                assert_eq!(parse(&line), expected, "{line}");
            }
        }
    }

    #[test]
    fn words_for_what_is_not_finite_are_nothing_else_than_values() {
        for name in ["a\\\"NaN", "inf", "x -nan y", "1e999"] {
            let line = format!("{{\"step\": 1, \"{name}\": 2}}");
            let name = name.replace('\\', "");
            assert_eq!(parse(&line), sample(1, &[(&name, Some(2.0))]), "{line}");
        }
        for line in [
            "{\"step\": 1, nan: 2}",
            "{\"step\": 1, \"loss\": nano}",
            "{\"step\": 1, \"loss\": --inf}",
            "{\"step\": 1, \"loss\": infnan}",
            "{\"step\": 1, \"loss\": +1e999}",
            "nan",
        ] {
            let why = parse(line).expect_err("a wrong line");
            assert!(why.starts_with("it is no JSON"), "{line}: {why}");
        }
        let why = parse("{\"step\": inf}").expect_err("a wrong line");
        assert!(why.starts_with("'step' is null, not"), "{why}");
        let why = parse("{\"step\": 1, \"predictions\": [nan]}").expect_err("a wrong line");
        assert!(why.contains("no list of classes"), "{why}");
        let most = sample(1, &[("loss", Some(f64::MAX))]);
        assert_eq!(
            parse("{\"step\": 1, \"loss\": 1.7976931348623157e308}"),
            most
        );
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, why) in [
            ("loss 0.3", "it is no JSON ("),
            ("[1]", "it is no JSON object"),
            (r#"{"loss": 0.3}"#, "it has no 'step'"),
            (r#"{"step": -1}"#, "'step' is -1, not the number of a step"),
            (
                r#"{"step": 1.5}"#,
                "'step' is 1.5, not the number of a step",
            ),
            (r#"{"step": "1"}"#, "'step' is \"1\", not"),
            (
                r#"{"step": 9007199254740993}"#,
                "'step' is 9007199254740993, not",
            ),
            (
                r#"{"step": 1, "loss": "low"}"#,
                "'loss' is \"low\", not a number",
            ),
            (
                r#"{"step": 1, "loss": true}"#,
                "'loss' is true, not a number",
            ),
            (
                r#"{"step": 1, "diverged": 1}"#,
                "'diverged' and 'step' are on one line",
            ),
            (
                r#"{"step": 1, "predictions": [256]}"#,
                "'predictions' is no list of classes",
            ),
            (
                r#"{"step": 1, "predictions": 3}"#,
                "'predictions' is no list of classes",
            ),
        ] {
            let said = parse(line).expect_err("a wrong line");
            assert!(said.contains(why), "{line}: {said}");
        }
        assert!(Statement::parse(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn every_number_comes_back_bit_for_bit(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            for text in [format!("{x:?}"), format!("{x:.17e}")] {
                let Ok(Some(Statement::Sample { values, .. })) = parse(&format!("{{\"step\":0,\"x\":{text}}}")) else {
                    panic!("{text} is understood");
                };
                prop_assert_eq!(values[0].1.map(f64::to_bits), Some(bits));
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Statement::parse(&bytes);
        }

        #[test]
        fn no_text_of_json_makes_the_parser_panic(text in "[{}\\[\\]\",:\\\\a0-9NaInfity. é-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
