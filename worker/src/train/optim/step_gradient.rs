//! The gradient that the optimizer takes, where it is not that of the step: clipped, or at other weights.
//!
//! Norms and products are in f64, in the order of the parameters, and each number is rounded once.

use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout as Strides, Result};

use super::tensor::f32_slice_mut;

/// What PyTorch adds to the norm that it clips.
const CLIP_EPS: f64 = 1e-6;

/// What implementations of sharpness-aware minimization add to the norm that they divide by.
const ASCENT_EPS: f64 = 1e-12;

/// The factor that brings a gradient with this norm to the norm `most` or less.
pub(crate) fn clip_factor(norm: f64, most: f64) -> f64 {
    (most / (norm + CLIP_EPS)).min(1.0)
}

/// The factor on a gradient with this norm that gives a step of length ρ.
pub(crate) fn ascent_factor(norm: f64, rho: f64) -> f64 {
    rho / (norm + ASCENT_EPS)
}

/// taken ← factor·gradient, or taken ← factor·taken
pub(crate) struct ScaleGradientOp<'a> {
    pub(crate) trained: &'a [Range<usize>],
    pub(crate) factor: f64,
}

impl ScaleGradientOp<'_> {
    fn scale(&self, x: f32) -> f32 {
        (self.factor * f64::from(x)) as f32
    }
}

impl InplaceOp1 for ScaleGradientOp<'_> {
    fn name(&self) -> &'static str {
        "scale-gradient"
    }

    fn cpu_fwd(&self, taken: &mut CpuStorage, _: &Strides) -> Result<()> {
        let taken = f32_slice_mut(taken)?;
        for range in self.trained.iter().cloned() {
            taken[range].iter_mut().for_each(|x| *x = self.scale(*x));
        }
        Ok(())
    }
}

impl InplaceOp2 for ScaleGradientOp<'_> {
    fn name(&self) -> &'static str {
        "scale-gradient-into"
    }

    fn cpu_fwd(
        &self,
        taken: &mut CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let taken = f32_slice_mut(taken)?;
        let gradient = gradient.as_slice::<f32>()?;
        for range in self.trained.iter().cloned() {
            let pairs = taken[range.clone()].iter_mut().zip(&gradient[range]);
            pairs.for_each(|(x, g)| *x = self.scale(*g));
        }
        Ok(())
    }
}

/// ascended ← weights + factor·gradient, in the trained parameters; the others are copied.
pub(crate) struct AscendOp<'a> {
    pub(crate) trained: &'a [Range<usize>],
    pub(crate) factor: f64,
}

impl InplaceOp3 for AscendOp<'_> {
    fn name(&self) -> &'static str {
        "ascend"
    }

    fn cpu_fwd(
        &self,
        ascended: &mut CpuStorage,
        _: &Strides,
        weights: &CpuStorage,
        _: &Strides,
        gradient: &CpuStorage,
        _: &Strides,
    ) -> Result<()> {
        let ascended = f32_slice_mut(ascended)?;
        let gradient = gradient.as_slice::<f32>()?;
        ascended.copy_from_slice(weights.as_slice::<f32>()?);

        for range in self.trained.iter().cloned() {
            let pairs = ascended[range.clone()].iter_mut().zip(&gradient[range]);
            pairs.for_each(|(w, g)| *w = (f64::from(*w) + self.factor * f64::from(*g)) as f32);
        }
        Ok(())
    }
}
