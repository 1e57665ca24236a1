//! Hyperparameters of a step, and the update of the weights.

use std::f64::consts::PI;

use super::activations::fma;
use super::params::{PlainNumbers, PlainParam, PlainRanges, make_zeros, square_norm};

#[derive(Clone, Copy)]
pub(super) struct PlainAdam {
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) eps: f64,
    pub(super) decoupled: bool,
}

/// How weights are updated.
#[derive(Clone)]
pub(super) struct PlainRule {
    pub(super) lr: f64,
    pub(super) wd: f64,
    pub(super) momentum: f64,
    pub(super) nesterov: bool,
    pub(super) adam: Option<PlainAdam>,
    /// Steps of warm-up, if the learning rate then falls to 0 along a cosine.
    pub(super) cosine: Option<usize>,
    pub(super) clip_norm: Option<f64>,
    /// Factors on the learning rate, in the order of their names.
    pub(super) lr_on: Vec<(String, f64)>,
    /// ρ of sharpness-aware minimization.
    pub(super) sharpness: Option<f64>,
}

impl PlainRule {
    /// η of step t of so many.
    pub(super) fn lr_at(&self, t: usize, steps: usize) -> f64 {
        let Some(warmup) = self.cosine else {
            return self.lr;
        };
        if t < warmup {
            return (self.lr * (t + 1) as f64) / warmup as f64;
        }
        let s = (t - warmup) as f64;
        let tau = s / ((steps - warmup) as f64).max(1.0);
        ((self.lr - 0.0) * (1.0 + libm::cos(PI * tau))) / 2.0
    }
}

/// Two numbers that an optimizer keeps beside each weight: v, or m and v of Adam.
pub(super) struct OptimizerNumbers {
    m: PlainNumbers,
    v: PlainNumbers,
}

impl OptimizerNumbers {
    pub(super) fn new(params: &[PlainParam]) -> Self {
        Self {
            m: make_zeros(params),
            v: make_zeros(params),
        }
    }

    /// Updates the weights; `factors` are those on the learning rate of each parameter.
    pub(super) fn update(
        &mut self,
        params: &[PlainParam],
        rule: &PlainRule,
        (t, lr, factors): (usize, f64, &[f64]),
        (weights, gradient): (&mut PlainNumbers, &PlainNumbers),
    ) {
        for at in (0..params.len()).filter(|at| params[*at].trained) {
            let lr = lr * factors[at];
            for (i, w) in weights[at].iter_mut().enumerate() {
                let (m, v) = (&mut self.m[at][i], &mut self.v[at][i]);
                let g = gradient[at][i];
                *w = match rule.adam {
                    None => step_sgd(rule, lr, (*w, g), v),
                    Some(adam) => step_adam(adam, (t, lr, rule.wd), (*w, g), (m, v)),
                };
            }
        }
    }
}

fn step_sgd(rule: &PlainRule, lr: f64, (w, g): (f32, f32), v: &mut f32) -> f32 {
    let (lr, wd, momentum) = (lr as f32, rule.wd as f32, rule.momentum as f32);
    *v = fma(momentum, *v, fma(wd, w, g));
    let direction = if rule.nesterov {
        fma(momentum, *v, fma(wd, w, g))
    } else {
        *v
    };
    fma(-lr, direction, w)
}

fn step_adam(
    adam: PlainAdam,
    (t, lr, wd): (usize, f64, f64),
    (w, g): (f32, f32),
    (m, v): (&mut f32, &mut f32),
) -> f32 {
    let n = (t + 1) as f64;
    let size = lr / (1.0 - libm::pow(adam.beta1, n));
    let root = 1.0 / libm::sqrt(1.0 - libm::pow(adam.beta2, n));
    let keep = if adam.decoupled { 1.0 - lr * wd } else { 1.0 };
    let g = if adam.decoupled {
        g
    } else {
        fma(wd as f32, w, g)
    };

    *m = fma((1.0 - adam.beta1) as f32, g - *m, *m);
    let share = (1.0 - adam.beta2) as f32;
    *v = fma(adam.beta2 as f32, *v, share * (g * g));
    let below = fma(root as f32, libm::sqrtf(*v), adam.eps as f32);
    fma(-(size as f32), *m / below, keep as f32 * w)
}

/// Scales a gradient down whose norm is above the limit.
pub(super) fn clip_gradient(
    params: &[PlainParam],
    most: f64,
    mut gradient: PlainNumbers,
) -> PlainNumbers {
    let norm = libm::sqrt(square_norm(params, PlainRanges::Trained, &gradient));
    let factor = (most / (norm + 1e-6)).min(1.0);
    for at in (0..params.len()).filter(|at| params[*at].trained) {
        for g in &mut gradient[at] {
            *g = (factor * f64::from(*g)) as f32;
        }
    }
    gradient
}

/// The weights at which the second gradient is taken.
pub(super) fn ascend_weights(
    params: &[PlainParam],
    rho: f64,
    (weights, gradient): (&PlainNumbers, &PlainNumbers),
) -> PlainNumbers {
    let norm = libm::sqrt(square_norm(params, PlainRanges::Trained, gradient));
    let factor = rho / (norm + 1e-12);
    let mut ascended = weights.clone();
    for at in (0..params.len()).filter(|at| params[*at].trained) {
        for (w, g) in ascended[at].iter_mut().zip(&gradient[at]) {
            *w = (f64::from(*w) + factor * f64::from(*g)) as f32;
        }
    }
    ascended
}
