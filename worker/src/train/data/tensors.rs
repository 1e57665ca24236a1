//! A dataset as tensors, for experiments.

use candle_core::{Device, Result, Tensor};

/// The dataset of an experiment's sweep, on the CPU.
///
/// Points are `f32` of the shape `[point, channel, height, width]`, scaled as those of built-in trainings; what a file has as
/// `[image, feature]` has as many channels as features. Labels are `u32` below `classes`.
///
/// A worker makes the tensors once for all trials that use the same points. A clone of one is the same tensor: change none in place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExperimentData {
    /// The name in the sweep file, such as `mnist`; `file` for a dataset in a file.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Points to train on.
    pub x_train: Tensor,
    /// Labels of `x_train`.
    pub y_train: Tensor,
    /// Points of the training part that are held out: as many as `data.validation` says, none without it.
    pub x_validation: Tensor,
    /// Labels of `x_validation`.
    pub y_validation: Tensor,
    /// Points to test on.
    pub x_test: Tensor,
    /// Labels of `x_test`.
    pub y_test: Tensor,
}

/// Points, one behind the other with channels first, and their labels.
pub(super) struct PartNumbers {
    pub(super) points: Vec<f32>,
    pub(super) labels: Vec<u32>,
}

impl PartNumbers {
    /// The tensors of points and labels. `image` is channels, height and width.
    pub(super) fn into_tensors(self, image: (usize, usize, usize)) -> Result<(Tensor, Tensor)> {
        let count = self.labels.len();
        let (channels, height, width) = image;
        let points = (count, channels, height, width);
        Ok((
            Tensor::from_vec(self.points, points, &Device::Cpu)?,
            Tensor::from_vec(self.labels, count, &Device::Cpu)?,
        ))
    }
}
