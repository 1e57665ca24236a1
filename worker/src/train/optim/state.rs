//! The state of a trial as Candle tensors, and the in-place operations that change it.
//!
//! Every tensor is `[lanes, numbers]` with one lane. The operations work on the tensors' storage; Candle's autograd is
//! not involved, because it would cost more than the arithmetic of a small step.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout as Strides, Result, Tensor};
use ergodic_common::config::{Adam, AdamDecay, TrainConfig};

use super::adam::{
    AdamStepOp, DecayedAverageOp, DecayedSquaresOp, MovingAverageOp, SquaredAverageOp,
};
use super::schedule::StepHyperparams;
use super::sgd::{SgdMomentumOp, SgdStepOp};
use super::step_gradient::{AscendOp, ScaleGradientOp, ascent_factor, clip_factor};
use super::tensor::{f32_slice_mut, tensor_from_vec, with_tensor_data};
use super::trained_groups::{TrainedGroup, TrainedGroups};
use crate::train::backend::ComputeBackend;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::data::ImageBatch;
use crate::train::engine::loss::LossTally;
use crate::train::engine::simd::Simd16;
use crate::train::measure::norms::sum_of_squares;

/// The tensors that a training step changes.
pub(crate) struct TrainingState {
    /// Packed parameters.
    pub(crate) weights: Tensor,
    /// SGD's momentum, or Adam's average of the gradient.
    momentum: Tensor,
    /// Adam's average of the squared gradient.
    squares: Option<(Adam, Tensor)>,
    /// Gradient of the last step, at the weights before it.
    pub(crate) gradient: Tensor,
    /// The gradient that the optimizer takes, where it is clipped or at other weights.
    taken: Option<Tensor>,
    /// The weights at which sharpness-aware minimization takes the gradient.
    ascended: Option<Tensor>,
    /// Running statistics of the norms.
    pub(crate) statistics: Tensor,
    /// Average of the weights along the trial.
    pub(crate) averaged_weights: Option<Tensor>,
    /// Number of weights that entered the average.
    averaged_count: u64,
}

impl TrainingState {
    /// The state at the start of a trial.
    pub(crate) fn new(
        weights: Vec<f32>,
        statistics: Vec<f32>,
        train: &TrainConfig,
    ) -> Result<Self> {
        let zeros = vec![0.0; weights.len()];
        let zeros_if = |needed: bool| needed.then(|| tensor_from_vec(zeros.clone())).transpose();
        Ok(Self {
            squares: train.adam.zip(zeros_if(train.adam.is_some())?),
            taken: zeros_if(train.clip_norm.is_some() || train.sam.is_some())?,
            ascended: zeros_if(train.sam.is_some())?,
            momentum: tensor_from_vec(zeros.clone())?,
            gradient: tensor_from_vec(zeros)?,
            weights: tensor_from_vec(weights)?,
            statistics: tensor_from_vec(statistics)?,
            averaged_weights: None,
            averaged_count: 0,
        })
    }

    /// Encodes everything that later steps depend on.
    pub(crate) fn encode_into(&self, to: &mut CheckpointEncoder) -> Result<()> {
        let squares = self.squares.as_ref().map(|(_, squares)| squares);
        for tensor in [
            Some(&self.weights),
            Some(&self.momentum),
            Some(&self.statistics),
            squares,
            self.averaged_weights.as_ref(),
        ] {
            match tensor {
                Some(tensor) => with_tensor_data(tensor, |x| to.write_f32s(x))?,
                None => to.write_f32s(&[]),
            }
        }

        to.write_u64(self.averaged_count);
        Ok(())
    }

    /// Restores the state that [`Self::encode_into`] wrote; `None` if it belongs to another
    /// network.
    pub(crate) fn restore_from(&mut self, from: &mut CheckpointDecoder<'_>) -> Option<()> {
        restore_tensor(&mut self.weights, from)?;
        restore_tensor(&mut self.momentum, from)?;
        restore_tensor(&mut self.statistics, from)?;

        match &mut self.squares {
            Some((_, squares)) => restore_tensor(squares, from)?,
            None => _ = from.read_f32s().filter(Vec::is_empty)?,
        }

        let average = from
            .read_f32s()
            .filter(|x| x.is_empty() || x.len() == self.weights.elem_count())?;
        self.averaged_weights = if average.is_empty() {
            None
        } else {
            Some(tensor_from_vec(average).ok()?)
        };

        self.averaged_count = from.read_u64()?;
        Some(())
    }

    /// Adds the weights to their average, which is the plain mean or an exponential one.
    pub(crate) fn update_average<S: Simd16>(&mut self, s: S, decay: Option<f64>) -> Result<()> {
        match &self.averaged_weights {
            None => self.averaged_weights = Some(self.weights.copy()?),
            Some(average) => {
                let share =
                    decay.map_or(1.0 / (self.averaged_count + 1) as f64, |decay| 1.0 - decay);
                let all = 0..self.weights.elem_count();
                average.inplace_op2(
                    &self.weights,
                    &MovingAverageOp {
                        s,
                        trained: &[all],
                        beta: 1.0 - share,
                    },
                )?;
            }
        }

        self.averaged_count += 1;
        Ok(())
    }

    /// Loss and gradient of a batch; running statistics move if the loss is finite.
    pub(crate) fn compute_gradient<S: Simd16>(
        &self,
        s: S,
        engine: &mut ComputeBackend,
        batch: &ImageBatch<'_>,
        first: bool,
    ) -> Result<LossTally> {
        let pass = ForwardBackwardOp {
            s,
            engine: RefCell::new(engine),
            batch,
            tally: Cell::default(),
        };
        self.gradient.inplace_op2(&self.weights, &pass)?;

        self.statistics.inplace_op1(&UpdateStatisticsOp {
            engine: pass.engine.into_inner(),
            first,
        })?;
        Ok(pass.tally.get())
    }

    /// Gives the optimizer the gradient of the same batch at w + ρ·g/‖g‖; returns the loss there. Running statistics stay.
    pub(crate) fn take_ascended_gradient<S: Simd16>(
        &self,
        s: S,
        engine: &mut ComputeBackend,
        batch: &ImageBatch<'_>,
        (trained, rho): (&TrainedGroups, f64),
    ) -> Result<LossTally> {
        let (Some(taken), Some(ascended)) = (&self.taken, &self.ascended) else {
            candle_core::bail!("the state has no place for another gradient");
        };
        let norm = self.norm_of(&self.gradient, trained)?;
        let ascend = AscendOp {
            trained: &trained.ranges,
            factor: ascent_factor(norm, rho),
        };
        ascended.inplace_op3(&self.weights, &self.gradient, &ascend)?;

        let pass = ForwardBackwardOp {
            s,
            engine: RefCell::new(engine),
            batch,
            tally: Cell::default(),
        };
        taken.inplace_op2(ascended, &pass)?;
        Ok(pass.tally.get())
    }

    /// Clips what the optimizer takes to the norm `most`. The gradient of the step, which metrics see, stays.
    pub(crate) fn clip_gradient(&self, trained: &TrainedGroups, most: f64) -> Result<()> {
        let Some(taken) = &self.taken else {
            candle_core::bail!("the state has no place for another gradient");
        };
        let source = if self.ascended.is_some() {
            taken
        } else {
            &self.gradient
        };
        let scale = ScaleGradientOp {
            trained: &trained.ranges,
            factor: clip_factor(self.norm_of(source, trained)?, most),
        };

        match self.ascended {
            Some(_) => taken.inplace_op1(&scale),
            None => taken.inplace_op2(&self.gradient, &scale),
        }
    }

    /// The norm of a gradient over all trained parameters.
    fn norm_of(&self, gradient: &Tensor, trained: &TrainedGroups) -> Result<f64> {
        with_tensor_data(gradient, |g| sum_of_squares(&trained.ranges, g).sqrt())
    }

    /// Adds a vector to the gradient.
    pub(crate) fn add_to_gradient(&self, vector: &[f64]) -> Result<()> {
        self.gradient.inplace_op1(&AddVectorOp { vector })
    }

    /// Updates the weights in a step, counted from 0; returns whether all trained parameters are still finite.
    pub(crate) fn update_weights<S: Simd16>(
        &self,
        s: S,
        trained: &TrainedGroups,
        rates: StepHyperparams,
        nesterov: bool,
        step: u64,
    ) -> Result<bool> {
        let mut finite = true;
        for group in &trained.groups {
            finite &= self.update_group(s, group, rates, nesterov, step)?;
        }
        Ok(finite)
    }

    fn update_group<S: Simd16>(
        &self,
        s: S,
        group: &TrainedGroup,
        rates: StepHyperparams,
        nesterov: bool,
        step: u64,
    ) -> Result<bool> {
        let rates = group.scale_rates(rates);
        match &self.squares {
            Some((adam, squares)) => {
                self.update_averages(s, &group.ranges, rates, *adam, squares)?;
                let descend = AdamStepOp::new(s, &group.ranges, rates, *adam, step);
                self.weights
                    .inplace_op3(&self.momentum, squares, &descend)?;
                Ok(descend.finite.get())
            }
            None => self.update_with_sgd(s, &group.ranges, rates, nesterov),
        }
    }

    /// The gradient that the optimizer takes.
    fn taken_gradient(&self) -> &Tensor {
        self.taken.as_ref().unwrap_or(&self.gradient)
    }

    /// Updates Adam's averages.
    fn update_averages<S: Simd16>(
        &self,
        s: S,
        trained: &[Range<usize>],
        rates: StepHyperparams,
        adam: Adam,
        squares: &Tensor,
    ) -> Result<()> {
        let gradient = self.taken_gradient();
        let average = MovingAverageOp {
            s,
            trained,
            beta: adam.beta1,
        };
        let average_squares = SquaredAverageOp {
            s,
            trained,
            beta: adam.beta2,
        };
        if adam.decay == AdamDecay::Decoupled {
            self.momentum.inplace_op2(gradient, &average)?;
            return squares.inplace_op2(gradient, &average_squares);
        }

        let wd = rates.wd;
        let average = DecayedAverageOp {
            of_gradient: average,
            wd,
        };
        self.momentum
            .inplace_op3(gradient, &self.weights, &average)?;
        let average_squares = DecayedSquaresOp {
            of_gradient: average_squares,
            wd,
        };
        squares.inplace_op3(gradient, &self.weights, &average_squares)
    }

    fn update_with_sgd<S: Simd16>(
        &self,
        s: S,
        trained: &[Range<usize>],
        rates: StepHyperparams,
        nesterov: bool,
    ) -> Result<bool> {
        let [lr, wd, mu] = [rates.lr, rates.wd, rates.momentum].map(|x| x as f32);
        let accumulate = SgdMomentumOp { s, trained, wd, mu };
        let gradient = self.taken_gradient();
        self.momentum
            .inplace_op3(gradient, &self.weights, &accumulate)?;

        let descend = SgdStepOp {
            s,
            trained,
            hyperparams: [lr, wd, mu],
            nesterov,
            finite: Cell::new(true),
        };
        self.weights
            .inplace_op3(&self.momentum, gradient, &descend)?;
        Ok(descend.finite.get())
    }
}

/// Restores a tensor from a checkpoint; `None` if it has another length.
fn restore_tensor(tensor: &mut Tensor, from: &mut CheckpointDecoder<'_>) -> Option<()> {
    let len = tensor.elem_count();
    *tensor = tensor_from_vec(from.read_f32s().filter(|x| x.len() == len)?).ok()?;
    Some(())
}

/// gradient ← ∇L(weights)
struct ForwardBackwardOp<'a, S> {
    s: S,
    engine: RefCell<&'a mut ComputeBackend>,
    batch: &'a ImageBatch<'a>,
    tally: Cell<LossTally>,
}

impl<S: Simd16> InplaceOp2 for ForwardBackwardOp<'_, S> {
    fn name(&self) -> &'static str {
        "forward-backward"
    }

    fn cpu_fwd(
        &self,
        gradient: &mut CpuStorage,
        _: &Strides,
        weights: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let mut engine = self.engine.borrow_mut();
        self.tally.set(engine.compute_gradient(
            self.s,
            weights.as_slice()?,
            self.batch,
            f32_slice_mut(gradient)?,
        )?);
        Ok(())
    }
}

/// Adds a vector.
struct AddVectorOp<'a> {
    vector: &'a [f64],
}

impl InplaceOp1 for AddVectorOp<'_> {
    fn name(&self) -> &'static str {
        "add-vector"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, _: &Strides) -> Result<()> {
        let to = f32_slice_mut(to)?;
        to.iter_mut()
            .zip(self.vector)
            .for_each(|(x, y)| *x = (f64::from(*x) + y) as f32);
        Ok(())
    }
}

/// Updates the running statistics after a batch.
struct UpdateStatisticsOp<'a> {
    engine: &'a ComputeBackend,
    first: bool,
}

impl InplaceOp1 for UpdateStatisticsOp<'_> {
    fn name(&self) -> &'static str {
        "update-statistics"
    }

    fn cpu_fwd(&self, statistics: &mut CpuStorage, _: &Strides) -> Result<()> {
        self.engine
            .update_statistics(f32_slice_mut(statistics)?, self.first);
        Ok(())
    }
}
