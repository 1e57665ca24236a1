//! What an experiment sees of its trial.

use ergodic_common::program::DEFAULT_CHECKPOINT_LIMIT;
use ergodic_common::program::seeds::{seed_of_purpose, trial_seed};
use ergodic_common::random_streams::{Purpose, RandomStream, Streams};

use super::error::TrialError;
use super::metrics::Metrics;
use super::state::TrialState;
use crate::program::record::LineEffect;
use crate::program::statement::Statement;
use crate::train::{ExperimentData, TrialData};

/// A trial, as its experiment sees it: seeds, reports and checkpoints.
#[derive(Debug)]
pub struct TrialContext<'a> {
    pub(super) streams: &'a Streams,
    pub(super) data: Option<&'a TrialData>,
    pub(super) threads: u32,
    /// The metrics that the experiment declares.
    pub(super) declared: &'a Metrics,
    pub(super) state: TrialState<'a>,
}

impl<'a> TrialContext<'a> {
    /// The dataset that `[data]` of the sweep file names.
    ///
    /// # Errors
    /// The sweep file has no `[data]`, or the tensors cannot be made.
    pub fn data(&self) -> Result<&'a ExperimentData, TrialError> {
        let data = self.data.ok_or_else(|| {
            let why = "the sweep file names no data: add [data] with a dataset, such as dataset = \"glyphs\"";
            TrialError::failed(why)
        })?;
        data.tensors().map_err(TrialError::failed)
    }
}

impl TrialContext<'_> {
    /// A random stream. It depends on the seed of the sweep, the purpose, the repeat and `detail`, such as the name of a tensor or
    /// the number of a step: all cells of a repeat share it, so that they can be compared pairwise. `seeds` of the sweep file can
    /// fix, cross and separate the purposes [`Init`](Purpose::Init), [`Head`](Purpose::Head), [`Order`](Purpose::Order) and
    /// [`Augment`](Purpose::Augment).
    pub fn rng(&self, purpose: Purpose, detail: &str) -> RandomStream {
        self.streams.open_stream(purpose, detail.as_bytes())
    }

    /// A seed below 2^53 by the same rule, for a generator of your own.
    pub fn seed(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Program => trial_seed(self.streams),
            _ => seed_of_purpose(self.streams, purpose),
        }
    }

    /// The number of the repeat, from 0.
    pub fn repeat(&self) -> u32 {
        self.streams.repeat.0
    }

    /// The number of threads that the trial may use. Candle's operations keep to it.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Whether the trial must stop, which the next report or checkpoint says, too. A trial that was told so is run again, even if it
    /// goes on to its end.
    pub fn should_stop(&self) -> bool {
        self.state.tell_stop()
    }

    /// Reports metrics at a step. Steps may not go back. The last value of each metric is its final one.
    ///
    /// # Errors
    /// A metric with a direction is not finite, so that the trial has diverged; the trial must stop or has taken too long; or a
    /// metric is not declared.
    pub fn report(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrialError> {
        let added = self.add_sample(step, values);
        self.state.tell(added)
    }

    fn add_sample(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrialError> {
        self.state.check_halt()?;
        if let Some((name, _)) = values.iter().find(|(name, _)| !self.declared.has(name)) {
            let known = self.declared.join_names();
            return Err(TrialError::Failed(format!(
                "'{name}' is reported and not declared: add it to declare_metrics, which has {known}"
            )));
        }
        // A sweep file keeps those metrics that it names.
        let kept = values.iter().filter(|(name, _)| self.state.keeps(name));
        let values = kept.map(|(name, x)| ((*name).to_owned(), x.is_finite().then_some(*x)));
        let statement = Statement::Sample {
            step,
            values: values.collect(),
            predictions: None,
        };
        self.state.add_statement(statement)
    }

    /// Reports the classes that the trial predicts at a step, of the same points each time.
    ///
    /// # Errors
    /// As for [`Self::report`], or the number of classes differs.
    pub fn report_predictions(&mut self, step: u64, classes: &[u8]) -> Result<(), TrialError> {
        let sample = Statement::Sample {
            step,
            values: Vec::new(),
            predictions: Some(classes.to_vec()),
        };
        let halt = self.state.check_halt();
        let added = halt.and_then(|()| self.state.add_statement(sample));
        self.state.tell(added)
    }

    /// Says that the trial diverged at a step. The error is to be passed on.
    pub fn diverged(&mut self, step: u64) -> TrialError {
        let added = self.state.add_statement(Statement::Diverged(step));
        let told = self
            .state
            .tell(added.and(Err::<(), _>(TrialError::Diverged)));
        told.err().unwrap_or(TrialError::Diverged)
    }

    /// Keeps the state of the trial after a step, if it is time for it: `encode` is called only then. Whoever continues the trial, on
    /// any worker, finds the bytes by [`Self::load_checkpoint`]. If the trial must stop, its state is kept, and then it stops. The state
    /// may be that of an earlier step than the last report; later reports are of later steps than the state.
    ///
    /// # Errors
    /// The trial must stop, the step lies before that of an earlier checkpoint, or the bytes are too many.
    pub fn checkpoint(
        &mut self,
        step: u64,
        encode: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), TrialError> {
        let must_stop = self.state.must_stop();
        let noted = self.state.add_statement(Statement::Checkpoint(step));
        self.state.tell(noted)?;
        if self.state.is_checkpoint_due(step) {
            let bytes = encode();
            if bytes.len() as u64 > DEFAULT_CHECKPOINT_LIMIT {
                return self.state.tell(Err(TrialError::Failed(format!(
                    "a checkpoint of {} bytes is too large: at most {DEFAULT_CHECKPOINT_LIMIT} are kept",
                    bytes.len()
                ))));
            }
            self.state.save_checkpoint(step, &bytes);
        }
        self.state.tell(match must_stop {
            true => Err(TrialError::Stopped),
            false => Ok(()),
        })
    }

    /// Loads the last checkpoint: the step that it was kept after, and its bytes. What was reported until then is there again, and
    /// the trial must go on from there. `None` if it begins; call it before anything is reported.
    pub fn load_checkpoint(&mut self) -> Option<(u64, Vec<u8>)> {
        self.state.load_checkpoint()
    }
}

impl TrialState<'_> {
    /// Adds what the experiment said.
    fn add_statement(&mut self, statement: Statement) -> Result<(), TrialError> {
        match self.record.add_statement(statement) {
            Ok(LineEffect::Diverged) => Err(TrialError::Diverged),
            Ok(_) => Ok(()),
            Err(why) => Err(TrialError::Failed(why)),
        }
    }
}
