//! Losses of images, and their gradients.

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainLoss {
    CrossEntropy { smoothing: f64 },
    SquaredError,
}

/// What an image's outputs should be: a class, or numbers if there are some.
#[derive(Clone)]
pub(super) struct PlainAnswer {
    pub(super) label: usize,
    pub(super) targets: Vec<f32>,
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
    answer: &PlainAnswer,
    batch: usize,
) -> (LossSums, Vec<f32>) {
    let mut best = 0;
    for c in 1..logits.len() {
        if logits[c] > logits[best] {
            best = c;
        }
    }

    let (loss, plain, by_logits) = match kind {
        PlainLoss::CrossEntropy { smoothing } => {
            compute_cross_entropy(smoothing, logits, (best, answer.label))
        }
        PlainLoss::SquaredError => compute_squared_error(logits, answer),
    };
    // An image with targets is never correct.
    let is_correct = answer.targets.is_empty() && best == answer.label;
    let share = 1.0 / batch as f64;
    let gradient = by_logits.iter().map(|g| (g * share) as f32).collect();
    let sums = LossSums {
        loss,
        plain,
        correct: if is_correct { 1.0 } else { 0.0 },
    };
    (sums, gradient)
}

/// The loss, the loss without smoothing, and the gradient by each logit.
fn compute_cross_entropy(
    smoothing: f64,
    logits: &[f32],
    (best, label): (usize, usize),
) -> (f64, f64, Vec<f64>) {
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

    let mut gradient = Vec::new();
    for (c, e) in exponentials.iter().enumerate() {
        let target = if c == label {
            base + (1.0 - smoothing)
        } else {
            base
        };
        gradient.push(e / sum - target);
    }
    let log = libm::log(sum);
    (log - target_logit, log - label_logit, gradient)
}

fn compute_squared_error(logits: &[f32], answer: &PlainAnswer) -> (f64, f64, Vec<f64>) {
    let share = 1.0 / logits.len() as f64;
    let mut sum = 0.0;
    let mut gradient = Vec::new();
    for (c, logit) in logits.iter().enumerate() {
        let of_class = if c == answer.label { 1.0 } else { 0.0 };
        let target = answer.targets.get(c).map_or(of_class, |t| f64::from(*t));
        let off = f64::from(*logit) - target;
        sum += off * off;
        gradient.push((2.0 * off) * share);
    }
    (sum * share, sum * share, gradient)
}
