//! Ergodic's worker: joins a coordinator and trains. The only crate that links Candle.

pub mod train;
