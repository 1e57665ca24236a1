//! The loss of a batch, with its gradient.

use ergodic_common::config::Loss;

/// Losses and correct predictions of a pass over some images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LossTally {
    /// Sum of the losses that training minimizes.
    pub(crate) loss_sum: f64,
    /// Sum of the losses without label smoothing.
    pub(crate) unsmoothed_loss_sum: f64,
    /// Number of images classified correctly.
    pub(crate) correct: u64,
    /// Number of images.
    pub(crate) images: u64,
}

impl LossTally {
    /// Adds the tally of another pass.
    pub(crate) fn add(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.unsmoothed_loss_sum += other.unsmoothed_loss_sum;
        self.correct += other.correct;
        self.images += other.images;
    }

    /// Mean of the loss that training minimizes.
    pub(crate) fn mean_loss(&self) -> f64 {
        self.loss_sum / self.images as f64
    }

    /// Mean loss without label smoothing.
    pub(crate) fn mean_unsmoothed_loss(&self) -> f64 {
        self.unsmoothed_loss_sum / self.images as f64
    }

    /// Share of images classified correctly.
    pub(crate) fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

/// The training objective: a loss over a number of classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    pub(crate) classes: usize,
    pub(crate) loss: Loss,
}

/// The index of the largest number, the first of equal ones.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, c| if logits[c] > logits[best] { c } else { best })
}

impl Objective {
    /// Losses of images whose logits begin `stride` numbers apart.
    pub(crate) fn sum_losses(
        &self,
        logits: &[f32],
        stride: usize,
        labels: impl Iterator<Item = u8>,
    ) -> LossTally {
        let mut gradient = vec![0.0; self.classes];
        let mut tally = LossTally::default();
        for (logits, label) in logits.chunks_exact(stride).zip(labels) {
            tally.add(self.image_loss(&logits[..self.classes], usize::from(label), &mut gradient));
        }
        tally
    }

    /// Losses of images, and the gradient of `share` times their sum.
    pub(crate) fn sum_losses_with_gradient(
        &self,
        logits: &[f32],
        stride: usize,
        labels: impl Iterator<Item = u8>,
        share: f64,
        gradient: &mut [f32],
    ) -> LossTally {
        let mut image_gradient = vec![0.0; self.classes];
        let mut tally = LossTally::default();
        let images = logits
            .chunks_exact(stride)
            .zip(gradient.chunks_exact_mut(stride));
        for ((logits, gradient), label) in images.zip(labels) {
            let logits = &logits[..self.classes];
            tally.add(self.image_loss(logits, usize::from(label), &mut image_gradient));
            gradient
                .iter_mut()
                .zip(&image_gradient)
                .for_each(|(to, g)| *to = (g * share) as f32);
        }

        tally
    }

    /// Loss of one image; `gradient` receives its gradient.
    fn image_loss(&self, logits: &[f32], label: usize, gradient: &mut [f64]) -> LossTally {
        let best = argmax(logits);
        let (loss, plain) = match self.loss {
            Loss::CrossEntropy { smoothing } => {
                cross_entropy(logits, label, smoothing, best, gradient)
            }
            Loss::Mse => {
                let loss = squared_error(logits, label, gradient);
                (loss, loss)
            }
        };

        LossTally {
            loss_sum: loss,
            unsmoothed_loss_sum: plain,
            correct: u64::from(best == label),
            images: 1,
        }
    }
}

/// The cross-entropy to the target (1 − s)·one-hot + s/classes, and to the one-hot target. `gradient` receives the gradient of
/// the former.
fn cross_entropy(
    logits: &[f32],
    label: usize,
    smoothing: f64,
    best: usize,
    gradient: &mut [f64],
) -> (f64, f64) {
    let largest = logits[best];
    let mut sum = 0.0;
    for (logit, exp) in logits.iter().zip(gradient.iter_mut()) {
        *exp = f64::from(libm::expf(logit - largest));
        sum += *exp;
    }

    let label_logit = f64::from(logits[label] - largest);
    let mut target_logit = label_logit;
    let base = smoothing / logits.len() as f64;
    if smoothing > 0.0 {
        let all: f64 = logits.iter().map(|x| f64::from(x - largest)).sum();
        target_logit = (1.0 - smoothing) * target_logit + base * all;
    }

    for (c, g) in gradient.iter_mut().enumerate() {
        let target = if c == label {
            base + (1.0 - smoothing)
        } else {
            base
        };
        *g = *g / sum - target;
    }

    let log = libm::log(sum);
    (log - target_logit, log - label_logit)
}

/// The mean squared error to the one-hot target; `gradient` receives its gradient.
fn squared_error(logits: &[f32], label: usize, gradient: &mut [f64]) -> f64 {
    let share = 1.0 / logits.len() as f64;
    let mut sum = 0.0;
    for (c, g) in gradient.iter_mut().enumerate() {
        let off = f64::from(logits[c]) - f64::from(u8::from(c == label));
        sum += off * off;
        *g = 2.0 * off * share;
    }
    sum * share
}
