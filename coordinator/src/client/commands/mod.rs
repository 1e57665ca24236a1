//! One file per command of a client: its arguments, and the function that runs it.

pub mod backup;
pub mod compare;
pub mod curves;
pub mod distance;
pub mod docs;
pub mod effects;
pub mod explain;
pub mod extend;
pub mod init;
pub mod launch;
pub mod list;
pub mod plan;
pub mod plot;
pub mod predictions;
mod progress_display;
pub mod sample_size;
pub mod status;
pub mod steer;
pub mod table;
pub mod token;
pub mod trials;
pub mod update;
pub mod variance;
pub mod verdict;
pub mod watch;
pub mod weights;
pub mod workers;
