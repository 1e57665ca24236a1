//! Reads `[[figure]]`: which quantities and claims of a sweep are to be drawn, and over what.

use crate::expr::Expr;
use crate::grid::Grid;
use crate::metric::Metric;
use crate::quantity::cell_names::{CellName, NamedCondition};
use crate::quantity::claim::{Claim, ClaimForm};
use crate::quantity::compile::QuantityCompiler;
use crate::quantity::section::ClaimSection;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::GRAMMAR;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};
use crate::spec_file::suggest::suggest_nearest;

/// Maximum number of figures of a file.
pub const MAX_FIGURES: usize = 100;
/// Maximum number of curves of a theory, and of marks, in a figure.
const MAX_LINES: usize = 20;
/// Maximum length of a figure's name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The figures of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FigureSection {
    /// The figures, in the order of the file.
    pub figures: Vec<Figure>,
}

/// What a figure shows.
#[derive(Debug, Clone, PartialEq)]
pub enum FigureSubject {
    /// Mean curves of a quantity.
    Curves {
        /// The quantity, as written.
        y: String,
        /// The horizontal axis: a quantity of steps.
        x: String,
        /// Quantities of cells that are steps, at which vertical lines stand.
        marks: Vec<String>,
        /// The condition on the cells.
        condition: Option<String>,
    },
    /// The effects of claims with their intervals, one point for each cell.
    Effects {
        /// Names of the claims.
        claims: Vec<String>,
        /// A quantity of cells, the horizontal axis.
        x: String,
    },
}

/// A figure as its file states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name, unique in its file; a part of the name of the figure's own file.
    pub name: String,
    /// The title.
    pub title: Option<String>,
    /// What is shown.
    pub subject: FigureSubject,
    /// The axes whose values tell curves apart.
    pub by: Vec<String>,
    /// The axis of which each value has a panel.
    pub facet: Option<String>,
    /// Whether x and y are on logarithmic scales.
    pub log: (bool, bool),
    /// Curves of a theory, as expressions in x.
    pub lines: Vec<String>,
    /// The places of its keys.
    origins: Vec<(String, Origin)>,
    origin: Origin,
}

const LOG_AXES: [(&str, (bool, bool)); 4] = [
    ("none", (false, false)),
    ("x", (true, false)),
    ("y", (false, true)),
    ("xy", (true, true)),
];

impl FigureSection {
    /// The key of the list.
    pub const KEY: &str = "figure";

    /// Reads the list of a document.
    ///
    /// # Errors
    /// Something is missing, unknown or wrong by itself, whatever the sweep is.
    pub fn read(document: &TableReader<'_>) -> Result<Self, SpecError> {
        let form = "figures stand in a list of tables: write [[figure]] above each";
        let items = match document.read_node(Self::KEY).map(|node| &node.value) {
            None => &[][..],
            Some(SpecValue::List(items)) => items,
            Some(_) => return Err(document.error_at(Self::KEY, form)),
        };
        if items.len() > MAX_FIGURES {
            let message = format!("at most {MAX_FIGURES} figures are possible");
            return Err(document.error_at(Self::KEY, message));
        }

        let mut figures: Vec<Figure> = Vec::with_capacity(items.len());
        for item in items {
            let SpecValue::Table(table) = &item.value else {
                return Err(document.error_at(Self::KEY, form));
            };
            let reading = document.reading_mode();
            let r = TableReader::from_list_element(table, &item.origin, "figure".into(), reading);
            let figure = Figure::read(&r, item)?;
            if figures.iter().any(|other| other.name == figure.name) {
                return Err(
                    figure.error_at("name", "another figure has this name: choose another one")
                );
            }
            figures.push(figure);
        }

        Ok(Self { figures })
    }

    /// Checks that a sweep has what the figures show.
    ///
    /// # Errors
    /// A figure names something that the sweep does not have.
    pub(crate) fn check(
        &self,
        claims: &ClaimSection,
        grid: &Grid,
        metrics: &[Metric],
    ) -> Result<(), SpecError> {
        let checker = FigureChecker {
            claims,
            grid,
            metrics,
        };
        let mut figures = self.figures.iter();
        figures.try_for_each(|figure| checker.check_figure(figure))
    }
}

impl Figure {
    fn read(r: &TableReader<'_>, node: &SpecNode) -> Result<Self, SpecError> {
        let origins = match &node.value {
            SpecValue::Table(table) => table.0.iter(),
            _ => [].iter(),
        };
        let figure = Self {
            name: read_figure_name(r)?,
            title: r.read_str("title")?.map(str::to_owned),
            by: read_texts(r, "by")?,
            facet: r.read_str("facet")?.map(str::to_owned),
            log: r.read_word("log", &LOG_AXES)?.unwrap_or_default(),
            lines: read_texts(r, "lines")?,
            subject: read_subject(r)?,
            origins: origins
                .map(|(key, node)| (key.clone(), node.origin.clone()))
                .collect(),
            origin: node.origin.clone(),
        };
        r.refuse_unknown_keys()?;
        Ok(figure)
    }

    /// An error at a key of the figure, or at the figure if the key is absent.
    fn error_at(&self, key: &str, message: impl Into<String>) -> SpecError {
        let place = self.origins.iter().find(|(known, _)| known == key);
        let origin = place.map_or(&self.origin, |(_, origin)| origin);
        let path = format!("figure '{}': {key}", self.name);
        SpecError::new(origin.clone(), path, message)
    }

    /// The horizontal axis, as it is written.
    pub fn x_text(&self) -> &str {
        match &self.subject {
            FigureSubject::Curves { x, .. } | FigureSubject::Effects { x, .. } => x,
        }
    }

    /// The curves of a theory over x, in the order of the file.
    ///
    /// # Errors
    /// A line is no expression in x; the message says why.
    pub fn compile_lines(&self) -> Result<Vec<TheoryLine>, String> {
        let x = self.x_text();
        self.lines
            .iter()
            .map(|text| TheoryLine::compile(text, x))
            .collect()
    }
}

/// A curve of a theory: an expression in x.
#[derive(Debug, Clone)]
pub struct TheoryLine {
    expr: Expr,
}

impl TheoryLine {
    /// Compiles an expression whose only name is `x`, or what x is if that is a name.
    fn compile(text: &str, x: &str) -> Result<Self, String> {
        let expr = Expr::parse(text, GRAMMAR)?;
        let unknown = expr
            .names()
            .into_iter()
            .find(|name| !["x", x].contains(name));
        if let Some(name) = unknown {
            return Err(format!(
                "'{text}' names '{name}': a line is an expression in x, as in \"1/x\""
            ));
        }
        if expr.is_condition() {
            return Err(format!("'{text}' is a condition: expected a number"));
        }

        Ok(Self { expr })
    }

    /// The height of the line at x; NaN where it has none.
    pub fn height_at(&self, x: f64) -> f64 {
        let values = vec![x; self.expr.names().len()];
        self.expr.eval(&values)
    }
}

fn read_figure_name(r: &TableReader<'_>) -> Result<String, SpecError> {
    let form = "expected 1 to 64 letters, digits, '-' or '_', which the name of the figure's file ends with";
    let name = r
        .read_str("name")?
        .ok_or_else(|| r.error_at("name", "add name = \"decay\", which tells the figure apart"))?;
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_plain {
        return Err(r.error_at("name", form));
    }

    Ok(name.to_owned())
}

/// Reads what is shown: a quantity over steps, or claims over cells.
fn read_subject(r: &TableReader<'_>) -> Result<FigureSubject, SpecError> {
    let y = r.read_str("y")?;
    let claims = read_texts(r, "claims")?;
    let marks = read_texts(r, "marks")?;
    let condition = r.read_str("where")?.map(str::to_owned);
    match (y, &claims[..]) {
        (Some(_), [_, ..]) => {
            let message =
                "y stands there, too: a figure shows a quantity or claims, so keep one of them";
            Err(r.error_at("claims", message))
        }
        (None, []) => {
            let message = "what is shown? Add y = \"effective_lr\", a quantity over steps, or claims = [\"a claim\"], its effects over cells";
            Err(r.error_at("y", message))
        }
        (Some(y), []) => Ok(FigureSubject::Curves {
            y: y.to_owned(),
            x: r.read_str("x")?.unwrap_or("step").to_owned(),
            marks,
            condition,
        }),
        (None, _) => {
            for (key, is_given) in [("marks", !marks.is_empty()), ("where", condition.is_some())] {
                if is_given {
                    let message = "a figure of claims has none: it belongs to a figure with y";
                    return Err(r.error_at(key, message));
                }
            }
            let x = r.read_str("x")?.ok_or_else(|| {
                let message = "over what? Add x = \"lr\", an axis or another number of the cells";
                r.error_at("x", message)
            })?;
            Ok(FigureSubject::Effects {
                claims,
                x: x.to_owned(),
            })
        }
    }
}

/// Reads one text, or a list of texts.
fn read_texts(r: &TableReader<'_>, key: &'static str) -> Result<Vec<String>, SpecError> {
    let node = r.read_node(key);
    let items = match node.map(|node| &node.value) {
        None => return Ok(Vec::new()),
        Some(SpecValue::Str(text)) => return Ok(vec![text.clone()]),
        Some(SpecValue::List(items)) => items,
        Some(other) => {
            let message = format!("expected a list of strings, found {}", quote_value(other));
            return Err(r.error_at(key, message));
        }
    };
    if items.len() > MAX_LINES {
        return Err(r.error_at(key, format!("at most {MAX_LINES} are possible")));
    }

    let texts = items.iter().map(|item| match &item.value {
        SpecValue::Str(text) => Ok(text.clone()),
        other => {
            let message = format!("expected a string, found {}", quote_value(other));
            Err(r.error_at(key, message))
        }
    });
    texts.collect()
}

/// A sweep against which figures are checked.
struct FigureChecker<'a> {
    claims: &'a ClaimSection,
    grid: &'a Grid,
    metrics: &'a [Metric],
}

impl FigureChecker<'_> {
    fn check_figure(&self, figure: &Figure) -> Result<(), SpecError> {
        for name in &figure.by {
            self.check_axis(figure, "by", name)?;
        }
        if let Some(name) = &figure.facet {
            self.check_axis(figure, "facet", name)?;
        }
        figure
            .compile_lines()
            .map_err(|why| figure.error_at("lines", why))?;

        match &figure.subject {
            FigureSubject::Curves {
                y,
                x,
                marks,
                condition,
            } => {
                self.check_series(figure, y)?;
                self.claims
                    .compile_step_quantity(self.grid, self.metrics, x)
                    .map_err(|why| figure.error_at("x", why))?;
                for mark in marks {
                    self.check_cell_quantity(figure, "marks", mark)?;
                }
                condition.iter().try_for_each(|text| {
                    let condition = NamedCondition::parse(self.grid, text);
                    condition
                        .map(drop)
                        .map_err(|why| figure.error_at("where", why))
                })
            }
            FigureSubject::Effects { claims, x } => {
                for name in claims {
                    self.check_claim(figure, name)?;
                }
                self.check_same_kind(figure, claims)?;
                self.check_cell_quantity(figure, "x", x)
            }
        }
    }

    fn check_axis(&self, figure: &Figure, key: &str, name: &str) -> Result<(), SpecError> {
        if let Some(CellName::Axis(_)) = CellName::find(self.grid, name) {
            return Ok(());
        }
        let axes = self.grid.axes().iter().map(|axis| axis.name.as_str());
        let hint = suggest_nearest(name, axes);
        Err(figure.error_at(key, format!("the sweep has no axis '{name}', {hint}")))
    }

    /// Checks that a quantity has a value at each sample.
    fn check_series(&self, figure: &Figure, text: &str) -> Result<(), SpecError> {
        let quantities = self.claims.quantity_texts();
        let mut compiler = QuantityCompiler::new(self.grid, self.metrics, quantities);
        let node = compiler
            .compile_text(text)
            .map_err(|why| figure.error_at("y", why))?;
        if !compiler.program().is_series(node) {
            let message = format!(
                "'{text}' is one number per trial: expected something with a value at each sample, such as a metric"
            );
            return Err(figure.error_at("y", message));
        }

        Ok(())
    }

    fn check_cell_quantity(&self, figure: &Figure, key: &str, text: &str) -> Result<(), SpecError> {
        self.claims
            .compile_cell_quantity(self.grid, self.metrics, text)
            .map(drop)
            .map_err(|why| figure.error_at(key, why))
    }

    fn check_claim(&self, figure: &Figure, name: &str) -> Result<(), SpecError> {
        let all = &self.claims.claims;
        let Some(claim) = all.iter().find(|claim| claim.name == name) else {
            let hint = suggest_nearest(name, all.iter().map(|claim| claim.name.as_str()));
            let message = format!("the file has no claim '{name}', {hint}");
            return Err(figure.error_at("claims", message));
        };
        if has_points(claim) {
            return Ok(());
        }

        let message = format!(
            "the claim '{name}' of form = \"{}\" has no number of each cell, which could be drawn over x",
            claim.form.name()
        );
        Err(figure.error_at("claims", message))
    }

    /// Checks that all claims show effects of cells, or all show the values of cells that they join.
    fn check_same_kind(&self, figure: &Figure, names: &[String]) -> Result<(), SpecError> {
        let named = |claim: &&Claim| names.contains(&claim.name);
        let mut claims = self.claims.claims.iter().filter(named);
        let Some(first) = claims.next() else {
            return Ok(());
        };
        let joins = first.form.joins_cells();
        let Some(other) = claims.find(|claim| claim.form.joins_cells() != joins) else {
            return Ok(());
        };

        let (joined, single) = if joins {
            (first, other)
        } else {
            (other, first)
        };
        let message = format!(
            "of '{}' the values of its cells are drawn, and of '{}' effects, which have no common axis: make two figures",
            joined.name, single.name
        );
        Err(figure.error_at("claims", message))
    }
}

/// Whether a claim has a number for each cell: an effect, or the value of a cell that it joins with others.
fn has_points(claim: &Claim) -> bool {
    claim.form != ClaimForm::Bits
}

#[cfg(test)]
mod tests {
    use crate::Spec;
    use crate::quantity::figure::*;
    use crate::spec::SpecSource;

    const SWEEP: &str = "name = \"t\"\nrepeats = 4\n[data]\ndataset = \"glyphs\"\ntrain = 100\n[model]\nkind = \"mlp\"\n\
                         hidden = [8]\n[train]\nsteps = 100\nbatch_size = 10\nschedule = [{ step = 40, lr = \"x0.1\" }]\n\
                         [grid]\nlr = [0.1, 0.2]\nwd = [0.0, 0.1]\n[measure]\nevery = \"10 steps\"\nmetrics = [\"train_loss\"]\n\
                         [quantity]\nhalf = \"train_loss/2\"\nrate = \"lr*(1+wd)\"\n\
                         [[claim]]\nname = \"c\"\nof = \"at(half, end)\"\nabove = 0\n\
                         [[claim]]\nname = \"s\"\nform = \"spread\"\nof = \"at(half, end)\"\nbelow = 2\n\
                         [[claim]]\nname = \"b\"\nform = \"bits\"\nof = \"half\"\nto = \"wd == 0\"\n";

    fn read_with(figure: &str) -> Result<Spec, String> {
        let source = SpecSource {
            file: "f.toml".into(),
            text: format!("{SWEEP}[[figure]]\n{figure}\n"),
            ..SpecSource::default()
        };
        Spec::read_new(&source).map_err(|e| e.to_string())
    }

    #[test]
    fn figures_of_quantities_and_of_claims_are_read() {
        let spec = read_with("name = 'f'\ny = 'half'\nx = 'lr*samples'\nby = 'lr'\nfacet = 'wd'\nlog = 'xy'\nmarks = ['decay', '1/lr']")
            .unwrap_or_else(|e| panic!("{e}"));
        let figures = spec.figures.unwrap_or_else(|e| panic!("{e}"));
        let figure = &figures.figures[0];
        assert_eq!(figure.log, (true, true));
        assert!(matches!(
            &figure.subject,
            FigureSubject::Curves { y, x, marks, .. } if y == "half" && x == "lr*samples" && marks.len() == 2
        ));

        let spec = read_with("name = 'f'\nclaims = ['c']\nx = 'rate'\nlines = ['1/x', '2*rate']")
            .unwrap_or_else(|e| panic!("{e}"));
        let figures = spec.figures.clone().unwrap_or_else(|e| panic!("{e}"));
        let lines = figures.figures[0].compile_lines().unwrap_or_default();
        let heights: Vec<f64> = lines.iter().map(|line| line.height_at(4.0)).collect();
        assert_eq!(heights, [0.25, 8.0]);

        assert!(read_with("name = 'f'\nclaims = 's'\nx = 'lr'").is_ok());
        let x = spec
            .compile_cell_quantity("rate")
            .unwrap_or_else(|e| panic!("{e}"));
        let values: Vec<f64> = spec
            .grid
            .iter()
            .map(|cell| x.value_in(&spec.grid, cell))
            .collect();
        assert_eq!(values, [0.1, 0.1 * 1.1, 0.2, 0.2 * 1.1]);
    }

    #[test]
    fn a_mistake_names_the_figure_and_the_key() {
        for (text, words) in [
            ("y = 'train_loss'", &["figure.name", "add name"][..]),
            (
                "name = 'a b'\ny = 'train_loss'",
                &["figure.name", "letters"],
            ),
            ("name = 'f'", &["figure.y", "what is shown?"]),
            (
                "name = 'f'\ny = 'half'\nclaims = 'c'",
                &["figure.claims", "keep one"],
            ),
            ("name = 'f'\nclaims = 'c'", &["figure.x", "over what?"]),
            (
                "name = 'f'\nclaims = 'c'\nx = 'lr'\nmarks = 'decay'",
                &["figure.marks", "has none"],
            ),
            (
                "name = 'f'\nclaims = 'd'\nx = 'lr'",
                &["figure 'f': claims", "no claim 'd'"],
            ),
            (
                "name = 'f'\nclaims = 'b'\nx = 'lr'",
                &["figure 'f': claims", "bits"],
            ),
            (
                "name = 'f'\nclaims = ['c', 's']\nx = 'lr'",
                &["figure 'f': claims", "of 's' the values", "two figures"],
            ),
            (
                "name = 'f'\nclaims = 'c'\nx = 'train_loss'",
                &["figure 'f': x", "at each sample"],
            ),
            (
                "name = 'f'\nclaims = 'c'\nx = 'at(half, end)'",
                &["figure 'f': x", "without a trial"],
            ),
            (
                "name = 'f'\ny = 'at(half, end)'",
                &["figure 'f': y", "one number per trial"],
            ),
            (
                "name = 'f'\ny = 'test_acc'",
                &["figure 'f': y", "does not measure 'test_acc'"],
            ),
            (
                "name = 'f'\ny = 'half'\nby = 'lrr'",
                &["figure 'f': by", "no axis 'lrr'"],
            ),
            (
                "name = 'f'\ny = 'half'\nlines = '1/lr'",
                &["figure 'f': lines", "expression in x"],
            ),
            (
                "name = 'f'\ny = 'half'\nx = 'lr'",
                &["figure 'f': x", "of the steps"],
            ),
            (
                "name = 'f'\ny = 'half'\nx = 'half'",
                &["figure 'f': x", "of the steps"],
            ),
            (
                "name = 'f'\ny = 'half'\nwhere = 'lrr > 1'",
                &["figure 'f': where", "lrr"],
            ),
            ("name = 'f'\ny = 'half'\ntitel = 't'", &["titel", "title"]),
        ] {
            let error = read_with(text)
                .err()
                .unwrap_or_else(|| panic!("{text} is accepted"));
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
        let twice = "name = 'f'\ny = 'half'\n[[figure]]\nname = 'f'\ny = 'half'";
        assert!(read_with(twice).is_err_and(|error| error.contains("another figure")));
    }
}
