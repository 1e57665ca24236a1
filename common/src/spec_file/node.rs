//! The untyped tree of a sweep file, in which every value remembers where it was written.

use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::escape::escape_line;
use crate::number_format::{DistinctFormat, format_shortest};
use crate::spec_file::error::{Origin, SpecError};

/// The list whose items have paths.
const LAYERS: &str = "model.layers";

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecNode {
    /// The value as written.
    pub value: SpecValue,
    /// The place where it was written.
    pub origin: Origin,
}

/// A value of a sweep file.
#[derive(Debug, Clone, PartialEq)]
pub enum SpecValue {
    /// `true`, `false`
    Bool(bool),
    /// `128`
    Int(i64),
    /// `0.1`
    Float(f64),
    /// `"mnist"`
    Str(String),
    /// `[1, 2]`
    List(Vec<SpecNode>),
    /// `{ kind = "sgd" }` or `[train]`
    Table(SpecTable),
}

/// Keys and values in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpecTable(pub Vec<(String, SpecNode)>);

impl SpecValue {
    /// The value as a number, whether it was written as an integer or not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(i) => Some(*i as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// Whether a name stands as a word in the text, or in a text within a list or table.
    pub fn mentions(&self, name: &str) -> bool {
        match self {
            Self::Str(text) => {
                let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                words.any(|word| word == name)
            }
            Self::List(items) => items.iter().any(|item| item.value.mentions(name)),
            Self::Table(table) => table.0.iter().any(|(_, node)| node.value.mentions(name)),
            _ => false,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The items of a list.
    pub(crate) fn as_list(&self) -> Option<&[SpecNode]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    fn item_mut(&mut self, at: usize) -> Option<&mut SpecNode> {
        match self {
            Self::List(items) => items.get_mut(at),
            _ => None,
        }
    }

    /// The kind of the value, in words for an error.
    pub fn describe(&self) -> String {
        match self {
            Self::List(items) if items.is_empty() => "an empty list".into(),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
            other => other.to_string(),
        }
    }

    /// Whether two values mean the same, such as `1` and `1.0`.
    pub fn is_same_as(&self, other: &Self) -> bool {
        match (self.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => self.to_string() == other.to_string(),
        }
    }
}

/// The canonical text: the fewest digits that read back as the same number, and `1` for `1.0`.
impl fmt::Display for SpecValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => f.write_str(&format_shortest(*x)),
            Self::Str(s) => f.write_str(s),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|n| n.value.to_string()).collect();
                write!(f, "[{}]", items.join(","))
            }
            Self::Table(table) => {
                let items: Vec<String> = table
                    .0
                    .iter()
                    .map(|(k, n)| format!("{k}={}", n.value))
                    .collect();
                write!(f, "{{{}}}", items.join(","))
            }
        }
    }
}

impl SpecTable {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&SpecNode> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// The value under `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut SpecNode> {
        let entry = self.0.iter_mut().find(|(known, _)| known == key)?;
        Some(&mut entry.1)
    }

    /// The value at a dotted path. `model.layers[1]` is an item of a list.
    pub fn get_at_path(&self, path: &str) -> Option<&SpecNode> {
        let Some((at, rest)) = split_place(path) else {
            return self.get_within(path);
        };
        let item = self.get_within(LAYERS)?.value.as_list()?.get(at)?;
        match (rest, &item.value) {
            ("", _) => Some(item),
            (rest, SpecValue::Table(table)) => table.get_within(rest.strip_prefix('.')?),
            _ => None,
        }
    }

    fn get_within(&self, path: &str) -> Option<&SpecNode> {
        let (head, rest) = path
            .split_once('.')
            .map_or((path, None), |(h, r)| (h, Some(r)));
        let node = self.get(head)?;
        match (rest, &node.value) {
            (None, _) => Some(node),
            (Some(rest), SpecValue::Table(table)) => table.get_within(rest),
            _ => None,
        }
    }

    /// Puts `node` at a dotted path, making tables on the way. `model.layers[1]` is an item of a list, which is there. A key with dots, such as the axis `"model.norm"`, is found by its name.
    ///
    /// # Errors
    /// The part of the path at which something other than a table already stands.
    pub fn set_at_path(&mut self, path: &str, node: SpecNode) -> Result<(), String> {
        let Some((at, rest)) = split_place(path) else {
            return self.set_within(path, node);
        };
        let layers = match self.get_mut("model").map(|model| &mut model.value) {
            Some(SpecValue::Table(model)) => model.get_mut("layers"),
            _ => None,
        };
        let item = layers.and_then(|layers| layers.value.item_mut(at));
        match (rest.strip_prefix('.'), item.map(|item| &mut item.value)) {
            (Some(rest), Some(SpecValue::Table(table))) => table.set_within(rest, node),
            _ => Err(format!("layers[{at}]")),
        }
    }

    fn set_within(&mut self, path: &str, node: SpecNode) -> Result<(), String> {
        let dotted = self
            .0
            .iter()
            .map(|(key, _)| key.as_str())
            .filter(|key| key.contains('.') && is_prefix_path(key, path))
            .max_by_key(|key| key.len());
        let (head, rest) = match dotted.map(|key| path.split_at(key.len())) {
            Some((key, rest)) => (key, rest.strip_prefix('.')),
            None => path
                .split_once('.')
                .map_or((path, None), |(head, rest)| (head, Some(rest))),
        };
        let at = match self.0.iter().position(|(k, _)| k == head) {
            Some(at) => at,
            None => {
                let empty = SpecNode {
                    value: SpecValue::Table(Self::default()),
                    origin: node.origin.clone(),
                };
                self.0.push((head.to_owned(), empty));

                self.0.len() - 1
            }
        };
        let slot = &mut self.0[at].1;
        match (rest, &mut slot.value) {
            (None, _) => *slot = node,
            (Some(rest), SpecValue::Table(table)) => return table.set_within(rest, node),
            (Some(_), _) => return Err(head.to_owned()),
        }

        Ok(())
    }
}

/// Splits `model.layers[1].conv` into the place of a layer and the rest of the path. Brackets elsewhere are part of a key.
fn split_place(path: &str) -> Option<(usize, &str)> {
    let (place, rest) = path
        .strip_prefix(LAYERS)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((place.parse().ok()?, rest))
}

/// Whether a dotted path begins with the parts of another one, or is the same.
fn is_prefix_path(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Parses a TOML document.
///
/// # Errors
/// The text is not TOML; the error has its line.
pub fn parse_document(text: &str) -> Result<SpecTable, SpecError> {
    let lines = LineIndex::from_text(text);
    let document = DeTable::parse(text).map_err(|e| {
        let place = e.span().map_or(Origin::Default, |span| {
            Origin::Line(lines.line_at(span.start))
        });
        SpecError::new(
            place,
            "",
            format!("this is not valid TOML: {}", e.message()),
        )
    })?;

    convert_table(&lines, document.get_ref(), &Origin::Default)
}

/// Parses one `--set key=value`. A value that is not TOML is taken as a string, so that
/// `data.dataset=mnist` works.
///
/// # Errors
/// The setting has no `=` or an empty key.
pub fn parse_setting(setting: &str) -> Result<(String, SpecNode), SpecError> {
    let place = Origin::Set(setting.into());
    let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
    // A name with dots may be in quotes, as it is in a file: grid."model.norm"
    let key = key.trim().replace('"', "");
    let value = value.trim();
    if key.is_empty() || value.is_empty() {
        let message = "expected key=value, for example train.epochs=5";
        return Err(SpecError::new(place, "", message));
    }

    let value = match parse_document(&format!("v = {value}")) {
        Ok(mut table) if table.0.len() == 1 => with_origin(table.0.remove(0).1, &place),
        _ => SpecNode {
            value: SpecValue::Str(value.to_owned()),
            origin: place,
        },
    };
    Ok((key, value))
}

fn with_origin(mut node: SpecNode, place: &Origin) -> SpecNode {
    node.origin = place.clone();
    match &mut node.value {
        SpecValue::List(items) => {
            *items = std::mem::take(items)
                .into_iter()
                .map(|n| with_origin(n, place))
                .collect()
        }
        SpecValue::Table(table) => {
            table.0 = std::mem::take(&mut table.0)
                .into_iter()
                .map(|(k, n)| (k, with_origin(n, place)))
                .collect();
        }
        _ => {}
    }

    node
}

/// The offsets at which the lines of a text end.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn from_text(text: &str) -> Self {
        Self(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(at, _)| at)
                .collect(),
        )
    }

    /// The line, counted from 1, of the byte at `offset`.
    fn line_at(&self, offset: usize) -> u32 {
        1 + self.0.partition_point(|end| *end < offset) as u32
    }
}

fn convert_table(
    lines: &LineIndex,
    from: &DeTable<'_>,
    outer: &Origin,
) -> Result<SpecTable, SpecError> {
    let mut entries: Vec<(usize, String, SpecNode)> = Vec::with_capacity(from.len());
    for (key, value) in from {
        let name = key.get_ref().to_string();
        entries.push((
            key.span().start,
            name.clone(),
            convert_node(lines, &name, value, outer)?,
        ));
    }

    entries.sort_by_key(|(at, ..)| *at);
    Ok(SpecTable(
        entries
            .into_iter()
            .map(|(_, key, node)| (key, node))
            .collect(),
    ))
}

fn convert_node(
    lines: &LineIndex,
    key: &str,
    from: &Spanned<DeValue<'_>>,
    outer: &Origin,
) -> Result<SpecNode, SpecError> {
    let span = from.span();
    let place = if span.is_empty() {
        outer.clone()
    } else {
        Origin::Line(lines.line_at(span.start))
    };
    let bad = |message: &str| Err(SpecError::new(place.clone(), key, message));
    let value = match from.get_ref() {
        DeValue::String(s) => SpecValue::Str(s.to_string()),
        DeValue::Boolean(b) => SpecValue::Bool(*b),
        DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
            Ok(i) => SpecValue::Int(i),
            Err(_) => return bad("this integer does not fit into 64 bits"),
        },
        DeValue::Float(x) => match x.as_str().parse::<f64>() {
            // Adding 0.0 turns -0.0 into 0.0, so that the two are one value.
            Ok(x) => SpecValue::Float(x + 0.0),
            Err(_) => return bad("this is not a number"),
        },
        DeValue::Datetime(_) => return bad("dates are not supported"),
        DeValue::Array(items) => SpecValue::List(
            items
                .iter()
                .map(|item| convert_node(lines, key, item, &place))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(inner) => SpecValue::Table(convert_table(lines, inner, &place)?),
    };

    Ok(SpecNode {
        value,
        origin: place,
    })
}

/// Formats a single value for people, short enough for a table.
/// [`Axis::format_value`](crate::grid::axis::Axis::format_value) distinguishes the values of one
/// axis.
pub fn format_short_value(value: &SpecValue) -> String {
    format_value(value, DistinctFormat::default())
}

/// Formats a value for people, with its numbers in this format.
pub fn format_value(value: &SpecValue, numbers: DistinctFormat) -> String {
    match value {
        SpecValue::Float(x) => numbers.format_number(*x),
        other => escape_line(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::spec_file::node::*;

    #[test]
    fn values_know_their_lines() {
        let tree = parse_document("a = 1\n[b]\nc = [1,\n 2.5]\n").expect("valid TOML");
        assert_eq!(
            tree.get_at_path("a").map(|n| n.origin.clone()),
            Some(Origin::Line(1))
        );
        let c = tree.get_at_path("b.c").expect("b.c is there");
        let SpecValue::List(items) = &c.value else {
            panic!("c is a list")
        };

        assert_eq!(items[1].origin, Origin::Line(4));
    }

    #[test]
    fn settings_are_toml_or_else_strings() {
        assert_eq!(
            parse_setting("a.b=5").expect("valid").1.value,
            SpecValue::Int(5)
        );
        assert_eq!(
            parse_setting("data.dataset=mnist").expect("valid").1.value,
            SpecValue::Str("mnist".into())
        );

        assert!(parse_setting("oops").is_err());
    }

    #[test]
    fn set_makes_tables_but_never_replaces_a_number_by_one() {
        let mut tree = parse_document("a = 1").expect("valid TOML");
        let node = SpecNode {
            value: SpecValue::Int(2),
            origin: Origin::Default,
        };
        assert_eq!(tree.set_at_path("x.y.z", node.clone()), Ok(()));
        assert_eq!(tree.get_at_path("x.y.z"), Some(&node));
        assert_eq!(tree.set_at_path("a.b", node), Err("a".into()));
    }

    #[test]
    fn set_finds_a_name_with_dots() {
        let text = "[grid]\n\"model.norm\" = [1]\n\"model.width\" = { points = 3 }";
        let mut tree = parse_document(text).expect("valid TOML");
        for setting in [
            "grid.model.norm=2",
            "grid.\"model.norm\"=5",
            "grid.model.width.points=7",
            "grid.model.depth=9",
        ] {
            let (path, node) = parse_setting(setting).expect("valid");
            assert_eq!(tree.set_at_path(&path, node), Ok(()), "{setting}");
        }

        let written = tree.get("grid").expect("a grid").value.to_string();
        assert_eq!(
            written,
            "{model.norm=5,model.width={points=7},model={depth=9}}"
        );
    }

    #[test]
    fn brackets_are_places_in_the_list_of_layers_alone() {
        let text = "big = [1]\n[model]\nlayers = [{ conv = 4 }, { conv = 8 }]";
        let mut tree = parse_document(text).expect("valid TOML");
        for (path, expected) in [
            ("big[0]", Ok(())),
            ("data.layers[1].conv", Ok(())),
            ("model.layers[1].conv", Ok(())),
            ("model.layers[2].conv", Err("layers[2]".to_owned())),
            ("model.layers[1]", Err("layers[1]".to_owned())),
        ] {
            let node = parse_setting("v=9").expect("valid").1;
            assert_eq!(tree.set_at_path(path, node.clone()), expected, "{path}");
            let is_set = tree.get_at_path(path) == Some(&node);
            assert_eq!(is_set, expected.is_ok(), "{path}");
        }

        assert_eq!(
            SpecValue::Table(tree).to_string(),
            "{big=[1],model={layers=[{conv=4},{conv=9}]},big[0]=9,data={layers[1]={conv=9}}}"
        );
    }

    #[test]
    fn one_is_written_the_same_however_it_was_typed() {
        assert_eq!(
            SpecValue::Int(1).to_string(),
            SpecValue::Float(1.0).to_string()
        );
        assert_eq!(format_shortest(5e-5), "5e-5");
        assert_eq!(format_shortest(0.1), "0.1");
    }
}
