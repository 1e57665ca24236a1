//! From the configs of tests to trials of the reference.

use ergodic_common::config::{
    Activation, Adam, AdamDecay, Augment, Curve, HyperparamChange, InitScheme, Length, Loss,
    LrScheduleForm, ModelKind, Norm, TrialConfig, VisitOrder, WeightDecayScope,
};
use ergodic_common::dataset::Images;

use super::super::cases;
use super::activations::PlainActivation;
use super::data::{PlainImages, PlainOrder};
use super::listed::build_listed;
use super::loss::PlainLoss;
use super::nets::{
    PlainNet, PlainNorm, PlainShape, PlainStyle, build_cnn4, build_mlp, build_preresnet, build_vgg,
};
use super::optimizers::{PlainAdam, PlainRule};
use super::trial::PlainTrial;

/// Samples are taken after every second step, as in the tables of fingerprints.
const SAMPLE_EVERY: usize = 2;

pub(super) fn convert_trial(name: &str, config: &TrialConfig) -> PlainTrial {
    check_config(config);
    let dataset = cases::find_dataset(config.data.dataset);
    PlainTrial {
        seed: cases::streams(0).sweep_seed,
        net: convert_net(name, config),
        train: convert_images(&dataset.train),
        test: convert_images(&dataset.test),
        used: (config.data.train as usize, config.data.test as usize),
        order: convert_order(config.data.order),
        batch: config.train.batch_size as usize,
        steps: config.total_steps() as usize,
        loss: convert_loss(config.train.loss),
        rule: convert_rule(config),
        noise: config
            .train
            .added_noise
            .map(|noise| (noise.images as usize, noise.pairs as usize)),
        sample_every: SAMPLE_EVERY,
    }
}

/// Checks that the trial has nothing that the reference lacks.
fn check_config(config: &TrialConfig) {
    let (data, model, train) = (&config.data, &config.model, &config.train);
    assert_eq!(data.augment, Augment::None);
    assert_eq!(data.validation, 0);
    assert_eq!(data.label_noise, 0.0);
    assert!(data.standardize);

    assert_eq!(model.init, InitScheme::KaimingNormal);
    assert!(model.init_file.is_none() && model.init_scale == 1.0);
    assert!(model.layer_scales.is_empty() && !model.zero_residual);
    assert!(model.bias.is_none());

    assert_eq!(train.wd_on, WeightDecayScope::All);
    assert!(train.schedule.is_empty());
    assert!(train.average.is_none());
    assert!(config.results_start.is_none());
}

fn convert_images(images: &Images) -> PlainImages {
    assert!(images.floats.is_empty(), "images are bytes");
    PlainImages {
        pixels: images.pixels.clone(),
        labels: images.labels.clone(),
        targets: images.targets.clone(),
    }
}

fn convert_net(name: &str, config: &TrialConfig) -> PlainNet {
    let (height, width, channels) = config.data.dataset.image_shape();
    let image = PlainShape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
        stored: channels as usize,
    };
    let style = convert_style(config);
    match &config.model.kind {
        ModelKind::Mlp { hidden } => {
            let widths: Vec<usize> = hidden.iter().map(|width| *width as usize).collect();
            build_mlp(style, image, &widths)
        }
        ModelKind::Cnn4 { width } => build_cnn4(style, image, *width as usize),
        ModelKind::Preresnet { depth, widen } => {
            build_preresnet(style, image, *depth as usize, *widen as usize)
        }
        ModelKind::Vgg { depth, width } => {
            let stages = depth.convolutions_per_stage();
            build_vgg(style, image, *width as usize, stages)
        }
        ModelKind::Layers(_) => {
            let net = build_listed(name, image);
            let net = net.unwrap_or_else(|| panic!("no list of layers is called {name}"));
            assert!(net.style == style, "{name} is listed in another style");
            net
        }
        ModelKind::Toy(_) | ModelKind::Empty | ModelKind::Program(_) => {
            panic!("{name} is no network")
        }
    }
}

fn convert_style(config: &TrialConfig) -> PlainStyle {
    let model = &config.model;
    let targets = config.data.dataset.target_count() as usize;
    PlainStyle {
        norm: match model.norm {
            Norm::None => PlainNorm::None,
            Norm::Batch => PlainNorm::Batch,
            Norm::GhostBatch { size } => PlainNorm::GhostBatch {
                size: size as usize,
            },
            Norm::Group { groups } => PlainNorm::Group {
                groups: groups as usize,
            },
            Norm::Layer => PlainNorm::Layer,
        },
        activation: match model.activation {
            Activation::Identity => PlainActivation::Identity,
            Activation::Relu => PlainActivation::Relu,
            Activation::LeakyRelu => PlainActivation::LeakyRelu,
            Activation::Tanh => PlainActivation::Tanh,
            Activation::Gelu => PlainActivation::Gelu,
            Activation::Silu => PlainActivation::Silu,
            Activation::Softplus => PlainActivation::Softplus,
        },
        affine: model.affine,
        eps: model.norm_eps,
        fixed_head: model.fixed_head,
        outputs: if targets == 0 { 10 } else { targets },
    }
}

fn convert_order(order: VisitOrder) -> PlainOrder {
    match order {
        VisitOrder::Shuffle => PlainOrder::Shuffle,
        VisitOrder::WithReplacement => PlainOrder::WithReplacement,
        VisitOrder::FullBatch => PlainOrder::FullBatch,
        VisitOrder::Sequential => panic!("the reference visits no images in their order"),
    }
}

fn convert_loss(loss: Loss) -> PlainLoss {
    match loss {
        Loss::CrossEntropy { smoothing } => PlainLoss::CrossEntropy { smoothing },
        Loss::Mse => PlainLoss::SquaredError,
    }
}

fn convert_rule(config: &TrialConfig) -> PlainRule {
    let train = &config.train;
    let factors = train.lr_on.iter();
    PlainRule {
        lr: train.lr,
        wd: train.wd,
        momentum: train.momentum,
        nesterov: train.nesterov,
        adam: train.adam.map(convert_adam),
        cosine: train.curve.as_ref().map(read_warmup),
        clip_norm: train.clip_norm,
        lr_on: factors
            .map(|(name, factor)| (name.to_owned(), factor))
            .collect(),
        sharpness: train.sam.map(|sam| sam.rho),
    }
}

fn convert_adam(adam: Adam) -> PlainAdam {
    PlainAdam {
        beta1: adam.beta1,
        beta2: adam.beta2,
        eps: adam.eps,
        decoupled: adam.decay == AdamDecay::Decoupled,
    }
}

/// The steps of warm-up of a cosine that ends at 0.
fn read_warmup(curve: &Curve) -> usize {
    let zero = HyperparamChange::Set(0.0);
    assert_eq!(curve.form, LrScheduleForm::Cosine { end: zero });
    match curve.warmup {
        Length::Steps(steps) => steps as usize,
        Length::Epochs(_) => panic!("the reference warms up for steps"),
    }
}
