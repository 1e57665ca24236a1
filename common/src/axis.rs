//! One named factor of the grid, listed or generated; generated values are computed on demand, never stored.

use std::sync::OnceLock;

use crate::error::SpecError;
use crate::figures::{Distinct, is_rounded, is_short};
use crate::grammar::Reading;
use crate::reader::{Range, Reader};
use crate::seed;
use crate::spec::in_words;
use crate::tree::{Node, Place, Value};

/// A named factor of the grid.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The key as the user wrote it.
    pub name: String,
    /// The field it sets; `None` for a free name, which only `[derive]` and `[where]` use.
    pub field: Option<String>,
    /// Where it was written.
    pub place: Place,
    /// Its values.
    pub values: Values,
    /// How its numbers are written, once somebody has asked.
    distinct: OnceLock<Distinct>,
}

/// The values of an axis.
#[derive(Debug, Clone)]
pub enum Values {
    /// As listed.
    Listed(Vec<Node>),
    /// Evenly spaced, both ends included.
    Linear(Span),
    /// Evenly spaced logarithms, both ends included.
    Log(Span),
    /// Drawn from the sweep's seed.
    Random {
        /// Interval and number of draws.
        span: Span,
        /// Whether the logarithm is uniform rather than the value.
        log: bool,
        /// Stream of the draws.
        key: [u8; 32],
    },
}

/// An interval and a number of points in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First value.
    pub from: f64,
    /// Last value.
    pub to: f64,
    /// Number of values.
    pub points: u64,
}

/// Most values an axis may have; also the most cells of a sweep.
pub const MAX_POINTS: u64 = 10_000_000;

/// Of an axis of more values than this nobody looks for the fewest digits that tell them apart.
const MOST_COMPARED: u64 = 1_000;

impl Axis {
    /// Reads the entry `node` that stands under `name` in `[grid]`.
    ///
    /// # Errors
    /// An empty or duplicate axis, a log range through zero, a number that is none.
    pub fn read(
        name: &str,
        field: Option<String>,
        node: &Node,
        (sweep_seed, reading): (u64, Reading),
    ) -> Result<Self, SpecError> {
        let path = format!("grid.{name}");
        let values = match &node.value {
            Value::List(items) => Values::Listed(items.clone()),
            Value::Table(table) => {
                let reader = Reader::element(table, &node.place, path.clone(), reading);
                read_generated(reader, name, sweep_seed)?
            }
            other => {
                let message = format!(
                    "expected a list like [0.1, 0.2] or a range like {{ log = [0.01, 1.0], points = 5 }}, found {}",
                    crate::reader::quoted(other)
                );
                return Err(SpecError::new(node.place.clone(), path, message));
            }
        };
        let (name, distinct) = (name.to_owned(), OnceLock::new());
        let axis = Self { name, field, place: node.place.clone(), values, distinct };
        axis.check()?;
        Ok(axis)
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        match &self.values {
            Values::Listed(items) => items.len() as u64,
            Values::Linear(span) | Values::Log(span) | Values::Random { span, .. } => span.points,
        }
    }

    /// Never true for an axis that was read: empty ones are refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th value, `i` < [`len`](Self::len).
    pub fn value(&self, i: u64) -> Value {
        match &self.values {
            Values::Listed(items) => items[i as usize].value.clone(),
            _ => Value::Float(self.number(i).expect("generated values are numbers")),
        }
    }

    /// The `i`-th value as a number, if it is one.
    pub fn number(&self, i: u64) -> Option<f64> {
        match &self.values {
            Values::Listed(items) => items[i as usize].value.as_f64(),
            Values::Linear(span) => Some(span.at(i, false)),
            Values::Log(span) => Some(span.at(i, true)),
            Values::Random { span, log, key } => Some(span.within(seed::uniform_at(key, i), *log)),
        }
    }

    /// The `i`-th value with the place it was written at.
    pub fn node(&self, i: u64) -> Node {
        match &self.values {
            Values::Listed(items) => items[i as usize].clone(),
            _ => Node { value: self.value(i), place: self.place.clone() },
        }
    }

    /// How its numbers are written so that they are told apart.
    pub fn distinct(&self) -> Distinct {
        *self.distinct.get_or_init(|| match self.len() {
            0..=MOST_COMPARED => Distinct::of((0..self.len()).filter_map(|i| self.number(i))),
            _ => Distinct::exactly(),
        })
    }

    /// One of its values for people, told from the others.
    pub fn write(&self, value: &Value) -> String {
        match value {
            Value::Float(x) if !is_short(*x) => self.distinct().write(*x),
            other => in_words(other, Distinct::default()),
        }
    }

    /// The values that may be meant by a text: the one that is exactly that, or else those that some table has so, because it
    /// rounds them.
    pub fn meant(&self, text: &str) -> Vec<u64> {
        let text = text.trim();
        let wanted: Option<f64> = text.parse().ok();
        let same = |i: &u64| {
            let value = self.value(*i);
            (wanted.is_some() && value.as_f64() == wanted) || value.as_str() == Some(text) || value.to_string() == text
        };
        if let Some(i) = (0..self.len()).find(same) {
            return vec![i];
        }
        let Some(wanted) = wanted else { return Vec::new() };
        (0..self.len()).filter(|i| self.number(*i).is_some_and(|x| is_rounded(x, wanted))).collect()
    }

    /// Whether the values are drawn at random: such axes of equal length are drawn jointly.
    pub fn is_random(&self) -> bool {
        matches!(self.values, Values::Random { .. })
    }

    /// Indices whose values stand for all: of an axis over a continuous field the smallest and the largest are enough, since
    /// every field accepts an interval.
    pub fn representatives(&self, continuous: bool) -> Vec<u64> {
        match &self.values {
            Values::Listed(items) if continuous && items.iter().all(|item| item.value.as_f64().is_some()) => {
                let number = |i: &u64| self.number(*i).unwrap_or(f64::NAN);
                let (least, most) = (
                    (0..self.len()).min_by(|a, b| number(a).total_cmp(&number(b))),
                    (0..self.len()).max_by(|a, b| number(a).total_cmp(&number(b))),
                );
                let mut ends: Vec<u64> = least.into_iter().chain(most).collect();
                ends.dedup();
                ends
            }
            Values::Listed(_) => (0..self.len()).collect(),
            _ if continuous => vec![0, self.len() - 1],
            _ => (0..self.len()).collect(),
        }
    }

    fn error(&self, place: &Place, message: String) -> SpecError {
        SpecError::new(place.clone(), format!("grid.{}", self.name), message)
    }

    fn check(&self) -> Result<(), SpecError> {
        if self.is_empty() {
            let message = "the axis is empty: give it at least one value, or remove it".to_owned();
            return Err(self.error(&self.place, message));
        }
        match &self.values {
            Values::Listed(items) => self.check_listed(items),
            Values::Random { .. } => Ok(()),
            Values::Linear(_) | Values::Log(_) => {
                let n = self.len();
                let close = n > 1 && (self.number(0) == self.number(1) || self.number(n - 2) == self.number(n - 1));
                if close {
                    let message = format!("{n} points do not fit into this range: neighbours are equal to 12 digits");
                    return Err(self.error(&self.place, message));
                }
                Ok(())
            }
        }
    }

    fn check_listed(&self, items: &[Node]) -> Result<(), SpecError> {
        let mut seen = std::collections::BTreeMap::new();
        for item in items {
            if item.value.as_f64().is_some_and(|x| !x.is_finite()) {
                let message = format!("expected finite numbers, found {}", item.value);
                return Err(self.error(&item.place, message));
            }
            if matches!(item.value, Value::Table(_)) {
                return Err(self.error(&item.place, "expected numbers, words or lists, found a table".to_owned()));
            }
            if seen.insert(item.value.to_string(), ()).is_some() {
                let message = format!("the value {} stands here twice: remove one", item.value);
                return Err(self.error(&item.place, message));
            }
        }
        Ok(())
    }
}

impl Span {
    /// `points` evenly spaced values, rounded to 12 significant digits so that a wider range keeps the old ones.
    fn at(&self, i: u64, log: bool) -> f64 {
        let last = self.points.saturating_sub(1);
        match i {
            0 => self.from,
            i if i == last => self.to,
            i => self.within(i as f64 / last as f64, log),
        }
    }

    /// The value a share `t` of the way from `from` to `to`.
    fn within(&self, t: f64, log: bool) -> f64 {
        let between = |a: f64, b: f64| a * (1.0 - t) + b * t;
        let x = if log {
            libm::exp(between(libm::log(self.from), libm::log(self.to)))
        } else {
            between(self.from, self.to)
        };
        round_12(x)
    }
}

/// `x` rounded to 12 significant digits.
pub fn round_12(x: f64) -> f64 {
    format!("{x:.11e}").parse().expect("a formatted number reads back")
}

fn read_generated(r: Reader<'_>, name: &str, sweep_seed: u64) -> Result<Values, SpecError> {
    let forms = ["values", "linear", "log", "uniform", "log_uniform"];
    if let Some(items) = r.list("values")? {
        r.finish()?;
        return Ok(Values::Listed(items.to_vec()));
    }
    let found: Vec<&'static str> = forms[1..].iter().copied().filter(|form| r.node(form).is_some()).collect();
    let [form] = found[..] else {
        let message = format!("expected exactly one of: {}", forms.join(", "));
        r.node("points");
        r.node("samples");
        r.finish()?;
        return Err(SpecError::new(Place::Default, format!("grid.{name}"), message));
    };
    let random = matches!(form, "uniform" | "log_uniform");
    let log = matches!(form, "log" | "log_uniform");
    let (from, to) = read_ends(&r, form, log)?;
    let count = if random { "samples" } else { "points" };
    let Some(points) = r.whole(count, Range::whole(0, MAX_POINTS))? else {
        return Err(r.error(count, format!("how many? Add {count} = 5, say")));
    };
    r.finish()?;
    let span = Span { from, to, points };
    Ok(match (random, log) {
        (true, _) => Values::Random { span, log, key: seed::axis_key(sweep_seed, name) },
        (false, true) => Values::Log(span),
        (false, false) => Values::Linear(span),
    })
}

fn read_ends(r: &Reader<'_>, form: &'static str, log: bool) -> Result<(f64, f64), SpecError> {
    let items = r.list(form)?.unwrap_or_default();
    let ends: Vec<f64> = items.iter().filter_map(|n| n.value.as_f64()).filter(|x| x.is_finite()).collect();
    let [from, to] = ends[..] else {
        return Err(r.error(form, "expected two finite numbers, [from, to]"));
    };
    if items.len() != 2 {
        return Err(r.error(form, "expected two finite numbers, [from, to]"));
    }
    if log && (from <= 0.0 || to <= 0.0) {
        let message = format!("a logarithmic range needs both ends above 0, found [{from}, {to}]; list 0 separately");
        return Err(r.error(form, message));
    }
    if from == to {
        return Err(r.error(form, "both ends are equal; a list of one value says the same"));
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> Result<Axis, SpecError> {
        let tree = crate::tree::parse(&format!("x = {text}")).expect("valid TOML");
        Axis::read("x", None, tree.get("x").expect("x is there"), (7, Reading::new(crate::grammar::GRAMMAR)))
    }

    fn numbers(text: &str) -> Vec<f64> {
        let axis = axis(text).expect("valid axis");
        (0..axis.len()).filter_map(|i| axis.number(i)).collect()
    }

    #[test]
    fn ranges_include_both_ends_and_are_round() {
        assert_eq!(numbers("{ log = [0.01, 1.0], points = 5 }")[2], 0.1);
        assert_eq!(numbers("{ linear = [0, 1], points = 11 }")[3], 0.3);
        assert_eq!(numbers("{ linear = [1, 0], points = 3 }"), [1.0, 0.5, 0.0]);
    }

    #[test]
    fn a_wider_range_keeps_the_old_values() {
        let narrow = numbers("{ log = [0.001, 1.0], points = 7 }");
        let wide = numbers("{ log = [0.00001, 10.0], points = 13 }");
        assert!(narrow.iter().all(|x| wide.contains(x)), "{narrow:?} within {wide:?}");
    }

    #[test]
    fn more_samples_keep_the_first_ones_and_stay_inside() {
        let few = numbers("{ log_uniform = [0.1, 10], samples = 5 }");
        let many = numbers("{ log_uniform = [0.1, 10], samples = 500 }");
        assert_eq!(few[..], many[..5]);
        assert!(many.iter().all(|x| (0.1..=10.0).contains(x)));
    }

    #[test]
    fn what_cannot_be_an_axis_is_refused() {
        for (text, word) in [
            ("[]", "empty"),
            ("{ log = [0, 1], points = 5 }", "above 0"),
            ("{ log = [-1, 1], points = 5 }", "above 0"),
            ("{ linear = [0, 1], points = 0 }", "empty"),
            ("[1, 1.0]", "twice"),
            ("[nan]", "finite"),
            ("{ linear = [0, inf], points = 3 }", "finite"),
            ("{ linear = [0, 1] }", "points"),
            ("{ linear = [0, 1], points = 2.5 }", "whole"),
            ("{ linear = [1, 1], points = 2 }", "equal"),
            ("{ lin = [0, 1], points = 2 }", "unknown key 'lin'"),
            ("5", "list"),
        ] {
            let error = axis(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
