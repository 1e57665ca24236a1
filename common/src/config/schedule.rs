//! `train.schedule`

use super::Length;
use crate::error::SpecError;
use crate::reader::{Range, Reader, quoted};
use crate::tree::{Value, number};

/// A change of a hyperparameter: set it, or multiply its present value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Becomes this value.
    Set(f64),
    /// Is multiplied by this factor (written `"x0.1"`).
    Times(f64),
}

/// One entry of `train.schedule`, in force from a step or epoch on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleStep {
    /// The first step or epoch at which it holds.
    pub from: Length,
    /// Change of the learning rate.
    pub lr: Option<Change>,
    /// Change of the weight decay.
    pub wd: Option<Change>,
    /// Change of the momentum.
    pub momentum: Option<Change>,
}

/// A learning rate that changes at every step, `schedule = { kind = …, … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its form.
    pub form: CurveForm,
    /// Over how long the learning rate first rises in proportion to the step, 0 for not at all.
    pub warmup: Length,
}

/// The form of a [`Curve`] after its warm-up.
#[derive(Debug, Clone, PartialEq)]
pub enum CurveForm {
    /// Constant.
    Constant,
    /// `end + (lr − end)·(1 + cos πt)/2` with t going from 0 to 1 (Loshchilov and Hutter 2017).
    Cosine {
        /// The last value.
        end: Change,
    },
    /// `lr + (end − lr)·t` with t going from 0 to 1.
    Linear {
        /// The last value.
        end: Change,
    },
    /// `lr·factor^(s/per)` after s steps. A factor above 1 is the growing schedule of Li and Arora 2020.
    Exponential {
        /// The factor.
        factor: f64,
        /// For how long it is applied once.
        per: Length,
    },
    /// Straight lines between points, constant before the first and after the last. At least one point, in order.
    Piecewise {
        /// When, and the value there.
        points: Vec<(Length, Change)>,
    },
}

const CURVES: [(&str, &str); 5] = [
    ("constant", "constant"),
    ("cosine", "cosine"),
    ("linear", "linear"),
    ("exponential", "exponential"),
    ("piecewise-linear", "piecewise-linear"),
];

/// A factor of an exponential schedule.
const CURVE_FACTOR: Range = Range::POSITIVE;

impl Curve {
    pub(super) fn read(r: &Reader<'_>) -> Result<Option<Self>, SpecError> {
        if !matches!(r.node("schedule").map(|n| &n.value), Some(Value::Table(_))) {
            return Ok(None);
        }
        let r = r.section("schedule")?;
        let Some(kind) = r.word("kind", &CURVES)? else {
            return Err(r.error(
                "kind",
                "which schedule? Set kind to one of: constant, cosine, linear, exponential, piecewise-linear",
            ));
        };
        let end = Change::read(&r, "end", Range::NON_NEGATIVE)?;
        let factor = r.number("factor", CURVE_FACTOR)?;
        let per = Self::read_length(&r, "per")?;
        let only = |key: &str, given: bool, owners: &[&str]| match given && !owners.contains(&kind) {
            true => Err(r.error(key, format!("this belongs to kind = \"{}\" only", owners.join("\" or \"")))),
            false => Ok(()),
        };
        only("end", end.is_some(), &["cosine", "linear"])?;
        only("factor", factor.is_some(), &["exponential"])?;
        only("per", per.is_some(), &["exponential"])?;
        only("points", r.node("points").is_some(), &["piecewise-linear"])?;
        let end = end.unwrap_or(Change::Set(0.0));
        let form = match kind {
            "cosine" => CurveForm::Cosine { end },
            "linear" => CurveForm::Linear { end },
            "exponential" => {
                let missing = || r.error("factor", "this is needed: by what the learning rate is multiplied");
                CurveForm::Exponential { factor: factor.ok_or_else(missing)?, per: per.unwrap_or(Length::Steps(1)) }
            }
            "piecewise-linear" => CurveForm::Piecewise { points: Self::read_points(&r)? },
            _ => CurveForm::Constant,
        };
        let warmup = Self::read_length(&r, "warmup")?.unwrap_or(Length::Steps(0));
        r.finish()?;
        Ok(Some(Self { form, warmup }))
    }

    /// The curve as part of a cell's identity.
    pub(super) fn text(&self, to_steps: impl Fn(Length) -> u64) -> String {
        let form = match &self.form {
            CurveForm::Constant => "constant".to_owned(),
            CurveForm::Cosine { end } => format!("cosine to {}", end.text()),
            CurveForm::Linear { end } => format!("linear to {}", end.text()),
            CurveForm::Piecewise { points } => {
                let points = points.iter().map(|(at, lr)| format!(" {}:{}", to_steps(*at), lr.text()));
                format!("piecewise-linear{}", points.collect::<String>())
            }
            CurveForm::Exponential { factor, per } => {
                format!("exponential x{} per {}", number(*factor), to_steps(*per))
            }
        };
        format!("{form} after {}", to_steps(self.warmup))
    }

    /// `points = [{ epoch = 0, lr = 0.0 }, { epoch = 10, lr = "x1" }]`
    fn read_points(r: &Reader<'_>) -> Result<Vec<(Length, Change)>, SpecError> {
        let mut points = Vec::new();
        for (at, item) in r.list("points")?.unwrap_or_default().iter().enumerate() {
            let path = format!("train.schedule.points[{at}]");
            let Value::Table(table) = &item.value else {
                let message = "expected a point like { epoch = 10, lr = 0.1 }";
                return Err(SpecError::new(item.place.clone(), path, message));
            };
            let point = Reader::element(table, &item.place, path, r.reading());
            let from = read_from(&point)?;
            let lr = Change::read(&point, "lr", Range::NON_NEGATIVE)?;
            let lr = lr.ok_or_else(|| point.error("lr", "this is needed: the learning rate at this point"))?;
            point.finish()?;
            points.push((from, lr));
        }
        if points.is_empty() {
            return Err(r.error("points", "this is needed: a list of points like { epoch = 10, lr = 0.1 }"));
        }
        Ok(points)
    }

    fn read_length(r: &Reader<'_>, key: &'static str) -> Result<Option<Length>, SpecError> {
        let Some(text) = r.str(key)? else { return Ok(None) };
        let expected = || r.error(key, format!("expected something like \"2 epochs\" or \"50 steps\", found '{text}'"));
        Length::parse(text).map(Some).ok_or_else(expected)
    }
}

const SCHEDULE_EPOCH: Range = Range::whole(0, 1_000_000);
const SCHEDULE_STEP: Range = Range::whole(0, 1_000_000_000);

impl ScheduleStep {
    /// The entry as part of a cell's identity.
    pub(super) fn text(&self, to_steps: impl Fn(Length) -> u64) -> String {
        let change = |name: &str, change: Option<Change>| match change {
            None => String::new(),
            Some(Change::Set(x)) => format!(" {name}={}", number(x)),
            Some(Change::Times(x)) => format!(" {name}*={}", number(x)),
        };
        let changes = [change("lr", self.lr), change("wd", self.wd), change("momentum", self.momentum)];
        format!("{}:{}", to_steps(self.from), changes.concat())
    }

    pub(super) fn read(r: &Reader<'_>) -> Result<Self, SpecError> {
        let from = read_from(r)?;
        let step = Self {
            from,
            lr: Change::read(r, "lr", Range::NON_NEGATIVE)?,
            wd: Change::read(r, "wd", Range::NON_NEGATIVE)?,
            momentum: Change::read(r, "momentum", Range::FRACTION)?,
        };
        if step.lr.is_none() && step.wd.is_none() && step.momentum.is_none() {
            return Err(r.error("lr", "this entry changes nothing: give lr, wd or momentum"));
        }
        Ok(step)
    }
}

impl Change {
    fn text(self) -> String {
        match self {
            Self::Set(x) => number(x),
            Self::Times(x) => format!("x{}", number(x)),
        }
    }

    /// The value after the change.
    pub fn apply(self, now: f64) -> f64 {
        match self {
            Self::Set(x) => x,
            Self::Times(x) => now * x,
        }
    }

    fn read(r: &Reader<'_>, key: &'static str, range: Range) -> Result<Option<Self>, SpecError> {
        let Some(node) = r.node(key) else { return Ok(None) };
        let expected = || {
            let message =
                format!("expected {} or a factor like \"x0.1\", found {}", range.describe(), quoted(&node.value));
            r.error(key, message)
        };
        match &node.value {
            Value::Str(text) => {
                let factor = text.strip_prefix(['x', '*']).and_then(|f| f.trim().parse::<f64>().ok());
                let factor = factor.filter(|f| Range::NON_NEGATIVE.holds(*f));
                factor.map(|f| Some(Self::Times(f))).ok_or_else(expected)
            }
            value => match value.as_f64() {
                Some(x) if range.holds(x) => Ok(Some(Self::Set(x))),
                _ => Err(expected()),
            },
        }
    }
}

fn read_from(r: &Reader<'_>) -> Result<Length, SpecError> {
    match (r.whole("epoch", SCHEDULE_EPOCH)?, r.whole("step", SCHEDULE_STEP)?) {
        (Some(epoch), None) => Ok(Length::Epochs(epoch as u32)),
        (None, Some(step)) => Ok(Length::Steps(step)),
        _ => Err(r.error("epoch", "from when on? Give either epoch or step")),
    }
}
