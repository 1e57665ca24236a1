//! The state of a trial as Candle tensors, and the in-place operations that change it.
//!
//! Every tensor is `[lanes, numbers]` with one lane. The operations work on the tensors' storage; Candle's autograd is
//! not involved, because it would cost more than the arithmetic of a small step.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use candle_core::{
    CpuStorage, Device, InplaceOp1, InplaceOp2, InplaceOp3, Layout as Strides, Result, Storage,
    Tensor,
};
use ergodic_common::config::{AdamW, WeightDecayScope};
use ergodic_common::net::{Param, ParamRole};

use super::adamw::{self, MovingAverageOp, SquaredAverageOp};
use super::schedule::StepHyperparams;
use crate::train::backend::ComputeBackend;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder};
use crate::train::data::ImageBatch;
use crate::train::engine::loss::LossTally;
use crate::train::engine::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};
use crate::train::network::params::ParamLayout;

/// Places of the trained parameters.
pub(crate) struct TrainedRanges {
    /// Those that weight decay acts on.
    decaying: Vec<Range<usize>>,
    not_decaying: Vec<Range<usize>>,
}

impl TrainedRanges {
    pub(crate) fn new(layout: &ParamLayout, wd_on: WeightDecayScope) -> Self {
        let decays = |p: &Param| match wd_on {
            WeightDecayScope::All => true,
            WeightDecayScope::Weights => p.role == ParamRole::Weight,
            WeightDecayScope::Normed => p.normed,
        };
        let select =
            |decaying: bool| layout.matching_ranges(|p| p.trained && decays(p) == decaying);
        Self {
            decaying: select(true),
            not_decaying: select(false),
        }
    }
}

/// What a step changes.
pub(crate) struct TrainingState {
    /// Packed parameters.
    pub(crate) weights: Tensor,
    /// SGD's momentum, or AdamW's average of the gradient.
    momentum: Tensor,
    /// AdamW's average of the squared gradient.
    squares: Option<(AdamW, Tensor)>,
    /// Gradient of the last step.
    pub(crate) gradient: Tensor,
    /// Running statistics of the norms.
    pub(crate) statistics: Tensor,
    /// Average of the weights along the trial, and of how many it is.
    pub(crate) averaged_weights: Option<Tensor>,
    averaged_count: u64,
}

impl TrainingState {
    /// At the start of a trial, to be trained with SGD unless AdamW is asked for.
    pub(crate) fn new(
        weights: Vec<f32>,
        statistics: Vec<f32>,
        adamw: Option<AdamW>,
    ) -> Result<Self> {
        let zeros = vec![0.0; weights.len()];
        Ok(Self {
            squares: adamw
                .map(|adamw| Ok::<_, candle_core::Error>((adamw, tensor_from_vec(zeros.clone())?)))
                .transpose()?,
            momentum: tensor_from_vec(zeros.clone())?,
            gradient: tensor_from_vec(zeros)?,
            weights: tensor_from_vec(weights)?,
            statistics: tensor_from_vec(statistics)?,
            averaged_weights: None,
            averaged_count: 0,
        })
    }

    /// All that later steps depend on.
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

    /// Puts back what was packed; `None` if it is of another network.
    pub(crate) fn restore_from(&mut self, from: &mut CheckpointDecoder<'_>) -> Option<()> {
        let mut like = |len: usize| from.read_f32s().filter(|x| x.len() == len);
        self.weights = tensor_from_vec(like(self.weights.elem_count())?).ok()?;
        self.momentum = tensor_from_vec(like(self.momentum.elem_count())?).ok()?;
        self.statistics = tensor_from_vec(like(self.statistics.elem_count())?).ok()?;

        match &mut self.squares {
            Some((_, squares)) => *squares = tensor_from_vec(like(squares.elem_count())?).ok()?,
            None => _ = like(0)?,
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

    /// Takes the weights into their average: the mean of all that were taken, or an exponential one.
    pub(crate) fn update_average<S: Simd16>(&mut self, s: S, decay: Option<f64>) -> Result<()> {
        match &self.averaged_weights {
            None => self.averaged_weights = Some(self.weights.copy()?),
            Some(average) => {
                let share =
                    decay.map_or(1.0 / (self.averaged_count + 1) as f64, |decay| 1.0 - decay);
                let all = 0..self.weights.elem_count();
                average.inplace_op2(
                    &self.weights,
                    &adamw::MovingAverageOp {
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

    /// One step, counted from 0. Whether all trained parameters are still finite.
    pub(crate) fn update_weights<S: Simd16>(
        &self,
        s: S,
        trained: &TrainedRanges,
        rates: StepHyperparams,
        nesterov: bool,
        step: u64,
    ) -> Result<bool> {
        let decaying = self.update_ranges(s, &trained.decaying, rates, nesterov, step)?;
        let others = self.update_ranges(
            s,
            &trained.not_decaying,
            StepHyperparams { wd: 0.0, ..rates },
            nesterov,
            step,
        )?;

        Ok(decaying && others)
    }

    fn update_ranges<S: Simd16>(
        &self,
        s: S,
        trained: &[Range<usize>],
        rates: StepHyperparams,
        nesterov: bool,
        step: u64,
    ) -> Result<bool> {
        if trained.is_empty() {
            return Ok(true);
        }

        if let Some((adamw, squares)) = &self.squares {
            self.momentum.inplace_op2(
                &self.gradient,
                &MovingAverageOp {
                    s,
                    trained,
                    beta: adamw.beta1,
                },
            )?;

            squares.inplace_op2(
                &self.gradient,
                &SquaredAverageOp {
                    s,
                    trained,
                    beta: adamw.beta2,
                },
            )?;

            let descend = adamw::AdamWStepOp::new(s, trained, rates, *adamw, step);
            self.weights
                .inplace_op3(&self.momentum, squares, &descend)?;
            return Ok(descend.finite.get());
        }

        let [lr, wd, mu] = [rates.lr, rates.wd, rates.momentum].map(|x| x as f32);
        self.momentum.inplace_op3(
            &self.gradient,
            &self.weights,
            &SgdMomentumOp { s, trained, wd, mu },
        )?;

        let descend = SgdStepOp {
            s,
            trained,
            hyperparams: [lr, wd, mu],
            nesterov,
            finite: Cell::new(true),
        };
        self.weights
            .inplace_op3(&self.momentum, &self.gradient, &descend)?;

        Ok(descend.finite.get())
    }
}

fn tensor_from_vec(data: Vec<f32>) -> Result<Tensor> {
    let len = data.len();
    Tensor::from_vec(data, (1, len), &Device::Cpu)
}

/// Reads a tensor's numbers.
pub(crate) fn with_tensor_data<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(storage.as_slice()?)),
        _ => candle_core::bail!("the trainer's tensors live on the CPU"),
    }
}

/// A tensor's numbers, to be changed.
pub(crate) fn f32_slice_mut(storage: &mut CpuStorage) -> Result<&mut [f32]> {
    match storage {
        CpuStorage::F32(data) => Ok(data),
        _ => candle_core::bail!("the trainer's tensors are of f32"),
    }
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

/// Running statistics after a batch.
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

/// momentum ← μ·momentum + (gradient + λ·weights)
struct SgdMomentumOp<'a, S> {
    s: S,
    trained: &'a [Range<usize>],
    wd: f32,
    mu: f32,
}

impl<S: Simd16> InplaceOp3 for SgdMomentumOp<'_, S> {
    fn name(&self) -> &'static str {
        "sgd-momentum"
    }

    fn cpu_fwd(
        &self,
        momentum: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
        weights: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let gradient = gradient.as_slice()?;
        let weights = weights.as_slice()?;
        let momentum = f32_slice_mut(momentum)?;

        for range in self.trained.iter().cloned() {
            let gradient = &gradient[range.clone()];
            let weights = &weights[range.clone()];
            self.s.dispatch(SgdMomentumKernel {
                gradient,
                weights,
                wd: self.wd,
                mu: self.mu,
                momentum: &mut momentum[range],
            });
        }

        Ok(())
    }
}

struct SgdMomentumKernel<'a> {
    gradient: &'a [f32],
    weights: &'a [f32],
    wd: f32,
    mu: f32,
    momentum: &'a mut [f32],
}

impl Kernel for SgdMomentumKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let wd = s.splat(self.wd);
        let mu = s.splat(self.mu);

        for at in (0..self.momentum.len()).step_by(BLOCK) {
            let decayed = s.fma(
                wd,
                s.load(block_at(self.weights, at)),
                s.load(block_at(self.gradient, at)),
            );

            let v = block_at_mut(self.momentum, at);
            s.store(s.fma(mu, s.load(v), decayed), v);
        }
    }
}

/// weights ← weights − η·direction, the direction being the momentum, or gradient + λ·weights + μ·momentum in
/// Nesterov's form.
struct SgdStepOp<'a, S> {
    s: S,
    trained: &'a [Range<usize>],
    hyperparams: [f32; 3],
    nesterov: bool,
    finite: Cell<bool>,
}

impl<S: Simd16> InplaceOp3 for SgdStepOp<'_, S> {
    fn name(&self) -> &'static str {
        "sgd-descend"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        _: &Strides,
        momentum: &CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let weights = f32_slice_mut(weights)?;
        let momentum = momentum.as_slice()?;
        let gradient = gradient.as_slice()?;
        let mut witness = [0.0; BLOCK];

        for range in self.trained.iter().cloned() {
            self.s.dispatch(SgdStepKernel {
                momentum: &momentum[range.clone()],
                gradient: self.nesterov.then(|| &gradient[range.clone()]),
                hyperparams: self.hyperparams,
                weights: &mut weights[range],
                witness: &mut witness,
            });
        }

        self.finite.set(witness.iter().all(|x| *x == 0.0));
        Ok(())
    }
}

struct SgdStepKernel<'a> {
    momentum: &'a [f32],
    /// In Nesterov's form.
    gradient: Option<&'a [f32]>,
    /// η, λ, μ
    hyperparams: [f32; 3],
    weights: &'a mut [f32],
    /// Stays 0 as long as all weights are finite: 0·∞ is NaN.
    witness: &'a mut [f32; BLOCK],
}

impl Kernel for SgdStepKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let [lr, wd, mu] = self.hyperparams;
        let minus = s.splat(-lr);
        let wd = s.splat(wd);
        let mu = s.splat(mu);
        let zero = s.splat(0.0);
        let mut witness = s.load(self.witness);

        for at in (0..self.weights.len()).step_by(BLOCK) {
            let w = block_at_mut(self.weights, at);
            let old = s.load(w);
            let mut direction = s.load(block_at(self.momentum, at));

            if let Some(gradient) = self.gradient {
                direction = s.fma(
                    mu,
                    direction,
                    s.fma(wd, old, s.load(block_at(gradient, at))),
                );
            }

            let new = s.fma(minus, direction, old);
            witness = s.fma(new, zero, witness);
            s.store(new, w);
        }

        s.store(witness, self.witness);
    }
}
