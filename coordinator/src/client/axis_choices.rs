//! Cells chosen on the command line by values of their axes.

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::client::render::{QUOTED_VALUES, is_same_axis};

/// Parses axes with values as in `lr=0.1,wd=5e-4`. Commas within brackets and quotes belong to a
/// value.
///
/// # Errors
/// A part is no axis with its value, or an axis is named twice.
pub(crate) fn parse_axis_choices(
    option: &str,
    text: &str,
) -> Result<Vec<v1::AxisChoice>, UserError> {
    let choices: Option<Vec<_>> = split_outside_brackets(text)
        .iter()
        .map(|part| parse_axis_choice(part))
        .collect();
    let choices = choices.ok_or_else(|| {
        let message = format!(
            "{option}: expected axes with their values, as in lr=0.1,wd=5e-4, found '{text}'; {QUOTED_VALUES}"
        );
        UserError::new(ErrorCode::BadInput, message)
    })?;

    refuse_axis_named_twice(option, &choices)?;
    Ok(choices)
}

/// Refuses two values of one axis: no cell has both.
fn refuse_axis_named_twice(option: &str, choices: &[v1::AxisChoice]) -> Result<(), UserError> {
    for (at, choice) in choices.iter().enumerate() {
        let mut earlier = choices[..at].iter();
        let Some(first) = earlier.find(|earlier| is_same_axis(&earlier.axis, &choice.axis)) else {
            continue;
        };

        let message = format!(
            "{option}: the axis '{}' is named twice, with the values {} and {}, and a cell has one: name each axis once",
            choice.axis, first.value, choice.value
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    Ok(())
}

/// Splits a text at commas outside brackets and quotes.
fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_i32;
    let mut quoted = false;

    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }

        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }

    parts
}

fn parse_axis_choice(text: &str) -> Option<v1::AxisChoice> {
    let (axis, value) = text.split_once('=')?;
    if axis.trim().is_empty() || value.trim().is_empty() {
        return None;
    }

    Some(v1::AxisChoice {
        axis: axis.trim().trim_matches('"').to_owned(),
        value: match value.trim() {
            list if list.starts_with('[') => join_list(list),
            value => value.trim_matches('"').to_owned(),
        },
    })
}

/// A list as values of axes are written, without the spaces after its commas and the quotes around its words.
fn join_list(list: &str) -> String {
    let parts = list.split_inclusive(['[', ',', ']']);
    parts
        .map(|part| {
            let end = part.len() - usize::from(part.ends_with(['[', ',', ']']));
            let (item, separator) = part.split_at(end);
            format!("{}{separator}", item.trim().trim_matches('"'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::client::axis_choices::*;

    #[test]
    fn a_baseline_is_read_as_typed() {
        let read = |text| {
            let all = parse_axis_choices("--baseline", text).map_err(|e| e.to_string())?;
            Ok::<_, String>(
                all.into_iter()
                    .map(|c| (c.axis, c.value))
                    .collect::<Vec<_>>(),
            )
        };

        let pair = |axis: &str, value: &str| (axis.to_owned(), value.to_owned());
        assert_eq!(
            read("lr=0.1, wd=5e-4"),
            Ok(vec![pair("lr", "0.1"), pair("wd", "5e-4")])
        );
        assert_eq!(
            read("hidden=[16, 8],kind=\"mlp\""),
            Ok(vec![pair("hidden", "[16,8]"), pair("kind", "mlp")])
        );

        assert_eq!(
            read("a=[ [1, 2], [\"x\" ] ],case=\"a=1,b=2\""),
            Ok(vec![pair("a", "[[1,2],[x]]"), pair("case", "a=1,b=2")])
        );

        let twice = read("lr=0.1,wd=5e-4,train.lr=1");
        let words = "--baseline: the axis 'train.lr' is named twice, with the values 0.1 and 1";
        assert!(twice.is_err_and(|e| e.contains(words)));

        for bad in ["", "lr", "lr=", "=3", "lr=1,,wd=2"] {
            assert!(
                read(bad).is_err_and(|e| e.contains("--baseline") && e.contains("lr=0.1,wd=5e-4")),
                "{bad}"
            );
        }
    }
}
