//! The settings of `train.schedule`.

use super::Length;
use crate::number_format::format_shortest;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecValue;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// A change of a hyperparameter: to a value, or by a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HyperparamChange {
    /// Sets the hyperparameter to this value.
    Set(f64),
    /// Multiplies the hyperparameter by this factor, written `"x0.1"`.
    Times(f64),
}

/// One entry of `train.schedule`, which applies from a step or epoch on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleStep {
    /// The first step or epoch to which the entry applies.
    pub from: Length,
    /// Change of the learning rate.
    pub lr: Option<HyperparamChange>,
    /// Change of the weight decay.
    pub wd: Option<HyperparamChange>,
    /// Change of the momentum.
    pub momentum: Option<HyperparamChange>,
}

/// A learning rate that changes at every step, `schedule = { kind = …, … }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Form of the schedule.
    pub form: LrScheduleForm,
    /// Length of the linear warm-up; 0 for none.
    pub warmup: Length,
}

/// The form of a [`Curve`] after its warm-up.
#[derive(Debug, Clone, PartialEq)]
pub enum LrScheduleForm {
    /// A constant learning rate.
    Constant,
    /// `end + (lr − end)·(1 + cos πt)/2` with t going from 0 to 1 (Loshchilov and Hutter 2017).
    Cosine {
        /// The last value.
        end: HyperparamChange,
    },
    /// `lr + (end − lr)·t` with t going from 0 to 1.
    Linear {
        /// The last value.
        end: HyperparamChange,
    },
    /// `lr·factor^(s/per)` after s steps. A factor above 1 is the growing schedule of Li and Arora 2020.
    Exponential {
        /// The factor, above 0.
        factor: f64,
        /// The time over which the factor is applied once.
        per: Length,
    },
    /// Straight lines between points, constant before the first and after the last. At least one point, in order.
    Piecewise {
        /// The points: time, and learning rate at that time.
        points: Vec<(Length, HyperparamChange)>,
    },
}

const LR_SCHEDULE_KINDS: [(&str, &str); 5] = [
    ("constant", "constant"),
    ("cosine", "cosine"),
    ("linear", "linear"),
    ("exponential", "exponential"),
    ("piecewise-linear", "piecewise-linear"),
];

/// The range of the factor of an exponential schedule.
const FACTOR_RANGE: NumberRange = NumberRange::POSITIVE;

impl Curve {
    pub(super) fn read_section(r: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        if !matches!(
            r.read_node("schedule").map(|n| &n.value),
            Some(SpecValue::Table(_))
        ) {
            return Ok(None);
        }

        let r = r.section("schedule")?;
        let Some(kind) = r.read_word("kind", &LR_SCHEDULE_KINDS)? else {
            return Err(r.error_at(
                "kind",
                "which schedule? Set kind to one of: constant, cosine, linear, exponential, piecewise-linear",
            ));
        };

        let form = Self::read_form(&r, kind)?;
        let warmup = Self::read_length(&r, "warmup")?.unwrap_or(Length::Steps(0));
        r.refuse_unknown_keys()?;
        Ok(Some(Self { form, warmup }))
    }

    fn read_form(r: &TableReader<'_>, kind: &str) -> Result<LrScheduleForm, SpecError> {
        let end = HyperparamChange::read_field(r, "end", NumberRange::NON_NEGATIVE)?;
        let factor = r.read_number("factor", FACTOR_RANGE)?;
        let per = Self::read_length(r, "per")?;
        for (key, is_given, owners) in [
            ("end", end.is_some(), &["cosine", "linear"][..]),
            ("factor", factor.is_some(), &["exponential"]),
            ("per", per.is_some(), &["exponential"]),
            (
                "points",
                r.read_node("points").is_some(),
                &["piecewise-linear"],
            ),
        ] {
            if is_given && !owners.contains(&kind) {
                let owners = owners.join("\" or \"");
                return Err(r.error_at(
                    key,
                    format!("this belongs to kind = \"{owners}\" only: remove it, or set kind"),
                ));
            }
        }

        let end = end.unwrap_or(HyperparamChange::Set(0.0));
        Ok(match kind {
            "cosine" => LrScheduleForm::Cosine { end },
            "linear" => LrScheduleForm::Linear { end },
            "exponential" => {
                let factor = factor.ok_or_else(|| {
                    let message =
                        "this is needed: the factor by which the learning rate is multiplied";
                    r.error_at("factor", message)
                })?;
                LrScheduleForm::Exponential {
                    factor,
                    per: per.unwrap_or(Length::Steps(1)),
                }
            }
            "piecewise-linear" => LrScheduleForm::Piecewise {
                points: Self::read_points(r)?,
            },
            _ => LrScheduleForm::Constant,
        })
    }

    /// The curve as part of a cell's identity.
    pub(super) fn identity_text(&self, to_steps: impl Fn(Length) -> u64) -> String {
        let form = match &self.form {
            LrScheduleForm::Constant => "constant".to_owned(),
            LrScheduleForm::Cosine { end } => format!("cosine to {}", end.identity_text()),
            LrScheduleForm::Linear { end } => format!("linear to {}", end.identity_text()),
            LrScheduleForm::Piecewise { points } => {
                let points = points
                    .iter()
                    .map(|(at, lr)| format!(" {}:{}", to_steps(*at), lr.identity_text()));
                format!("piecewise-linear{}", points.collect::<String>())
            }
            LrScheduleForm::Exponential { factor, per } => {
                format!(
                    "exponential x{} per {}",
                    format_shortest(*factor),
                    to_steps(*per)
                )
            }
        };

        format!("{form} after {}", to_steps(self.warmup))
    }

    /// Reads `points = [{ epoch = 0, lr = 0.0 }, { epoch = 10, lr = "x1" }]`.
    fn read_points(r: &TableReader<'_>) -> Result<Vec<(Length, HyperparamChange)>, SpecError> {
        let mut points = Vec::new();
        for (at, item) in r
            .read_list("points")?
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            let path = format!("train.schedule.points[{at}]");
            let SpecValue::Table(table) = &item.value else {
                let message = "expected a point like { epoch = 10, lr = 0.1 }";
                return Err(SpecError::new(item.origin.clone(), path, message));
            };
            let point = TableReader::from_list_element(table, &item.origin, path, r.reading_mode());
            let from = read_start(&point)?;

            let lr = HyperparamChange::read_field(&point, "lr", NumberRange::NON_NEGATIVE)?;
            let lr = lr.ok_or_else(|| {
                point.error_at("lr", "this is needed: the learning rate at this point")
            })?;
            point.refuse_unknown_keys()?;

            points.push((from, lr));
        }

        if points.is_empty() {
            return Err(r.error_at(
                "points",
                "this is needed: a list of points like { epoch = 10, lr = 0.1 }",
            ));
        }

        Ok(points)
    }

    fn read_length(r: &TableReader<'_>, key: &'static str) -> Result<Option<Length>, SpecError> {
        let Some(text) = r.read_str(key)? else {
            return Ok(None);
        };
        Length::parse(text).map(Some).ok_or_else(|| {
            r.error_at(
                key,
                format!("expected something like \"2 epochs\" or \"50 steps\", found '{text}'"),
            )
        })
    }
}

const EPOCH_RANGE: NumberRange = NumberRange::whole_numbers(0, 1_000_000);
const STEP_RANGE: NumberRange = NumberRange::whole_numbers(0, 1_000_000_000);

impl ScheduleStep {
    /// The entry as part of a cell's identity.
    pub(super) fn identity_text(&self, to_steps: impl Fn(Length) -> u64) -> String {
        let changes = [
            ("lr", self.lr),
            ("wd", self.wd),
            ("momentum", self.momentum),
        ]
        .map(|(name, change)| match change {
            None => String::new(),
            Some(HyperparamChange::Set(x)) => format!(" {name}={}", format_shortest(x)),
            Some(HyperparamChange::Times(x)) => format!(" {name}*={}", format_shortest(x)),
        });

        format!("{}:{}", to_steps(self.from), changes.concat())
    }

    pub(super) fn read_entry(r: &TableReader<'_>) -> Result<Self, SpecError> {
        let from = read_start(r)?;
        let step = Self {
            from,
            lr: HyperparamChange::read_field(r, "lr", NumberRange::NON_NEGATIVE)?,
            wd: HyperparamChange::read_field(r, "wd", NumberRange::NON_NEGATIVE)?,
            momentum: HyperparamChange::read_field(r, "momentum", NumberRange::FRACTION)?,
        };
        if step.lr.is_none() && step.wd.is_none() && step.momentum.is_none() {
            return Err(r.error_at("lr", "this entry changes nothing: give lr, wd or momentum"));
        }

        Ok(step)
    }
}

impl HyperparamChange {
    fn identity_text(self) -> String {
        match self {
            Self::Set(x) => format_shortest(x),
            Self::Times(x) => format!("x{}", format_shortest(x)),
        }
    }

    /// Applies the change to the present value.
    pub fn apply(self, now: f64) -> f64 {
        match self {
            Self::Set(x) => x,
            Self::Times(x) => now * x,
        }
    }

    fn read_field(
        r: &TableReader<'_>,
        key: &'static str,
        range: NumberRange,
    ) -> Result<Option<Self>, SpecError> {
        let Some(node) = r.read_node(key) else {
            return Ok(None);
        };
        let change = match &node.value {
            SpecValue::Str(text) => text
                .strip_prefix(['x', '*'])
                .and_then(|f| f.trim().parse::<f64>().ok())
                .filter(|f| NumberRange::NON_NEGATIVE.contains(*f))
                .map(Self::Times),
            value => value.as_f64().filter(|x| range.contains(*x)).map(Self::Set),
        };

        change.map(Some).ok_or_else(|| {
            let message = format!(
                "expected {} or a factor like \"x0.1\", found {}",
                range.describe(),
                quote_value(&node.value)
            );
            r.error_at(key, message)
        })
    }
}

fn read_start(r: &TableReader<'_>) -> Result<Length, SpecError> {
    match (
        r.read_whole_number("epoch", EPOCH_RANGE)?,
        r.read_whole_number("step", STEP_RANGE)?,
    ) {
        (Some(epoch), None) => Ok(Length::Epochs(epoch as u32)),
        (None, Some(step)) => Ok(Length::Steps(step)),
        _ => Err(r.error_at(
            "epoch",
            "give either epoch or step, from which the entry applies",
        )),
    }
}
