//! Caveats of statistics: why some are missing, and the conditions under which intervals hold.

use ergodic_common::number_format::format_significant;

use super::statistic::{Statistic, StatisticInput, StatisticKind};

impl StatisticInput<'_> {
    /// Describes why statistics are missing or degenerate; empty if none are.
    pub fn describe_caveats(&self, asked: &[Statistic]) -> String {
        let spread = asked.iter().any(Statistic::needs_two_values);
        let intervals = asked.is_empty() || spread;
        let of_shares = asked
            .iter()
            .any(|statistic| matches!(statistic.kind, StatisticKind::ShareDiverged(_)));

        let mut notes = Vec::new();
        notes.extend(self.describe_missing_trials());
        notes.extend(self.describe_repeats(intervals, spread));
        notes.extend(self.describe_conditions(asked, intervals, of_shares));

        let trials = self.counts.completed + self.counts.diverged;
        let repeats = self.pooled_repeats.map(|repeats| repeats as u64);
        if of_shares
            && !self.completed.is_crossed()
            && repeats.is_some_and(|repeats| repeats < trials)
        {
            notes.push(
                "the interval of p_diverged treats trials of one repeat as independent".to_owned(),
            );
        }

        notes.extend(self.describe_values(asked, spread));
        notes.join("; ")
    }

    /// Explains why a group has no values, or fewer than trials.
    fn describe_missing_trials(&self) -> Option<String> {
        let n = self.completed.n() as u64;
        let counts = &self.counts;

        if counts.done() == 0 {
            Some("no trial has ended yet".to_owned())
        } else if counts.diverged == counts.done() {
            Some(if counts.diverged == 1 {
                "the one trial diverged".into()
            } else {
                format!("all {} diverged", counts.diverged)
            })
        } else if counts.completed == 0 {
            Some("no trial completed".to_owned())
        } else if n < counts.completed {
            Some(format!(
                "{} completed trials have no value here",
                counts.completed - n
            ))
        } else {
            None
        }
    }

    /// Explains which repeats an interval is based on, or why there is none.
    fn describe_repeats(&self, intervals: bool, spread: bool) -> Option<String> {
        let n = self.completed.n() as u64;
        let repeats = self.completed.repeat_clusters().map(<[_]>::len);

        match self.complete_repeats.filter(|_| n > 1 && intervals) {
            Some([whole @ ..=1, all]) => Some(format!(
                "only {whole} of {all} repeats have ended in all cells of the row: no interval"
            )),
            Some([whole, all]) => Some(format!(
                "the interval covers the {whole} of {all} repeats that have ended in all cells of the row"
            )),
            None if n > 1 && spread && repeats == Some(1) => {
                Some("values from one repeat only: no interval".to_owned())
            }
            None => None,
        }
    }

    /// Explains how the values themselves are degenerate.
    fn describe_values(&self, asked: &[Statistic], spread: bool) -> Vec<String> {
        let n = self.completed.n();
        let mut notes = Vec::new();

        if n == 1 && spread {
            notes.push("one value: no spread, no interval".to_owned());
        }
        if n > 1 && spread && self.completed.min() == self.completed.max() {
            notes.push("all values are equal".to_owned());
        }
        if self.completed.values().iter().any(|x| x.is_infinite()) {
            notes.push("a value is infinite, and so is the mean".to_owned());
        }
        if self.with_diverged.is_none() && asked.iter().any(Statistic::counts_diverged) {
            notes.push("a diverged trial has no value of this metric".to_owned());
        }

        notes
    }

    /// Explains the raised level of Student's intervals, by name. Bootstrap intervals keep their
    /// level.
    fn describe_widening(&self, asked: &[Statistic]) -> String {
        let all: Vec<String> = asked
            .iter()
            .filter_map(|statistic| match statistic.kind {
                StatisticKind::Interval(level) => Some(self.describe_level(&statistic.name, level)),
                StatisticKind::Bootstrap(_) => Some(format!("{} is not widened", statistic.name)),
                _ => None,
            })
            .collect();

        if all.is_empty() {
            self.describe_level("ci95", 0.95)
        } else {
            all.join(", ")
        }
    }

    fn describe_level(&self, name: &str, level: f64) -> String {
        format!(
            "{name} is Student's at {} %",
            format_significant(100.0 * self.adjusted_level(level), 4)
        )
    }

    /// Explains what intervals assume, and which are impossible.
    fn describe_conditions(
        &self,
        asked: &[Statistic],
        intervals: bool,
        of_shares: bool,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let sample = &self.completed;
        let resampled = asked.iter().any(Statistic::is_resampled);

        if intervals && sample.n() > 1 && !self.fixed_streams.is_empty() {
            notes.push(format!("given the fixed {}", self.fixed_streams));
        }

        if intervals && sample.n() > 1 && self.stops_early {
            notes.push(format!(
                "repeats stopped when the mean looked known: {}",
                self.describe_widening(asked)
            ));
        }

        if !sample.is_crossed() {
            return notes;
        }
        if intervals && sample.n() > 1 && sample.standard_error().is_none() {
            notes.push("too few levels of a crossed stream: no interval".into());
        }

        if resampled {
            notes.push(
                "repeats that share crossed streams cannot be resampled: no boot, use ci".into(),
            );
        }

        if of_shares {
            notes.push("trials share crossed streams: no interval of p_diverged".into());
        }

        notes
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::random_streams::fixed_stream;

    use super::*;
    use crate::estimators::Sample;
    use crate::records::OutcomeCounts;

    /// The caveats of p_diverged of a row with these trials.
    fn caveats_of_share(completed: &[f64], diverged: u64, pooled_repeats: Option<usize>) -> String {
        let input = StatisticInput {
            completed: Sample::new(completed.to_vec()),
            with_diverged: None,
            diverged_at: Sample::new(vec![1.0; diverged as usize]),
            counts: OutcomeCounts {
                completed: completed.len() as u64,
                diverged,
                ..OutcomeCounts::default()
            },
            open_resampling: &|| fixed_stream("caveats", 0),
            fixed_streams: "",
            stops_early: false,
            complete_repeats: None,
            pooled_repeats,
        };
        let share = Statistic::parse("p_diverged").expect("a statistic");
        input.describe_caveats(&[share])
    }

    #[test]
    fn trials_of_a_repeat_are_dependent_however_they_ended() {
        let words = "treats trials of one repeat as independent";
        for (completed, diverged) in [(&[][..], 6), (&[0.1], 5), (&[0.1, 0.2, 0.3, 0.4], 2)] {
            let note = caveats_of_share(completed, diverged, Some(3));
            assert!(note.contains(words), "{note}");
        }
        for (diverged, repeats) in [(3, Some(3)), (6, None)] {
            let note = caveats_of_share(&[], diverged, repeats);
            assert!(!note.contains(words), "{note}");
        }
    }
}
