//! One layer in the exact passes of the Hessian: norm, scale, shift, activation function and pool, and their tangents.

use std::mem::take;
use std::ops::Range;

use ergodic_common::config::Activation;
use ergodic_common::net::{Layer, Net, ParamRole, Pool};

use super::super::exact_activation::{activate, curvature_at, slope_at};
use super::super::linear_op::ExactLinearOp;
use super::norm_sets::NormSets;
use super::params::{LocatedParam, find_range};

/// A layer with the ranges of its parameters.
pub(super) struct HessianLayer<'a> {
    pub(super) layer: &'a Layer,
    pub(super) linear_op: ExactLinearOp,
    /// The weight; empty for a layer without a map.
    pub(super) weight: Range<usize>,
    pub(super) bias: Option<Range<usize>>,
    pub(super) scale: Option<Range<usize>>,
    pub(super) shift: Option<Range<usize>>,
    /// The layer that adds this one's z to its own.
    pub(super) adder: Option<usize>,
    /// The weight with inputs and outputs exchanged; none for the first layer.
    pub(super) transposed: Vec<f64>,
}

/// The numbers of a layer in the passes over some images.
pub(super) struct LayerPassRecord {
    /// z, normalised if a norm follows.
    pub(super) x: Vec<f64>,
    /// 1/√(variance + ε), of each set that a norm runs over.
    pub(super) inv_std: Vec<f64>,
    /// The index of the largest of four pooled pixels.
    pub(super) max_choices: Vec<u8>,
    /// The activations, pooled, as the next layers read them.
    pub(super) output: Vec<f64>,
    /// Gradient of the activations; empty if the activation function has no second derivative.
    pub(super) activation_gradient: Vec<f64>,
    /// ∂L/∂y behind scale and shift, and ∂L/∂z.
    pub(super) y_gradient: Vec<f64>,
    pub(super) z_gradient: Vec<f64>,
}

/// The tangents of a layer's numbers along a direction.
pub(super) struct LayerTangent {
    pub(super) x: Vec<f64>,
    /// Tangent of 1/std, relative to it.
    pub(super) inv_std: Vec<f64>,
    /// Tangent of y behind scale and shift; empty if the activation function has no second derivative.
    pub(super) y: Vec<f64>,
    pub(super) output: Vec<f64>,
}

impl<'a> HessianLayer<'a> {
    pub(super) fn new(net: &'a Net, at: usize, params: &[LocatedParam], weights: &[f64]) -> Self {
        let layer = &net.layers[at];
        let linear_op = ExactLinearOp::from_layer(layer);
        let weight = find_range(params, at, ParamRole::Weight).unwrap_or_default();
        let transposed = match layer.source {
            Some(_) => linear_op.transpose_weight(&weights[weight.clone()]),
            None => Vec::new(),
        };

        Self {
            layer,
            linear_op,
            weight,
            bias: find_range(params, at, ParamRole::Bias),
            scale: find_range(params, at, ParamRole::NormScale),
            shift: find_range(params, at, ParamRole::NormShift),
            adder: net.adding_layer(at),
            transposed,
        }
    }
}

impl HessianLayer<'_> {
    /// Whether the layer has a map whose weight is trained.
    pub(super) fn has_trained_weight(&self) -> bool {
        self.layer.trained && !self.weight.is_empty()
    }

    /// Numbers of an image before pooling.
    pub(super) fn image_len(&self) -> usize {
        self.linear_op.output_len()
    }

    pub(super) fn channel_count(&self) -> usize {
        self.layer.output.channels
    }

    /// The sets of the layer's norm over `images` images, and its ε.
    fn norm_sets(&self, images: usize) -> Option<(NormSets, f64)> {
        let norm = self.layer.norm?;
        let channels = self.channel_count();
        let pixels = self.image_len() / channels;
        Some((NormSets::new(norm, channels, pixels, images), norm.eps))
    }

    /// z, or its tangent, before the map is added: what another layer has added to `sums`, plus the
    /// bias.
    pub(super) fn initial_z(
        &self,
        sums: &mut [Vec<f64>],
        images: usize,
        parameters: &[f64],
    ) -> Vec<f64> {
        let mut z = match self.layer.add {
            Some(added) => take(&mut sums[added]),
            None => vec![0.0; images * self.image_len()],
        };

        if let Some(bias) = &self.bias {
            let bias = &parameters[bias.clone()];
            z.chunks_exact_mut(bias.len())
                .for_each(|pixel| add_elementwise(pixel, bias));
        }

        z
    }

    /// The parameters in a range, if there is one.
    fn params_at<'b>(
        &self,
        range: Option<&Range<usize>>,
        parameters: &'b [f64],
    ) -> Option<&'b [f64]> {
        range.map(|range| &parameters[range.clone()])
    }

    /// Returns y = scale·x + shift, or x if the layer has neither.
    fn scale_and_shift(&self, x: &[f64], weights: &[f64]) -> Vec<f64> {
        let scale = self.params_at(self.scale.as_ref(), weights);
        let shift = self.params_at(self.shift.as_ref(), weights);
        let (Some(scale), Some(shift)) = (scale, shift) else {
            return x.to_vec();
        };

        let channels = self.channel_count();
        x.iter()
            .enumerate()
            .map(|(i, x)| x * scale[i % channels] + shift[i % channels])
            .collect()
    }

    /// Computes the activations from z, and records what the other passes need.
    pub(super) fn record_activations(
        &self,
        z: Vec<f64>,
        images: usize,
        weights: &[f64],
    ) -> LayerPassRecord {
        let mut x = z;
        let inv_std = self.normalize_in_place(&mut x, images);
        let mut y = self.scale_and_shift(&x, weights);

        let activation = self.layer.activation;
        if activation != Activation::Identity {
            y.iter_mut().for_each(|y| *y = activate(activation, *y));
        }

        let max_choices = if self.layer.pool == Pool::Max2 {
            self.choose_max_pixels(&y)
        } else {
            Vec::new()
        };
        let output = self.pool_activations(y, &max_choices);

        LayerPassRecord {
            x,
            inv_std,
            max_choices,
            output,
            activation_gradient: Vec::new(),
            y_gradient: Vec::new(),
            z_gradient: Vec::new(),
        }
    }

    /// Normalizes z in place, if the layer has a norm; returns 1/√(variance + ε) of each set, 0 where that is 1/0.
    fn normalize_in_place(&self, x: &mut [f64], images: usize) -> Vec<f64> {
        let Some((sets, eps)) = self.norm_sets(images) else {
            return Vec::new();
        };
        let image = self.image_len();
        let len = x.len();

        let means = sets.compute_means(image, len, |i| x[i]);
        sets.for_each_number(image, len, |i, set| x[i] -= means[set]);
        let mut inv_std = sets.compute_means(image, len, |i| x[i] * x[i]);
        inv_std.iter_mut().for_each(|v| {
            *v = if *v + eps == 0.0 {
                0.0
            } else {
                1.0 / (*v + eps).sqrt()
            }
        });

        sets.for_each_number(image, len, |i, set| x[i] *= inv_std[set]);
        inv_std
    }

    /// Whether the activation function has a second derivative.
    pub(super) fn is_curved(&self) -> bool {
        !self.layer.activation.is_homogeneous()
    }

    /// Multiplies numbers by the slopes of the activation function at the weights.
    pub(super) fn multiply_by_slopes(
        &self,
        x: &mut [f64],
        record: &LayerPassRecord,
        weights: &[f64],
    ) {
        let activation = self.layer.activation;
        if activation == Activation::Identity {
            return;
        }

        let y = self.scale_and_shift(&record.x, weights);
        for (x, y) in x.iter_mut().zip(y) {
            let slope = slope_at(activation, y);
            // What a ReLU blocks is 0, even if it is infinite.
            *x = if slope == 0.0 { 0.0 } else { *x * slope };
        }
    }

    /// Adds the change of the slopes to the tangent of ∂L/∂y.
    pub(super) fn add_slope_tangents(
        &self,
        record: &LayerPassRecord,
        tangent: &LayerTangent,
        weights: &[f64],
        y_gradient_tangent: &mut [f64],
    ) {
        if !self.is_curved() || record.activation_gradient.is_empty() {
            return;
        }

        let y = self.scale_and_shift(&record.x, weights);
        for (at, to) in y_gradient_tangent.iter_mut().enumerate() {
            let curvature = curvature_at(self.layer.activation, y[at]);
            *to += curvature * tangent.y[at] * record.activation_gradient[at];
        }
    }

    /// Multiplies by the norm's scale, if it has one.
    fn multiply_by_scale(&self, y_gradient: &[f64], weights: &[f64]) -> Vec<f64> {
        let Some(scale) = self.params_at(self.scale.as_ref(), weights) else {
            return y_gradient.to_vec();
        };
        y_gradient
            .iter()
            .enumerate()
            .map(|(i, g)| g * scale[i % scale.len()])
            .collect()
    }

    /// ∂L/∂z = inv_std·(u − mean(u) − x·mean(u·x)) with u = ∂L/∂x.
    pub(super) fn norm_backward(
        &self,
        record: &LayerPassRecord,
        y_gradient: &[f64],
        weights: &[f64],
    ) -> Vec<f64> {
        let mut u = self.multiply_by_scale(y_gradient, weights);
        let Some((sets, _)) = self.norm_sets(u.len() / self.image_len()) else {
            return u;
        };
        let image = self.image_len();
        let len = u.len();

        let x = &record.x;
        let mean = sets.compute_means(image, len, |i| u[i]);
        let mean_x = sets.compute_means(image, len, |i| u[i] * x[i]);
        sets.for_each_number(image, len, |i, set| {
            u[i] = record.inv_std[set] * (u[i] - mean[set] - x[i] * mean_x[set])
        });

        u
    }

    /// Computes the tangents of everything that follows z.
    pub(super) fn forward_tangent(
        &self,
        record: &LayerPassRecord,
        z: Vec<f64>,
        images: usize,
        (weights, direction): (&[f64], &[f64]),
    ) -> LayerTangent {
        let mut x = z;
        let inv_std = self.normalize_tangent(record, &mut x, images);
        let mut y = self.multiply_by_scale(&x, weights);

        if let (Some(scale), Some(shift)) = (
            self.params_at(self.scale.as_ref(), direction),
            self.params_at(self.shift.as_ref(), direction),
        ) {
            let channels = scale.len();
            y.iter_mut()
                .enumerate()
                .for_each(|(i, y)| *y += record.x[i] * scale[i % channels] + shift[i % channels]);
        }

        let y_tangent = if self.is_curved() {
            y.clone()
        } else {
            Vec::new()
        };
        self.multiply_by_slopes(&mut y, record, weights);

        LayerTangent {
            x,
            inv_std,
            y: y_tangent,
            output: self.pool_activations(y, &record.max_choices),
        }
    }

    /// Turns the tangent of z into that of the normalized z, if the layer has a norm; returns the tangent of each set's
    /// 1/std, relative to it.
    fn normalize_tangent(
        &self,
        record: &LayerPassRecord,
        x: &mut [f64],
        images: usize,
    ) -> Vec<f64> {
        let Some((sets, _)) = self.norm_sets(images) else {
            return Vec::new();
        };
        let image = self.image_len();
        let len = x.len();

        let mean = sets.compute_means(image, len, |i| x[i]);
        let mean_x = sets.compute_means(image, len, |i| x[i] * record.x[i]);
        sets.for_each_number(image, len, |i, set| {
            x[i] = record.inv_std[set] * (x[i] - mean[set] - record.x[i] * mean_x[set])
        });

        record
            .inv_std
            .iter()
            .zip(mean_x)
            .map(|(inv_std, mean_x)| -inv_std * mean_x)
            .collect()
    }

    /// Adds the tangents of the gradients of a norm's scale and shift.
    pub(super) fn add_affine_tangents(
        &self,
        record: &LayerPassRecord,
        tangent: &LayerTangent,
        y_tangent: &[f64],
        product: &mut [f64],
    ) {
        let (Some(scale), Some(shift)) = (&self.scale, &self.shift) else {
            return;
        };

        let channels = self.channel_count();

        for (i, g) in y_tangent.iter().enumerate() {
            product[scale.start + i % channels] +=
                g * record.x[i] + record.y_gradient[i] * tangent.x[i];
            product[shift.start + i % channels] += g;
        }
    }

    /// The tangent of ∂L/∂z, from that of ∂L/∂y.
    pub(super) fn norm_backward_tangent(
        &self,
        record: &LayerPassRecord,
        tangent: &LayerTangent,
        y_tangent: &[f64],
        (weights, direction): (&[f64], &[f64]),
    ) -> Vec<f64> {
        let mut du = self.multiply_by_scale(y_tangent, weights);
        if let Some(scale) = self.params_at(self.scale.as_ref(), direction) {
            du.iter_mut()
                .enumerate()
                .for_each(|(i, du)| *du += record.y_gradient[i] * scale[i % scale.len()]);
        }

        let Some((sets, _)) = self.norm_sets(du.len() / self.image_len()) else {
            return du;
        };
        let image = self.image_len();
        let len = du.len();
        let x = &record.x;
        let dx = &tangent.x;

        let u = self.multiply_by_scale(&record.y_gradient, weights);
        let mean = sets.compute_means(image, len, |i| u[i]);
        let mean_x = sets.compute_means(image, len, |i| u[i] * x[i]);
        let d_mean = sets.compute_means(image, len, |i| du[i]);
        let d_mean_x = sets.compute_means(image, len, |i| du[i] * x[i] + u[i] * dx[i]);
        sets.for_each_number(image, len, |i, set| {
            let before = u[i] - mean[set] - x[i] * mean_x[set];
            let after = du[i] - d_mean[set] - dx[i] * mean_x[set] - x[i] * d_mean_x[set];
            du[i] = record.inv_std[set] * (tangent.inv_std[set] * before + after);
        });

        du
    }
}

/// `to += more`
pub(super) fn add_elementwise(to: &mut [f64], more: &[f64]) {
    to.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
}
