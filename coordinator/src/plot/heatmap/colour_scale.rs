//! The colours of the cells' numbers, which a few far numbers do not stretch.

use crate::plot::axis::AxisScale;
use crate::plot::colour::{Colour, ColourMap, FAINT};
use crate::plot::heatmap::Heatmap;
use crate::plot::robust::find_robust_range;
use crate::plot::{PlotStyle, format_brief};

/// A scale with its colours.
pub(super) struct ColourScale {
    pub(super) scale: AxisScale,
    pub(super) map: ColourMap,
    /// Numbers of cells below and above the scale.
    pub(super) outside: [usize; 2],
}

impl ColourScale {
    /// Chooses the scale from the data and the limits that are given.
    ///
    /// # Errors
    /// No cell has a finite number, a number has no place on the scale, or limits do not fit it.
    pub(super) fn new(map: &Heatmap, look: &PlotStyle) -> Result<Self, String> {
        let scale = look
            .colour_limits
            .apply_to_scale(choose_scale(map)?, "--clim")?;
        let usual = if map.shares {
            ColourMap::SHARES
        } else {
            ColourMap::VALUES
        };
        let mut colours = Self {
            scale,
            map: look.colour_map.unwrap_or(usual),
            outside: [0, 0],
        };
        let sides: Vec<bool> = map
            .finite_values()
            .filter_map(|x| colours.find_side(x))
            .collect();
        for is_above in sides {
            colours.outside[usize::from(is_above)] += 1;
        }

        Ok(colours)
    }

    /// Whether a finite number is above the scale (`true`) or below it; `None` if it is within.
    pub(super) fn find_side(&self, value: f64) -> Option<bool> {
        let near = 1e-9 * (self.scale.to - self.scale.from);
        let is_above = value > self.scale.to + near;
        let is_below = value < self.scale.from - near;
        (value.is_finite() && (is_above || is_below)).then_some(is_above)
    }

    /// The colour of a number. An infinite one is grey, and one outside of the scale has the colour of
    /// its end.
    pub(super) fn colour_of(&self, value: f64) -> Colour {
        if value.is_infinite() {
            return FAINT;
        }
        self.map.colour_at(self.scale.position_of(value))
    }

    /// Says how many numbers the scale does not reach.
    pub(super) fn describe_outside(&self, map: &Heatmap, scattered: bool) -> Option<String> {
        let ends = [
            (
                self.outside[0],
                "below",
                map.finite_values().fold(f64::INFINITY, f64::min),
            ),
            (
                self.outside[1],
                "above",
                map.finite_values().fold(f64::NEG_INFINITY, f64::max),
            ),
        ];
        let parts: Vec<String> = ends
            .iter()
            .filter(|(cells, _, _)| *cells > 0)
            .map(|(cells, side, end)| {
                let are = if *cells == 1 { "cell is" } else { "cells are" };
                format!(
                    "{cells} {are} {side} the colours, up to {}",
                    format_brief(*end)
                )
            })
            .collect();

        let mark = if scattered { "" } else { "Triangle: " };
        (!parts.is_empty()).then(|| format!("{mark}{} (--clim shows more).", parts.join("; ")))
    }
}

fn choose_scale(map: &Heatmap) -> Result<AxisScale, String> {
    if map.cells.iter().all(|cell| cell.value.is_none()) {
        return Err(format!(
            "no cell has a value of {}: {}",
            map.name,
            describe_emptiness(map)
        ));
    }

    if map.finite_values().next().is_none() {
        return Err(format!(
            "{} is infinite in every cell that has a value: there is nothing to tell apart",
            map.name
        ));
    }

    if map.shares {
        return Ok(AxisScale {
            from: 0.0,
            to: 1.0,
            log: false,
        });
    }

    let values: Vec<f64> = map.finite_values().collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if map.log && low <= 0.0 {
        return Err(format!(
            "{} is {low} in a cell, which has no place on a logarithmic scale: leave out --log-scale",
            map.name
        ));
    }

    let [low, high] =
        find_robust_range(&values, map.log).map_or([low, high], |range| [range.low, range.high]);
    Ok(AxisScale::from_range(low, high, map.log))
}

fn describe_emptiness(map: &Heatmap) -> String {
    let [completed, diverged, failed] =
        [0, 1, 2].map(|i| map.cells.iter().map(|cell| cell.trials[i]).sum::<u64>());
    match (completed, diverged, failed) {
        (0, 0, 0) => "no trial has ended yet".to_owned(),
        (0, 1, 0) => "the only trial that has ended diverged".to_owned(),
        (0, diverged, 0) => format!("all {diverged} trials that have ended diverged"),
        (0, diverged, failed) => {
            format!("of the trials that have ended, {diverged} diverged and {failed} failed")
        }
        _ => "it is not defined for the trials that have completed".to_owned(),
    }
}
