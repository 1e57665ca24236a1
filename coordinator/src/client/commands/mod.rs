//! One file per command that asks a coordinator.

pub mod backup;
pub mod compare;
pub mod curves;
pub mod distance;
pub mod effects;
pub mod explain;
pub mod extend;
pub mod launch;
pub mod list;
pub mod plan;
pub mod predictions;
pub mod rm;
pub mod sample_size;
pub mod status;
pub mod steer;
pub mod table;
pub mod token;
pub mod trials;
pub mod variance;
pub mod watch;
pub mod weights;
pub mod workers;

pub use curves::{query_curves_batch, query_curves_text};
pub use explain::explain_sweep;
pub use launch::{LaunchMode, format_reused_results, launch_read_sweep, launch_sweep};
pub use list::list_sweeps;
pub use rm::remove_sweep;
pub use status::render_status;
pub use steer::{steer_sweep, update_share};
pub use table::{TableOptions, query_table_batch, query_table_text};
pub use trials::{query_trials_batch, query_trials_text};
pub use workers::list_workers;

pub use super::query::query_status;
pub use super::sweep_file::{read_launch_spec, read_sweep_file};
