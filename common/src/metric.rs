//! The metrics a trial can report, by name, definition and unit.

use std::borrow::Cow;

use crate::program::{DeclaredMetric, Direction};

/// Maximum number of metrics of a sweep.
pub const MAX_METRICS: usize = 64;

/// Defines the metrics with their definitions, which are also the doc comments of the variants.
macro_rules! define_metrics {
    (
        $(#[$outer:meta])*
        pub enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident $(($payload:ty))?,)+
        }
    ) => {
        $(#[$outer])*
        pub enum $name {
            $($(#[doc = $doc])+ $variant $(($payload))?,)+
        }

        impl $name {
            /// The definition, in sentences.
            pub fn definition(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

define_metrics! {
    /// A metric sampled along a trial. All are `f64`; one that is not defined for a trial is NaN inside and null outside.
    ///
    /// "The weights" are the trained weights that a norm follows or, without norms, all trained
    /// parameters, including biases. `train.wd_on = "weights"` means others: without biases, and with
    /// weights that no norm follows.
    ///
    /// A *plain* loss is the cross-entropy in nats with the whole target on the image's class, whatever label smoothing is trained
    /// with, so that it is the same quantity in all cells that are trained with cross-entropy; under `loss = "mse"` it is the mean
    /// squared error of all outputs. Images with targets instead of labels have no accuracies.
    ///
    /// *Evaluation mode* means that batch norms use the statistics that `measure.statistics` names.
    /// "running" ones follow the statistics of the training batches with a momentum of 0.1 per step.
    /// "re-estimated" ones are means over the batches of an epoch of training images, not augmented,
    /// under the very weights that are evaluated. Running statistics belong to weights that are some
    /// ten steps old. While the norm of the weights moves fast (a large η and λ, the beginning of a
    /// trial, a scale that is not yet in equilibrium), they belong to another network, and test losses
    /// differ from those of the evaluated network by far more than rounding. To study such phases,
    /// choose "re-estimated".
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    pub enum Metric {
        /// Mean plain loss of the training images in training mode, as they were shown (augmented, some with a wrong label),
        /// over the steps since the last sample.
        TrainLoss,
        /// Share of training images classified correctly, in training mode, since the last sample, in
        /// [0, 1].
        TrainAcc,
        /// The minimised loss: `train_loss` with smoothed targets, or the same as `train_loss` without
        /// label smoothing.
        TrainSmoothedLoss,
        /// Mean plain loss of the test set in evaluation mode.
        TestLoss,
        /// Share of the test set classified correctly in evaluation mode, in [0, 1].
        TestAcc,
        /// `test_loss` with smoothed targets, or the same as `test_loss` without label smoothing.
        TestSmoothedLoss,
        /// Mean plain loss of the validation images (`data.validation`) in evaluation mode, not
        /// augmented and with their own labels.
        ValLoss,
        /// Share of the validation images classified correctly in evaluation mode, in [0, 1].
        ValAcc,
        /// `test_loss` of the averaged weights of `train.average`, with batch-norm statistics estimated
        /// anew over the training images. Undefined before the average begins.
        AverageTestLoss,
        /// `test_acc` of the averaged weights, likewise.
        AverageTestAcc,
        /// `val_loss` of the averaged weights, likewise.
        AverageValLoss,
        /// `val_acc` of the averaged weights, likewise.
        AverageValAcc,
        /// ‖w‖ of the weights.
        WeightNorm,
        /// ‖w‖² of the weights.
        WeightNormSq,
        /// ‖w‖² of the weight of one layer, written `weight_norm_sq[conv1]`; undefined in cells without such a layer. The names of
        /// the variants are part of the identity of checkpoints and stay.
        LayerNormSq(String),
        /// η/‖w‖² at the last step; undefined without norms.
        EffectiveLr,
        /// Learning rate η of the last step, as the schedule sets it. The name differs from that of the
        /// field `lr`, which is the value that the schedule begins with or multiplies.
        StepLr,
        /// Weight decay λ of the last step, as the schedule sets it: the coefficient, so that
        /// `step_lr * step_wd` is the intrinsic learning rate ηλ of that step.
        StepWd,
        /// ‖∇L‖ of the last batch over all trained parameters, without weight decay, with `train.added_noise`,
        /// before `train.clip_norm`, and at the weights before the step.
        GradNorm,
        /// ⟨∇L, w⟩/(‖∇L‖‖w‖) of the same gradient at the weights before its step, over the weights, in
        /// [−1, 1]. 0 for weights whose scale does not change the loss.
        GradWeightCos,
        /// ‖w' − w‖ of the last step, over the weights.
        UpdateNorm,
        /// Angle between w before and after the last step, in radians, over the weights.
        AngularUpdate,
        /// Largest |‖w'‖² − ‖w‖²| of a single step since the last sample, over the weights.
        NormSqJump,
        /// ‖w − w₀‖ over the weights, where w₀ are the initial ones.
        InitDistance,
        /// ‖w − w'‖ over the weights, where w' are those of the sample before, or the initial ones for
        /// the first sample.
        SampleDistance,
        /// Trace of the covariance of a single image's gradient, over all trained parameters: B/2 times the mean of
        /// ‖g − g'‖² over 32 pairs of gradients of batches of B training images drawn with replacement and augmented as in
        /// training.
        GradNoiseTrace,
        /// Tail index of the gradient noise: Hill's estimate (1975) from the largest 8 of the same 32
        /// distances ‖g − g'‖.
        GradNoiseHill,
        /// Root mean square, over the same 32 pairs, of the cosine between the difference d = g − g'
        /// and w, both over the weights, at the weights that are sampled. In [0, 1]; 0 to rounding for
        /// weights whose scale does not change the loss. Undefined if a pair has no difference.
        GradNoiseCos,
        /// Effective dimension of the gradient noise over all trained parameters: the participation
        /// ratio (tr Σ)²/tr Σ² of its covariance Σ, at least 1. Both traces are squared without bias
        /// (Chen, Zhang and Zhong 2010), as means over the 496 pairs of different ones of the same 32
        /// differences: that of ‖dᵢ‖²‖dⱼ‖² over that of ⟨dᵢ, dⱼ⟩².
        GradNoiseDim,
        /// Largest eigenvalue of the Hessian of the minimised loss on the last batch, in training mode,
        /// over all trained parameters. It is computed by Lanczos's method with exact products, with a
        /// relative error of 0.001. Undefined if 100 products do not reach that.
        HessianTop,
        /// Mean cosine between the weights that the trial starts from the mean of (`model.init.results`), over all pairs
        /// of them, in [−1, 1]. It is of the weights as they were kept, as are the next two, and the same at every sample.
        PartsCos,
        /// Mean of 1 − cos over the same pairs, each computed as ‖a/‖a‖ − b/‖b‖‖²/2, which sees a difference of 1e-14.
        PartsCosGap,
        /// Root mean square of the distance ‖a − b‖ over the same pairs.
        PartsDistance,
        /// A metric that the program of the sweep reports (`program.metrics`).
        Declared(DeclaredMetric),
    }
}

/// A pass over data that a sample needs besides the weights themselves. One pass serves all metrics
/// that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasurementPass {
    /// Evaluates the test set.
    Test,
    /// Evaluates the validation images.
    Validation,
    /// Evaluates the test set under the averaged weights.
    AverageTest,
    /// Evaluates the validation images under the averaged weights.
    AverageValidation,
    /// Computes gradients of pairs of batches.
    Noise,
    /// Computes products with the Hessian.
    Curvature,
}

impl Metric {
    /// Names as written in a sweep file, except metrics of single layers.
    pub const NAMES: [(&'static str, Self); 32] = [
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
        ("average_test_loss", Self::AverageTestLoss),
        ("average_test_acc", Self::AverageTestAcc),
        ("grad_weight_cos", Self::GradWeightCos),
        ("norm_sq_jump", Self::NormSqJump),
        ("init_distance", Self::InitDistance),
        ("sample_distance", Self::SampleDistance),
        ("grad_noise_trace", Self::GradNoiseTrace),
        ("grad_noise_hill", Self::GradNoiseHill),
        ("hessian_top", Self::HessianTop),
        ("train_smoothed_loss", Self::TrainSmoothedLoss),
        ("test_smoothed_loss", Self::TestSmoothedLoss),
        ("val_loss", Self::ValLoss),
        ("val_acc", Self::ValAcc),
        ("average_val_loss", Self::AverageValLoss),
        ("average_val_acc", Self::AverageValAcc),
        ("step_lr", Self::StepLr),
        ("step_wd", Self::StepWd),
        ("grad_noise_cos", Self::GradNoiseCos),
        ("grad_noise_dim", Self::GradNoiseDim),
        ("parts_cos", Self::PartsCos),
        ("parts_cos_gap", Self::PartsCosGap),
        ("parts_distance", Self::PartsDistance),
    ];

    /// The name of the metric as written in a sweep file.
    pub fn name(&self) -> Cow<'static, str> {
        let name = match self {
            Self::TrainLoss => "train_loss",
            Self::TrainAcc => "train_acc",
            Self::TrainSmoothedLoss => "train_smoothed_loss",
            Self::TestLoss => "test_loss",
            Self::TestAcc => "test_acc",
            Self::TestSmoothedLoss => "test_smoothed_loss",
            Self::ValLoss => "val_loss",
            Self::ValAcc => "val_acc",
            Self::AverageTestLoss => "average_test_loss",
            Self::AverageTestAcc => "average_test_acc",
            Self::AverageValLoss => "average_val_loss",
            Self::AverageValAcc => "average_val_acc",
            Self::WeightNorm => "weight_norm",
            Self::WeightNormSq => WEIGHT_NORM_SQ,
            Self::LayerNormSq(layer) => return format!("{WEIGHT_NORM_SQ}[{layer}]").into(),
            Self::EffectiveLr => "effective_lr",
            Self::StepLr => "step_lr",
            Self::StepWd => "step_wd",
            Self::GradNorm => "grad_norm",
            Self::GradWeightCos => "grad_weight_cos",
            Self::UpdateNorm => "update_norm",
            Self::AngularUpdate => "angular_update",
            Self::NormSqJump => "norm_sq_jump",
            Self::InitDistance => "init_distance",
            Self::SampleDistance => "sample_distance",
            Self::GradNoiseTrace => "grad_noise_trace",
            Self::GradNoiseHill => "grad_noise_hill",
            Self::GradNoiseCos => "grad_noise_cos",
            Self::GradNoiseDim => "grad_noise_dim",
            Self::HessianTop => "hessian_top",
            Self::PartsCos => "parts_cos",
            Self::PartsCosGap => "parts_cos_gap",
            Self::PartsDistance => "parts_distance",
            Self::Declared(metric) => return metric.name.clone().into(),
        };
        name.into()
    }

    /// The metric with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let layer = name
            .strip_prefix(WEIGHT_NORM_SQ)
            .and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
        if let Some(layer) = layer {
            return Some(Self::LayerNormSq(layer.to_owned()));
        }

        Self::NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, m)| m.clone())
    }

    /// The pass that the metric needs; `None` if the weights and gradient of a step suffice.
    pub fn required_pass(&self) -> Option<MeasurementPass> {
        match self {
            Self::TestLoss | Self::TestAcc | Self::TestSmoothedLoss => Some(MeasurementPass::Test),
            Self::ValLoss | Self::ValAcc => Some(MeasurementPass::Validation),
            Self::AverageTestLoss | Self::AverageTestAcc => Some(MeasurementPass::AverageTest),
            Self::AverageValLoss | Self::AverageValAcc => Some(MeasurementPass::AverageValidation),
            Self::GradNoiseTrace
            | Self::GradNoiseHill
            | Self::GradNoiseCos
            | Self::GradNoiseDim => Some(MeasurementPass::Noise),
            Self::HessianTop => Some(MeasurementPass::Curvature),
            Self::TrainLoss | Self::TrainAcc | Self::TrainSmoothedLoss => None,
            Self::WeightNorm | Self::WeightNormSq | Self::LayerNormSq(_) | Self::EffectiveLr => {
                None
            }
            Self::StepLr | Self::StepWd => None,
            Self::GradNorm | Self::GradWeightCos | Self::UpdateNorm | Self::AngularUpdate => None,
            Self::NormSqJump | Self::InitDistance | Self::SampleDistance => None,
            Self::PartsCos | Self::PartsCosGap | Self::PartsDistance | Self::Declared(_) => None,
        }
    }

    /// Whether the metric compares the weights that a trial starts from the mean of.
    pub fn is_of_parts(&self) -> bool {
        matches!(
            self,
            Self::PartsCos | Self::PartsCosGap | Self::PartsDistance
        )
    }

    /// Whether the metric is of steps, so that a trial without any has none.
    pub fn needs_step(&self) -> bool {
        match self {
            Self::TrainLoss | Self::TrainAcc | Self::TrainSmoothedLoss => true,
            Self::EffectiveLr | Self::StepLr | Self::StepWd => true,
            Self::GradNorm | Self::GradWeightCos | Self::UpdateNorm | Self::AngularUpdate => true,
            Self::NormSqJump | Self::HessianTop => true,
            _ => self.needs_average(),
        }
    }

    /// Whether the metric is undefined for the toy loss, so that a sweep with `kind = "toy"` is refused that asks for it.
    pub fn is_undefined_for_toy(&self) -> bool {
        match self {
            Self::TrainAcc
            | Self::TrainSmoothedLoss
            | Self::TestLoss
            | Self::TestAcc
            | Self::TestSmoothedLoss
            | Self::ValLoss
            | Self::ValAcc
            | Self::AverageTestLoss
            | Self::AverageTestAcc
            | Self::AverageValLoss
            | Self::AverageValAcc
            | Self::GradNoiseTrace
            | Self::GradNoiseHill
            | Self::GradNoiseCos
            | Self::GradNoiseDim
            | Self::HessianTop
            | Self::PartsCos
            | Self::PartsCosGap
            | Self::PartsDistance => true,
            Self::TrainLoss | Self::EffectiveLr | Self::GradNorm | Self::GradWeightCos => false,
            Self::StepLr | Self::StepWd => false,
            Self::WeightNorm | Self::WeightNormSq | Self::LayerNormSq(_) => false,
            Self::UpdateNorm | Self::AngularUpdate | Self::NormSqJump => false,
            Self::InitDistance | Self::SampleDistance | Self::Declared(_) => false,
        }
    }

    /// The range of the metric, if it is bounded on both sides.
    pub fn bounded_range(&self) -> Option<(f64, f64)> {
        match self {
            Self::TrainAcc
            | Self::TestAcc
            | Self::ValAcc
            | Self::AverageTestAcc
            | Self::AverageValAcc
            | Self::GradNoiseCos => Some((0.0, 1.0)),
            Self::GradWeightCos | Self::PartsCos => Some((-1.0, 1.0)),
            Self::PartsCosGap => Some((0.0, 2.0)),
            Self::AngularUpdate => Some((0.0, std::f64::consts::PI)),
            Self::TrainLoss | Self::TrainSmoothedLoss | Self::TestLoss => None,
            Self::TestSmoothedLoss | Self::ValLoss => None,
            Self::AverageTestLoss | Self::AverageValLoss => None,
            Self::WeightNorm | Self::WeightNormSq | Self::LayerNormSq(_) => None,
            Self::EffectiveLr | Self::StepLr | Self::StepWd => None,
            Self::GradNorm | Self::UpdateNorm | Self::NormSqJump => None,
            Self::InitDistance | Self::SampleDistance => None,
            Self::GradNoiseTrace | Self::GradNoiseHill | Self::GradNoiseDim => None,
            Self::HessianTop | Self::PartsDistance | Self::Declared(_) => None,
        }
    }

    /// Whether the metric is a share of images that are classified correctly.
    pub fn is_accuracy(&self) -> bool {
        self.larger_is_better() == Some(true) && !matches!(self, Self::Declared(_))
    }

    /// Why the metric is undefined where images have targets; `None` if it is not.
    pub(crate) fn explain_undefined_for_targets(&self) -> Option<String> {
        let name = self.name();
        self.is_accuracy().then(|| {
            format!(
                "{name} is a share of images that are classified correctly, and images have targets ('y_train' is F32): name {}",
                name.replace("_acc", "_loss")
            )
        })
    }

    /// Whether the metric is a value of the minimised loss, and so another quantity under another
    /// loss.
    pub fn is_loss(&self) -> bool {
        self.larger_is_better() == Some(false) && !matches!(self, Self::Declared(_))
    }

    /// Whether the metric needs validation images.
    pub fn needs_validation(&self) -> bool {
        matches!(
            self.required_pass(),
            Some(MeasurementPass::Validation | MeasurementPass::AverageValidation)
        )
    }

    /// Whether it is of the averaged weights.
    pub fn needs_average(&self) -> bool {
        matches!(
            self.required_pass(),
            Some(MeasurementPass::AverageTest | MeasurementPass::AverageValidation)
        )
    }

    /// `Some(true)` if larger values are better, `Some(false)` if smaller ones are, `None` if
    /// neither is.
    pub fn larger_is_better(&self) -> Option<bool> {
        match self {
            Self::TrainAcc
            | Self::TestAcc
            | Self::ValAcc
            | Self::AverageTestAcc
            | Self::AverageValAcc => Some(true),
            Self::TrainLoss
            | Self::TrainSmoothedLoss
            | Self::TestLoss
            | Self::TestSmoothedLoss
            | Self::ValLoss
            | Self::AverageTestLoss
            | Self::AverageValLoss => Some(false),
            Self::WeightNorm | Self::WeightNormSq | Self::LayerNormSq(_) => None,
            Self::EffectiveLr | Self::StepLr | Self::StepWd => None,
            Self::GradNorm | Self::GradWeightCos => None,
            Self::UpdateNorm | Self::AngularUpdate | Self::NormSqJump => None,
            Self::InitDistance | Self::SampleDistance => None,
            Self::GradNoiseTrace | Self::GradNoiseHill | Self::GradNoiseCos => None,
            Self::GradNoiseDim | Self::HessianTop => None,
            Self::PartsCos | Self::PartsCosGap | Self::PartsDistance => None,
            Self::Declared(metric) => match metric.direction {
                Direction::Max => Some(true),
                Direction::Min => Some(false),
                Direction::Volatile => None,
            },
        }
    }
}

/// The name of ‖w‖² of all weights, and with `[LAYER]` behind it of one layer's weight.
const WEIGHT_NORM_SQ: &str = "weight_norm_sq";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::metric::*;

    #[test]
    fn a_metric_is_found_by_its_name() {
        for (name, metric) in Metric::NAMES {
            assert_eq!(metric.name(), name);
            assert_eq!(Metric::from_name(name), Some(metric));
        }

        let layer = Metric::LayerNormSq("conv1".into());
        assert_eq!(layer.name(), "weight_norm_sq[conv1]");
        assert_eq!(Metric::from_name("weight_norm_sq[conv1]"), Some(layer));
        assert_eq!(Metric::from_name("?"), None);

        let names: HashSet<&str> = Metric::NAMES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), Metric::NAMES.len());
    }

    #[test]
    fn the_ranges_of_shares_and_of_the_size_of_a_cosine_are_from_0_to_1() {
        for (name, metric) in Metric::NAMES {
            let is_share = name.ends_with("_acc");
            let is_bounded = metric.bounded_range() == Some((0.0, 1.0));
            assert_eq!(is_bounded, is_share || name == "grad_noise_cos", "{name}");
            assert_eq!(metric.larger_is_better() == Some(true), is_share, "{name}");
        }
    }
}
