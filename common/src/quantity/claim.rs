//! One claim: what it is about, its form, and the region in which it says that an effect lies.

use crate::spec::moments::Moment;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// The form of a claim: what is made of the numbers of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimForm {
    /// The mean of each cell.
    Value,
    /// Each cell over its reference.
    Ratio,
    /// Each cell minus its reference.
    Difference,
    /// The largest over the smallest of some cells.
    Spread,
    /// The slope of the logarithms of cells over those of an axis.
    Slope,
    /// A spread over one axis, at equal values of the others.
    Collapse,
    /// The share of a cell's trials for which a condition holds.
    Share,
    /// The chance that a trial of a cell lies outside the region.
    Extreme,
    /// The equality of curves, to the last bit, with those of the reference.
    Bits,
    /// The distance of the laws of the labels that two cells predict.
    Labels,
}

/// What `labels` is about.
pub(super) const PREDICTIONS: &str = "predictions";

/// The forms by name.
pub const CLAIM_FORMS: [(&str, ClaimForm); 10] = [
    ("value", ClaimForm::Value),
    ("ratio", ClaimForm::Ratio),
    ("difference", ClaimForm::Difference),
    ("spread", ClaimForm::Spread),
    ("slope", ClaimForm::Slope),
    ("collapse", ClaimForm::Collapse),
    ("share", ClaimForm::Share),
    ("extreme", ClaimForm::Extreme),
    ("bits", ClaimForm::Bits),
    ("labels", ClaimForm::Labels),
];

impl ClaimForm {
    /// The name as written.
    pub fn name(self) -> &'static str {
        let mut all = CLAIM_FORMS.iter();
        all.find(|(_, form)| *form == self)
            .map_or("?", |(name, _)| name)
    }

    /// Whether several cells together make one effect.
    pub fn joins_cells(self) -> bool {
        matches!(self, Self::Spread | Self::Slope | Self::Collapse)
    }

    /// Whether trials are counted.
    pub fn counts_trials(self) -> bool {
        matches!(self, Self::Share | Self::Extreme)
    }
}

/// How the trials of a cell become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialPooling {
    /// The quantity of each trial, then their mean.
    EachTrial,
    /// The quantity of the mean curve.
    MeanCurve,
}

/// The region in which a claim says that an effect lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClaimRegion {
    /// Between two bounds.
    Within(f64, f64),
    /// Above a bound.
    Above(f64),
    /// Below a bound.
    Below(f64),
    /// Outside of the interval between two bounds.
    Outside(f64, f64),
}

impl ClaimRegion {
    /// Whether some number of the interval between two others lies in the region.
    pub(super) fn has_number_between(self, first: f64, last: f64) -> bool {
        match self {
            Self::Within(low, high) => low <= last && high >= first,
            Self::Above(bound) => bound < last,
            Self::Below(bound) => bound > first,
            Self::Outside(low, high) => first < low || last > high,
        }
    }
}

/// A claim as its file states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The name, unique in its file.
    pub name: String,
    /// What it says, in words; may be empty.
    pub what: String,
    /// The form.
    pub form: ClaimForm,
    /// The quantity; several for `bits`, and "predictions" for `labels`.
    pub of: Vec<String>,
    /// How trials become one number.
    pub per: TrialPooling,
    /// The region; `None` for `bits`.
    pub region: Option<ClaimRegion>,
    /// The moment of the predictions that `labels` compares.
    pub at: Moment,
    /// The moment whose distance the one of `labels` is divided by.
    pub relative_to: Option<Moment>,
    /// Whether `labels` compares the predictions of all probe points together, instead of point by point.
    pub is_joint: bool,
    /// The condition on the cells that it is about; all without one.
    pub condition: Option<String>,
    /// The condition on the reference.
    pub to: Option<String>,
    /// The condition without which a cell has too few steps.
    pub needs: Option<String>,
    /// The axes over which cells are joined.
    pub over: Vec<String>,
    /// The axes at whose equal values cells are joined.
    pub by: Vec<String>,
    /// The axis or field over which a slope is taken.
    pub against: Option<String>,
    /// Whether the logarithms of x and of y are taken for a slope.
    pub log: (bool, bool),
    /// The largest chance that a trial lies outside the region.
    pub chance: f64,
    /// The probability of a wrong verdict.
    pub alpha: f64,
    /// Number of independent repeats below which there is no verdict.
    pub min_repeats: u32,
    /// Whether the claim must turn out to be wrong.
    pub is_control: bool,
    /// The places of its keys.
    pub(super) origins: Vec<(String, Origin)>,
    pub(super) origin: Origin,
}

const POOLINGS: [(&str, TrialPooling); 2] = [
    ("trial", TrialPooling::EachTrial),
    ("mean", TrialPooling::MeanCurve),
];

const LOG_AXES: [(&str, (bool, bool)); 4] = [
    ("xy", (true, true)),
    ("x", (true, false)),
    ("y", (false, true)),
    ("none", (false, false)),
];

const ALPHA_RANGE: NumberRange = NumberRange {
    low: 0.0,
    high: 0.5,
    excludes_low: true,
    excludes_high: true,
    is_whole: false,
};
const CHANCE_RANGE: NumberRange = NumberRange {
    high: 1.0,
    ..ALPHA_RANGE
};
const ANY_NUMBER: NumberRange = NumberRange {
    low: f64::MIN,
    ..NumberRange::NON_NEGATIVE
};

impl Claim {
    /// Reads an element of `[[claim]]`.
    ///
    /// # Errors
    /// A value is missing, unknown or wrong.
    pub(super) fn read(r: &TableReader<'_>, node: &SpecNode) -> Result<Self, SpecError> {
        let name = required_str(
            r,
            "name",
            "name = \"the jump\", which tells the claim apart",
        )?;
        let form = r
            .read_word("form", &CLAIM_FORMS)?
            .unwrap_or(ClaimForm::Value);
        let origins = match &node.value {
            SpecValue::Table(table) => table.0.iter(),
            _ => [].iter(),
        };
        let claim = Self {
            name: name.to_owned(),
            what: r.read_str("what")?.unwrap_or_default().to_owned(),
            form,
            of: read_quantities(r, form)?,
            per: r
                .read_word("per", &POOLINGS)?
                .unwrap_or(TrialPooling::EachTrial),
            region: read_region(r)?,
            at: read_moment(r, "at")?.unwrap_or(Moment::Final),
            relative_to: read_moment(r, "relative_to")?,
            is_joint: r.read_bool("joint")?.unwrap_or(false),
            condition: owned_str(r, "where")?,
            to: owned_str(r, "to")?,
            needs: owned_str(r, "needs")?,
            over: read_texts(r, "over")?,
            by: read_texts(r, "by")?,
            against: owned_str(r, "against")?,
            log: r.read_word("log", &LOG_AXES)?.unwrap_or((true, true)),
            chance: r.read_number("chance", CHANCE_RANGE)?.unwrap_or(0.05),
            alpha: r.read_number("alpha", ALPHA_RANGE)?.unwrap_or(0.05),
            min_repeats: r
                .read_whole_number("min", NumberRange::whole_numbers(2, 1_000_000))?
                .unwrap_or(3) as u32,
            is_control: r.read_bool("control")?.unwrap_or(false),
            origins: origins
                .map(|(key, node)| (key.clone(), node.origin.clone()))
                .collect(),
            origin: node.origin.clone(),
        };
        r.refuse_unknown_keys()?;
        claim.check_keys()?;
        Ok(claim)
    }

    /// An error at a key of the claim, or at the claim if the key is absent.
    pub(super) fn error_at(&self, key: &str, message: impl Into<String>) -> SpecError {
        let place = self.origins.iter().find(|(known, _)| known == key);
        let origin = place.map_or(&self.origin, |(_, origin)| origin);
        let path = format!("claim '{}': {key}", self.name);
        SpecError::new(origin.clone(), path, message)
    }

    /// An error at a key of the claim, of a sweep whose cells the claim cannot be about.
    pub(super) fn lack_at(&self, key: &str, message: impl Into<String>) -> SpecError {
        self.error_at(key, message).of_cells()
    }
}

fn owned_str(r: &TableReader<'_>, key: &'static str) -> Result<Option<String>, SpecError> {
    Ok(r.read_str(key)?.map(str::to_owned))
}

fn required_str<'a>(
    r: &TableReader<'a>,
    key: &'static str,
    remedy: &str,
) -> Result<&'a str, SpecError> {
    match r.read_str(key)? {
        Some(text) if !text.trim().is_empty() => Ok(text),
        _ => Err(r.error_at(key, format!("add {remedy}"))),
    }
}

/// Reads one text, or a list of texts.
fn read_texts(r: &TableReader<'_>, key: &'static str) -> Result<Vec<String>, SpecError> {
    match r.read_node(key) {
        None => Ok(Vec::new()),
        Some(node) => match &node.value {
            SpecValue::List(items) => items.iter().map(|item| read_text(r, key, item)).collect(),
            _ => Ok(vec![read_text(r, key, node)?]),
        },
    }
}

/// Reads what the claim is about; for labels, nothing else is possible.
fn read_quantities(r: &TableReader<'_>, form: ClaimForm) -> Result<Vec<String>, SpecError> {
    let of = read_texts(r, "of")?;
    Ok(match form {
        ClaimForm::Labels if of.is_empty() => vec![PREDICTIONS.to_owned()],
        _ => of,
    })
}

/// Reads a single moment of a trial.
fn read_moment(r: &TableReader<'_>, key: &'static str) -> Result<Option<Moment>, SpecError> {
    let Some(text) = r.read_str(key)? else {
        return Ok(None);
    };
    let moment = Moment::parse(text).ok_or_else(|| {
        let message = format!(
            "expected a moment such as \"1000 steps\", \"50 %\" or \"final\", found \"{text}\""
        );
        r.error_at(key, message)
    })?;
    Ok(Some(moment))
}

fn read_text(r: &TableReader<'_>, key: &'static str, node: &SpecNode) -> Result<String, SpecError> {
    match &node.value {
        SpecValue::Str(text) => Ok(text.clone()),
        other => Err(r.error_at(
            key,
            format!("expected a string, found {}", quote_value(other)),
        )),
    }
}

/// Reads the region, which is one of four keys.
fn read_region(r: &TableReader<'_>) -> Result<Option<ClaimRegion>, SpecError> {
    let within = read_bounds(r, "within")?;
    let outside = read_bounds(r, "outside")?;
    let regions = [
        ("within", within.map(|(a, b)| ClaimRegion::Within(a, b))),
        ("outside", outside.map(|(a, b)| ClaimRegion::Outside(a, b))),
        (
            "above",
            r.read_number("above", ANY_NUMBER)?.map(ClaimRegion::Above),
        ),
        (
            "below",
            r.read_number("below", ANY_NUMBER)?.map(ClaimRegion::Below),
        ),
    ];

    let mut given = regions.into_iter().filter(|(_, region)| region.is_some());
    match (given.next(), given.next()) {
        (Some((first, _)), Some((second, _))) => {
            let message =
                format!("{first} stands there, too: a claim has one region, so keep one of them");
            Err(r.error_at(second, message))
        }
        (first, _) => Ok(first.and_then(|(_, region)| region)),
    }
}

fn read_bounds(r: &TableReader<'_>, key: &'static str) -> Result<Option<(f64, f64)>, SpecError> {
    let Some(items) = r.read_list(key)? else {
        return Ok(None);
    };
    let bounds: Vec<Option<f64>> = items.iter().map(|item| item.value.as_f64()).collect();
    match bounds[..] {
        [Some(low), Some(high)] if low < high => Ok(Some((low, high))),
        [Some(low), Some(high)] if low == high => {
            let message = format!(
                "both ends are {low}: expected two different numbers, such as [{}, {}], because no measured number is exact",
                low - 0.1 * low.abs().max(0.1),
                low + 0.1 * low.abs().max(0.1)
            );
            Err(r.error_at(key, message))
        }
        [Some(low), Some(high)] => {
            let message = format!("the region is upside down: write [{high}, {low}]");
            Err(r.error_at(key, message))
        }
        _ => Err(r.error_at(key, "expected two numbers, as in [0.9, 1.1]")),
    }
}
