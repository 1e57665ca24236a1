//! The loss of a batch, with its gradient.

use ergodic_common::config::Loss;
use ergodic_common::dataset::Target;

/// Losses and correct predictions of a pass over some images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LossTally {
    /// Sum of the losses that training minimizes.
    pub(crate) loss_sum: f64,
    /// Sum of the losses without label smoothing.
    pub(crate) unsmoothed_loss_sum: f64,
    /// Number of images classified correctly; 0 for images with targets.
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

    /// The tally of an image whose plain loss is the one that training minimizes.
    fn of_image(loss: f64, is_correct: bool) -> Self {
        Self {
            loss_sum: loss,
            unsmoothed_loss_sum: loss,
            correct: u64::from(is_correct),
            images: 1,
        }
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

/// The training objective: a loss over a number of outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    pub(crate) outputs: usize,
    pub(crate) loss: Loss,
}

/// The index of the largest number, the first of equal ones.
pub(crate) fn argmax(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, c| if logits[c] > logits[best] { c } else { best })
}

impl Objective {
    /// Losses of images whose logits begin `stride` numbers apart.
    pub(crate) fn sum_losses<'a>(
        &self,
        logits: &[f32],
        stride: usize,
        targets: impl Iterator<Item = Target<'a>>,
    ) -> LossTally {
        let mut gradient = vec![0.0; self.outputs];
        let mut tally = LossTally::default();
        for (logits, target) in logits.chunks_exact(stride).zip(targets) {
            tally.add(self.image_loss(&logits[..self.outputs], target, &mut gradient));
        }
        tally
    }

    /// Losses of images, and the gradient of `share` times their sum.
    pub(crate) fn sum_losses_with_gradient<'a>(
        &self,
        logits: &[f32],
        stride: usize,
        targets: impl Iterator<Item = Target<'a>>,
        share: f64,
        gradient: &mut [f32],
    ) -> LossTally {
        let mut image_gradient = vec![0.0; self.outputs];
        let mut tally = LossTally::default();
        let images = logits
            .chunks_exact(stride)
            .zip(gradient.chunks_exact_mut(stride));
        for ((logits, gradient), target) in images.zip(targets) {
            let logits = &logits[..self.outputs];
            tally.add(self.image_loss(logits, target, &mut image_gradient));
            gradient
                .iter_mut()
                .zip(&image_gradient)
                .for_each(|(to, g)| *to = (g * share) as f32);
        }

        tally
    }

    /// Loss of one image; `gradient` receives its gradient.
    fn image_loss(&self, logits: &[f32], target: Target<'_>, gradient: &mut [f64]) -> LossTally {
        let label = match target {
            Target::Label(label) => usize::from(label),
            Target::Numbers(numbers) => {
                let numbers = numbers.iter().map(|x| f64::from(*x));
                return LossTally::of_image(squared_error(logits, numbers, gradient), false);
            }
        };

        let best = argmax(logits);
        match self.loss {
            Loss::CrossEntropy { smoothing } => {
                let (loss, plain) = cross_entropy(logits, label, smoothing, best, gradient);
                LossTally {
                    unsmoothed_loss_sum: plain,
                    ..LossTally::of_image(loss, best == label)
                }
            }
            Loss::Mse => {
                let one_hot = (0..logits.len()).map(|c| f64::from(u8::from(c == label)));
                LossTally::of_image(squared_error(logits, one_hot, gradient), best == label)
            }
        }
    }

    /// The numbers that outputs are compared with: the targets of an image, or the smoothed distribution over classes.
    pub(crate) fn target_numbers<'a>(
        &self,
        target: Target<'a>,
    ) -> impl Iterator<Item = f64> + use<'a> {
        let smoothing = match self.loss {
            Loss::CrossEntropy { smoothing } => smoothing,
            Loss::Mse => 0.0,
        };
        let base = smoothing / self.outputs as f64;
        (0..self.outputs).map(move |output| match target {
            Target::Numbers(numbers) => f64::from(numbers[output]),
            Target::Label(label) if usize::from(label) == output => base + (1.0 - smoothing),
            Target::Label(_) => base,
        })
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

/// The mean squared error to the targets; `gradient` receives its gradient.
fn squared_error(logits: &[f32], targets: impl Iterator<Item = f64>, gradient: &mut [f64]) -> f64 {
    let share = 1.0 / logits.len() as f64;
    let mut sum = 0.0;
    for ((logit, target), g) in logits.iter().zip(targets).zip(gradient) {
        let off = f64::from(*logit) - target;
        sum += off * off;
        *g = 2.0 * off * share;
    }
    sum * share
}
