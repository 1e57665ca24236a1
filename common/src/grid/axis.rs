//! One named factor of the grid, listed or generated. Generated values are computed on demand and
//! never stored.

use std::sync::OnceLock;

use crate::number_format::{DistinctFormat, can_round_to, has_short_form};
use crate::random_streams;
use crate::spec_file::error::Origin;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::format_value;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader};

/// A named factor of the grid.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The key as written in the sweep file.
    pub name: String,
    /// The field that the axis sets; `None` for a free name, which only `[derive]` and `[where]`
    /// use.
    pub field: Option<String>,
    /// The place where the axis was written.
    pub origin: Origin,
    /// Values of the axis.
    pub values: AxisValues,
    /// The format of the numbers, computed when it is first needed.
    distinct_format: OnceLock<DistinctFormat>,
}

/// The values of an axis.
#[derive(Debug, Clone)]
pub enum AxisValues {
    /// Values as listed in the file.
    Listed(Vec<SpecNode>),
    /// Evenly spaced, both ends included.
    Linear(Span),
    /// Evenly spaced logarithms, both ends included.
    Log(Span),
    /// Random values, drawn from the sweep's seed.
    Random {
        /// Interval and number of draws.
        span: Span,
        /// Whether the logarithm is uniform instead of the value.
        is_log: bool,
        /// Key of the stream of the draws.
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

/// Maximum number of values of an axis, and of cells of a sweep.
pub const MAX_POINTS: u64 = 10_000_000;

/// Maximum number of values for which the fewest distinct digits are searched.
const MAX_COMPARED_VALUES: u64 = 1_000;

impl Axis {
    /// Reads the entry `node` under `name` in `[grid]`.
    ///
    /// # Errors
    /// The axis is empty or has duplicates, a logarithmic range crosses zero, or a bound is no
    /// number.
    pub fn from_node(
        name: &str,
        field: Option<String>,
        node: &SpecNode,
        (sweep_seed, reading): (u64, ReadingMode),
    ) -> Result<Self, SpecError> {
        let path = format!("grid.{name}");
        let values = match &node.value {
            SpecValue::List(items) => AxisValues::Listed(items.clone()),
            SpecValue::Table(table) => {
                let reader =
                    TableReader::from_list_element(table, &node.origin, path.clone(), reading);
                read_generated_values(reader, name, sweep_seed)?
            }
            other => {
                let message = format!(
                    "expected a list like [0.1, 0.2] or a range like {{ log = [0.01, 1.0], points = 5 }}, found {}",
                    crate::spec_file::reader::quote_value(other)
                );
                return Err(SpecError::new(node.origin.clone(), path, message));
            }
        };

        let name = name.to_owned();
        let distinct = OnceLock::new();
        let axis = Self {
            name,
            field,
            origin: node.origin.clone(),
            values,
            distinct_format: distinct,
        };
        axis.check_values()?;

        Ok(axis)
    }

    /// An axis of words, which sets no field by itself.
    pub(super) fn from_labels<'a>(
        name: &str,
        origin: &Origin,
        labels: impl Iterator<Item = (&'a str, &'a Origin)>,
    ) -> Self {
        let words = labels.map(|(label, origin)| SpecNode {
            value: SpecValue::Str(label.to_owned()),
            origin: origin.clone(),
        });
        Self {
            name: name.to_owned(),
            field: None,
            origin: origin.clone(),
            values: AxisValues::Listed(words.collect()),
            distinct_format: OnceLock::new(),
        }
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        match &self.values {
            AxisValues::Listed(items) => items.len() as u64,
            AxisValues::Linear(span) | AxisValues::Log(span) | AxisValues::Random { span, .. } => {
                span.points
            }
        }
    }

    /// Whether the axis has no values. Never true for an axis that was read, because empty ones are
    /// refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th value, `i` < [`len`](Self::len).
    pub fn value_at(&self, i: u64) -> SpecValue {
        match &self.values {
            AxisValues::Listed(items) => items[i as usize].value.clone(),
            _ => SpecValue::Float(self.number_at(i).expect("generated values are numbers")),
        }
    }

    /// The `i`-th value as a number, if it is one.
    pub fn number_at(&self, i: u64) -> Option<f64> {
        match &self.values {
            AxisValues::Listed(items) => items[i as usize].value.as_f64(),
            AxisValues::Linear(span) => Some(span.point_at(i, false)),
            AxisValues::Log(span) => Some(span.point_at(i, true)),
            AxisValues::Random {
                span,
                is_log: log,
                key,
            } => Some(span.interpolate(random_streams::uniform_at(key, i), *log)),
        }
    }

    /// The `i`-th value with the place it was written at.
    pub fn node_at(&self, i: u64) -> SpecNode {
        match &self.values {
            AxisValues::Listed(items) => items[i as usize].clone(),
            _ => SpecNode {
                value: self.value_at(i),
                origin: self.origin.clone(),
            },
        }
    }

    /// The format in which the numbers of the axis stay distinct.
    pub fn distinct_format(&self) -> DistinctFormat {
        *self.distinct_format.get_or_init(|| match self.len() {
            0..=MAX_COMPARED_VALUES => {
                DistinctFormat::from_numbers((0..self.len()).filter_map(|i| self.number_at(i)))
            }
            _ => DistinctFormat::with_all_digits(),
        })
    }

    /// Formats a value of the axis for people, distinct from the others.
    pub fn format_value(&self, value: &SpecValue) -> String {
        match value {
            SpecValue::Float(x) if !has_short_form(*x) => self.distinct_format().format_number(*x),
            other => format_value(other, DistinctFormat::default()),
        }
    }

    /// Indices of the values that `text` may mean: the value that is exactly `text`, or else those
    /// that some table rounds to `text`.
    pub fn matching_value_indices(&self, text: &str) -> Vec<u64> {
        let text = text.trim();
        let wanted: Option<f64> = text.parse().ok();
        let exact = (0..self.len()).find(|i| {
            let value = self.value_at(*i);
            (wanted.is_some() && value.as_f64() == wanted)
                || value.as_str() == Some(text)
                || value.to_string() == text
        });
        if let Some(i) = exact {
            return vec![i];
        }

        let Some(wanted) = wanted else {
            return Vec::new();
        };
        (0..self.len())
            .filter(|i| self.number_at(*i).is_some_and(|x| can_round_to(x, wanted)))
            .collect()
    }

    /// Whether the values are random. Such axes of equal length are drawn jointly.
    pub fn is_random(&self) -> bool {
        matches!(self.values, AxisValues::Random { .. })
    }

    /// Indices of values that represent all others in checks. For an axis over a continuous field,
    /// the smallest and the largest value suffice, because every field accepts an interval.
    pub fn representative_indices(&self, continuous: bool) -> Vec<u64> {
        match &self.values {
            AxisValues::Listed(items)
                if continuous && items.iter().all(|item| item.value.as_f64().is_some()) =>
            {
                let number = |i: &u64| self.number_at(*i).unwrap_or(f64::NAN);
                let least = (0..self.len()).min_by(|a, b| number(a).total_cmp(&number(b)));
                let most = (0..self.len()).max_by(|a, b| number(a).total_cmp(&number(b)));
                let mut ends: Vec<u64> = least.into_iter().chain(most).collect();
                ends.dedup();

                ends
            }
            AxisValues::Listed(_) => (0..self.len()).collect(),
            _ if continuous => vec![0, self.len() - 1],
            _ => (0..self.len()).collect(),
        }
    }

    fn error_at(&self, place: &Origin, message: String) -> SpecError {
        SpecError::new(place.clone(), format!("grid.{}", self.name), message)
    }

    fn check_values(&self) -> Result<(), SpecError> {
        if self.is_empty() {
            let message = "the axis is empty: give it at least one value, or remove it".to_owned();
            return Err(self.error_at(&self.origin, message));
        }

        match &self.values {
            AxisValues::Listed(items) => self.check_listed_values(items),
            AxisValues::Random { .. } => Ok(()),
            AxisValues::Linear(_) | AxisValues::Log(_) => {
                let n = self.len();
                let close = n > 1
                    && (self.number_at(0) == self.number_at(1)
                        || self.number_at(n - 2) == self.number_at(n - 1));
                if close {
                    let message = format!(
                        "{n} points do not fit into this range: neighbours are equal to 12 digits"
                    );
                    return Err(self.error_at(&self.origin, message));
                }

                Ok(())
            }
        }
    }

    fn check_listed_values(&self, items: &[SpecNode]) -> Result<(), SpecError> {
        let mut seen = std::collections::BTreeMap::new();
        for item in items {
            if item.value.as_f64().is_some_and(|x| !x.is_finite()) {
                let message = format!("expected finite numbers, found {}", item.value);
                return Err(self.error_at(&item.origin, message));
            }

            if matches!(item.value, SpecValue::Table(_)) {
                return Err(self.error_at(
                    &item.origin,
                    "expected numbers, words or lists, found a table".to_owned(),
                ));
            }

            if seen.insert(item.value.to_string(), ()).is_some() {
                let message = format!("the value {} is listed twice: remove one", item.value);
                return Err(self.error_at(&item.origin, message));
            }
        }

        Ok(())
    }
}

impl Span {
    /// The `i`-th of the evenly spaced values, rounded to 12 significant digits, so that a wider
    /// range keeps the old ones.
    fn point_at(&self, i: u64, log: bool) -> f64 {
        let last = self.points.saturating_sub(1);
        match i {
            0 => self.from,
            i if i == last => self.to,
            i => self.interpolate(i as f64 / last as f64, log),
        }
    }

    /// The value at share `t` of the way from `from` to `to`.
    fn interpolate(&self, t: f64, log: bool) -> f64 {
        let between = |a: f64, b: f64| a * (1.0 - t) + b * t;
        let x = if log {
            libm::exp(between(libm::log(self.from), libm::log(self.to)))
        } else {
            between(self.from, self.to)
        };
        round_to_12_digits(x)
    }
}

/// Rounds `x` to 12 significant digits.
pub fn round_to_12_digits(x: f64) -> f64 {
    format!("{x:.11e}")
        .parse()
        .expect("a formatted number reads back")
}

fn read_generated_values(
    r: TableReader<'_>,
    name: &str,
    sweep_seed: u64,
) -> Result<AxisValues, SpecError> {
    let forms = ["values", "linear", "log", "uniform", "log_uniform"];
    if let Some(items) = r.read_list("values")? {
        r.refuse_unknown_keys()?;
        return Ok(AxisValues::Listed(items.to_vec()));
    }

    let found: Vec<&'static str> = forms[1..]
        .iter()
        .copied()
        .filter(|form| r.read_node(form).is_some())
        .collect();
    let [form] = found[..] else {
        let message = format!("expected exactly one of: {}", forms.join(", "));
        r.read_node("points");
        r.read_node("samples");
        r.refuse_unknown_keys()?;
        return Err(SpecError::new(
            Origin::Default,
            format!("grid.{name}"),
            message,
        ));
    };
    let random = matches!(form, "uniform" | "log_uniform");

    let log = matches!(form, "log" | "log_uniform");
    let (from, to) = read_range_ends(&r, form, log)?;
    let count = if random { "samples" } else { "points" };
    let Some(points) = r.read_whole_number(count, NumberRange::whole_numbers(0, MAX_POINTS))?
    else {
        return Err(r.error_at(count, format!("how many? Add {count} = 5, say")));
    };

    r.refuse_unknown_keys()?;
    let span = Span { from, to, points };
    Ok(match (random, log) {
        (true, _) => AxisValues::Random {
            span,
            is_log: log,
            key: random_streams::axis_key(sweep_seed, name),
        },
        (false, true) => AxisValues::Log(span),
        (false, false) => AxisValues::Linear(span),
    })
}

fn read_range_ends(
    r: &TableReader<'_>,
    form: &'static str,
    log: bool,
) -> Result<(f64, f64), SpecError> {
    let items = r.read_list(form)?.unwrap_or_default();
    let ends: Vec<f64> = items
        .iter()
        .filter_map(|n| n.value.as_f64())
        .filter(|x| x.is_finite())
        .collect();
    let [from, to] = ends[..] else {
        return Err(r.error_at(form, "expected two finite numbers, [from, to]"));
    };

    if items.len() != 2 {
        return Err(r.error_at(form, "expected two finite numbers, [from, to]"));
    }

    if log && (from <= 0.0 || to <= 0.0) {
        let message = format!(
            "a logarithmic range needs both ends above 0, found [{from}, {to}]; list 0 separately"
        );
        return Err(r.error_at(form, message));
    }

    if from == to {
        return Err(r.error_at(
            form,
            "both ends are equal; a list of one value says the same",
        ));
    }

    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use crate::grid::axis::*;

    fn axis(text: &str) -> Result<Axis, SpecError> {
        let tree =
            crate::spec_file::node::parse_document(&format!("x = {text}")).expect("valid TOML");
        Axis::from_node(
            "x",
            None,
            tree.get("x").expect("x is there"),
            (7, ReadingMode::for_new(crate::spec_file::grammar::GRAMMAR)),
        )
    }

    fn numbers(text: &str) -> Vec<f64> {
        let axis = axis(text).expect("valid axis");
        (0..axis.len()).filter_map(|i| axis.number_at(i)).collect()
    }

    #[test]
    fn ranges_include_both_ends_and_are_round() {
        assert_eq!(numbers("{ log = [0.01, 1.0], points = 5 }")[2], 0.1);
        assert_eq!(numbers("{ linear = [0, 1], points = 11 }")[3], 0.3);
        assert_eq!(numbers("{ linear = [1, 0], points = 3 }"), [1.0, 0.5, 0.0]);
    }

    #[test]
    fn a_text_that_several_values_round_to_names_them_all() {
        let near = axis("{ linear = [1.999, 2.001], points = 64 }").expect("an axis");
        assert!(near.matching_value_indices("2").len() > 1);
    }

    #[test]
    fn a_wider_range_keeps_the_old_values() {
        let narrow = numbers("{ log = [0.001, 1.0], points = 7 }");
        let wide = numbers("{ log = [0.00001, 10.0], points = 13 }");
        assert!(
            narrow.iter().all(|x| wide.contains(x)),
            "{narrow:?} within {wide:?}"
        );
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
