//! Repairs of a sweep file in memory, so that it can be read beyond a mistake.

use super::claims::{drop_claim, is_about_claims};
use crate::config::expand_short_name;
use crate::config::numeric_field_range;
use crate::grid::{find_axis_for_field, resolve_field_name};
use crate::program::names_experiment;
use crate::spec_file::error::{ErrorCause, Origin, SpecError, UnknownWord};
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};

/// The sections that every sweep file may have: what is wrong within one is no reason to drop it.
const SECTIONS: [&str; 9] = [
    "data", "model", "train", "case", "grid", "derive", "where", "measure", "seeds",
];

/// What was repaired, by which later errors may be explained.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Fields with another value than was meant, by their paths.
    replaced: Vec<String>,
    /// Whether a key was dropped of which nobody knows what it meant.
    has_dropped_key: bool,
    /// Whether a word of a list, such as a metric, was dropped.
    has_dropped_word: bool,
    /// Whether an expression was dropped, and the names in it are unused.
    has_dropped_expression: bool,
    /// Whether a claim was dropped, and the names in it are unused.
    has_dropped_claim: bool,
    /// Whether an axis has another name than the expressions know.
    has_renamed_axis: bool,
}

/// Whether a key is part of a range, such as `points`, so that an error there is one of the whole axis.
fn is_range_part(key: &str) -> bool {
    const PARTS: [&str; 7] = [
        "values",
        "linear",
        "log",
        "uniform",
        "log_uniform",
        "points",
        "samples",
    ];
    PARTS.contains(&key)
}

impl Repairs {
    /// No repairs of a document. If some settings or scales could not be applied to it, what is missing or does not go together
    /// may be no mistake.
    pub(super) fn of_document(lacks_settings: bool) -> Self {
        Self {
            has_dropped_key: lacks_settings,
            ..Self::default()
        }
    }

    /// Whether an error may follow from what was repaired before.
    pub(super) fn can_explain(&self, error: &SpecError) -> bool {
        if is_about_claims(&error.path) {
            // A claim may be about anything that was dropped.
            let is_whole =
                self.replaced.is_empty() && !self.has_dropped_key && !self.has_dropped_word;
            return !is_whole || self.has_dropped_expression || self.has_renamed_axis;
        }

        let field = field_of_path(&error.path);
        let is_within = |replaced: &String| {
            is_path_within(&field, replaced)
                || is_path_within(replaced, &field)
                || kind_section(replaced).is_some_and(|section| is_path_within(&field, section))
        };
        if self.replaced.iter().any(is_within) {
            return true;
        }

        let is_expression = error.path.starts_with("derive.") || error.path.starts_with("where.");
        match error.cause {
            ErrorCause::Combination | ErrorCause::Cells => {
                self.has_dropped_key || self.has_dropped_expression || !self.replaced.is_empty()
            }
            ErrorCause::Missing => {
                let lost_kind = |path: &String| path == "model.kind";
                self.has_dropped_key || self.replaced.iter().any(lost_kind)
            }
            ErrorCause::Value if is_expression => error.unknown.is_none() && self.has_renamed_axis,
            // Nothing else uses the name of an axis or of a case.
            ErrorCause::Value => {
                let has_names = error.path.starts_with("grid.") || error.path.starts_with("case.");
                let has_dropped_user = self.has_dropped_expression || self.has_dropped_claim;
                has_dropped_user && error.unknown.is_some() && has_names
            }
        }
    }

    /// Repairs what an error names; returns whether anything changed.
    pub(super) fn repair(&mut self, document: &mut SpecTable, error: &SpecError) -> bool {
        if is_about_claims(&error.path) {
            self.has_dropped_claim = true;
            return drop_claim(document, error);
        }
        let path = error.path.split('[').next().unwrap_or_default();
        if path.is_empty() || path == "grid" {
            return false;
        }

        if let Some(unknown) = &error.unknown
            && self.repair_word(document, path, unknown)
        {
            return true;
        }

        match path.split_once('.') {
            Some(("grid", name)) => self.repair_axis(document, name),
            Some(("derive", name)) => self.drop_derived(document, name),
            Some(("case", _)) => self.repair_case(document, path),
            Some(("where", _)) => {
                self.has_dropped_expression = true;
                take_node(document, "where").is_some()
            }
            // Without its program, the rest of the file would mean something else.
            Some(("program", _)) => false,
            Some(("model", _)) if names_experiment(document) => false,
            _ => self.replace_value(document, path, error.cause),
        }
    }

    /// Writes the word that was meant, or drops the one that nobody knows.
    fn repair_word(&mut self, document: &mut SpecTable, path: &str, unknown: &UnknownWord) -> bool {
        let Some((parent, key)) = find_entry(document, path) else {
            return false;
        };

        let node = &mut parent.0[key].1;
        match &mut node.value {
            SpecValue::Str(text) if *text == unknown.word => {
                let Some(meant) = &unknown.meant else {
                    return false;
                };
                text.clone_from(meant);
                return true;
            }
            SpecValue::List(items) => {
                if let Some(at) = find_word(items, &unknown.word) {
                    self.has_dropped_word |= unknown.meant.is_none();
                    return repair_item(items, at, unknown.meant.as_deref());
                }
            }
            _ => {}
        }

        self.rename_key(parent, key, path, unknown)
    }

    fn rename_key(
        &mut self,
        parent: &mut SpecTable,
        key: usize,
        path: &str,
        unknown: &UnknownWord,
    ) -> bool {
        if parent.0[key].0 != unknown.word {
            return false;
        }

        let is_axis = path.starts_with("grid.");
        self.has_renamed_axis |= is_axis;
        match &unknown.meant {
            Some(meant) if parent.get(meant).is_none() => parent.0[key].0.clone_from(meant),
            meant => {
                self.has_dropped_key |= meant.is_none();
                parent.0.remove(key);
            }
        }
        true
    }

    /// Gives an axis one value that its field accepts, or drops it.
    fn repair_axis(&mut self, document: &mut SpecTable, path: &str) -> bool {
        let Some((_, grid)) = document.0.iter_mut().find(|(key, _)| key == "grid") else {
            return false;
        };
        let SpecValue::Table(grid) = &mut grid.value else {
            return false;
        };
        if path == "zip" {
            self.replaced.push("grid.zip".into());
            return take_node(grid, "zip").is_some();
        }

        let field = field_of_path(path);
        let name = if let Some((whole, _)) = path
            .rsplit_once('.')
            .filter(|(_, part)| is_range_part(part))
        {
            whole.to_owned()
        } else if find_node(grid, path).is_some() {
            path.to_owned()
        } else if let Some(name) = find_axis_for_field(grid, &field) {
            name
        } else {
            // The error is of a part of the axis, such as its ends.
            let whole = path.rsplit_once('.').map_or(path, |(whole, _)| whole);
            whole.to_owned()
        };
        let Some(old) = take_node(grid, &name) else {
            return false;
        };

        let field = resolve_field_name(&name);
        let value = stand_in_number(field.as_deref());
        let was_replaced = self.replaced.contains(&field_of_path(&name));
        if let Some(value) = value.filter(|_| !was_replaced) {
            let item = SpecNode {
                value: SpecValue::Float(value),
                origin: old.origin.clone(),
            };
            let list = SpecNode {
                value: SpecValue::List(vec![item]),
                origin: old.origin,
            };
            grid.0.push((name.clone(), list));
        }
        self.replaced.push(field_of_path(&name));
        true
    }

    /// Gives a setting of a case a number that its field accepts, or drops the setting, or the case.
    fn repair_case(&mut self, document: &mut SpecTable, path: &str) -> bool {
        let was_replaced = self.replaced.iter().any(|replaced| replaced == path);
        let mut at = path;
        while find_node(document, at).is_none() {
            match at.rsplit_once('.') {
                Some((above, _)) => at = above,
                None => return false,
            }
        }

        self.replaced.push(path.to_owned());
        let name = at.splitn(3, '.').nth(2).filter(|_| at == path);
        let field = name.map(resolve_field_name);
        let number = field.and_then(|field| stand_in_number(field.as_deref()));
        if let Some(number) = number.filter(|_| !was_replaced)
            && let Some((parent, key)) = find_entry(document, at)
        {
            parent.0[key].1.value = SpecValue::Float(number);
            return true;
        }
        self.has_dropped_key = true;
        take_node(document, at).is_some()
    }

    /// Drops an expression, and gives its field a value.
    fn drop_derived(&mut self, document: &mut SpecTable, name: &str) -> bool {
        self.has_dropped_expression = true;
        let Some(old) = take_node(document, &format!("derive.{name}")) else {
            return false;
        };

        let field = field_of_path(name);
        if let Some(value) = stand_in_number(Some(&field)) {
            let node = SpecNode {
                value: SpecValue::Float(value),
                origin: old.origin,
            };
            let _ = document.set_at_path(&field, node);
        }
        self.replaced.push(field);
        true
    }

    /// Drops a value, or what it belongs to, or puts one where it is missing.
    fn replace_value(&mut self, document: &mut SpecTable, path: &str, cause: ErrorCause) -> bool {
        if path == "model.kind" {
            let empty = SpecValue::Str("empty".into());
            return self.put_value(document, path, empty);
        }

        if cause == ErrorCause::Missing {
            let value = match path {
                "name" => Some(SpecValue::Str("sweep".into())),
                "train.lr" => Some(SpecValue::Float(0.1)),
                "train.epochs" | "train.batch_size" => Some(SpecValue::Int(1)),
                _ => None,
            };
            if let Some(value) = value {
                return self.put_value(document, path, value);
            }
        }

        let mut at = path;
        loop {
            if take_node(document, at).is_some() {
                self.replaced.push(at.to_owned());
                // Nobody knows what cases would have set.
                self.has_dropped_key |= at == "case";
                if at == "train.steps" {
                    // A trial without a length is asked for its epochs.
                    self.replaced.push("train.epochs".to_owned());
                }
                return true;
            }
            match at.rsplit_once('.') {
                Some((above, _)) if !SECTIONS.contains(&above) => at = above,
                _ => return false,
            }
        }
    }

    /// Puts a value at a path, once.
    fn put_value(&mut self, document: &mut SpecTable, path: &str, value: SpecValue) -> bool {
        let node = SpecNode {
            value,
            origin: Origin::Default,
        };
        let is_new = !self.replaced.iter().any(|replaced| replaced == path)
            || find_node(document, path).is_none();
        self.replaced.push(path.to_owned());
        is_new && document.set_at_path(path, node).is_ok()
    }
}

fn find_word(items: &[SpecNode], word: &str) -> Option<usize> {
    items
        .iter()
        .position(|item| item.value.as_str() == Some(word))
}

/// Writes the word that was meant into a list, unless it has that word already, or drops the item, unless it is the only one.
fn repair_item(items: &mut Vec<SpecNode>, at: usize, meant: Option<&str>) -> bool {
    match meant {
        Some(meant) if find_word(items, meant).is_none() => {
            items[at].value = SpecValue::Str(meant.to_owned());
            true
        }
        _ if items.len() > 1 => {
            items.remove(at);
            true
        }
        _ => false,
    }
}

/// A number that a field accepts; any number for a free name. `None` for a field that is no number.
fn stand_in_number(field: Option<&str>) -> Option<f64> {
    let Some(field) = field else {
        return Some(1.0);
    };
    let range = numeric_field_range(field)?;
    [1.0, 0.5, range.low]
        .into_iter()
        .find(|x| range.contains(*x))
}

/// The field that a path of `[grid]` or of another section means.
fn field_of_path(path: &str) -> String {
    let path = path.split('[').next().unwrap_or_default();
    expand_short_name(path.strip_prefix("grid.").unwrap_or(path))
}

/// The section whose keys depend on the `kind` at a path.
fn kind_section(path: &str) -> Option<&str> {
    path.strip_suffix(".kind")
}

fn is_path_within(path: &str, section: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The value at a dotted path, whose keys may have dots themselves.
pub(super) fn find_node<'a>(table: &'a SpecTable, path: &str) -> Option<&'a SpecNode> {
    table.0.iter().find_map(|(key, node)| {
        let rest = path.strip_prefix(key.as_str())?;
        match (&node.value, rest.strip_prefix('.')) {
            _ if rest.is_empty() => Some(node),
            (SpecValue::Table(inner), Some(rest)) => find_node(inner, rest),
            _ => None,
        }
    })
}

/// The table with the entry at a dotted path, and the place of the entry in it.
fn find_entry<'a>(table: &'a mut SpecTable, path: &str) -> Option<(&'a mut SpecTable, usize)> {
    let at = table.0.iter().position(|(key, node)| {
        let rest = path.strip_prefix(key.as_str());
        rest.is_some_and(|rest| match (&node.value, rest.strip_prefix('.')) {
            _ if rest.is_empty() => true,
            (SpecValue::Table(inner), Some(rest)) => find_node(inner, rest).is_some(),
            _ => false,
        })
    })?;

    let rest = path[table.0[at].0.len()..].strip_prefix('.');
    match rest {
        None => Some((table, at)),
        Some(rest) => match &mut table.0[at].1.value {
            SpecValue::Table(inner) => find_entry(inner, rest),
            _ => None,
        },
    }
}

/// Takes the value at a dotted path out of its table.
fn take_node(table: &mut SpecTable, path: &str) -> Option<SpecNode> {
    let (parent, at) = find_entry(table, path)?;
    Some(parent.0.remove(at).1)
}
