//! A linear classifier trained by the textbook, in f64 and without any of the trainer's code but its data.

use ergodic_common::config::TrialConfig;
use ergodic_common::seed::{Purpose, Streams};

use super::cases;

const INPUTS: usize = 784;
const CLASSES: usize = 10;
/// Weights `[INPUTS][CLASSES]`, then biases.
const ALL: usize = (INPUTS + 1) * CLASSES;

/// Standardised images and labels of the training and the test part.
struct Data {
    train: Vec<(Vec<f64>, usize)>,
    test: Vec<(Vec<f64>, usize)>,
}

fn data(config: &TrialConfig, streams: &Streams) -> Data {
    let dataset = cases::dataset();
    let subset = dataset.subset(&config.data, streams).expect("enough images");
    let raw = |part: &ergodic_common::dataset::Images, at: &[u32]| {
        let image = |i: &u32| {
            let pixels = &part.pixels[*i as usize * INPUTS..][..INPUTS];
            (pixels.iter().map(|p| f64::from(*p) / 255.0).collect::<Vec<f64>>(), usize::from(part.labels[*i as usize]))
        };
        at.iter().map(image).collect::<Vec<_>>()
    };
    let (mut train, mut test) = (raw(&dataset.train, &subset.train), raw(&dataset.test, &subset.test));
    let pixels: Vec<f64> = train.iter().flat_map(|(x, _)| x.clone()).collect();
    let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
    let std = (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt();
    for (x, _) in train.iter_mut().chain(&mut test) {
        x.iter_mut().for_each(|p| *p = (*p - mean) / std);
    }
    Data { train, test }
}

/// Sum of losses, number of right answers, gradient of the mean loss.
fn pass(w: &[f64], images: &[(Vec<f64>, usize)]) -> (f64, f64, Vec<f64>) {
    let (mut loss, mut right, mut gradient) = (0.0, 0.0, vec![0.0; ALL]);
    for (x, label) in images {
        let logit = |c: usize| w[INPUTS * CLASSES + c] + (0..INPUTS).map(|i| x[i] * w[i * CLASSES + c]).sum::<f64>();
        let logits: Vec<f64> = (0..CLASSES).map(logit).collect();
        let total = logits.iter().map(|l| l.exp()).sum::<f64>();
        loss += total.ln() - logits[*label];
        right += f64::from(u8::from(logits.iter().all(|l| *l <= logits[*label])));
        for c in 0..CLASSES {
            let slope = logits[c].exp() / total - f64::from(u8::from(c == *label));
            let slope = slope / images.len() as f64;
            (0..INPUTS).for_each(|i| gradient[i * CLASSES + c] += slope * x[i]);
            gradient[INPUTS * CLASSES + c] += slope;
        }
    }
    (loss, right, gradient)
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// All metrics in the order of their names, after every `every` steps of sequential batches.
pub(super) fn trial(config: &TrialConfig, streams: &Streams, every: usize) -> Vec<Vec<f64>> {
    let data = data(config, streams);
    let train = &config.train;
    let mut stream = streams.open(Purpose::Head, b"head.weight");
    let mut w: Vec<f64> = (0..INPUTS * CLASSES).map(|_| (2.0 / INPUTS as f64).sqrt() * stream.normal()).collect();
    w.resize(ALL, 0.0);
    let mut v = vec![0.0; ALL];
    let (mut rows, mut loss, mut right) = (Vec::new(), 0.0, 0.0);
    let batches: Vec<_> = data.train.chunks_exact(train.batch_size as usize).collect();
    for step in 0..config.steps() as usize {
        let (l, r, gradient) = pass(&w, batches[step % batches.len()]);
        (loss, right) = (loss + l, right + r);
        let before = w.clone();
        for i in 0..ALL {
            v[i] = train.momentum * v[i] + gradient[i] + train.wd * w[i];
            w[i] -= train.lr * v[i];
        }
        if (step + 1) % every == 0 {
            let seen = (every * train.batch_size as usize) as f64;
            let (test_loss, test_right, _) = pass(&w, &data.test);
            let tests = data.test.len() as f64;
            let change: Vec<f64> = w.iter().zip(&before).map(|(a, b)| a - b).collect();
            let dot: f64 = w.iter().zip(&before).map(|(a, b)| a * b).sum();
            let cosine = dot / norm(&w) / norm(&before);
            rows.push(vec![
                loss / seen,
                right / seen,
                test_loss / tests,
                test_right / tests,
                norm(&w),
                norm(&w).powi(2),
                f64::NAN,
                norm(&gradient),
                norm(&change),
                cosine.acos(),
            ]);
            (loss, right) = (0.0, 0.0);
        }
    }
    rows
}
