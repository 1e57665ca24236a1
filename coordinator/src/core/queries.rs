//! Questions to the core that change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ergodic_common::duration::format_duration;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};
use ergodic_common::spec_file::node::format_shortest;
use ergodic_common::{Spec, TrialKey};

use super::audits::AuditCounts;
use super::quarantine::CRASH_LIMIT;
use super::stopping::{AdaptiveRepeats, PrecisionRepeats, SuccessiveHalving};
use super::{Core, Fence, Sweep, SweepRow, SweepState, UnreadableSweep, Worker, WorkerId};

/// Where a trial is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialLocation {
    /// Nobody holds it.
    Pending,
    /// Nobody holds it, and it is to be run alone, because these workers died with it in flight.
    Quarantined(Vec<String>),
    /// In a lease.
    Leased {
        /// Which.
        fence: Fence,
        /// Who holds it.
        worker: String,
        /// Whether the worker said that it is running it.
        running: bool,
    },
    /// It has a row.
    Done,
    /// Its cell has not come to so many repeats, and perhaps never will.
    Unneeded,
}

/// A sweep that is meant.
#[derive(Debug, Clone, Copy)]
pub enum SweepMatch<'a> {
    /// As it is.
    Readable(&'a Sweep),
    /// One that cannot be read.
    Unreadable(&'a UnreadableSweep),
}

impl Core {
    /// All sweeps that can be read, in the order of launch.
    pub fn sweeps(&self) -> impl Iterator<Item = &Sweep> {
        self.sweeps.values()
    }

    /// Sweeps from this number on, in the order of launch.
    pub fn sweeps_from(&self, number: i64) -> impl Iterator<Item = &Sweep> {
        self.sweeps.range(number..).map(|(_, sweep)| sweep)
    }

    /// The sweep of this number.
    pub fn sweep(&self, number: i64) -> Option<&Sweep> {
        self.sweeps.get(&number)
    }

    /// Sweeps that cannot be read, in the order of launch.
    pub fn unreadable_sweeps(&self) -> impl Iterator<Item = &UnreadableSweep> {
        self.unreadable.values()
    }

    /// Ids of sweeps that this program neither runs nor changes.
    pub fn untouched_sweep_ids(&self) -> impl Iterator<Item = &String> {
        let shown = self.sweeps.values().filter(|sweep| sweep.withheld.is_some()).map(|sweep| &sweep.id);
        shown.chain(self.unreadable.values().map(|sweep| &sweep.record.id))
    }

    /// All sweeps as they are stored, in the order of launch.
    pub fn sweep_rows(&self) -> impl Iterator<Item = &Arc<SweepRow>> {
        let mut records: Vec<&Arc<SweepRow>> = self.sweeps.values().map(|sweep| &sweep.record).collect();
        records.extend(self.unreadable.values().map(|sweep| &sweep.record));
        records.sort_unstable_by_key(|record| record.number);
        records.into_iter()
    }

    /// The sweep meant by an id, a unique prefix of one, or "latest".
    ///
    /// # Errors
    /// None or several are meant, or one that cannot be read, in words.
    pub fn find_sweep(&self, id: &str) -> Result<&Sweep, String> {
        match self.find_any_sweep(id)? {
            SweepMatch::Readable(sweep) => Ok(sweep),
            SweepMatch::Unreadable(UnreadableSweep { record, why }) => {
                Err(format!("the sweep {} cannot be read by this program: {why}", record.id))
            }
        }
    }

    /// The sweep meant by an id, whether it can be read or not.
    ///
    /// # Errors
    /// None or several are meant, in words.
    pub fn find_any_sweep(&self, id: &str) -> Result<SweepMatch<'_>, String> {
        let meant = |record: &Arc<SweepRow>| match self.unreadable.get(&record.number) {
            Some(unreadable) => SweepMatch::Unreadable(unreadable),
            None => SweepMatch::Readable(&self.sweeps[&record.number]),
        };
        if id == "latest" {
            return self.sweep_rows().last().map(meant).ok_or_else(|| "there is no sweep yet: launch one".to_owned());
        }
        let mut matching = self.sweep_rows().filter(|record| !id.is_empty() && record.id.starts_with(id));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(meant(record)),
            (None, _) => Err(format!("there is no sweep '{id}'; `ergodic list` shows all")),
            (Some(a), Some(b)) => Err(format!("'{id}' is the beginning of {} and of {}: give more of it", a.id, b.id)),
        }
    }

    /// Number of leases in force.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// How often a coordinator was started on the store.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All workers.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerId, &Worker)> {
        self.workers.iter()
    }

    /// Connected workers that can run a sweep, and their slots.
    pub fn capacity_for(&self, spec: &Spec) -> (u32, u32) {
        let able = self.workers.values().filter(|w| w.connected && w.numerics.contains(&spec.numerics));
        able.fold((0, 0), |(workers, slots), w| (workers + 1, slots + w.slots))
    }

    /// Where a trial of a running sweep is.
    pub fn locate_trial(&self, sweep: &Sweep, key: TrialKey) -> TrialLocation {
        let (class, n) = sweep.spec.grid.locate_trial(key);
        if !sweep.needs_trial(key) {
            return TrialLocation::Unneeded;
        }
        if sweep.classes[class as usize].pending.contains(n) {
            return TrialLocation::Pending;
        }
        if sweep.quarantine.is_waiting((class, n)) {
            return TrialLocation::Quarantined(sweep.quarantine.crashed_workers((class, n)).cloned().collect());
        }
        self.locate_in_lease(sweep, key, false).unwrap_or(TrialLocation::Done)
    }

    /// Whether a trial is to be run and has no row.
    pub(super) fn is_unfinished(&self, sweep: &Sweep, key: TrialKey) -> bool {
        !matches!(self.locate_trial(sweep, key), TrialLocation::Done | TrialLocation::Unneeded)
    }

    /// Where the audit of a trial is: done if it was made, or none is due.
    pub fn locate_audit(&self, sweep: &Sweep, key: TrialKey) -> TrialLocation {
        let place = sweep.spec.grid.locate_trial(key);
        let killed: Vec<String> = sweep.audits.quarantine.crashed_workers(place).cloned().collect();
        match sweep.audits.is_waiting(place) {
            true if killed.is_empty() => TrialLocation::Pending,
            true => TrialLocation::Quarantined(killed),
            false => self.locate_in_lease(sweep, key, true).unwrap_or(TrialLocation::Done),
        }
    }

    /// The lease that a trial, or its audit, is in.
    fn locate_in_lease(&self, sweep: &Sweep, key: TrialKey, audit: bool) -> Option<TrialLocation> {
        let (class, n) = sweep.spec.grid.locate_trial(key);
        let holds = |l: &&super::LeaseState| {
            let of_class = l.row.sweep == sweep.number && l.row.class == class;
            of_class && l.row.audits.is_some() == audit && l.row.trials.contains(n)
        };
        let lease = self.leases.values().find(holds)?;
        let worker = self.workers.get(&lease.row.worker);
        Some(TrialLocation::Leased {
            fence: lease.row.fence,
            worker: worker.map_or_else(|| lease.row.worker.clone(), |w| w.name.clone()),
            running: worker.is_some_and(|w| w.running.contains(&(lease.row.fence.lease, key))),
        })
    }

    /// Why a sweep is where it is, one finding per line.
    pub fn explain_sweep(&self, sweep: &Sweep) -> Vec<String> {
        let total = sweep.total_trials();
        let done = sweep.counts.done();
        let mut lines = vec![format!(
            "{} of {total} trials have a row ({} completed, {} diverged, {} failed); {} are in leases, {} wait.",
            done,
            sweep.counts.completed,
            sweep.counts.diverged,
            sweep.counts.failed,
            sweep.leased,
            total.saturating_sub(done + sweep.leased)
        )];
        if let Some(why) = &sweep.withheld {
            lines.push(format!("The sweep is only shown, and nothing of it is run or changed: {why}."));
        }
        match sweep.state {
            SweepState::Running if sweep.withheld.is_some() => {}
            SweepState::Completed => lines.push("The sweep is complete.".into()),
            SweepState::Cancelled => lines.push("The sweep was cancelled: nothing more is run.".into()),
            SweepState::Running => self.explain_running(sweep, &mut lines),
            SweepState::Paused => lines.push(format!(
                "The sweep is paused: what is in leases is finished, and nothing more is given out until `ergodic resume {}`.",
                sweep.id
            )),
        }
        if let Some(limit) = sweep.spec.scheduling.time_limit.filter(|_| sweep.state.is_open()) {
            lines.push(format!("A trial that takes longer than {} is broken off and fails.", format_duration(limit)));
        }
        lines.extend(explain_adaptive_repeats(sweep));
        lines.extend(explain_audits(sweep));
        if sweep.tallies.mismatches > 0 {
            lines.push(format!(
                "ALARM: {} results differed from rows stored earlier, though every trial should yield the same bits.",
                sweep.tallies.mismatches
            ));
        }
        lines
    }

    fn explain_running(&self, sweep: &Sweep, lines: &mut Vec<String>) {
        let (able, slots) = self.capacity_for(&sweep.spec);
        let connected = self.workers.values().filter(|w| w.connected).count() as u32;
        if connected == 0 {
            lines.push("No worker is joined: start one with `ergodic-worker --join URL`.".into());
        } else if able == 0 {
            let mut offered: BTreeMap<&str, u32> = BTreeMap::new();
            self.workers.values().flat_map(|w| &w.numerics).for_each(|n| *offered.entry(n).or_default() += 1);
            let offered: Vec<String> = offered.iter().map(|(n, count)| format!("{n} ({count})")).collect();
            lines.push(format!(
                "No joined worker offers the numerics class {} that the sweep is pinned to; offered: {}.",
                sweep.spec.numerics,
                offered.join(", ")
            ));
            let engine = |class: &str| class.split('/').next().unwrap_or_default().to_owned();
            let ours = engine(&sweep.spec.numerics);
            if self.workers.values().flat_map(|w| &w.numerics).any(|class| engine(class) == ours) {
                lines.push(
                    "That is another version of the same engine, and bits of different versions are not mixed in a sweep: for \
                     what is missing of it, join a worker of the version that it was launched with, or launch its file again, as a sweep \
                     of the version that is offered. Its rows stay as they are."
                        .into(),
                );
            }
        } else {
            lines.push(format!("{able} workers with {slots} slots can run it."));
        }
        for lease in self.leases.values().filter(|l| l.row.sweep == sweep.number) {
            if let Some(worker) = self.workers.get(&lease.row.worker).filter(|w| !w.connected) {
                lines.push(format!(
                    "{} is away and holds {} trials; they are given out again when its lease ends.",
                    worker.name,
                    lease.row.trials.len()
                ));
            }
        }
        if sweep.quarantine.waiting_count() > 0 {
            lines.push(format!(
                "{} trials were in flight when workers died, more than once: each is run again at the end, alone; after \
                 {CRASH_LIMIT} dead workers it is given up.",
                sweep.quarantine.waiting_count()
            ));
        }
        for worker in self.workers.values().filter(|w| w.connected) {
            if let Some((_, why)) = worker.unable_sweeps.get(&sweep.number) {
                lines.push(format!("{} cannot work on it: {why}", worker.name));
            }
        }
        self.explain_share(sweep, lines);
    }

    fn explain_share(&self, sweep: &Sweep, lines: &mut Vec<String>) {
        let rivals = self.rival_sweeps(sweep);
        let ids = |which: &dyn Fn(i32) -> bool| {
            let rivals = rivals.iter().filter(|rival| which(rival.share.priority));
            rivals.map(|rival| rival.id.as_str()).collect::<Vec<_>>().join(", ")
        };
        let Share { priority, weight } = sweep.share;
        let (before, beside) = (ids(&|other| other > priority), ids(&|other| other == priority));
        if !before.is_empty() {
            lines.push(format!("Its priority is {priority}; of a higher one, and first, are: {before}."));
        }
        if !beside.is_empty() {
            lines.push(format!("Its weight is {}; it shares workers with: {beside}.", format_shortest(weight)));
        }
    }

    /// Checks the invariant that every trial is in exactly one place.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.sweeps.values().filter(|sweep| sweep.withheld.is_none()).try_for_each(|sweep| self.check_sweep(sweep))
    }

    /// The same of one sweep.
    pub(super) fn check_sweep(&self, sweep: &Sweep) -> Result<(), String> {
        let pending: u64 = sweep.classes.iter().map(|c| c.pending.len()).sum();
        let all = || self.leases.values().filter(|l| l.row.sweep == sweep.number);
        let of_sweep = || all().filter(|l| l.row.audits.is_none());
        let leased: u64 = of_sweep().map(|l| l.row.trials.len()).sum();
        if leased != sweep.leased {
            return Err(format!("{}: {leased} trials in leases, {} counted", sweep.id, sweep.leased));
        }
        let sum = pending + sweep.quarantine.waiting_count() + leased + sweep.counts.done();
        if sum != sweep.total_trials() {
            return Err(format!("{}: {sum} trials accounted for, of {}", sweep.id, sweep.total_trials()));
        }
        let useless = |key: &&TrialKey| !sweep.state.is_open() || !self.is_unfinished(sweep, **key);
        if let Some(key) = sweep.checkpoints.keys().find(useless) {
            return Err(format!("{}: a checkpoint of {key} is kept, which is not unfinished", sweep.id));
        }
        for lease in of_sweep() {
            let pending = &sweep.classes[lease.row.class as usize].pending;
            let elsewhere = |n: u64| pending.contains(n) || sweep.quarantine.is_waiting((lease.row.class, n));
            if let Some(n) = lease.row.trials.iter().find(|n| elsewhere(*n)) {
                return Err(format!("{}: trial {n} waits and is leased", sweep.id));
            }
        }
        self.check_audits(sweep)
    }
}

impl Core {
    /// Every audit that is not settled waits or is in one lease, which is not that of the process whose row it is.
    fn check_audits(&self, sweep: &Sweep) -> Result<(), String> {
        let of_sweep = || self.leases.values().filter(|l| l.row.sweep == sweep.number);
        let audits = || of_sweep().filter(|l| l.row.audits.is_some());
        let leased: u64 = audits().map(|l| l.row.trials.len()).sum();
        let (waiting, left) = (sweep.audits.waiting_count(), sweep.audits.counts.remaining());
        if leased != sweep.audits.leased || waiting + leased != left {
            let counted = sweep.audits.leased;
            return Err(format!("{}: {left} audits left, {waiting} wait, {leased} leased ({counted})", sweep.id));
        }
        match audits().find(|l| l.row.audits.as_ref() == Some(&l.row.worker)) {
            Some(lease) => Err(format!("{}: {} audits itself", sweep.id, lease.row.worker)),
            None => Ok(()),
        }
    }
}

/// How far its cells are, if that decides how often they are repeated.
fn explain_adaptive_repeats(sweep: &Sweep) -> Option<String> {
    let until = sweep.spec.stopping_rule.as_ref()?;
    match (sweep.adaptive_repeats.as_ref()?, until.criterion) {
        (AdaptiveRepeats::Precision(growth), StoppingCriterion::Precision { ci95 }) => {
            Some(explain_precision(sweep, growth, until, ci95))
        }
        (AdaptiveRepeats::Halving(growth), StoppingCriterion::Halving { factor }) => {
            Some(explain_halving(sweep, growth, until, factor))
        }
        _ => None,
    }
}

fn explain_precision(sweep: &Sweep, growth: &PrecisionRepeats, until: &StoppingRule, ci95: f64) -> String {
    let (standing, cells, name) = (growth.progress(), sweep.spec.grid.cell_count(), until.metric.name());
    let (known, open) = (standing.count_known_cells(), standing.count_open_cells(cells));
    let ci95 = format_shortest(ci95);
    let mut line = format!("{known} of {cells} cells know the mean of {name} to ± {ci95}");
    if known > 0 {
        let parts: Vec<String> = standing.reached_cells.iter().map(|(n, cells)| format!("{cells} at {n}")).collect();
        line += &format!(" (cells at so many repeats: {})", parts.join(", "));
    }
    if standing.exhausted_cells > 0 {
        line += &format!("; not even with all {} repeats: {}", sweep.spec.repeats, standing.exhausted_cells);
    }
    if open > 0 {
        let expected = sweep.expected_trials();
        line += &format!("; {open} go on, by their spread so far to about {expected} trials of the sweep in all");
    }
    line + "."
}

fn explain_halving(sweep: &Sweep, growth: &SuccessiveHalving, until: &StoppingRule, factor: u32) -> String {
    let (cells, name, rung) = (sweep.spec.grid.cell_count(), until.metric.name(), growth.current_rung());
    let (standing, ready) = growth.rung_progress();
    let climb = match standing {
        all if all == cells => format!("all {cells} cells are"),
        1 => format!("the best of {cells} cells is"),
        best => format!("the {best} best of {cells} cells are"),
    };
    let then = match rung < sweep.spec.repeats {
        true => format!("; then one in {factor} goes on, by the mean of {name}"),
        false => String::new(),
    };
    format!("By successive halving, {climb} repeated {rung} times ({ready} of {standing} done){then}.")
}

/// How far a sweep's audits are, if it has any.
fn explain_audits(sweep: &Sweep) -> Option<String> {
    let AuditCounts { due, same, different, failed } = sweep.audits.counts;
    // Trials whose files were lost are audited, too.
    if sweep.spec.scheduling.audit_share == 0.0 && due == 0 {
        return None;
    }
    let made = format!(
        "Audit: {} of {due} trials were run again by another worker process",
        due - sweep.audits.counts.remaining()
    );
    let found = format!("{same} yielded the same bits, {different} others, {failed} failed");
    let rest = match (sweep.audits.counts.remaining(), sweep.state) {
        (0, _) => String::new(),
        (left, SweepState::Completed) => {
            format!(
                " For {left} no other worker process was there: `ergodic retry {}` makes them once one is.",
                sweep.id
            )
        }
        (left, SweepState::Cancelled) => format!(" {left} will not be made."),
        (left, _) => format!(" {left} are still to come."),
    };
    Some(format!("{made}: {found}.{rest}"))
}

/// A cell in words: `lr=0.1, wd=5e-4`.
pub fn describe_cell(spec: &Spec, cell: u64) -> String {
    let values = spec.grid.axis_values(cell);
    let parts: Vec<String> = spec
        .grid
        .axes()
        .iter()
        .zip(&values)
        .map(|(axis, value)| format!("{}={}", axis.name, axis.format_value(value)))
        .collect();
    if parts.is_empty() { "the only cell".to_owned() } else { parts.join(", ") }
}
