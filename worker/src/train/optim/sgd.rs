//! SGD with momentum: momentum ← μ·momentum + (gradient + λ·weights), then a step along the momentum or, in Nesterov's form,
//! along gradient + λ·weights + μ·momentum.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp3, Layout as Strides, Result};

use super::tensor::f32_slice_mut;
use crate::train::engine::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};

/// momentum ← μ·momentum + (gradient + λ·weights)
pub(crate) struct SgdMomentumOp<'a, S> {
    pub(crate) s: S,
    pub(crate) trained: &'a [Range<usize>],
    pub(crate) wd: f32,
    pub(crate) mu: f32,
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
pub(crate) struct SgdStepOp<'a, S> {
    pub(crate) s: S,
    pub(crate) trained: &'a [Range<usize>],
    /// η, λ, μ
    pub(crate) hyperparams: [f32; 3],
    pub(crate) nesterov: bool,
    /// Whether all weights are finite after the step.
    pub(crate) finite: Cell<bool>,
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
    /// The gradient, for Nesterov's form only.
    gradient: Option<&'a [f32]>,
    /// η, λ, μ
    hyperparams: [f32; 3],
    weights: &'a mut [f32],
    /// Stays 0 as long as all weights are finite, because 0·∞ is NaN.
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
