//! Programs as trials: starts a process of the user's, reads what it reports, and leaves nothing of it behind.
//!
//! `host` knows how this worker runs programs, and `trial` runs one attempt of a trial. `lines`, `statement` and `record` make
//! metrics, curve, predictions and digest of what the program writes; they are pure. `watch` waits for the program, its output
//! and its lines. `supervisor` is a process between worker and program, `starter` is the process that starts it, `isolation` gives
//! it namespaces of its own, `folder` and `environment` are what the program finds, `tail` is what is kept of its output,
//! `checkpoint` is what it leaves for whoever continues, and `kept_files` are those that it leaves for its user.

mod checkpoint;
pub(crate) mod command;
mod environment;
mod folder;
pub(crate) mod host;
mod isolation;
mod kept_files;
mod lines;
mod process;
pub(crate) mod record;
mod starter;
pub(crate) mod statement;
mod supervisor;
pub(crate) mod tail;
pub(crate) mod trial;
mod watch;
