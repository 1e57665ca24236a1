//! A linear classifier trained by the textbook, in f64 and without any of the trainer's code but its data.

use ergodic_common::config::{Loss, TrialConfig};
use ergodic_common::random_streams::{Purpose, Streams};

use super::cases;

const INPUTS: usize = 784;
const CLASSES: usize = 10;
/// Weights `[INPUTS][CLASSES]`, then biases.
const ALL: usize = (INPUTS + 1) * CLASSES;

/// Standardised images and their labels.
struct LinearData {
    train: Vec<(Vec<f64>, usize)>,
    test: Vec<(Vec<f64>, usize)>,
    validation: Vec<(Vec<f64>, usize)>,
}

fn data(config: &TrialConfig, streams: &Streams) -> LinearData {
    let dataset = cases::dataset();
    let subset = dataset
        .choose_subset(&config.data, streams)
        .expect("enough images");
    let raw = |part: &ergodic_common::dataset::Images, at: &[u32]| {
        let image = |i: &u32| {
            let pixels = &part.pixels[*i as usize * INPUTS..][..INPUTS];
            (
                pixels
                    .iter()
                    .map(|p| f64::from(*p) / 255.0)
                    .collect::<Vec<f64>>(),
                usize::from(part.labels[*i as usize]),
            )
        };

        at.iter().map(image).collect::<Vec<_>>()
    };
    let mut train = raw(&dataset.train, &subset.train);

    let mut test = raw(&dataset.test, &subset.test);
    let mut validation = raw(&dataset.train, &subset.validation);
    let pixels: Vec<f64> = train.iter().flat_map(|(x, _)| x.clone()).collect();
    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
    let std = (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt();

    for (x, _) in train.iter_mut().chain(&mut test).chain(&mut validation) {
        x.iter_mut().for_each(|p| *p = (*p - mean) / std);
    }

    LinearData {
        train,
        test,
        validation,
    }
}

/// What a pass over some images finds: sums of losses without and with smoothed targets, the number of right answers, and the
/// gradient of the mean smoothed loss.
struct LinearPass {
    plain: f64,
    smoothed: f64,
    right: f64,
    gradient: Vec<f64>,
}

fn pass(w: &[f64], images: &[(Vec<f64>, usize)], smoothing: f64) -> LinearPass {
    let mut plain = 0.0;
    let mut smoothed = 0.0;
    let mut right = 0.0;
    let mut gradient = vec![0.0; ALL];

    for (x, label) in images {
        let logit = |c: usize| {
            w[INPUTS * CLASSES + c] + (0..INPUTS).map(|i| x[i] * w[i * CLASSES + c]).sum::<f64>()
        };
        let logits: Vec<f64> = (0..CLASSES).map(logit).collect();
        let total = logits.iter().map(|l| l.exp()).sum::<f64>();
        let target =
            |c: usize| smoothing / CLASSES as f64 + if c == *label { 1.0 - smoothing } else { 0.0 };

        plain += total.ln() - logits[*label];
        smoothed += (0..CLASSES)
            .map(|c| target(c) * (total.ln() - logits[c]))
            .sum::<f64>();
        right += f64::from(u8::from(logits.iter().all(|l| *l <= logits[*label])));

        for c in 0..CLASSES {
            let slope = logits[c].exp() / total - target(c);
            let slope = slope / images.len() as f64;
            (0..INPUTS).for_each(|i| gradient[i * CLASSES + c] += slope * x[i]);
            gradient[INPUTS * CLASSES + c] += slope;
        }
    }

    LinearPass {
        plain,
        smoothed,
        right,
        gradient,
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Gradient statistics of the initial weights under squared errors: the trace of the covariance of an image's gradient over the training
/// images, and the largest eigenvalue of the Hessian of the first batch's loss.
pub(crate) fn noise_and_curvature(config: &TrialConfig, streams: &Streams) -> (f64, f64) {
    let data = data(config, streams);
    let mut stream = streams.open_stream(Purpose::Head, b"head.weight");
    let w: Vec<f64> = (0..INPUTS * CLASSES)
        .map(|_| (2.0 / INPUTS as f64).sqrt() * stream.next_normal())
        .collect();

    // Of an image with inputs x and 1, the gradient is 2/CLASSES times (output − target) ⊗ (x, 1).
    let mut squares = 0.0;
    let mut sum = vec![0.0; ALL];

    for (x, label) in &data.train {
        for c in 0..CLASSES {
            let output: f64 = (0..INPUTS).map(|i| x[i] * w[i * CLASSES + c]).sum();
            let slope = 2.0 / CLASSES as f64 * (output - f64::from(u8::from(c == *label)));

            for (i, x) in x.iter().chain([&1.0]).enumerate() {
                squares += (slope * x).powi(2);
                sum[i * CLASSES + c] += slope * x;
            }
        }
    }

    let n = data.train.len() as f64;
    let trace = squares / n - (norm(&sum) / n).powi(2);
    let batch = &data.train[..config.train.batch_size as usize];
    let mut direction = vec![1.0; INPUTS + 1];
    let mut top = 0.0;

    for _ in 0..500 {
        let mut next = vec![0.0; INPUTS + 1];
        for (x, _) in batch {
            let inputs = || x.iter().chain([&1.0]);
            let along: f64 = inputs().zip(&direction).map(|(x, d)| x * d).sum();
            next.iter_mut()
                .zip(inputs())
                .for_each(|(next, x)| *next += along * x / batch.len() as f64);
        }

        top = norm(&next);
        direction = next.iter().map(|x| x / top).collect();
    }

    (trace, 2.0 / CLASSES as f64 * top)
}

/// All metrics but noise and curvature in the order of their names, after every `every` steps of sequential batches.
pub(crate) fn trial(config: &TrialConfig, streams: &Streams, every: usize) -> Vec<Vec<f64>> {
    let data = data(config, streams);
    let train = &config.train;
    let mut stream = streams.open_stream(Purpose::Head, b"head.weight");
    let mut w: Vec<f64> = (0..INPUTS * CLASSES)
        .map(|_| (2.0 / INPUTS as f64).sqrt() * stream.next_normal())
        .collect();
    w.resize(ALL, 0.0);

    let mut v = vec![0.0; ALL];
    let initial = w.clone();
    let mut sampled = w.clone();
    let mut jump = 0.0_f64;
    let mut mean = vec![0.0; ALL];
    let mut taken = 0.0;

    let Loss::CrossEntropy { smoothing } = train.loss else {
        panic!("only cross-entropy is computed here")
    };
    let mut rows = Vec::new();
    let mut loss = 0.0;
    let mut smoothed = 0.0;

    let mut right = 0.0;
    let batches: Vec<_> = data.train.chunks_exact(train.batch_size as usize).collect();

    for step in 0..config.total_steps() as usize {
        let seen = pass(&w, batches[step % batches.len()], smoothing);
        (loss, smoothed, right) = (
            loss + seen.plain,
            smoothed + seen.smoothed,
            right + seen.right,
        );

        let gradient = seen.gradient;
        let before = w.clone();

        for i in 0..ALL {
            v[i] = train.momentum * v[i] + gradient[i] + train.wd * w[i];
            w[i] -= train.lr * v[i];
        }

        jump = jump.max((norm(&w).powi(2) - norm(&before).powi(2)).abs());
        taken += 1.0;
        mean.iter_mut()
            .zip(&w)
            .for_each(|(mean, w)| *mean += (w - *mean) / taken);

        if (step + 1) % every == 0 {
            let seen = (every * train.batch_size as usize) as f64;
            let test = pass(&w, &data.test, smoothing);
            let validation = pass(&w, &data.validation, smoothing);
            let tests = data.test.len() as f64;
            let validations = data.validation.len() as f64;
            let change: Vec<f64> = w.iter().zip(&before).map(|(a, b)| a - b).collect();
            let dot: f64 = w.iter().zip(&before).map(|(a, b)| a * b).sum();
            let cosine = dot / norm(&w) / norm(&before);

            let mean_test = pass(&mean, &data.test, 0.0);
            let mean_validation = pass(&mean, &data.validation, 0.0);
            let along: f64 = gradient.iter().zip(&before).map(|(a, b)| a * b).sum();
            let apart =
                |from: &[f64]| norm(&w.iter().zip(from).map(|(a, b)| a - b).collect::<Vec<_>>());
            rows.push(vec![
                loss / seen,
                right / seen,
                test.plain / tests,
                test.right / tests,
                norm(&w),
                norm(&w).powi(2),
                f64::NAN,
                norm(&gradient),
                norm(&change),
                cosine.acos(),
                mean_test.plain / tests,
                mean_test.right / tests,
                along / norm(&gradient) / norm(&before),
                jump,
                apart(&initial),
                apart(&sampled),
                smoothed / seen,
                test.smoothed / tests,
                validation.plain / validations,
                validation.right / validations,
                mean_validation.plain / validations,
                mean_validation.right / validations,
                train.lr,
                train.wd,
            ]);

            (loss, smoothed, right, jump) = (0.0, 0.0, 0.0, 0.0);
            sampled.clone_from(&w);
        }
    }

    rows
}
