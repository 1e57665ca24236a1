//! Parameters: where their numbers are, how they begin, sums over them, and their digest.

use super::nets::{PlainMap, PlainNet, PlainNorm, pad_channels};
use super::normed::find_normed_layers;
use super::streams::{PlainStream, ZigguratTable};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum ParamRole {
    Weight,
    Bias,
    Scale,
    Shift,
}

/// A parameter. Its numbers are rows of `columns` outputs, those of the padding among them; biases, scales and
/// shifts are one row.
pub(super) struct PlainParam {
    pub(super) layer: usize,
    pub(super) role: ParamRole,
    /// Rows of a weight: so many taps or pixels, each of so many channels, stored as so many.
    taps: usize,
    channels: usize,
    stored: usize,
    outputs: usize,
    pub(super) columns: usize,
    pub(super) trained: bool,
    pub(super) normed: bool,
}

/// The numbers of all parameters, or of their gradients.
pub(super) type PlainNumbers = Vec<Vec<f32>>;

/// Running means and variances of a layer, if its norm has some.
pub(super) type PlainStatistics = Vec<Option<(Vec<f32>, Vec<f32>)>>;

/// The parameters in the order of their definition.
pub(super) fn list_params(net: &PlainNet) -> Vec<PlainParam> {
    let normed = find_normed_layers(net);
    let mut params = Vec::new();
    for (at, layer) in net.layers.iter().enumerate() {
        let (input, output) = (net.input_shape(at), net.output_shape(at));
        let row = PlainParam {
            layer: at,
            role: ParamRole::Bias,
            taps: 1,
            channels: 1,
            stored: 1,
            outputs: output.channels,
            columns: pad_channels(output.channels),
            trained: !(net.style.fixed_head && layer.name == "head"),
            normed: false,
        };

        if layer.map != PlainMap::Copy {
            let taps = match layer.map {
                PlainMap::Conv { kernel, .. } => kernel * kernel,
                _ => input.pixels(),
            };
            params.push(PlainParam {
                role: ParamRole::Weight,
                taps,
                channels: input.channels,
                stored: input.stored,
                normed: normed[at],
                ..row
            });
        }
        if layer.bias {
            params.push(PlainParam { ..row });
        }
        if layer.norm != PlainNorm::None && net.style.affine {
            params.extend(
                [ParamRole::Scale, ParamRole::Shift].map(|role| PlainParam { role, ..row }),
            );
        }
    }
    params
}

/// The place of a parameter in the list.
pub(super) fn find_param(params: &[PlainParam], layer: usize, role: ParamRole) -> Option<usize> {
    params
        .iter()
        .position(|param| param.layer == layer && param.role == role)
}

impl PlainParam {
    fn rows(&self) -> usize {
        self.taps * self.stored
    }

    /// The places of all numbers without padding, in logical order.
    fn logical_places(&self) -> Vec<usize> {
        let mut places = Vec::new();
        for tap in 0..self.taps {
            for i in 0..self.channels {
                for o in 0..self.outputs {
                    places.push((tap * self.stored + i) * self.columns + o);
                }
            }
        }
        places
    }
}

pub(super) fn make_zeros(params: &[PlainParam]) -> PlainNumbers {
    params
        .iter()
        .map(|param| vec![0.0; param.rows() * param.columns])
        .collect()
}

/// Kaiming-normal weights, biases and shifts of 0, scales of 1.
pub(super) fn draw_initial_numbers(
    net: &PlainNet,
    params: &[PlainParam],
    seed: u64,
    table: &ZigguratTable,
) -> PlainNumbers {
    let mut numbers = make_zeros(params);
    for (param, numbers) in params.iter().zip(&mut numbers) {
        let name = &net.layers[param.layer].name;
        let purpose = if name == "head" { "head" } else { "init" };
        let fan_in = (param.taps * param.channels) as f64;
        let mut stream = PlainStream::open(seed, purpose, format!("{name}.weight").as_bytes());
        for place in param.logical_places() {
            numbers[place] = match param.role {
                ParamRole::Weight => (libm::sqrt(2.0 / fan_in) * stream.next_normal(table)) as f32,
                ParamRole::Scale => 1.0,
                ParamRole::Bias | ParamRole::Shift => 0.0,
            };
        }
    }
    numbers
}

pub(super) fn initial_statistics(net: &PlainNet) -> PlainStatistics {
    let mut statistics = Vec::new();
    for (at, layer) in net.layers.iter().enumerate() {
        let stored = net.output_shape(at).stored;
        let both = (vec![0.0; stored], vec![1.0; stored]);
        statistics.push(layer.norm.is_over_images().then_some(both));
    }
    statistics
}

/// BLAKE3 of the numbers in logical order, then of the running statistics.
pub(super) fn compute_digest(
    net: &PlainNet,
    params: &[PlainParam],
    numbers: &PlainNumbers,
    statistics: &PlainStatistics,
) -> [u8; 32] {
    let mut all = Vec::new();
    for (param, numbers) in params.iter().zip(numbers) {
        all.extend(param.logical_places().iter().map(|place| numbers[*place]));
    }
    for (at, both) in statistics.iter().enumerate() {
        let channels = net.output_shape(at).channels;
        if let Some((means, variances)) = both {
            all.extend(&means[..channels]);
            all.extend(&variances[..channels]);
        }
    }

    let mut hasher = blake3::Hasher::new();
    for x in all {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        hasher.update(&bits.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The parameters that a norm or product is over.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainRanges {
    Normed,
    Trained,
}

fn is_in_ranges(params: &[PlainParam], param: &PlainParam, ranges: PlainRanges) -> bool {
    let any_normed = params.iter().any(|p| p.normed && p.trained);
    param.trained && (ranges == PlainRanges::Trained || !any_normed || param.normed)
}

/// Sums a function of two numbers over ranges, in eight interleaved sums in packed order: a block of 16 columns after
/// the other, row by row.
pub(super) fn sum_over_ranges(
    params: &[PlainParam],
    ranges: PlainRanges,
    (a, b): (&PlainNumbers, &PlainNumbers),
    f: impl Fn(f64, f64) -> f64,
) -> f64 {
    let mut part = [0.0; 8];
    for (at, param) in params.iter().enumerate() {
        if !is_in_ranges(params, param, ranges) {
            continue;
        }
        for block in 0..param.columns / 16 {
            for row in 0..param.rows() {
                for lane in 0..16 {
                    let place = row * param.columns + block * 16 + lane;
                    let (x, y) = (f64::from(a[at][place]), f64::from(b[at][place]));
                    part[lane % 8] += f(x, y);
                }
            }
        }
    }
    part.iter().sum()
}

pub(super) fn square_norm(
    params: &[PlainParam],
    ranges: PlainRanges,
    numbers: &PlainNumbers,
) -> f64 {
    sum_over_ranges(params, ranges, (numbers, numbers), |x, _| x * x)
}
