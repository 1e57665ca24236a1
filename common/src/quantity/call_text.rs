//! Finds the calls in the text of a quantity that ordinary expressions do not have.

use crate::quantity::reduce::Reducer;

/// The word before the parenthesis of a quantity that is the reference cell's.
pub(super) const OTHER: &str = "other";

/// The function that a call in a quantity names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalledFunction {
    /// A reducer, which makes one number of a window's samples.
    Reducer(Reducer),
    /// `other(q)`: the quantity of the same repeat in the reference cell.
    Other,
}

/// A call, with its arguments as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QuantityCall<'a> {
    pub(super) function: CalledFunction,
    pub(super) arguments: Vec<&'a str>,
}

/// A text whose calls are replaced by names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SplitText<'a> {
    /// An ordinary expression, in which `{#0}` stands for the first call.
    pub(super) expression: String,
    pub(super) calls: Vec<QuantityCall<'a>>,
}

impl CalledFunction {
    /// The function with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        if name == OTHER {
            return Some(Self::Other);
        }
        Reducer::from_name(name).map(Self::Reducer)
    }

    /// The name as written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reducer(reducer) => reducer.name(),
            Self::Other => OTHER,
        }
    }

    /// Whether expressions have a function of this name, too.
    fn is_also_function(self) -> bool {
        matches!(self, Self::Reducer(reducer) if reducer.is_also_function())
    }
}

/// Replaces the outermost calls.
///
/// # Errors
/// A parenthesis, quote or brace is open.
pub(super) fn split_quantity_calls(text: &str) -> Result<SplitText<'_>, String> {
    let mut split = SplitText {
        expression: String::new(),
        calls: Vec::new(),
    };
    let mut at = 0;

    while at < text.len() {
        let rest = &text[at..];
        let token = leading_token(rest)?;
        match find_call(rest, token)? {
            Some((call, length)) => {
                split
                    .expression
                    .push_str(&format!("{{#{}}}", split.calls.len()));
                split.calls.push(call);
                at += length;
            }
            None => {
                split.expression.push_str(token);
                at += token.len();
            }
        }
    }

    Ok(split)
}

/// The text of a quantity on one line, as it is shown.
pub fn tidy_text(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// The number of the call that a name stands for.
pub(super) fn call_number(name: &str) -> Option<usize> {
    name.strip_prefix('#')?.parse().ok()
}

/// Whether an argument is a window: `a..b`, or `last 20 %`.
pub(super) fn is_window(argument: &str) -> bool {
    argument.contains("..") || argument.trim_start().starts_with("last ")
}

/// The call that begins with the token `name`, and its length in bytes.
fn find_call<'a>(text: &'a str, name: &str) -> Result<Option<(QuantityCall<'a>, usize)>, String> {
    let Some(function) = CalledFunction::from_name(name) else {
        return Ok(None);
    };
    let after = text[name.len()..].trim_start();
    if !after.starts_with('(') {
        return Ok(None);
    }

    let open = text.len() - after.len();
    let (arguments, length) = split_arguments(&text[open + 1..])?;
    let is_reduced = arguments.len() == 1 || arguments.last().is_some_and(|last| is_window(last));
    if function.is_also_function() && !is_reduced {
        return Ok(None);
    }

    Ok(Some((
        QuantityCall {
            function,
            arguments,
        },
        open + 1 + length,
    )))
}

/// The arguments up to the parenthesis that closes them, and their length with it, in bytes.
fn split_arguments(text: &str) -> Result<(Vec<&str>, usize), String> {
    let mut arguments = Vec::new();
    let mut start = 0;
    let mut depth = 0;
    let mut at = 0;

    while at < text.len() {
        let token = leading_token(&text[at..])?;
        match token {
            "(" => depth += 1,
            ")" if depth == 0 => {
                arguments.push(text[start..at].trim());
                return Ok((arguments, at + 1));
            }
            ")" => depth -= 1,
            "," if depth == 0 => {
                arguments.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        at += token.len();
    }

    Err("a parenthesis is open".to_owned())
}

/// The first token of a text that is not empty: a quoted word, a name in braces, a name, a number, or one character.
fn leading_token(text: &str) -> Result<&str, String> {
    let length = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => enclosed_length(text, quote).ok_or("a quote is open")?,
        Some('{') => enclosed_length(text, '}').ok_or("a brace is open")?,
        Some(c) if is_part_of_name(c) => text.find(|c| !is_part_of_name(c)).unwrap_or(text.len()),
        Some(c) => c.len_utf8(),
        None => 0,
    };
    Ok(&text[..length])
}

/// Whether a character stands in a name or a number.
fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn enclosed_length(text: &str, end: char) -> Option<usize> {
    text[1..].find(end).map(|inside| inside + 2)
}
