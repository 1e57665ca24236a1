//! Parses an expression to its steps, by recursive descent.

use super::stack_code::{Relation, StackCode, StackStep, logical_and, logical_or};
use super::{MAX_EXPR_BYTES, word_number};
use crate::expr::token::{ExprToken, tokenize_expr};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum nesting of parentheses, signs and powers, each of which takes some of the thread's
/// stack.
const MAX_NESTING: usize = 64;

type UnaryFn = fn(f64) -> f64;
type BinaryFn = fn(f64, f64) -> f64;

const UNARY_FUNCTIONS: [(&str, UnaryFn); 9] = [
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

const VARIADIC_FUNCTIONS: [(&str, BinaryFn); 2] = [("min", f64::min), ("max", f64::max)];

const RELATIONS: [(&str, Relation); 6] = [
    ("<", Relation::Less),
    ("<=", Relation::LessOrEqual),
    (">", Relation::Greater),
    (">=", Relation::GreaterOrEqual),
    ("==", Relation::Equal),
    ("!=", Relation::Unequal),
];

/// The kind of value of a part of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExprKind {
    Number,
    /// A truth value.
    Truth,
    /// A quoted word.
    Word,
}

struct ExprParser<'a> {
    tokens: Vec<ExprToken<'a>>,
    at: usize,
    nesting: usize,
    names: Vec<String>,
    words: Vec<String>,
    steps: Vec<StackStep>,
    /// Whether the last power has an exponent.
    is_power: bool,
    /// Whether grammar 1 reads some part otherwise.
    needs_new_grammar: bool,
}

/// A parsed expression.
pub(super) struct ParsedExpr {
    pub(super) code: StackCode,
    /// Words in the expression.
    pub(super) words: Vec<String>,
    /// Whether grammar 1 reads the expression otherwise.
    pub(super) needs_new_grammar: bool,
}

/// Parses an expression.
pub(super) fn parse_expr(text: &str) -> Result<ParsedExpr, String> {
    if text.len() > MAX_EXPR_BYTES {
        return Err(format!(
            "it has {} bytes; at most {MAX_EXPR_BYTES} are possible",
            text.len()
        ));
    }

    let tokens = tokenize_expr(text)?;
    let names = Vec::new();
    let words = Vec::new();
    let steps = Vec::new();
    let mut parser = ExprParser {
        tokens,
        at: 0,
        nesting: 0,
        names,
        words,
        steps,
        is_power: false,
        needs_new_grammar: false,
    };
    let kind = parser.parse_condition()?;
    parser.refuse_word(kind)?;

    match parser.peek_token() {
        ExprToken::End => {
            let code = StackCode::new(parser.names, parser.steps, kind == ExprKind::Truth);
            Ok(ParsedExpr {
                code,
                words: parser.words,
                needs_new_grammar: parser.needs_new_grammar,
            })
        }
        other => Err(format!(
            "expected an operator or the end, found {}",
            other.describe()
        )),
    }
}

impl<'a> ExprParser<'a> {
    fn peek_token(&self) -> ExprToken<'a> {
        self.tokens.get(self.at).cloned().unwrap_or(ExprToken::End)
    }

    fn next_token(&mut self) -> ExprToken<'a> {
        let token = self.peek_token();
        self.at += 1;
        token
    }

    /// Takes the next token if it is one of these symbols.
    fn accept_symbol(&mut self, symbols: &[&'static str]) -> Option<&'static str> {
        let ExprToken::Symbol(symbol) = self.peek_token() else {
            return None;
        };
        symbols.contains(&symbol).then(|| {
            self.at += 1;
            symbol
        })
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), String> {
        match self.accept_symbol(&[symbol]) {
            Some(_) => Ok(()),
            None => Err(format!(
                "expected '{symbol}', found {}",
                self.peek_token().describe()
            )),
        }
    }

    fn parse_condition(&mut self) -> Result<ExprKind, String> {
        self.parse_joined("||", logical_or, |this| {
            this.parse_joined("&&", logical_and, Self::parse_chain)
        })
    }

    /// Parses parts joined by an operator on truth values.
    fn parse_joined(
        &mut self,
        operator: &'static str,
        apply: fn(f64, f64) -> f64,
        part: impl Fn(&mut Self) -> Result<ExprKind, String>,
    ) -> Result<ExprKind, String> {
        let first = part(self)?;
        let mut joined = false;

        while self.accept_symbol(&[operator]).is_some() {
            check_condition(operator, first)?;
            check_condition(operator, part(self)?)?;
            self.steps.push(StackStep::Binary(apply));
            joined = true;
        }

        Ok(if joined { ExprKind::Truth } else { first })
    }

    fn parse_chain(&mut self) -> Result<ExprKind, String> {
        let mut left = self.parse_sum()?;
        let mut chain: Vec<Relation> = Vec::new();

        while let Some(symbol) = self.accept_symbol(&RELATIONS.map(|(symbol, _)| symbol)) {
            let relation = RELATIONS
                .iter()
                .find(|(known, _)| *known == symbol)
                .map_or(Relation::Equal, |found| found.1);
            let right = self.parse_sum()?;
            let ordered = !matches!(relation, Relation::Equal | Relation::Unequal);
            if ordered && (left == ExprKind::Word || right == ExprKind::Word) {
                return Err(format!(
                    "words have no order: compare them by == or !=, not by {symbol}"
                ));
            }

            self.steps.push(if chain.is_empty() {
                StackStep::BeginChain(relation)
            } else {
                StackStep::ContinueChain(relation)
            });
            chain.push(relation);

            left = right;
        }

        if chain.is_empty() {
            return Ok(left);
        }

        check_chain_direction(&chain)?;
        self.needs_new_grammar |= chain.len() > 1;
        self.steps.push(StackStep::EndChain);
        Ok(ExprKind::Truth)
    }

    fn parse_sum(&mut self) -> Result<ExprKind, String> {
        self.parse_operators(&[("+", |a, b| a + b), ("-", |a, b| a - b)], |this| {
            this.parse_operators(
                &[("*", |a, b| a * b), ("/", |a, b| a / b)],
                Self::parse_signed,
            )
        })
    }

    /// Parses parts joined by operators on numbers, from the left.
    fn parse_operators(
        &mut self,
        operators: &[(&'static str, BinaryFn)],
        part: impl Fn(&mut Self) -> Result<ExprKind, String>,
    ) -> Result<ExprKind, String> {
        let mut kind = part(self)?;
        while let ExprToken::Symbol(symbol) = self.peek_token() {
            let Some((_, apply)) = operators.iter().find(|(known, _)| *known == symbol) else {
                break;
            };
            self.at += 1;
            self.refuse_word(kind)?;
            let right = part(self)?;
            self.refuse_word(right)?;

            self.steps.push(StackStep::Binary(*apply));
            kind = ExprKind::Number;
        }

        Ok(kind)
    }

    fn parse_signed(&mut self) -> Result<ExprKind, String> {
        let Some(sign) = self.accept_symbol(&["+", "-"]) else {
            return self.parse_power();
        };
        let kind = self.parse_nested(Self::parse_signed)?;
        self.refuse_word(kind)?;
        self.needs_new_grammar |= self.is_power;

        if sign == "-" {
            self.steps.push(StackStep::Unary(|x| -x));
        }

        Ok(ExprKind::Number)
    }

    fn parse_power(&mut self) -> Result<ExprKind, String> {
        let kind = self.parse_value()?;
        self.is_power = false;

        if self.accept_symbol(&["^"]).is_none() {
            return Ok(kind);
        }

        self.refuse_word(kind)?;
        let exponent = self.parse_nested(Self::parse_signed)?;
        self.refuse_word(exponent)?;
        self.needs_new_grammar |= self.is_power;
        self.is_power = true;
        self.steps.push(StackStep::Binary(libm::pow));

        Ok(ExprKind::Number)
    }

    fn parse_value(&mut self) -> Result<ExprKind, String> {
        match self.next_token() {
            ExprToken::Number(x) => {
                self.steps.push(StackStep::Number(x));
                Ok(ExprKind::Number)
            }
            ExprToken::Name(name) if self.peek_token() == ExprToken::Symbol("(") => {
                self.parse_function(name)
            }
            ExprToken::Name(name) => {
                let at = intern_text(&mut self.names, name);
                self.steps.push(StackStep::Name(at));
                Ok(ExprKind::Number)
            }
            ExprToken::Word(word) => {
                let at = intern_text(&mut self.words, word);
                self.steps.push(StackStep::Number(word_number(at)));
                Ok(ExprKind::Word)
            }
            ExprToken::Symbol("(") => {
                let kind = self.parse_nested(Self::parse_condition)?;
                self.expect_symbol(")")?;
                Ok(kind)
            }
            other => Err(format!(
                "expected a number, a name or '(', found {}",
                other.describe()
            )),
        }
    }

    /// Parses the arguments of a function, whose opening parenthesis is next.
    fn parse_function(&mut self, name: &str) -> Result<ExprKind, String> {
        self.expect_symbol("(")?;
        let mut given = 0;
        let several = VARIADIC_FUNCTIONS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, apply)| *apply);

        loop {
            let kind = self.parse_nested(Self::parse_condition)?;
            self.refuse_word(kind)?;
            given += 1;

            if let Some(apply) = several.filter(|_| given > 1) {
                self.steps.push(StackStep::Binary(apply));
            }
            if self.accept_symbol(&[","]).is_none() {
                break;
            }
        }

        self.expect_symbol(")")?;
        match (
            UNARY_FUNCTIONS.iter().find(|(known, _)| *known == name),
            several,
            given,
        ) {
            (Some((_, apply)), _, 1) => self.steps.push(StackStep::Unary(*apply)),
            (Some(_), _, _) => return Err(format!("{name} takes one number, found {given}")),
            (None, Some(_), 1) => {
                return Err(format!("{name} takes two numbers or more, found one"));
            }
            (None, Some(_), _) => {}
            (None, None, _) => {
                let known = UNARY_FUNCTIONS
                    .iter()
                    .map(|(known, _)| *known)
                    .chain(VARIADIC_FUNCTIONS.iter().map(|(known, _)| *known));
                let hint = suggest_nearest(name, known);
                return Err(format!(
                    "there is no function {name}, {hint} (a product is written with *)"
                ));
            }
        }

        Ok(ExprKind::Number)
    }

    /// Parses a part one level deeper.
    fn parse_nested(
        &mut self,
        part: impl Fn(&mut Self) -> Result<ExprKind, String>,
    ) -> Result<ExprKind, String> {
        if self.nesting == MAX_NESTING {
            return Err(format!("it is nested more than {MAX_NESTING} levels deep"));
        }
        self.nesting += 1;
        let kind = part(self)?;
        self.nesting -= 1;
        Ok(kind)
    }

    fn refuse_word(&self, kind: ExprKind) -> Result<(), String> {
        match (kind, self.words.last()) {
            (ExprKind::Word, Some(word)) => Err(format!(
                "the word \"{word}\" is not a number: words can only be compared, by == or !="
            )),
            _ => Ok(()),
        }
    }
}

/// Checks that a chain of comparisons goes one way. Otherwise it would say nothing about the values
/// at its ends, though it seems to.
fn check_condition(operator: &str, kind: ExprKind) -> Result<(), String> {
    if kind == ExprKind::Truth {
        return Ok(());
    }
    Err(format!(
        "{operator} joins conditions such as lr < 0.1, found a value that is compared with nothing"
    ))
}

fn check_chain_direction(chain: &[Relation]) -> Result<(), String> {
    let up = chain
        .iter()
        .any(|r| matches!(r, Relation::Less | Relation::LessOrEqual));
    let down = chain
        .iter()
        .any(|r| matches!(r, Relation::Greater | Relation::GreaterOrEqual));

    let unequal = chain.len() > 1 && chain.contains(&Relation::Unequal);
    if (up && down) || unequal {
        let message =
            "a chain of comparisons goes one way, as in 0.01 < lr <= 0.1: join others by &&";
        return Err(message.to_owned());
    }

    Ok(())
}

/// The index of a text in a list, to which it is added if it is missing.
fn intern_text(list: &mut Vec<String>, text: &str) -> usize {
    list.iter()
        .position(|known| known == text)
        .unwrap_or_else(|| {
            list.push(text.to_owned());
            list.len() - 1
        })
}
