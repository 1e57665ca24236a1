//! How many images a sample evaluates.

use crate::config::TrialConfig;
use crate::metric::MeasurementPass;
use crate::spec::{EvalStatistics, Measure};

impl Measure {
    /// Number of images that are evaluated for one sample of a trial: those of the test set and of the validation images, and the
    /// training images if batch-norm statistics are re-estimated. Averaged weights have statistics of their own.
    pub fn evaluated_images(&self, config: &TrialConfig) -> u64 {
        let own = self.count_images(
            config,
            [MeasurementPass::Test, MeasurementPass::Validation],
            self.statistics == EvalStatistics::ReEstimated,
        );
        let averaged = [
            MeasurementPass::AverageTest,
            MeasurementPass::AverageValidation,
        ];
        match config.train.average {
            Some(_) => own + self.count_images(config, averaged, true),
            None => own,
        }
    }

    /// Number of images that one set of weights is evaluated on.
    fn count_images(
        &self,
        config: &TrialConfig,
        [test, validation]: [MeasurementPass; 2],
        re_estimates: bool,
    ) -> u64 {
        let data = &config.data;
        let evaluated = [
            (self.needs_pass(test), data.test),
            (self.needs_pass(validation), data.validation),
        ];
        let evaluated = evaluated.into_iter().filter(|(needed, _)| *needed);
        let mut counts: Vec<u32> = evaluated.map(|(_, images)| images).collect();

        if re_estimates && !counts.is_empty() {
            counts.push(data.train);
        }
        counts.into_iter().map(u64::from).sum()
    }
}
