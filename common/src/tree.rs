//! The untyped tree of a sweep file, in which every value remembers where it came from.

use std::fmt;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::SpecError;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the sweep file, counted from 1.
    Line(u32),
    /// A `--set key=value`, which all values in it have in common.
    Set(Arc<str>),
    /// Nowhere: it is a default.
    Default,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// What may stand in a sweep file.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true`, `false`
    Bool(bool),
    /// `128`
    Int(i64),
    /// `0.1`
    Float(f64),
    /// `"mnist"`
    Str(String),
    /// `[1, 2]`
    List(Vec<Node>),
    /// `{ kind = "sgd" }` or `[train]`
    Table(Table),
}

/// Keys and values in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table(pub Vec<(String, Node)>);

impl Value {
    /// The number, whether it was written as an integer or not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// What kind of thing this is, in words for an error.
    pub fn describe(&self) -> String {
        match self {
            Self::List(items) if items.is_empty() => "an empty list".into(),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
            other => other.to_string(),
        }
    }

    /// Whether two values mean the same: `1` and `1.0` do.
    pub fn same(&self, other: &Self) -> bool {
        match (self.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => self.to_string() == other.to_string(),
        }
    }
}

/// The canonical text: shortest digits that read back as the same number, `1` for `1.0`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => f.write_str(&number(*x)),
            Self::Str(s) => f.write_str(s),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|n| n.value.to_string()).collect();
                write!(f, "[{}]", items.join(","))
            }
            Self::Table(table) => {
                let items: Vec<String> = table.0.iter().map(|(k, n)| format!("{k}={}", n.value)).collect();
                write!(f, "{{{}}}", items.join(","))
            }
        }
    }
}

/// A number in the shortest digits that read back as the same `f64`, in plain notation from 1e-4 up to 1e7.
pub fn number(x: f64) -> String {
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e7).contains(&magnitude) { format!("{x:e}") } else { format!("{x}") }
}

impl Table {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// The value at a dotted path.
    pub fn at(&self, path: &str) -> Option<&Node> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(h, r)| (h, Some(r)));
        let node = self.get(head)?;
        match (rest, &node.value) {
            (None, _) => Some(node),
            (Some(rest), Value::Table(table)) => table.at(rest),
            _ => None,
        }
    }

    /// Puts `node` at a dotted path, making tables on the way.
    ///
    /// # Errors
    /// The part of the path at which something other than a table already stands.
    pub fn set(&mut self, path: &str, node: Node) -> Result<(), String> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(h, r)| (h, Some(r)));
        let at = match self.0.iter().position(|(k, _)| k == head) {
            Some(at) => at,
            None => {
                let empty = Node { value: Value::Table(Self::default()), place: node.place.clone() };
                self.0.push((head.to_owned(), empty));
                self.0.len() - 1
            }
        };
        let slot = &mut self.0[at].1;
        match (rest, &mut slot.value) {
            (None, _) => *slot = node,
            (Some(rest), Value::Table(table)) => return table.set(rest, node),
            (Some(_), _) => return Err(head.to_owned()),
        }
        Ok(())
    }
}

/// Parses a TOML document.
///
/// # Errors
/// Text that is not TOML, with its line.
pub fn parse(text: &str) -> Result<Table, SpecError> {
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|e| {
        let place = e.span().map_or(Place::Default, |span| Place::Line(lines.number(span.start)));
        SpecError::new(place, "", format!("this is not valid TOML: {}", e.message()))
    })?;
    table(&lines, document.get_ref(), &Place::Default)
}

/// Parses one `--set key=value`; a value that is no TOML is taken as a string, so that `data.dataset=mnist` works.
///
/// # Errors
/// A setting without `=` or with an empty key.
pub fn parse_setting(setting: &str) -> Result<(String, Node), SpecError> {
    let place = Place::Set(setting.into());
    let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || value.is_empty() {
        let message = "expected key=value, for example train.epochs=5";
        return Err(SpecError::new(place, "", message));
    }
    let value = match parse(&format!("v = {value}")) {
        Ok(mut table) if table.0.len() == 1 => relocate(table.0.remove(0).1, &place),
        _ => Node { value: Value::Str(value.to_owned()), place },
    };
    Ok((key.to_owned(), value))
}

fn relocate(mut node: Node, place: &Place) -> Node {
    node.place = place.clone();
    match &mut node.value {
        Value::List(items) => *items = std::mem::take(items).into_iter().map(|n| relocate(n, place)).collect(),
        Value::Table(table) => {
            table.0 = std::mem::take(&mut table.0).into_iter().map(|(k, n)| (k, relocate(n, place))).collect();
        }
        _ => {}
    }
    node
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line, counted from 1, in which the byte at `offset` is.
    fn number(&self, offset: usize) -> u32 {
        1 + self.0.partition_point(|end| *end < offset) as u32
    }
}

fn table(lines: &Lines, from: &DeTable<'_>, outer: &Place) -> Result<Table, SpecError> {
    let mut entries: Vec<(usize, String, Node)> = Vec::with_capacity(from.len());
    for (key, value) in from {
        let name = key.get_ref().to_string();
        entries.push((key.span().start, name.clone(), node(lines, &name, value, outer)?));
    }
    entries.sort_by_key(|(at, ..)| *at);
    Ok(Table(entries.into_iter().map(|(_, key, node)| (key, node)).collect()))
}

fn node(lines: &Lines, key: &str, from: &Spanned<DeValue<'_>>, outer: &Place) -> Result<Node, SpecError> {
    let span = from.span();
    let place = if span.is_empty() { outer.clone() } else { Place::Line(lines.number(span.start)) };
    let bad = |message: &str| Err(SpecError::new(place.clone(), key, message));
    let value = match from.get_ref() {
        DeValue::String(s) => Value::Str(s.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
            Ok(i) => Value::Int(i),
            Err(_) => return bad("this integer does not fit into 64 bits"),
        },
        DeValue::Float(x) => match x.as_str().parse::<f64>() {
            // Adding 0 makes one zero of the two.
            Ok(x) => Value::Float(x + 0.0),
            Err(_) => return bad("this is not a number"),
        },
        DeValue::Datetime(_) => return bad("a date cannot stand here"),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| node(lines, key, item, &place)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => Value::Table(table(lines, inner, &place)?),
    };
    Ok(Node { value, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let tree = parse("a = 1\n[b]\nc = [1,\n 2.5]\n").expect("valid TOML");
        assert_eq!(tree.at("a").map(|n| n.place.clone()), Some(Place::Line(1)));
        let c = tree.at("b.c").expect("b.c is there");
        let Value::List(items) = &c.value else { panic!("c is a list") };
        assert_eq!(items[1].place, Place::Line(4));
    }

    #[test]
    fn settings_are_toml_or_else_strings() {
        assert_eq!(parse_setting("a.b=5").expect("valid").1.value, Value::Int(5));
        assert_eq!(parse_setting("data.dataset=mnist").expect("valid").1.value, Value::Str("mnist".into()));
        assert!(parse_setting("oops").is_err());
    }

    #[test]
    fn set_makes_tables_but_never_replaces_a_number_by_one() {
        let mut tree = parse("a = 1").expect("valid TOML");
        let node = Node { value: Value::Int(2), place: Place::Default };
        assert_eq!(tree.set("x.y.z", node.clone()), Ok(()));
        assert_eq!(tree.at("x.y.z"), Some(&node));
        assert_eq!(tree.set("a.b", node), Err("a".into()));
    }

    #[test]
    fn one_is_written_the_same_however_it_was_typed() {
        assert_eq!(Value::Int(1).to_string(), Value::Float(1.0).to_string());
        assert_eq!(number(5e-5), "5e-5");
        assert_eq!(number(0.1), "0.1");
    }
}
