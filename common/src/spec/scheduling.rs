//! The settings that decide how trials run and how sweeps share workers. They stand at the top
//! level of a sweep file, and none is part of a cell's identity.

use std::time::Duration;

use crate::duration::{parse_duration, parse_stored_duration};
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// The scheduling settings of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scheduling {
    /// `time_limit`: an attempt that takes longer is aborted, and the trial fails.
    pub time_limit: Option<Duration>,
    /// The sweep's claim on workers that others want too, until a user changes it.
    pub share: Share,
    /// `audit`: the share of trials, from 0 to 1, that run again in another worker process to be
    /// compared.
    pub audit_share: f64,
}

/// A sweep's claim on workers that several sweeps want.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// `priority`: a sweep gets only what sweeps of higher priority cannot use.
    pub priority: i32,
    /// `weight`: sweeps of the same priority share slot-seconds in proportion to their weights.
    pub weight: f64,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            priority: 0,
            weight: 1.0,
        }
    }
}

/// The range of priorities.
const PRIORITY_RANGE: NumberRange = NumberRange {
    low: -100.0,
    high: 100.0,
    excludes_low: false,
    excludes_high: false,
    is_whole: true,
};
/// The range of audit shares.
const AUDIT_SHARE_RANGE: NumberRange = NumberRange {
    low: 0.0,
    high: 1.0,
    excludes_low: false,
    excludes_high: false,
    is_whole: false,
};
/// The range of weights. Beyond it, virtual times would lose their precision.
const WEIGHT_RANGE: NumberRange = NumberRange {
    low: 1e-6,
    high: 1e6,
    excludes_low: false,
    excludes_high: false,
    is_whole: false,
};

impl Share {
    /// Returns the share with another priority, another weight, or both.
    #[must_use]
    pub fn with_updates(self, priority: Option<i32>, weight: Option<f64>) -> Self {
        Self {
            priority: priority.unwrap_or(self.priority),
            weight: weight.unwrap_or(self.weight),
        }
    }

    /// Checks that priority and weight are in their ranges.
    ///
    /// # Errors
    /// Returns a message for the user if one is not.
    pub fn check_ranges(self) -> Result<Self, String> {
        for (what, range, value) in [
            ("priority", PRIORITY_RANGE, f64::from(self.priority)),
            ("weight", WEIGHT_RANGE, self.weight),
        ] {
            if !range.contains(value) {
                return Err(format!(
                    "{what}: expected {}, found {value}",
                    range.describe()
                ));
            }
        }

        Ok(self)
    }

    fn read_fields(r: &TableReader<'_>) -> Result<Self, SpecError> {
        let default = Self::default();
        Ok(Self {
            priority: r
                .read_number("priority", PRIORITY_RANGE)?
                .map_or(default.priority, |priority| priority as i32),
            weight: r
                .read_number("weight", WEIGHT_RANGE)?
                .unwrap_or(default.weight),
        })
    }
}

impl Scheduling {
    /// Reads the scheduling settings.
    ///
    /// # Errors
    /// A setting is not of its type or range.
    pub fn read_fields(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let audit = root.read_number("audit", AUDIT_SHARE_RANGE)?.unwrap_or(0.0);
        Ok(Self {
            time_limit: read_time_limit(root)?,
            share: Share::read_fields(root)?,
            audit_share: audit,
        })
    }
}

fn read_time_limit(r: &TableReader<'_>) -> Result<Option<Duration>, SpecError> {
    let Some(node) = r.read_node("time_limit") else {
        return Ok(None);
    };
    let refused = |why: String| r.error_at("time_limit", why);
    let Some(text) = node.value.as_str() else {
        let found = quote_value(&node.value);
        return Err(refused(format!(
            "expected a time with its unit, in quotes, like \"500ms\", \"30s\", \"10m\" or \"2h\", found {found}"
        )));
    };

    let limit = parse_stored_duration(text).map_err(&refused)?;
    if let Err(why) = parse_duration(text) {
        r.refuse_if_new("time_limit", || why)?;
    }
    Ok(Some(limit))
}
