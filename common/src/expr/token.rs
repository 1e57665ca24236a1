//! Splits the text of an expression into tokens.

/// Symbols; those that begin like another one are listed before it.
const SYMBOLS: [&str; 16] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "^", "(", ")", ",",
];

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ExprToken<'a> {
    Number(f64),
    Name(&'a str),
    Word(&'a str),
    Symbol(&'static str),
    End,
}

pub(super) fn tokenize_expr(text: &str) -> Result<Vec<ExprToken<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '0'..='9' | '.' => scan_number(rest)?,
            '"' | '\'' => split_enclosed(rest, first)
                .map(|word| (ExprToken::Word(word), word.len() + 2))
                .ok_or("a quote is open")?,
            '{' => split_enclosed(rest, '}')
                .map(|name| (ExprToken::Name(name), name.len() + 2))
                .ok_or("a brace is open")?,
            c if c.is_alphabetic() || c == '_' => {
                let len = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                    .unwrap_or(rest.len());
                (ExprToken::Name(&rest[..len]), len)
            }
            other => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (ExprToken::Symbol(symbol), symbol.len()),
                None => return Err(unknown_symbol_error(other)),
            },
        };
        tokens.push(token);

        rest = rest[len..].trim_start();
    }

    Ok(tokens)
}

fn unknown_symbol_error(symbol: char) -> String {
    let hint = match symbol {
        '=' => ": equality is ==",
        '&' => ": \"and\" is &&",
        '|' => ": \"or\" is ||",
        '!' => ": \"unequal\" is !=",
        '[' | ']' | '%' | '#' | ':' => ": a name with such characters stands in braces",
        '≤' | '≥' | '−' | '·' | '×' => ": write <=, >=, - or *",
        _ => "",
    };

    format!("unexpected '{}'{hint}", symbol.escape_debug())
}

fn split_enclosed(text: &str, end: char) -> Option<&str> {
    text[1..].split_once(end).map(|(inside, _)| inside)
}

/// Scans digits with an optional fraction and an optional exponent.
fn scan_number(text: &str) -> Result<(ExprToken<'static>, usize), String> {
    let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    if text[end..].starts_with('.') {
        end = digits(end + 1);
    }

    if end == whole + 1 && whole == 0 {
        return Err("a point stands alone".to_owned());
    }

    if let Some(power) = text[end..].strip_prefix(['e', 'E']) {
        let sign = usize::from(power.starts_with(['+', '-']));
        let last = digits(end + 1 + sign);
        if last > end + 1 + sign {
            end = last;
        }
    }

    let value = text[..end]
        .parse::<f64>()
        .map_err(|e| format!("{}: {e}", &text[..end]))?;
    if !value.is_finite() {
        return Err(format!("{} is too large for a number", &text[..end]));
    }

    Ok((ExprToken::Number(value), end))
}

impl ExprToken<'_> {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Number(x) => format!("the number {x}"),
            Self::Name(name) => format!("the name {name}"),
            Self::Word(word) => format!("the word \"{word}\""),
            Self::Symbol(symbol) => format!("'{symbol}'"),
            Self::End => "its end".to_owned(),
        }
    }
}
