//! From the text of an expression to its steps, by recursive descent.

use super::code::{Code, Relation, Step, both, either};
use super::{MAX_LEN, word_number};

/// Deepest nesting of parentheses, signs and powers: each takes some of the thread's stack.
const MAX_NESTING: usize = 64;

type Unary = fn(f64) -> f64;
type Binary = fn(f64, f64) -> f64;

const UNARY: [(&str, Unary); 9] = [
    ("sqrt", libm::sqrt),
    ("exp", libm::exp),
    ("ln", libm::log),
    ("log2", libm::log2),
    ("log10", libm::log10),
    ("abs", libm::fabs),
    ("floor", libm::floor),
    ("ceil", libm::ceil),
    ("round", libm::round),
];

const OF_SEVERAL: [(&str, Binary); 2] = [("min", f64::min), ("max", f64::max)];

/// Longer ones first where one begins like another.
const SYMBOLS: [&str; 16] = ["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "^", "(", ")", ","];

const RELATIONS: [(&str, Relation); 6] = [
    ("<", Relation::Less),
    ("<=", Relation::LessOrEqual),
    (">", Relation::Greater),
    (">=", Relation::GreaterOrEqual),
    ("==", Relation::Equal),
    ("!=", Relation::Unequal),
];

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Number(f64),
    Name(&'a str),
    Word(&'a str),
    Symbol(&'static str),
    End,
}

/// What a part of an expression says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    /// Something true or false.
    Truth,
    /// A word in quotes.
    Word,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    nesting: usize,
    names: Vec<String>,
    words: Vec<String>,
    steps: Vec<Step>,
    /// Whether the power read last has an exponent.
    is_power: bool,
    /// Whether version 1 of the grammar reads something of it otherwise.
    is_new: bool,
}

/// An expression that was read.
pub(super) struct Parsed {
    pub(super) code: Code,
    /// Words in it.
    pub(super) words: Vec<String>,
    /// Whether version 1 of the grammar reads it otherwise.
    pub(super) is_new: bool,
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    if text.len() > MAX_LEN {
        return Err(format!("it has {} bytes; at most {MAX_LEN} are possible", text.len()));
    }
    let tokens = tokens(text)?;
    let (names, words, steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut parser = Parser { tokens, at: 0, nesting: 0, names, words, steps, is_power: false, is_new: false };
    let kind = parser.condition()?;
    parser.refuse_word(kind)?;
    match parser.next() {
        Token::End => {
            let code = Code::new(parser.names, parser.steps, kind == Kind::Truth);
            Ok(Parsed { code, words: parser.words, is_new: parser.is_new })
        }
        other => Err(format!("expected an operator or the end, found {}", other.shown())),
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '0'..='9' | '.' => number(rest)?,
            '"' => enclosed(rest, '"').map(|word| (Token::Word(word), word.len() + 2)).ok_or("a quote is open")?,
            '{' => enclosed(rest, '}').map(|name| (Token::Name(name), name.len() + 2)).ok_or("a brace is open")?,
            c if c.is_alphabetic() || c == '_' => {
                let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
                (Token::Name(&rest[..len]), len)
            }
            other => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => return Err(unknown_symbol(other)),
            },
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Ok(tokens)
}

fn unknown_symbol(symbol: char) -> String {
    let hint = match symbol {
        '=' => ": equality is ==",
        '&' => ": \"and\" is &&",
        '|' => ": \"or\" is ||",
        '!' => ": \"unequal\" is !=",
        '\'' => ": words stand in double quotes",
        '[' | ']' | '%' | '#' | ':' => ": a name with such characters stands in braces",
        '≤' | '≥' | '−' | '·' | '×' => ": write <=, >=, - or *",
        _ => "",
    };
    format!("'{}' means nothing here{hint}", symbol.escape_debug())
}

fn enclosed(text: &str, end: char) -> Option<&str> {
    text[1..].split_once(end).map(|(inside, _)| inside)
}

/// Digits with an optional fraction and an optional power of ten.
fn number(text: &str) -> Result<(Token<'static>, usize), String> {
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
    let value = text[..end].parse::<f64>().map_err(|e| format!("{}: {e}", &text[..end]))?;
    if !value.is_finite() {
        return Err(format!("{} is too large for a number", &text[..end]));
    }
    Ok((Token::Number(value), end))
}

impl Token<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Number(x) => format!("the number {x}"),
            Self::Name(name) => format!("the name {name}"),
            Self::Word(word) => format!("the word \"{word}\""),
            Self::Symbol(symbol) => format!("'{symbol}'"),
            Self::End => "its end".to_owned(),
        }
    }
}

impl<'a> Parser<'a> {
    fn next(&self) -> Token<'a> {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.next();
        self.at += 1;
        token
    }

    /// Takes one of these symbols, if it is the next token.
    fn accept(&mut self, symbols: &[&'static str]) -> Option<&'static str> {
        let Token::Symbol(symbol) = self.next() else { return None };
        symbols.contains(&symbol).then(|| {
            self.at += 1;
            symbol
        })
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), String> {
        match self.accept(&[symbol]) {
            Some(_) => Ok(()),
            None => Err(format!("expected '{symbol}', found {}", self.next().shown())),
        }
    }

    fn condition(&mut self) -> Result<Kind, String> {
        self.joined("||", either, |this| this.joined("&&", both, Self::chain))
    }

    /// Parts joined by an operator that wants truths.
    fn joined(
        &mut self,
        operator: &'static str,
        apply: fn(f64, f64) -> f64,
        part: impl Fn(&mut Self) -> Result<Kind, String>,
    ) -> Result<Kind, String> {
        let wanted = |kind| match kind {
            Kind::Truth => Ok(()),
            _ => Err(format!(
                "{operator} joins conditions such as lr < 0.1, found a value that is compared with nothing"
            )),
        };
        let first = part(self)?;
        let mut joined = false;
        while self.accept(&[operator]).is_some() {
            wanted(first)?;
            wanted(part(self)?)?;
            self.steps.push(Step::Binary(apply));
            joined = true;
        }
        Ok(if joined { Kind::Truth } else { first })
    }

    fn chain(&mut self) -> Result<Kind, String> {
        let mut left = self.sum()?;
        let mut chain: Vec<Relation> = Vec::new();
        while let Some(symbol) = self.accept(&RELATIONS.map(|(symbol, _)| symbol)) {
            let relation =
                RELATIONS.iter().find(|(known, _)| *known == symbol).map_or(Relation::Equal, |found| found.1);
            let right = self.sum()?;
            let ordered = !matches!(relation, Relation::Equal | Relation::Unequal);
            if ordered && (left == Kind::Word || right == Kind::Word) {
                return Err(format!("words have no order: compare them by == or !=, not by {symbol}"));
            }
            self.steps.push(if chain.is_empty() { Step::Begin(relation) } else { Step::GoOn(relation) });
            chain.push(relation);
            left = right;
        }
        if chain.is_empty() {
            return Ok(left);
        }
        check_chain(&chain)?;
        self.is_new |= chain.len() > 1;
        self.steps.push(Step::End);
        Ok(Kind::Truth)
    }

    fn sum(&mut self) -> Result<Kind, String> {
        self.operators(&[("+", |a, b| a + b), ("-", |a, b| a - b)], |this| {
            this.operators(&[("*", |a, b| a * b), ("/", |a, b| a / b)], Self::signed)
        })
    }

    /// Parts joined by operators on numbers, from the left.
    fn operators(
        &mut self,
        operators: &[(&'static str, Binary)],
        part: impl Fn(&mut Self) -> Result<Kind, String>,
    ) -> Result<Kind, String> {
        let mut kind = part(self)?;
        while let Token::Symbol(symbol) = self.next() {
            let Some((_, apply)) = operators.iter().find(|(known, _)| *known == symbol) else { break };
            self.at += 1;
            self.refuse_word(kind)?;
            let right = part(self)?;
            self.refuse_word(right)?;
            self.steps.push(Step::Binary(*apply));
            kind = Kind::Number;
        }
        Ok(kind)
    }

    fn signed(&mut self) -> Result<Kind, String> {
        let Some(sign) = self.accept(&["+", "-"]) else { return self.power() };
        let kind = self.nested(Self::signed)?;
        self.refuse_word(kind)?;
        self.is_new |= self.is_power;
        if sign == "-" {
            self.steps.push(Step::Unary(|x| -x));
        }
        Ok(Kind::Number)
    }

    fn power(&mut self) -> Result<Kind, String> {
        let kind = self.value()?;
        self.is_power = false;
        if self.accept(&["^"]).is_none() {
            return Ok(kind);
        }
        self.refuse_word(kind)?;
        let exponent = self.nested(Self::signed)?;
        self.refuse_word(exponent)?;
        self.is_new |= self.is_power;
        self.is_power = true;
        self.steps.push(Step::Binary(libm::pow));
        Ok(Kind::Number)
    }

    fn value(&mut self) -> Result<Kind, String> {
        match self.take() {
            Token::Number(x) => {
                self.steps.push(Step::Number(x));
                Ok(Kind::Number)
            }
            Token::Name(name) if self.next() == Token::Symbol("(") => self.function(name),
            Token::Name(name) => {
                let at = place_of(&mut self.names, name);
                self.steps.push(Step::Name(at));
                Ok(Kind::Number)
            }
            Token::Word(word) => {
                let at = place_of(&mut self.words, word);
                self.steps.push(Step::Number(word_number(at)));
                Ok(Kind::Word)
            }
            Token::Symbol("(") => {
                let kind = self.nested(Self::condition)?;
                self.expect(")")?;
                Ok(kind)
            }
            other => Err(format!("expected a number, a name or '(', found {}", other.shown())),
        }
    }

    /// A function, whose opening parenthesis is next.
    fn function(&mut self, name: &str) -> Result<Kind, String> {
        self.expect("(")?;
        let mut given = 0;
        let several = OF_SEVERAL.iter().find(|(known, _)| *known == name).map(|(_, apply)| *apply);
        loop {
            let kind = self.nested(Self::condition)?;
            self.refuse_word(kind)?;
            given += 1;
            if let Some(apply) = several.filter(|_| given > 1) {
                self.steps.push(Step::Binary(apply));
            }
            if self.accept(&[","]).is_none() {
                break;
            }
        }
        self.expect(")")?;
        match (UNARY.iter().find(|(known, _)| *known == name), several, given) {
            (Some((_, apply)), _, 1) => self.steps.push(Step::Unary(*apply)),
            (Some(_), _, _) => return Err(format!("{name} is of one number, found {given}")),
            (None, Some(_), 1) => return Err(format!("{name} is of two numbers or more, found one")),
            (None, Some(_), _) => {}
            (None, None, _) => {
                let known = UNARY.iter().map(|(known, _)| *known).chain(OF_SEVERAL.iter().map(|(known, _)| *known));
                let hint = crate::error::nearest(name, known);
                return Err(format!("there is no function {name}, {hint} (a product is written with *)"));
            }
        }
        Ok(Kind::Number)
    }

    /// One level deeper.
    fn nested(&mut self, part: impl Fn(&mut Self) -> Result<Kind, String>) -> Result<Kind, String> {
        if self.nesting == MAX_NESTING {
            return Err(format!("it is nested more than {MAX_NESTING} levels deep"));
        }
        self.nesting += 1;
        let kind = part(self)?;
        self.nesting -= 1;
        Ok(kind)
    }

    fn refuse_word(&self, kind: Kind) -> Result<(), String> {
        match (kind, self.words.last()) {
            (Kind::Word, Some(word)) => {
                Err(format!("the word \"{word}\" is no number: words can be compared, by == or !="))
            }
            _ => Ok(()),
        }
    }
}

/// A chain goes one way, or what it says of the values at its ends is not what one thinks.
fn check_chain(chain: &[Relation]) -> Result<(), String> {
    let up = chain.iter().any(|r| matches!(r, Relation::Less | Relation::LessOrEqual));
    let down = chain.iter().any(|r| matches!(r, Relation::Greater | Relation::GreaterOrEqual));
    let unequal = chain.len() > 1 && chain.contains(&Relation::Unequal);
    if (up && down) || unequal {
        let message = "a chain of comparisons goes one way, as in 0.01 < lr <= 0.1: join others by &&";
        return Err(message.to_owned());
    }
    Ok(())
}

/// The place of a text in a list, to which it is added if need be.
fn place_of(list: &mut Vec<String>, text: &str) -> usize {
    list.iter().position(|known| known == text).unwrap_or_else(|| {
        list.push(text.to_owned());
        list.len() - 1
    })
}
