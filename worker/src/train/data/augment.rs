//! Augmentation: random crops and flips of training images.

use ergodic_common::config::{Augment, MAX_CROP_SHIFT, TrialConfig, VisitOrder};
use ergodic_common::random_streams::{Purpose, RandomStream, Streams};

/// A window on an image, moved and perhaps mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageTransform {
    /// Pixels by which the window is moved down and right.
    down: i8,
    right: i8,
    /// Whether the window is mirrored left to right.
    mirrored: bool,
}

/// A shift along one axis, in pixels.
fn draw_shift(augment: Augment, stream: &mut RandomStream) -> i8 {
    match augment {
        Augment::CropFlip => stream.next_below(2 * MAX_CROP_SHIFT + 1) as i8 - MAX_CROP_SHIFT as i8,
        Augment::None | Augment::Flip => 0,
    }
}

impl ImageTransform {
    fn draw_random(augment: Augment, stream: &mut RandomStream) -> Self {
        let down = draw_shift(augment, stream);
        let right = draw_shift(augment, stream);
        Self {
            down,
            right,
            mirrored: augment != Augment::None && stream.next_below(2) == 1,
        }
    }

    /// The pixel of an image that is at (y, x) of the window, counted row by row; `None` outside the image.
    pub(crate) fn source_pixel(
        self,
        y: usize,
        x: usize,
        height: usize,
        width: usize,
    ) -> Option<usize> {
        let x = if self.mirrored { width - 1 - x } else { x };
        let y = y
            .checked_add_signed(isize::from(self.down))
            .filter(|y| *y < height)?;
        let x = x
            .checked_add_signed(isize::from(self.right))
            .filter(|x| *x < width)?;
        Some(y * width + x)
    }
}

/// Draws the transforms of `images` images; none where images are not augmented.
pub(crate) fn draw_transforms(
    augment: Augment,
    images: usize,
    stream: &mut RandomStream,
    into: &mut Vec<ImageTransform>,
) {
    into.clear();
    if augment != Augment::None {
        into.extend((0..images).map(|_| ImageTransform::draw_random(augment, stream)));
    }
}

/// The transforms of a trial, step by step. Like the order of images, they are drawn epoch by epoch, so that the n-th image of
/// an epoch is transformed alike for every batch size.
pub(crate) struct TransformSequence<'a> {
    streams: &'a Streams,
    augment: Augment,
    batch_size: usize,
    /// Steps whose transforms are drawn at once: an epoch, or one where images are drawn with replacement.
    steps_per_draw: u64,
    drawn_period: Option<u64>,
    transforms: Vec<ImageTransform>,
}

impl<'a> TransformSequence<'a> {
    pub(crate) fn new(config: &TrialConfig, streams: &'a Streams) -> Self {
        let steps_per_draw = if config.data.order == VisitOrder::WithReplacement {
            1
        } else {
            config.steps_per_epoch()
        };

        let augment = config.data.augment;
        let batch_size = config.effective_batch_size() as usize;
        Self {
            streams,
            augment,
            batch_size,
            steps_per_draw,
            drawn_period: None,
            transforms: Vec::new(),
        }
    }

    /// The transforms of a step, counted from 0; none where images are not augmented.
    pub(crate) fn transforms_at(&mut self, step: u64) -> &[ImageTransform] {
        if self.augment == Augment::None {
            return &[];
        }

        let period = step / self.steps_per_draw;
        let within = (step % self.steps_per_draw) as usize;

        if self.drawn_period != Some(period) {
            let mut stream = self
                .streams
                .open_stream(Purpose::Augment, &period.to_le_bytes());
            draw_transforms(
                self.augment,
                self.steps_per_draw as usize * self.batch_size,
                &mut stream,
                &mut self.transforms,
            );

            self.drawn_period = Some(period);
        }

        &self.transforms[within * self.batch_size..][..self.batch_size]
    }
}

#[cfg(test)]
mod tests {
    use crate::train::data::augment::*;
    use crate::train::tests::cases;

    #[test]
    fn a_window_shows_the_image_or_black() {
        let still = ImageTransform {
            down: 0,
            right: 0,
            mirrored: false,
        };
        assert_eq!(
            (0..6)
                .map(|i| still.source_pixel(i / 3, i % 3, 2, 3))
                .collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5].map(Some)
        );

        let mirrored = ImageTransform {
            mirrored: true,
            ..still
        };
        assert_eq!(
            (0..3)
                .map(|x| mirrored.source_pixel(1, x, 2, 3))
                .collect::<Vec<_>>(),
            [Some(5), Some(4), Some(3)]
        );

        let moved = ImageTransform {
            down: -1,
            right: 1,
            mirrored: false,
        };
        assert_eq!(moved.source_pixel(0, 0, 2, 3), None);

        assert_eq!(moved.source_pixel(1, 1, 2, 3), Some(2));
        assert_eq!(moved.source_pixel(1, 2, 2, 3), None);
    }

    #[test]
    fn moves_are_shared_by_batch_sizes_and_of_the_said_kinds() {
        let mut config = cases::mlp();
        let streams = cases::streams(3);
        let mut epoch = |augment, batch: u32, number: u64| {
            (
                config.data.train,
                config.train.batch_size,
                config.data.augment,
            ) = (600, batch, augment);
            let mut transforms = TransformSequence::new(&config, &streams);

            let steps = u64::from(600 / batch);
            (number * steps..(number + 1) * steps)
                .flat_map(|step| transforms.transforms_at(step).to_vec())
                .collect::<Vec<_>>()
        };
        let crops = epoch(Augment::CropFlip, 10, 1);
        assert_eq!(crops, epoch(Augment::CropFlip, 40, 1));

        assert_ne!(crops, epoch(Augment::CropFlip, 10, 2));
        assert!(
            (-4..=4)
                .all(|d| crops.iter().any(|m| m.down == d) && crops.iter().any(|m| m.right == d))
        );
        let share = crops.iter().filter(|m| m.mirrored).count();
        assert!((250..350).contains(&share), "{share}");

        let flips = epoch(Augment::Flip, 10, 0);
        assert!(
            flips.iter().all(|m| (m.down, m.right) == (0, 0)) && flips.iter().any(|m| m.mirrored)
        );
        assert!(epoch(Augment::None, 10, 0).is_empty());
    }
}
