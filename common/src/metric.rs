//! The metrics a trial can report, by name, definition and unit.

/// A metric sampled along a trial. All are `f64`; one that is not defined for a trial is NaN inside and null outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Mean training loss over the steps since the last sample, in nats.
    TrainLoss,
    /// Share of training images classified rightly, in training mode, since the last sample, in [0, 1].
    TrainAcc,
    /// Mean loss over the test set in evaluation mode, in nats.
    TestLoss,
    /// Share of the test set classified rightly in evaluation mode, in [0, 1].
    TestAcc,
    /// ‖w‖ over the trained weights that a norm follows (all trained weights where there is no norm).
    WeightNorm,
    /// ‖w‖², over the same weights.
    WeightNormSq,
    /// η/‖w‖² at the last step, over the trained weights that a norm follows; undefined without norms.
    EffectiveLr,
    /// ‖∇L‖ of the last batch over all trained weights, without weight decay.
    GradNorm,
    /// ‖w' − w‖ of the last step, over the same weights as `weight_norm`.
    UpdateNorm,
    /// Angle between w before and after the last step, in radians, over the same weights as `weight_norm`.
    AngularUpdate,
}

impl Metric {
    /// Names as written in a sweep file.
    pub const WORDS: [(&'static str, Self); 10] = [
        ("train_loss", Self::TrainLoss),
        ("train_acc", Self::TrainAcc),
        ("test_loss", Self::TestLoss),
        ("test_acc", Self::TestAcc),
        ("weight_norm", Self::WeightNorm),
        ("weight_norm_sq", Self::WeightNormSq),
        ("effective_lr", Self::EffectiveLr),
        ("grad_norm", Self::GradNorm),
        ("update_norm", Self::UpdateNorm),
        ("angular_update", Self::AngularUpdate),
    ];

    /// The name as written in a sweep file.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, m)| *m == self).map_or("?", |(name, _)| name)
    }

    /// The metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(n, _)| *n == name).map(|(_, m)| *m)
    }

    /// Whether larger values are better (`Some(true)`), smaller ones are (`Some(false)`), or neither.
    pub fn larger_is_better(self) -> Option<bool> {
        match self {
            Self::TrainAcc | Self::TestAcc => Some(true),
            Self::TrainLoss | Self::TestLoss => Some(false),
            _ => None,
        }
    }
}
