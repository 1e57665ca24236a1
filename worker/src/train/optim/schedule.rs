//! The hyperparameters of every step.

use ergodic_common::config::{Curve, HyperparamChange, Length, LrScheduleForm, TrialConfig};

/// The hyperparameters of a step, computed in f64 and rounded once where they are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepHyperparams {
    /// Learning rate η.
    pub(crate) lr: f64,
    /// Weight decay λ.
    pub(crate) wd: f64,
    /// Momentum μ.
    pub(crate) momentum: f64,
}

impl StepHyperparams {
    /// The hyperparameters of a step, counted from 0: entries of the schedule apply in the order of the file, each from its step on.
    pub(crate) fn at_step(config: &TrialConfig, step: u64) -> Self {
        let train = &config.train;
        let mut rates = Self {
            lr: train.lr,
            wd: train.wd,
            momentum: train.momentum,
        };

        for entry in train
            .schedule
            .iter()
            .filter(|e| config.length_in_steps(e.from) <= step)
        {
            apply_change(&mut rates.lr, entry.lr);
            apply_change(&mut rates.wd, entry.wd);
            apply_change(&mut rates.momentum, entry.momentum);
        }

        if let Some(curve) = &train.curve {
            rates.lr = compute_curve_lr(curve, config, step);
        }

        rates
    }
}

/// The learning rate of a step on a curve. The last step is one short of t = 1, as in PyTorch.
fn compute_curve_lr(curve: &Curve, config: &TrialConfig, step: u64) -> f64 {
    let lr = config.train.lr;
    let warmup = config.length_in_steps(curve.warmup);
    if step < warmup {
        return lr * (step + 1) as f64 / warmup as f64;
    }

    let done = (step - warmup) as f64;
    let t = done / config.total_steps().saturating_sub(warmup).max(1) as f64;

    match &curve.form {
        LrScheduleForm::Constant => lr,
        LrScheduleForm::Cosine { end } => {
            let end = end.apply(lr);
            end + (lr - end) * (1.0 + libm::cos(std::f64::consts::PI * t)) / 2.0
        }
        LrScheduleForm::Piecewise { points } => interpolate_lr(points, config, step),
        LrScheduleForm::Linear { end } => lr + (end.apply(lr) - lr) * t,
        LrScheduleForm::Exponential { factor, per } => {
            lr * libm::exp(libm::log(*factor) * done / config.length_in_steps(*per).max(1) as f64)
        }
    }
}

/// The learning rate of a step, interpolated linearly between the points around it. Before the
/// first point and after the last, it is constant.
fn interpolate_lr(points: &[(Length, HyperparamChange)], config: &TrialConfig, step: u64) -> f64 {
    let points: Vec<(u64, f64)> = points
        .iter()
        .map(|(when, lr)| (config.length_in_steps(*when), lr.apply(config.train.lr)))
        .collect();
    let (before, after) = points.split_at(points.partition_point(|(at, _)| *at <= step));

    match (before.last(), after.first()) {
        (Some((from, a)), Some((to, b))) => {
            a + (b - a) * ((step - from) as f64 / (to - from) as f64)
        }
        (Some((_, lr)), None) | (None, Some((_, lr))) => *lr,
        (None, None) => config.train.lr,
    }
}

fn apply_change(value: &mut f64, change: Option<HyperparamChange>) {
    match change {
        Some(HyperparamChange::Set(x)) => *value = x,
        Some(HyperparamChange::Times(factor)) => *value *= factor,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::ScheduleStep;

    use crate::train::optim::schedule::*;
    use crate::train::tests::cases;

    #[test]
    fn entries_hold_from_their_step_on_and_multiply_what_is_there() {
        let mut config = cases::mlp();
        (config.data.train, config.train.batch_size) = (100, 10);
        (config.train.lr, config.train.wd, config.train.momentum) = (0.5, 0.01, 0.9);
        let none = ScheduleStep {
            from: Length::Steps(0),
            lr: None,
            wd: None,
            momentum: None,
        };
        config.train.schedule = vec![
            ScheduleStep {
                from: Length::Epochs(2),
                lr: Some(HyperparamChange::Times(0.1)),
                ..none.clone()
            },
            ScheduleStep {
                from: Length::Steps(25),
                lr: Some(HyperparamChange::Times(0.5)),
                wd: Some(HyperparamChange::Set(0.0)),
                ..none.clone()
            },
            ScheduleStep {
                from: Length::Steps(30),
                lr: Some(HyperparamChange::Set(1.0)),
                momentum: Some(HyperparamChange::Set(0.5)),
                ..none
            },
        ];

        let at = |step| StepHyperparams::at_step(&config, step);
        assert_eq!(
            at(19),
            StepHyperparams {
                lr: 0.5,
                wd: 0.01,
                momentum: 0.9
            }
        );

        assert_eq!(
            at(20),
            StepHyperparams {
                lr: 0.5 * 0.1,
                wd: 0.01,
                momentum: 0.9
            }
        );

        assert_eq!(
            at(25),
            StepHyperparams {
                lr: 0.5 * 0.1 * 0.5,
                wd: 0.0,
                momentum: 0.9
            }
        );

        assert_eq!(
            at(30),
            StepHyperparams {
                lr: 1.0,
                wd: 0.0,
                momentum: 0.5
            }
        );
    }

    #[test]
    fn curves_follow_their_formulas() {
        let mut config = cases::mlp();
        (config.data.train, config.train.batch_size, config.train.lr) = (100, 10, 0.4);
        config.train.length = Length::Steps(110);
        let mut at = |form, step| {
            config.train.curve = Some(Curve {
                form,
                warmup: Length::Epochs(1),
            });
            StepHyperparams::at_step(&config, step).lr
        };

        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-15, "{x} {y}");
        close(at(LrScheduleForm::Constant, 0), 0.04);
        close(at(LrScheduleForm::Constant, 9), 0.4);
        close(at(LrScheduleForm::Constant, 109), 0.4);
        let cosine = LrScheduleForm::Cosine {
            end: HyperparamChange::Times(0.5),
        };
        close(at(cosine.clone(), 10), 0.4);

        close(at(cosine, 60), 0.3);
        let linear = LrScheduleForm::Linear {
            end: HyperparamChange::Set(0.0),
        };
        close(at(linear.clone(), 35), 0.3);
        close(at(linear, 109), 0.004);

        let growing = LrScheduleForm::Exponential {
            factor: 2.0,
            per: Length::Epochs(5),
        };
        close(at(growing, 60), 0.8);
        let points = [
            (2, HyperparamChange::Set(0.0)),
            (6, HyperparamChange::Times(1.0)),
            (10, HyperparamChange::Set(0.1)),
        ];
        let points = points
            .map(|(epoch, lr)| (Length::Epochs(epoch), lr))
            .to_vec();
        let mut piecewise = |step| {
            at(
                LrScheduleForm::Piecewise {
                    points: points.clone(),
                },
                step,
            )
        };
        close(piecewise(15), 0.0);

        close(piecewise(50), 0.3);
        close(piecewise(80), 0.25);
        close(piecewise(105), 0.1);
    }
}
