//! The settings of the toy loss.

use super::range_for_key;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecNode;
use crate::spec_file::reader::{TableReader, quote_value};

/// The toy loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    /// Number of entries of w.
    pub dim: u32,
    /// The noise σ: the gradient has a noise of σ/‖w‖ per direction orthogonal to w.
    pub noise: f64,
    /// Initial w; standard normal numbers if absent.
    pub start: Option<Vec<f64>>,
}

impl Toy {
    /// Number of floating-point operations of a step, about.
    pub fn step_flops(&self) -> u64 {
        10 * u64::from(self.dim)
    }
}

/// Reads the fields of the toy loss.
pub(super) fn read_toy(r: &TableReader<'_>) -> Result<Toy, SpecError> {
    let start: Option<Vec<f64>> = r
        .read_list("start")?
        .map(|items| items.iter().map(|item| read_start(r, item)).collect())
        .transpose()?;
    let default = start.as_ref().map_or(2, |start| start.len() as u64);
    let dim = r
        .read_whole_number("dim", range_for_key(r, "dim"))?
        .unwrap_or(default);

    if start.as_ref().is_some_and(|start| start.len() < 2) {
        return Err(r.error_at("start", "expected at least two numbers"));
    }

    if start
        .as_ref()
        .is_some_and(|start| start.len() as u64 != dim || start.iter().all(|x| *x == 0.0))
    {
        return Err(r.error_at(
            "start",
            format!("expected {dim} numbers (model.dim), not all of them 0"),
        ));
    }

    let noise = r
        .read_number("noise", range_for_key(r, "noise"))?
        .unwrap_or(0.0);
    Ok(Toy {
        dim: dim as u32,
        noise,
        start,
    })
}

/// Reads one number of the toy model's start.
fn read_start(r: &TableReader<'_>, item: &SpecNode) -> Result<f64, SpecError> {
    let x = item.value.as_f64().filter(|x| x.is_finite());
    x.ok_or_else(|| {
        let found = quote_value(&item.value);
        r.error_at("start", format!("expected finite numbers, found {found}"))
    })
}
