//! Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019) as PyTorch computes them:
//! m ← m + (1 − β₁)(g − m), v ← β₂v + (1 − β₂)g², w ← (1 − ηλ)w − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε).
//! Adam decays by g + λw in the place of g, and has no factor 1 − ηλ.
//!
//! Coefficients are computed in f64 and rounded once.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout as Strides, Result};
use ergodic_common::config::{Adam, AdamDecay};

use super::schedule::StepHyperparams;
use super::tensor::f32_slice_mut;
use crate::train::engine::simd::{BLOCK, Kernel, Simd16, block_at, block_at_mut};

/// m ← m + (1 − β₁)(g − m)
pub(crate) struct MovingAverageOp<'a, S> {
    pub(crate) s: S,
    pub(crate) trained: &'a [Range<usize>],
    pub(crate) beta: f64,
}

impl<S: Simd16> MovingAverageOp<'_, S> {
    /// Updates the averages of the gradient, to which `decay` adds λw, given λ and w.
    fn update_averages(&self, average: &mut [f32], gradient: &[f32], decay: Option<(f64, &[f32])>) {
        for range in self.trained.iter().cloned() {
            self.s.dispatch(MovingAverageKernel {
                share: (1.0 - self.beta) as f32,
                gradient: &gradient[range.clone()],
                decay: slice_decay(decay, &range),
                average: &mut average[range],
            });
        }
    }
}

impl<S: Simd16> InplaceOp2 for MovingAverageOp<'_, S> {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        self.update_averages(f32_slice_mut(average)?, gradient.as_slice()?, None);
        Ok(())
    }
}

/// m ← m + (1 − β₁)(g + λw − m)
pub(crate) struct DecayedAverageOp<'a, S> {
    pub(crate) of_gradient: MovingAverageOp<'a, S>,
    pub(crate) wd: f64,
}

impl<S: Simd16> InplaceOp3 for DecayedAverageOp<'_, S> {
    fn name(&self) -> &'static str {
        "adam-average"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
        weights: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let decay = Some((self.wd, weights.as_slice()?));
        let average = f32_slice_mut(average)?;
        self.of_gradient
            .update_averages(average, gradient.as_slice()?, decay);
        Ok(())
    }
}

/// v ← β₂v + (1 − β₂)g²
pub(crate) struct SquaredAverageOp<'a, S> {
    pub(crate) s: S,
    pub(crate) trained: &'a [Range<usize>],
    pub(crate) beta: f64,
}

impl<S: Simd16> SquaredAverageOp<'_, S> {
    /// Updates the averages of the squared gradient, to which `decay` adds λw, given λ and w.
    fn update_averages(&self, average: &mut [f32], gradient: &[f32], decay: Option<(f64, &[f32])>) {
        for range in self.trained.iter().cloned() {
            self.s.dispatch(SquaredAverageKernel {
                shares: [self.beta as f32, (1.0 - self.beta) as f32],
                gradient: &gradient[range.clone()],
                decay: slice_decay(decay, &range),
                average: &mut average[range],
            });
        }
    }
}

impl<S: Simd16> InplaceOp2 for SquaredAverageOp<'_, S> {
    fn name(&self) -> &'static str {
        "adamw-average-squares"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        self.update_averages(f32_slice_mut(average)?, gradient.as_slice()?, None);
        Ok(())
    }
}

/// v ← β₂v + (1 − β₂)(g + λw)²
pub(crate) struct DecayedSquaresOp<'a, S> {
    pub(crate) of_gradient: SquaredAverageOp<'a, S>,
    pub(crate) wd: f64,
}

impl<S: Simd16> InplaceOp3 for DecayedSquaresOp<'_, S> {
    fn name(&self) -> &'static str {
        "adam-average-squares"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
        weights: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let decay = Some((self.wd, weights.as_slice()?));
        let average = f32_slice_mut(average)?;
        self.of_gradient
            .update_averages(average, gradient.as_slice()?, decay);
        Ok(())
    }
}

/// λ, and the weights in a range.
fn slice_decay<'a>(
    decay: Option<(f64, &'a [f32])>,
    range: &Range<usize>,
) -> Option<(f32, &'a [f32])> {
    decay.map(|(wd, weights)| (wd as f32, &weights[range.clone()]))
}

/// A block of g, or of g + λw.
#[inline(always)]
fn load_gradient<S: Simd16>(
    s: S,
    gradient: &[f32],
    decay: Option<(f32, &[f32])>,
    at: usize,
) -> S::Block {
    let g = s.load(block_at(gradient, at));
    match decay {
        Some((wd, weights)) => s.fma(s.splat(wd), s.load(block_at(weights, at)), g),
        None => g,
    }
}

struct MovingAverageKernel<'a> {
    share: f32,
    gradient: &'a [f32],
    /// λ and the weights.
    decay: Option<(f32, &'a [f32])>,
    average: &'a mut [f32],
}

impl Kernel for MovingAverageKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let share = s.splat(self.share);
        for at in (0..self.average.len()).step_by(BLOCK) {
            let g = load_gradient(s, self.gradient, self.decay, at);
            let m = block_at_mut(self.average, at);
            let old = s.load(m);
            s.store(s.fma(share, s.sub(g, old), old), m);
        }
    }
}

struct SquaredAverageKernel<'a> {
    /// β₂ and 1 − β₂
    shares: [f32; 2],
    gradient: &'a [f32],
    /// λ and the weights.
    decay: Option<(f32, &'a [f32])>,
    average: &'a mut [f32],
}

impl Kernel for SquaredAverageKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let [keep, share] = self.shares.map(|x| s.splat(x));
        for at in (0..self.average.len()).step_by(BLOCK) {
            let g = load_gradient(s, self.gradient, self.decay, at);
            let v = block_at_mut(self.average, at);
            s.store(s.fma(keep, s.load(v), s.mul(share, s.mul(g, g))), v);
        }
    }
}

/// w ← (1 − ηλ)w − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)
pub(crate) struct AdamStepOp<'a, S> {
    s: S,
    trained: &'a [Range<usize>],
    /// 1 − ηλ or 1, η/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), ε
    coefficients: [f32; 4],
    pub(crate) finite: Cell<bool>,
}

impl<'a, S: Simd16> AdamStepOp<'a, S> {
    /// The operation of a step, counted from 0.
    pub(crate) fn new(
        s: S,
        trained: &'a [Range<usize>],
        rates: StepHyperparams,
        adam: Adam,
        step: u64,
    ) -> Self {
        let t = (step + 1) as f64;
        let size = rates.lr / (1.0 - libm::pow(adam.beta1, t));
        let root = 1.0 / libm::sqrt(1.0 - libm::pow(adam.beta2, t));
        let keep = match adam.decay {
            AdamDecay::Coupled => 1.0,
            AdamDecay::Decoupled => 1.0 - rates.lr * rates.wd,
        };
        let coefficients = [keep, size, root, adam.eps].map(|x| x as f32);
        Self {
            s,
            trained,
            coefficients,
            finite: Cell::new(true),
        }
    }
}

impl<S: Simd16> InplaceOp3 for AdamStepOp<'_, S> {
    fn name(&self) -> &'static str {
        "adam-descend"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        _: &Strides,
        average: &CpuStorage,
        _: &Strides,
        squares: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let weights = f32_slice_mut(weights)?;
        let average = average.as_slice()?;
        let squares = squares.as_slice()?;
        let mut witness = [0.0; BLOCK];

        for range in self.trained.iter().cloned() {
            self.s.dispatch(AdamStepKernel {
                coefficients: self.coefficients,
                average: &average[range.clone()],
                squares: &squares[range.clone()],
                weights: &mut weights[range],
                witness: &mut witness,
            });
        }

        self.finite.set(witness.iter().all(|x| *x == 0.0));
        Ok(())
    }
}

struct AdamStepKernel<'a> {
    coefficients: [f32; 4],
    average: &'a [f32],
    squares: &'a [f32],
    weights: &'a mut [f32],
    /// Stays 0 as long as all weights are finite, because 0·∞ is NaN.
    witness: &'a mut [f32; BLOCK],
}

impl Kernel for AdamStepKernel<'_> {
    #[inline(always)]
    fn run_with<S: Simd16>(self, s: S) {
        let [keep, size, root, eps] = self.coefficients;
        let [keep, minus, root, eps, zero] = [keep, -size, root, eps, 0.0].map(|x| s.splat(x));
        let mut witness = s.load(self.witness);

        for at in (0..self.weights.len()).step_by(BLOCK) {
            let scale = s.fma(root, s.sqrt(s.load(block_at(self.squares, at))), eps);
            let direction = s.div(s.load(block_at(self.average, at)), scale);
            let w = block_at_mut(self.weights, at);
            let new = s.fma(minus, direction, s.mul(keep, s.load(w)));
            witness = s.fma(new, zero, witness);

            s.store(new, w);
        }

        s.store(witness, self.witness);
    }
}
