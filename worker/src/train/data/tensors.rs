//! A dataset as tensors, for experiments.

use candle_core::{Device, Result, Tensor};

/// The dataset of an experiment's sweep, on the CPU.
///
/// Points are `f32` of the shape `[point, channel, height, width]`, scaled as those of built-in trainings; what a file has as
/// `[image, feature]` has as many channels as features. Labels are `u32` below `classes`. The targets of a regression are
/// `f32` of the shape `[point, target]`, as the file has them.
///
/// A worker makes the tensors once for all trials that use the same points. A clone of one is the same tensor: change none in place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExperimentData {
    /// The name in the sweep file, such as `mnist`; `file` for a dataset in a file.
    pub name: String,
    /// Number of classes; 0 if points have targets.
    pub classes: usize,
    /// Points to train on.
    pub x_train: Tensor,
    /// Labels or targets of `x_train`.
    pub y_train: Tensor,
    /// Points of the training part that are held out: as many as `data.validation` says, none without it.
    pub x_validation: Tensor,
    /// Labels or targets of `x_validation`.
    pub y_validation: Tensor,
    /// Points to test on.
    pub x_test: Tensor,
    /// Labels or targets of `x_test`.
    pub y_test: Tensor,
}

/// Points, one behind the other with channels first, and what belongs to them.
pub(super) struct PartNumbers {
    pub(super) points: Vec<f32>,
    pub(super) answers: PartAnswers,
}

/// What belongs to the points of a part.
pub(super) enum PartAnswers {
    /// A label per point.
    Labels(Vec<u32>),
    /// So many targets per point.
    Targets(Vec<f32>, usize),
}

impl PartNumbers {
    /// The tensors of points and of their labels or targets. `image` is channels, height and width.
    pub(super) fn into_tensors(self, image: (usize, usize, usize)) -> Result<(Tensor, Tensor)> {
        let answers = match self.answers {
            PartAnswers::Labels(labels) => {
                let count = labels.len();
                Tensor::from_vec(labels, count, &Device::Cpu)?
            }
            PartAnswers::Targets(targets, width) => {
                let shape = (targets.len() / width, width);
                Tensor::from_vec(targets, shape, &Device::Cpu)?
            }
        };

        let (channels, height, width) = image;
        let points = (answers.dims()[0], channels, height, width);
        Ok((
            Tensor::from_vec(self.points, points, &Device::Cpu)?,
            answers,
        ))
    }
}
