//! Losses of images, and their gradients.

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainLoss {
    CrossEntropy { smoothing: f64 },
}

/// Sums over images.
#[derive(Clone, Copy, Default)]
pub(super) struct LossSums {
    pub(super) loss: f64,
    pub(super) plain: f64,
    pub(super) correct: f64,
}

impl LossSums {
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.plain += other.plain;
        self.correct += other.correct;
    }
}

/// The losses of one image, and the gradient of each logit in a batch of so many.
pub(super) fn compute_image_loss(
    kind: PlainLoss,
    logits: &[f32],
    label: usize,
    batch: usize,
) -> (LossSums, Vec<f32>) {
    let PlainLoss::CrossEntropy { smoothing } = kind;
    let mut best = 0;
    for c in 1..logits.len() {
        if logits[c] > logits[best] {
            best = c;
        }
    }

    let mut sum = 0.0;
    let mut exponentials = Vec::new();
    for logit in logits {
        let e = f64::from(libm::expf(logit - logits[best]));
        sum += e;
        exponentials.push(e);
    }

    let label_logit = f64::from(logits[label] - logits[best]);
    let base = smoothing / logits.len() as f64;
    let mut target_logit = label_logit;
    if smoothing > 0.0 {
        let all: f64 = logits.iter().map(|l| f64::from(l - logits[best])).sum();
        target_logit = (1.0 - smoothing) * label_logit + base * all;
    }

    let share = 1.0 / batch as f64;
    let mut gradient = Vec::new();
    for (c, e) in exponentials.iter().enumerate() {
        let target = if c == label {
            base + (1.0 - smoothing)
        } else {
            base
        };
        gradient.push(((e / sum - target) * share) as f32);
    }

    let log = libm::log(sum);
    let sums = LossSums {
        loss: log - target_logit,
        plain: log - label_logit,
        correct: if best == label { 1.0 } else { 0.0 },
    };
    (sums, gradient)
}
