//! `ergodic-worker trial-costs`, for `ergodic plan`: what trials of a sweep's cells cost on this machine.

use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use ergodic_common::ids::CellIndex;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use prost::Message as _;

use crate::train::{Isa, measure_trial_costs};

/// The command's arguments. The sweep comes on stdin, as a message `SpecSource`.
#[derive(Debug, Args)]
pub(super) struct TrialCostsArgs {
    /// Time for all cells together
    #[arg(long, default_value = "1s", value_parser = ergodic_common::duration::parse_duration, value_name = "TIME")]
    budget: Duration,
    /// The cells, by number
    #[arg(required = true)]
    cells: Vec<u64>,
}

/// Measures each cell, and returns the costs as a JSON list, with null for what trains nothing.
///
/// # Errors
/// There is no such sweep or cell.
pub(super) fn measure_costs_of_cells(args: &TrialCostsArgs, isa: Isa) -> Result<String, UserError> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| bad_input(&e))?;
    let source = v1::SpecSource::decode(&bytes[..]).map_err(|e| bad_input(&e))?;
    let source = SpecSource::try_from(source).map_err(|e| bad_input(&e))?;
    let spec = Spec::read_stored(&source).map_err(|e| bad_input(&e))?;

    let budget = args.budget / args.cells.len() as u32;
    let mut costs = Vec::with_capacity(args.cells.len());
    for cell in &args.cells {
        let cell = CellIndex(*cell);
        if !spec.grid.has_cell(cell) {
            return Err(bad_input(&format!("the sweep has no cell {}", cell.0)));
        }
        let config = spec.grid.resolve_config(cell).map_err(|e| bad_input(&e))?;
        let measure = spec.measure_in(cell).map_err(|e| bad_input(&e))?;
        costs.push(measure_trial_costs(&config, &measure, budget, isa));
    }
    Ok(serde_json::json!(costs).to_string())
}

fn bad_input(why: &impl std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::BadInput, why.to_string())
}
