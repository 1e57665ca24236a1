//! How far what cells predict for the probe set is apart, as functions rather than as accuracies.

pub mod agreement;
pub mod halves;
pub mod labels;
pub mod swaps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ergodic_common::config::Length;
use ergodic_common::spec::Moment;
use ergodic_common::tree::SpecValue;
use ergodic_common::{Spec, TrialKey};

use super::compare::find_value;
use super::table::{Rows, TableError, find_axis};
use crate::core::Counts;
use crate::store::Part;
use agreement::Agreement;
use halves::Halves;
use labels::{Labels, common};
use swaps::Swaps;

/// A cell, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// By its number.
    Number(u64),
    /// By values of axes that no other cell has.
    Values(Vec<(String, String)>),
}

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Two cells, or none for any two of all.
    pub between: &'a [Choice],
    /// When; empty for every moment between two cells, and for the last one otherwise.
    pub at: &'a str,
    /// Random swaps of the test between two cells.
    pub permutations: u32,
}

/// A question that was checked against a sweep.
#[derive(Debug, Clone)]
pub struct Distances {
    cells: Vec<u64>,
    moments: Vec<Moment>,
    points: usize,
    /// Swaps, if there is a test.
    permutations: Option<u32>,
}

/// Two cells at a moment, or one beside itself. `None` where there are too few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Apart {
    /// Position of the one among the cells.
    pub a: usize,
    /// Position of the other.
    pub b: usize,
    /// The moment in words.
    pub at: String,
    /// Common repeats.
    pub n: u64,
    /// ℓ1 distance of halves, in [0, 2]; none of a cell to itself.
    pub distance: Option<f64>,
    /// The same between halves of one cell, averaged over both.
    pub null: Option<f64>,
    /// The permutation test.
    pub swaps: Option<Swaps>,
    /// Probability that trials of different repeats, one of each, predict the same class.
    pub agreement: Option<f64>,
    /// The same of the same repeat.
    pub agreement_same: Option<f64>,
    /// Within the one cell.
    pub agreement_a: Option<f64>,
    /// Within the other.
    pub agreement_b: Option<f64>,
    /// Why something is missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

/// Predictions of the cells asked for, and what became of their trials.
struct Gathered {
    /// `[moment][cell]`
    labels: Vec<Vec<Labels>>,
    counts: Vec<Counts>,
}

/// Most cells of which any two are looked at.
pub const MOST_CELLS: usize = 64;
/// Most bytes of predictions that are held at a time.
const MOST_BYTES: u64 = 64 << 20;
/// Most sums of one answer: a minute or so on two cores.
const MOST_SUMS: u64 = 400_000_000_000;
/// Most swaps of single repeats; a byte holds six.
const MOST_SWAPS: u64 = 400_000_000;
/// Fewest and most random swaps.
const SWAPS: std::ops::RangeInclusive<u32> = 99..=99_999;

/// What crossed streams do to distances.
const CROSSED: &str = "repeats share crossed streams: halves and different repeats have some in common, so that distances are a little \
                       small, and there is no test";

impl Distances {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// The sweep keeps no predictions, there is no such cell or moment, or it is too much.
    pub fn new(spec: &Spec, question: &Question<'_>) -> Result<Self, TableError> {
        let Some(probe) = &spec.measure.probe else {
            let message = "the sweep keeps no predictions, which distances are between: set probe = { points = 1000 } \
                           under [measure] of the next one";
            return Err(TableError::Unknown(message.into()));
        };
        let is_pair = !question.between.is_empty();
        let cells = if is_pair { pair(spec, question.between)? } else { all_cells(spec)? };
        let moments = match question.at.trim() {
            "" if is_pair => probe.at.clone(),
            "" => probe.at.last().copied().into_iter().collect(),
            at => vec![find_moment(spec, &probe.at, cells[0], at)?],
        };
        if is_pair && !SWAPS.contains(&question.permutations) {
            let (low, high) = (SWAPS.start(), SWAPS.end());
            let message =
                format!("permutations: expected a number from {low} to {high}, found {}", question.permutations);
            return Err(TableError::Bad(message));
        }
        let this = Self {
            cells,
            moments,
            points: probe.points as usize,
            permutations: is_pair.then_some(question.permutations),
        };
        this.check_size(spec)?;
        Ok(this)
    }

    fn check_size(&self, spec: &Spec) -> Result<(), TableError> {
        let looks = self.cells.len() as u64 * self.moments.len() as u64 * u64::from(spec.repeats);
        if looks.saturating_mul(self.points as u64) > MOST_BYTES {
            let message = format!(
                "{} cells × {} repeats × {} points × {} moments are too many predictions to hold: at most {MOST_BYTES}; \
                 ask for one moment with --at, or between two cells",
                self.cells.len(),
                spec.repeats,
                self.points,
                self.moments.len()
            );
            return Err(TableError::Bad(message));
        }
        match self.permutations {
            Some(permutations) => self.check_swaps(spec, looks * self.points as u64, permutations),
            None => self.check_pairs(spec),
        }
    }

    fn check_swaps(&self, spec: &Spec, labels: u64, permutations: u32) -> Result<(), TableError> {
        let (sums, swaps) = (labels * u64::from(permutations), u64::from(spec.repeats) * u64::from(permutations));
        if sums <= MOST_SUMS && swaps <= MOST_SWAPS {
            return Ok(());
        }
        let message = format!(
            "permutations: {permutations} swaps of {} repeats, of {labels} predictions in all, are too many: ask for fewer, \
             or for one moment with --at",
            spec.repeats
        );
        Err(TableError::Bad(message))
    }

    fn check_pairs(&self, spec: &Spec) -> Result<(), TableError> {
        let classes =
            spec.grid.resolve_config(self.cells[0]).map_or(u64::from(u8::MAX), |c| c.data.dataset.class_count().into());
        let pairs = self.cells.len() as u64 * self.cells.len() as u64;
        if pairs * halves::SPLITS as u64 * classes * self.points as u64 <= MOST_SUMS {
            return Ok(());
        }
        let message = format!(
            "any two of {} cells at {} points with {classes} classes are too many: name two of the cells with --between",
            self.cells.len(),
            self.points
        );
        Err(TableError::Bad(message))
    }

    /// Numbers of the cells, in the order in which [`Apart`] counts them.
    pub fn cells(&self) -> &[u64] {
        &self.cells
    }

    /// Between two cells one row per moment; otherwise one for each cell and for any two.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn answer(&self, rows: Rows<'_>) -> Result<Vec<Apart>, TableError> {
        let gathered = self.gather(rows)?;
        let mut answer = Vec::new();
        for (moment, labels) in self.moments.iter().zip(&gathered.labels) {
            match self.permutations {
                Some(permutations) => answer.push(self.tested(rows, &gathered, labels, permutations)),
                None => answer.extend(self.matrix(rows, &gathered, labels)),
            }
            answer.iter_mut().filter(|row| row.at.is_empty()).for_each(|row| row.at = in_words(*moment));
        }
        if !answer.iter().any(|row| row.null.is_some()) {
            return Err(self.nothing(rows.spec, &gathered));
        }
        Ok(answer)
    }

    fn gather(&self, rows: Rows<'_>) -> Result<Gathered, TableError> {
        let mut gathered = Gathered {
            labels: vec![vec![Labels::new(self.points); self.cells.len()]; self.moments.len()],
            counts: vec![Counts::default(); self.cells.len()],
        };
        // Of a cell beside itself there is one position only.
        let places: BTreeMap<u64, usize> = self.cells.iter().enumerate().map(|(at, cell)| (*cell, at)).collect();
        let steps: Vec<Vec<u64>> = self.cells.iter().map(|cell| self.steps(rows.spec, *cell)).collect();
        rows.readers.with_one(|reader| {
            reader.ended(rows.sweep, Part::ALL, &mut |trial| {
                if let Some(at) = places.get(&trial.key.cell) {
                    gathered.counts[*at].add(&trial.outcome);
                }
            })?;
            reader.predictions(rows.sweep, &mut |TrialKey { cell, repeat }, predictions| {
                let Some(at) = places.get(&cell) else { return true };
                for (labels, step) in gathered.labels.iter_mut().zip(&steps[*at]) {
                    let look = predictions.steps.binary_search(step).ok();
                    let classes = look.and_then(|look| predictions.classes.chunks_exact(self.points).nth(look));
                    classes.into_iter().for_each(|classes| labels[*at].push(repeat, classes));
                }
                true
            })
        })?;
        Ok(gathered)
    }

    /// The step of each moment in a cell.
    fn steps(&self, spec: &Spec, cell: u64) -> Vec<u64> {
        let config = spec.grid.resolve_config(cell).ok();
        self.moments.iter().map(|moment| config.as_ref().map_or(0, |config| moment.step_in_trial(config))).collect()
    }

    fn tested(&self, rows: Rows<'_>, gathered: &Gathered, labels: &[Labels], permutations: u32) -> Apart {
        let [a, b] = [&labels[0], &labels[1]];
        let shared = common(&[a, b]);
        let both = vec![a.rows_of(&shared), b.rows_of(&shared)];
        // The same draws whichever of the two is named first.
        let mut cells = self.cells.clone();
        cells.sort_unstable();
        let mut stream = rows.resampling(&cells);
        let halves = Halves::of(&both, a.classes().max(b.classes()), &mut stream);
        let enough = halves.is_some();
        let independent = rows.spec.seeds.crossed.is_empty();
        let test = || swaps::test(&both[0], &both[1], permutations, &mut stream);
        let swaps = (enough && independent).then(test).flatten();
        Apart {
            a: 0,
            b: 1,
            n: shared.len() as u64,
            distance: halves.as_ref().map(|halves| halves.between(0, 1)),
            null: halves.as_ref().map(|halves| 0.5 * (halves.between(0, 0) + halves.between(1, 1))),
            swaps,
            note: self.note(rows.spec, gathered, shared.len(), permutations),
            ..agreeing(&Agreement::of(&[a, b]), 0, 1)
        }
    }

    /// All cells with predictions, over the repeats that all of these have, so that all figures are of as many.
    fn matrix(&self, rows: Rows<'_>, gathered: &Gathered, labels: &[Labels]) -> Vec<Apart> {
        let present: Vec<usize> = (0..labels.len()).filter(|at| !labels[*at].repeats().is_empty()).collect();
        let chosen: Vec<&Labels> = present.iter().map(|at| &labels[*at]).collect();
        let shared = common(&chosen);
        let aligned: Vec<Vec<&[u8]>> = chosen.iter().map(|cell| cell.rows_of(&shared)).collect();
        let classes = chosen.iter().map(|cell| cell.classes()).max().unwrap_or(0);
        let halves = Halves::of(&aligned, classes, &mut rows.resampling(&self.cells));
        let agreement = Agreement::of(&labels.iter().collect::<Vec<_>>());
        let pairs = (0..labels.len()).flat_map(|a| (a..labels.len()).map(move |b| (a, b)));
        let row = |(a, b): (usize, usize)| {
            let place = |cell| present.iter().position(|at| *at == cell);
            let places = place(a).zip(place(b));
            let halves = halves.as_ref().zip(places);
            Apart {
                a,
                b,
                n: places.map_or(0, |_| shared.len() as u64),
                distance: halves.filter(|_| a != b).map(|(halves, (a, b))| halves.between(a, b)),
                null: halves.map(|(halves, (a, b))| 0.5 * (halves.between(a, a) + halves.between(b, b))),
                note: match a == b {
                    true => self.note_alone(rows.spec, gathered, a),
                    false => String::new(),
                },
                ..agreeing(&agreement, a, b)
            }
        };
        pairs.map(row).collect()
    }

    /// What is to be known of two cells.
    fn note(&self, spec: &Spec, gathered: &Gathered, n: usize, permutations: u32) -> String {
        let mut notes: Vec<String> = match n {
            0 => vec!["no repeat in common".to_owned()],
            1 => vec!["one repeat in common: it has no halves".to_owned()],
            _ => Vec::new(),
        };
        let independent = spec.seeds.crossed.is_empty();
        notes.extend((n > 1 && !independent).then(|| CROSSED.to_owned()));
        let smallest = swaps::smallest(n, permutations);
        if n > 1 && smallest > 0.01 && independent {
            notes.push(format!("with {n} repeats, no p below {smallest:.2} is possible"));
        }
        if n > swaps::MOST_REPEATS {
            notes.push(format!("no test of more than {} repeats", swaps::MOST_REPEATS));
        }
        notes.extend((0..self.cells.len()).map(|at| self.note_of(spec, gathered, at)).filter(|note| !note.is_empty()));
        notes.join("; ")
    }

    /// What is to be known of a cell beside itself.
    fn note_alone(&self, spec: &Spec, gathered: &Gathered, at: usize) -> String {
        let crossed = (!spec.seeds.crossed.is_empty()).then(|| CROSSED.to_owned());
        let left_out = Some(self.note_of(spec, gathered, at)).filter(|note| !note.is_empty());
        crossed.into_iter().chain(left_out).collect::<Vec<_>>().join("; ")
    }

    /// Trials of a cell that are left out; empty if none is.
    fn note_of(&self, spec: &Spec, gathered: &Gathered, at: usize) -> String {
        let counts = gathered.counts[at];
        let open = u64::from(spec.repeats).saturating_sub(counts.done());
        let left_out = [(counts.diverged, "diverged"), (counts.failed, "failed"), (open, "not done yet")];
        let words: Vec<String> =
            left_out.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if words.is_empty() {
            return String::new();
        }
        format!("left out of {}: {}", cell_in_words(spec, self.cells[at]), words.join(", "))
    }

    /// Why there is nothing to compare.
    fn nothing(&self, spec: &Spec, gathered: &Gathered) -> TableError {
        let notes = (0..self.cells.len()).map(|at| self.note_of(spec, gathered, at)).filter(|note| !note.is_empty());
        let notes: Vec<String> = notes.take(5).collect();
        let why = match notes.is_empty() {
            true => {
                format!("the sweep has {} per cell", if spec.repeats == 1 { "one repeat" } else { "too few repeats" })
            }
            false => notes.join("; "),
        };
        TableError::Unknown(format!(
            "a distance needs two repeats that the cells have in common, for two halves: {why}"
        ))
    }
}

/// The agreement of two cells, or of one with itself.
fn agreeing(agreement: &Agreement<'_>, a: usize, b: usize) -> Apart {
    let (of_different, of_same) = agreement.between(a, b);
    let (agreement_a, agreement_b) = (agreement.within(a), agreement.within(b));
    Apart {
        agreement: if a == b { agreement_a } else { of_different },
        agreement_same: of_same.filter(|_| a != b),
        agreement_a,
        agreement_b,
        ..Apart::default()
    }
}

/// The values of a cell in words.
pub fn cell_in_words(spec: &Spec, cell: u64) -> String {
    let values = spec.grid.axis_values(cell);
    let words: Vec<String> = spec
        .grid
        .axes()
        .iter()
        .zip(&values)
        .map(|(axis, v): (_, &SpecValue)| format!("{}={}", axis.name, axis.format_value(v)))
        .collect();
    if words.is_empty() { "the only cell".to_owned() } else { words.join(", ") }
}

fn pair(spec: &Spec, between: &[Choice]) -> Result<Vec<u64>, TableError> {
    let cells = between.iter().map(|choice| find_cell(spec, choice)).collect::<Result<Vec<u64>, TableError>>()?;
    match cells[..] {
        [a, b] if a != b => Ok(cells),
        [a, _] => {
            let message = format!(
                "both cells are {}: its distance to itself is the null, which stands beside every distance",
                cell_in_words(spec, a)
            );
            Err(TableError::Bad(message))
        }
        _ => Err(TableError::Bad("between: expected two cells, or none for any two of all".into())),
    }
}

fn all_cells(spec: &Spec) -> Result<Vec<u64>, TableError> {
    let cells: Vec<u64> = spec.grid.iter().take(MOST_CELLS + 1).collect();
    match cells.len() {
        ..=1 => Err(TableError::Unknown("the sweep has one cell: there is no other for a distance".into())),
        n if n > MOST_CELLS => {
            let message = format!(
                "any two of {} cells are too many: at most {MOST_CELLS} cells; name two of them, as in --between lr=0.1 \
                 lr=0.2",
                spec.grid.cell_count()
            );
            Err(TableError::Bad(message))
        }
        _ => Ok(cells),
    }
}

/// The one cell that a user means.
fn find_cell(spec: &Spec, choice: &Choice) -> Result<u64, TableError> {
    let values = match choice {
        Choice::Number(cell) if spec.grid.has_cell(*cell) => return Ok(*cell),
        Choice::Number(cell) => {
            let message = format!("there is no cell {cell}: `ergodic trials` lists the numbers of cells");
            return Err(TableError::Unknown(message));
        }
        Choice::Values(values) => values,
    };
    let axes = spec.grid.axes();
    let wanted = values.iter().map(|(name, text)| {
        let axis = find_axis(axes, name)?;
        Ok((axis, find_value(&axes[axis], text)?))
    });
    let wanted = wanted.collect::<Result<Vec<(usize, u64)>, TableError>>()?;
    let fits = |cell: &u64| {
        let indices = spec.grid.value_indices(*cell);
        wanted.iter().all(|(axis, index)| indices[*axis] == *index)
    };
    let mut found = spec.grid.iter().filter(fits);
    let named = || values.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(",");
    match (found.next(), found.next()) {
        (Some(cell), None) => Ok(cell),
        (None, _) => Err(TableError::Unknown(format!("the sweep has no cell {}", named()))),
        (Some(one), Some(other)) => Err(TableError::Bad(format!(
            "{} is not one cell: {} and {} are among them; name more axes",
            named(),
            cell_in_words(spec, one),
            cell_in_words(spec, other)
        ))),
    }
}

/// The moment that a user means, of those at which predictions are kept.
fn find_moment(spec: &Spec, kept: &[Moment], cell: u64, at: &str) -> Result<Moment, TableError> {
    let config = spec.grid.resolve_config(cell).ok();
    let same =
        |a: Moment, b: Moment| a == b || config.as_ref().is_some_and(|c| a.step_in_trial(c) == b.step_in_trial(c));
    let wanted = Moment::parse(at);
    let found = wanted.and_then(|wanted| kept.iter().find(|moment| same(**moment, wanted)));
    found.copied().ok_or_else(|| {
        let known: Vec<String> = kept.iter().map(|moment| format!("\"{}\"", in_words(*moment))).collect();
        TableError::Unknown(format!("no predictions are kept at '{at}', only at {}", known.join(", ")))
    })
}

fn in_words(moment: Moment) -> String {
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    match moment {
        Moment::After(Length::Epochs(n)) => format!("{n} epoch{}", plural(n.into())),
        Moment::After(Length::Steps(n)) => format!("{n} step{}", plural(n)),
        Moment::Final => "final".to_owned(),
    }
}
