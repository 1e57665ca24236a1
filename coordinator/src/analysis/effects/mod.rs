//! The effect of each axis of a grid on a metric, and the best cells.

mod anova;
mod best_cells;
mod caveats;
mod design;
mod least_squares;
mod model;
mod query;
mod resample;
#[cfg(test)]
mod tests;
mod types;

pub use anova::AnovaTerm;
pub use query::{EffectsParams, EffectsQuery};
pub use types::{EffectsAnalysis, LevelEffect, TopCell};
