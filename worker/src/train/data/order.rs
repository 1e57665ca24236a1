//! The order of the training images.

use ergodic_common::config::{TrialConfig, VisitOrder};
use ergodic_common::random_streams::{Purpose, Streams};

/// The batches of a trial, step by step.
pub(crate) struct BatchSequence<'a> {
    streams: &'a Streams,
    order: VisitOrder,
    batch_size: usize,
    steps_per_epoch: u64,
    /// The subset in an epoch's order.
    epoch_indices: Vec<u32>,
    /// The epoch of that order, if the subset is shuffled.
    shuffled_epoch: Option<u64>,
    subset: &'a [u32],
}

impl<'a> BatchSequence<'a> {
    /// Batches of the images of `subset`.
    pub(crate) fn new(config: &TrialConfig, streams: &'a Streams, subset: &'a [u32]) -> Self {
        let order = config.data.order;
        let batch_size = config.effective_batch_size() as usize;
        Self {
            streams,
            order,
            batch_size,
            steps_per_epoch: config.steps_per_epoch(),
            epoch_indices: subset.to_vec(),
            shuffled_epoch: None,
            subset,
        }
    }

    /// The images of a step, counted from 0.
    pub(crate) fn indices_at(&mut self, step: u64) -> &[u32] {
        let epoch = step / self.steps_per_epoch;
        let within = (step % self.steps_per_epoch) as usize;

        match self.order {
            VisitOrder::FullBatch => return &self.epoch_indices,
            VisitOrder::Sequential => {}
            VisitOrder::Shuffle => self.shuffle_for(epoch),
            VisitOrder::WithReplacement => {
                self.draw_with_replacement(step);
                return &self.epoch_indices;
            }
        }

        &self.epoch_indices[within * self.batch_size..][..self.batch_size]
    }

    /// Shuffles the subset for an epoch, unless that is done.
    fn shuffle_for(&mut self, epoch: u64) {
        if self.shuffled_epoch == Some(epoch) {
            return;
        }

        self.epoch_indices.copy_from_slice(self.subset);
        self.streams
            .open_stream(Purpose::Order, &epoch.to_le_bytes())
            .shuffle(&mut self.epoch_indices);
        self.shuffled_epoch = Some(epoch);
    }

    fn draw_with_replacement(&mut self, step: u64) {
        let mut stream = self
            .streams
            .open_stream(Purpose::Order, &step.to_le_bytes());
        let n = self.subset.len() as u32;
        self.epoch_indices.clear();
        self.epoch_indices
            .extend((0..self.batch_size).map(|_| self.subset[stream.next_below(n) as usize]));
    }
}

#[cfg(test)]
mod tests {
    use crate::train::data::order::*;
    use crate::train::tests::cases;

    fn visited(order: VisitOrder, steps: u64) -> Vec<Vec<u32>> {
        let mut config = cases::mlp();
        (
            config.data.train,
            config.train.batch_size,
            config.data.order,
        ) = (10, 3, order);

        let streams = cases::streams(1);
        let subset = (100..110).collect::<Vec<_>>();
        let mut batches = BatchSequence::new(&config, &streams, &subset);
        (0..steps)
            .map(|step| batches.indices_at(step).to_vec())
            .collect()
    }

    #[test]
    fn a_shuffled_epoch_visits_images_once_and_drops_the_tail() {
        let steps = visited(VisitOrder::Shuffle, 6);
        for epoch in steps.chunks(3) {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            seen.dedup();
            assert!(
                seen.len() == 9 && seen.iter().all(|i| (100..110).contains(i)),
                "{epoch:?}"
            );
        }

        assert_ne!(steps[..3], steps[3..]);
    }

    #[test]
    fn a_permutation_does_not_depend_on_the_batch_size() {
        let mut config = cases::mlp();
        let streams = cases::streams(1);
        let subset = (0..12).collect::<Vec<_>>();
        let mut epoch = |batch| {
            (
                config.data.train,
                config.train.batch_size,
                config.data.order,
            ) = (12, batch, VisitOrder::Shuffle);
            let mut batches = BatchSequence::new(&config, &streams, &subset);
            (0..u64::from(12 / batch))
                .flat_map(|step| batches.indices_at(step).to_vec())
                .collect::<Vec<_>>()
        };

        assert_eq!(epoch(3), epoch(4));
    }

    #[test]
    fn the_other_orders_do_what_they_say() {
        assert_eq!(visited(VisitOrder::Sequential, 4)[3], [100, 101, 102]);
        assert_eq!(
            visited(VisitOrder::FullBatch, 2)[1],
            (100..110).collect::<Vec<_>>()
        );
        let drawn = visited(VisitOrder::WithReplacement, 100);
        assert!(drawn.iter().any(|b| b[0] == b[1]) && drawn[0] != drawn[3]);
        assert!(drawn.iter().all(|b| b.len() == 3));
    }
}
