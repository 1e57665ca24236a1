//! Read-only queries of the core.

use std::sync::Arc;

use ergodic_common::ids::{Epoch, Fence, SweepId, SweepNumber, WorkerId};
use ergodic_common::program::is_experiment_class;
use ergodic_common::{Spec, TrialKey};

use super::state::{Core, Worker};
use super::{Sweep, UnreadableSweep};
use crate::experiments::OfferedExperiment;
use crate::records::SweepRow;

/// Most workers that an explanation names.
const MAX_NAMED_WORKERS: usize = 5;

/// The location of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialLocation {
    /// The trial is pending, and no worker holds it.
    Pending,
    /// Nobody holds it, and it is to be run alone, because these workers crashed and may have been running it.
    Quarantined(Vec<String>),
    /// The trial is in a lease.
    Leased {
        /// The lease's fencing token.
        fence: Fence,
        /// Name of the worker that holds the lease; its id if it has not joined since the start.
        worker: String,
        /// Whether the worker last reported the trial as running.
        running: bool,
    },
    /// The trial has a row.
    Done,
    /// The stopping rule does not need this repeat so far, and perhaps never will.
    Unneeded,
}

/// The sweep that a word means.
#[derive(Debug, Clone, Copy)]
pub enum SweepMatch<'a> {
    /// This program can read the sweep.
    Readable(&'a Sweep),
    /// This program cannot read the sweep.
    Unreadable(&'a UnreadableSweep),
}

/// Why no sweep is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmatchedSweep {
    /// The latest one is meant, and there is none yet.
    NoneYet,
    /// No id is, or begins with, this.
    Unknown {
        /// What was given.
        word: String,
    },
    /// Several ids begin with this.
    Ambiguous {
        /// What was given.
        word: String,
        /// The id of the first such sweep.
        first: SweepId,
        /// The id of the second one.
        second: SweepId,
    },
}

impl Core {
    /// All sweeps that this program can read, in the order of launch.
    pub fn sweeps(&self) -> impl Iterator<Item = &Sweep> {
        self.sweeps.values()
    }

    /// Sweeps from this number on, in the order of launch.
    pub fn sweeps_from(&self, number: SweepNumber) -> impl Iterator<Item = &Sweep> {
        self.sweeps.range(number..).map(|(_, sweep)| sweep)
    }

    /// The sweep with this number.
    pub fn sweep(&self, number: SweepNumber) -> Option<&Sweep> {
        self.sweeps.get(&number)
    }

    /// Sweeps that this program cannot read, in the order of launch.
    pub fn unreadable_sweeps(&self) -> impl Iterator<Item = &UnreadableSweep> {
        self.unreadable.values()
    }

    /// Ids of sweeps that this program neither runs nor changes.
    pub fn untouched_sweep_ids(&self) -> impl Iterator<Item = &SweepId> {
        let shown = self
            .sweeps
            .values()
            .filter(|sweep| sweep.withheld.is_some())
            .map(|sweep| &sweep.id);
        shown.chain(self.unreadable.values().map(|sweep| &sweep.record.id))
    }

    /// The stored rows of all sweeps, in the order of launch.
    pub fn sweep_rows(&self) -> impl Iterator<Item = &Arc<SweepRow>> {
        let mut records: Vec<&Arc<SweepRow>> =
            self.sweeps.values().map(|sweep| &sweep.record).collect();
        records.extend(self.unreadable.values().map(|sweep| &sweep.record));
        records.sort_unstable_by_key(|record| record.number);
        records.into_iter()
    }

    /// The sweep meant by an id, a unique prefix of one, or "latest", if it is one that can be read.
    pub fn find_sweep(&self, word: &str) -> Option<&Sweep> {
        match self.find_any_sweep(word) {
            Ok(SweepMatch::Readable(sweep)) => Some(sweep),
            Ok(SweepMatch::Unreadable(_)) | Err(_) => None,
        }
    }

    /// The sweep meant by an id, a unique prefix of one, or "latest", whether it can be read or not.
    ///
    /// # Errors
    /// None or several are meant.
    pub fn find_any_sweep(&self, word: &str) -> Result<SweepMatch<'_>, UnmatchedSweep> {
        if word == "latest" {
            let last = self.sweep_rows().last();
            return last
                .map(|record| self.match_record(record))
                .ok_or(UnmatchedSweep::NoneYet);
        }

        let mut matching = self
            .sweep_rows()
            .filter(|record| !word.is_empty() && record.id.starts_with(word));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(self.match_record(record)),
            (None, _) => Err(UnmatchedSweep::Unknown {
                word: word.to_owned(),
            }),
            (Some(first), Some(second)) => Err(UnmatchedSweep::Ambiguous {
                word: word.to_owned(),
                first: first.id.clone(),
                second: second.id.clone(),
            }),
        }
    }

    /// The sweep of a record that the core has.
    fn match_record(&self, record: &SweepRow) -> SweepMatch<'_> {
        match self.unreadable.get(&record.number) {
            Some(unreadable) => SweepMatch::Unreadable(unreadable),
            None => SweepMatch::Readable(&self.sweeps[&record.number]),
        }
    }

    /// Number of leases in force.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The epoch of the leadership: how often a coordinator began to lead on the store.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All known workers.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerId, &Worker)> {
        self.workers.iter()
    }

    /// Number of connected workers that can run a sweep, and number of their slots.
    pub fn capacity_for(&self, spec: &Spec) -> (u32, u32) {
        let able = self.able_workers(spec);
        able.fold((0, 0), |(workers, slots), w| (workers + 1, slots + w.slots))
    }

    /// Connected workers that can run a sweep.
    pub(super) fn able_workers(&self, spec: &Spec) -> impl Iterator<Item = &Worker> {
        let now = self.latest_time();
        let stay = self.workers.values().filter(move |w| w.begins_trials(now));
        stay.filter(|w| w.connected && w.is_of_use_for(spec))
    }

    /// The names of the first workers that can run the sweep of an experiment, in alphabetical order; none of other sweeps, which
    /// every worker program knows.
    pub(super) fn name_holders(&self, spec: &Spec) -> Vec<String> {
        if !is_experiment_class(&spec.numerics) {
            return Vec::new();
        }
        let mut names: Vec<String> = self.able_workers(spec).map(|w| w.name.clone()).collect();
        names.sort_unstable();
        names.truncate(MAX_NAMED_WORKERS);
        names
    }

    /// The experiments of connected workers, each once, with the workers that have it. One version is there several times if
    /// workers announce different ones.
    pub fn offered_experiments(&self) -> Vec<OfferedExperiment> {
        let mut offered: Vec<OfferedExperiment> = Vec::new();
        for worker in self.workers.values().filter(|w| w.connected) {
            for one in &worker.experiments {
                let known = offered.iter_mut().find(|known| known.experiment == *one);
                match known {
                    Some(known) => known.workers.push(worker.name.clone()),
                    None => offered.push(OfferedExperiment {
                        experiment: one.clone(),
                        workers: vec![worker.name.clone()],
                    }),
                }
            }
        }
        offered
    }

    /// Number of trials of a sweep that connected workers can run at a time.
    pub(super) fn count_parallel_trials(&self, spec: &Spec) -> u32 {
        let able = self.able_workers(spec);
        able.map(|worker| worker.parallel_trials(spec)).sum()
    }

    /// The location of a trial of a running sweep.
    pub fn locate_trial(&self, sweep: &Sweep, key: TrialKey) -> TrialLocation {
        let index = sweep.spec.grid.locate_trial(key);
        if !sweep.needs_trial(key) {
            return TrialLocation::Unneeded;
        }
        if sweep.has_pending_trial(index) {
            return TrialLocation::Pending;
        }

        if sweep.quarantine.is_waiting(index) {
            return TrialLocation::Quarantined(
                sweep.quarantine.crashed_workers(index).cloned().collect(),
            );
        }

        self.locate_in_lease(sweep, key, false)
            .unwrap_or(TrialLocation::Done)
    }

    /// Whether a trial should run and has no row.
    pub(super) fn is_unfinished(&self, sweep: &Sweep, key: TrialKey) -> bool {
        !matches!(
            self.locate_trial(sweep, key),
            TrialLocation::Done | TrialLocation::Unneeded
        )
    }

    /// The location of a trial's audit; `Done` if it was made or none is due.
    pub fn locate_audit(&self, sweep: &Sweep, key: TrialKey) -> TrialLocation {
        let index = sweep.spec.grid.locate_trial(key);
        let killed: Vec<String> = sweep
            .audits
            .quarantine
            .crashed_workers(index)
            .cloned()
            .collect();

        match sweep.audits.is_waiting(index) {
            true if killed.is_empty() => TrialLocation::Pending,
            true => TrialLocation::Quarantined(killed),
            false => self
                .locate_in_lease(sweep, key, true)
                .unwrap_or(TrialLocation::Done),
        }
    }

    /// The lease with a trial or, if `audit` is set, with its audit.
    fn locate_in_lease(&self, sweep: &Sweep, key: TrialKey, audit: bool) -> Option<TrialLocation> {
        let index = sweep.spec.grid.locate_trial(key);
        let mut of_class = self.leases.of_class(sweep.number, index.class);
        let lease =
            of_class.find(|lease| lease.row.audits.is_some() == audit && lease.row.holds(index))?;
        let worker = self.workers.get(&lease.row.worker);
        Some(TrialLocation::Leased {
            fence: lease.row.fence,
            worker: worker.map_or_else(|| lease.row.worker.to_string(), |w| w.name.clone()),
            running: worker.is_some_and(|w| w.running.contains(&(lease.row.fence.lease, key))),
        })
    }
}
