//! The networks of the tests that are written as lists of layers, by name.

use super::activations::PlainActivation;
use super::nets::{
    NetWriter, PlainMap, PlainNet, PlainNorm, PlainPool, PlainShape, PlainStyle, conv,
};

fn style(norm: PlainNorm, activation: PlainActivation, affine: bool) -> PlainStyle {
    PlainStyle {
        norm,
        activation,
        affine,
        eps: 1e-5,
        fixed_head: false,
        outputs: 10,
    }
}

/// A network of the table, if it has one of this name.
pub(super) fn build_listed(name: &str, image: PlainShape) -> Option<PlainNet> {
    match name {
        "tanh mlp" => Some(build_tanh_mlp(image)),
        "gelu residual" => Some(build_gelu_residual(image)),
        "leaky shortcuts" => Some(build_leaky_shortcuts(image)),
        "silu image" => Some(build_silu_image(image)),
        "softplus pooled" => Some(build_softplus_pooled(image)),
        "biased sum" => Some(build_biased_sum(image)),
        "layers targets" => Some(build_layers_targets(image)),
        _ => None,
    }
}

fn build_tanh_mlp(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::None, PlainActivation::Tanh, false);
    super::nets::build_mlp(style, image, &[24, 17])
}

fn build_gelu_residual(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::Batch, PlainActivation::Gelu, true);
    let mut net = NetWriter::new(style, image);
    net.add_hidden("conv1", conv(6, 3, 1)).pool = PlainPool::Mean2;

    // `conv2.in` is an activation and no sum: a layer without a map makes a z of it.
    net.add_bare("conv2.shortcut", PlainMap::Copy, false);
    let second = net.add_hidden("conv2", conv(6, 3, 1));
    (second.reads, second.adds) = (Some(0), Some(1));
    second.pool = PlainPool::Global;
    net.finish(true)
}

fn build_leaky_shortcuts(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::None, PlainActivation::LeakyRelu, false);
    let mut net = NetWriter::new(style, image);
    net.add_hidden("conv1", conv(5, 3, 3));

    net.add_bare("conv2.shortcut", PlainMap::Copy, false);
    let second = net.add_hidden("conv2", conv(5, 3, 1));
    (second.reads, second.adds) = (Some(0), Some(1));

    net.add_bare("conv3.shortcut", conv(9, 1, 2), true);
    let third = net.add_hidden("conv3", conv(9, 3, 2));
    (third.reads, third.adds) = (Some(2), Some(3));
    third.pool = PlainPool::Max2;
    net.finish(true)
}

fn build_silu_image(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::Group { groups: 2 }, PlainActivation::Silu, true);
    let mut net = NetWriter::new(style, image);
    net.add_hidden("a", conv(4, 5, 1));

    net.add_bare("b.shortcut", conv(8, 1, 2), false).reads = None;
    let b = net.add_hidden("b", conv(8, 3, 2));
    (b.reads, b.adds) = (Some(0), Some(1));
    net.finish(true)
}

fn build_softplus_pooled(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::Layer, PlainActivation::Softplus, false);
    let mut net = NetWriter::new(style, image);
    net.add_bare("pool1", PlainMap::Copy, false).pool = PlainPool::Mean2;
    net.add_hidden("conv1", conv(4, 3, 1));
    let linear = net.add_hidden("fc1", PlainMap::Linear { outputs: 12 });
    (linear.norm, linear.bias) = (PlainNorm::None, true);
    net.finish(true)
}

fn build_biased_sum(image: PlainShape) -> PlainNet {
    let style = style(PlainNorm::Group { groups: 2 }, PlainActivation::Tanh, false);
    let mut net = NetWriter::new(style, image);
    let a = net.add_hidden("a", conv(4, 3, 2));
    (a.norm, a.bias) = (PlainNorm::None, true);
    let b = net.add_hidden("b", conv(4, 3, 1));
    b.adds = Some(0);
    b.pool = PlainPool::Mean2;
    net.finish(true)
}

fn build_layers_targets(image: PlainShape) -> PlainNet {
    let mut style = style(PlainNorm::Batch, PlainActivation::Gelu, false);
    style.outputs = 3;
    let mut net = NetWriter::new(style, image);
    net.add_hidden("conv1", conv(6, 3, 2));
    net.add_bare("conv2.shortcut", PlainMap::Copy, false);
    let second = net.add_hidden("conv2", conv(6, 3, 1));
    (second.reads, second.adds) = (Some(0), Some(1));
    second.pool = PlainPool::Max2;
    net.finish(true)
}
