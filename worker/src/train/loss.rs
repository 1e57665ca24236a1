//! Cross-entropy over a batch, with its gradient.

/// What a pass over some images gave.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    /// Sum of the losses, in nats.
    pub(super) loss: f64,
    /// Images classified rightly.
    pub(super) right: u64,
    /// Images.
    pub(super) images: u64,
}

impl Tally {
    /// Adds another pass.
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.right += other.right;
        self.images += other.images;
    }

    /// Mean loss.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Share of images classified rightly.
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.images as f64
    }
}

/// Cross-entropy with targets (1 − s)·one-hot + s/classes.
#[derive(Debug, Clone, Copy)]
pub(super) struct CrossEntropy {
    /// Number of classes.
    pub(super) classes: usize,
    /// s
    pub(super) smoothing: f64,
}

impl CrossEntropy {
    /// Loss of one image. `exps` receives e^(logit − largest), whose sum is returned last.
    fn image(&self, logits: &[f32], label: usize, exps: &mut [f64]) -> (Tally, f64) {
        let mut best = 0;
        for c in 1..self.classes {
            if logits[c] > logits[best] {
                best = c;
            }
        }
        let above = |c: usize| logits[c] - logits[best];
        let mut sum = 0.0;
        for (c, exp) in exps.iter_mut().enumerate() {
            *exp = f64::from(libm::expf(above(c)));
            sum += *exp;
        }
        let mut target = f64::from(above(label));
        if self.smoothing > 0.0 {
            let all: f64 = (0..self.classes).map(|c| f64::from(above(c))).sum();
            target = (1.0 - self.smoothing) * target + self.smoothing / self.classes as f64 * all;
        }
        (Tally { loss: libm::log(sum) - target, right: u64::from(best == label), images: 1 }, sum)
    }

    /// Losses of images whose logits stand `stride` apart.
    pub(super) fn evaluate(&self, logits: &[f32], stride: usize, labels: impl Iterator<Item = u8>) -> Tally {
        let mut exps = vec![0.0; self.classes];
        let mut tally = Tally::default();
        for (logits, label) in logits.chunks_exact(stride).zip(labels) {
            tally.add(self.image(logits, usize::from(label), &mut exps).0);
        }
        tally
    }

    /// Losses of images, and the gradient of `share` times their sum.
    pub(super) fn train(
        &self,
        logits: &[f32],
        stride: usize,
        labels: impl Iterator<Item = u8>,
        share: f64,
        gradient: &mut [f32],
    ) -> Tally {
        let mut exps = vec![0.0; self.classes];
        let mut tally = Tally::default();
        let base = self.smoothing / self.classes as f64;
        let images = logits.chunks_exact(stride).zip(gradient.chunks_exact_mut(stride));
        for ((logits, gradient), label) in images.zip(labels) {
            let label = usize::from(label);
            let (image, sum) = self.image(logits, label, &mut exps);
            tally.add(image);
            for (c, exp) in exps.iter().enumerate() {
                let target = if c == label { base + (1.0 - self.smoothing) } else { base };
                gradient[c] = ((exp / sum - target) * share) as f32;
            }
        }
        tally
    }
}
