//! Why a sweep is where it is, as data.

use std::collections::BTreeMap;
use std::time::Duration;

use ergodic_common::ids::{CellIndex, SweepId};
use ergodic_common::program::find_version;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};

use crate::core::audits::AuditCounts;
use crate::core::state::Core;
use crate::core::stopping::{AdaptiveRepeats, PrecisionRepeats, SuccessiveHalving};
use crate::core::{Sweep, Worker};
use crate::records::{OutcomeCounts, SweepState};

/// One thing that explains where a sweep is.
#[derive(Debug, Clone, PartialEq)]
pub enum SweepFinding {
    /// How far the sweep is.
    Progress {
        /// Trials of the sweep, as far as is known.
        trials: u64,
        /// Trials with a row, by outcome.
        counts: OutcomeCounts,
        /// Trials in leases.
        leased: u64,
    },
    /// The sweep is only shown, and nothing of it is run or changed.
    Withheld {
        /// The reason, in words.
        why: String,
    },
    /// The sweep is completed, cancelled or paused.
    Stopped {
        /// Which of these.
        state: SweepState,
    },
    /// Who runs the sweep, or what stands in the way.
    Running(RunningFinding),
    /// Trials have a time limit.
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// How many cells are known to a precision.
    Precision(PrecisionFinding),
    /// How far successive halving is.
    Halving(HalvingFinding),
    /// How far the sweep's audits are.
    Audits {
        /// How many were due, and what they found.
        counts: AuditCounts,
        /// The sweep's state, which says what becomes of the rest.
        state: SweepState,
    },
    /// An alarm: results differed from rows stored earlier.
    Mismatches {
        /// Number of results.
        results: u64,
    },
    /// Results differed from rows stored earlier, as those of a program may.
    Variations {
        /// Number of results.
        results: u64,
    },
    /// The sweep paused itself, because its first trials failed without one success.
    Failing {
        /// The cause of one failure.
        cause: String,
    },
}

/// Who runs a sweep, or what stands in the way.
#[derive(Debug, Clone, PartialEq)]
pub enum RunningFinding {
    /// No worker is joined.
    NoWorker,
    /// No joined worker offers the sweep's numerics class.
    MissingClass {
        /// The class that the sweep is pinned to.
        numerics: String,
        /// The classes that are offered, with the number of workers that offer each.
        offered: BTreeMap<String, u32>,
    },
    /// Another version of the engine of the sweep's numerics class is offered.
    OtherVersion,
    /// Workers can run the sweep.
    Capacity {
        /// Connected workers that can.
        workers: u32,
        /// Their slots.
        slots: u32,
        /// The names of the first ones, if the sweep needs an experiment, which not every worker program has.
        names: Vec<String>,
    },
    /// A worker with a lease of the sweep is not connected.
    WorkerAway {
        /// Name of the worker.
        worker: String,
        /// Trials in the lease.
        trials: u64,
    },
    /// Trials are to be run alone, because workers crashed that may have been running them.
    Quarantine {
        /// Number of these trials that nobody holds.
        trials: u64,
    },
    /// A worker has said that it cannot work on the sweep.
    WorkerUnable {
        /// Name of the worker.
        worker: String,
        /// The worker's reason.
        why: String,
    },
    /// Sweeps of a higher priority come first.
    HigherPriority {
        /// Priority of the sweep that is explained.
        priority: i32,
        /// Ids of the sweeps that come first.
        sweeps: Vec<SweepId>,
    },
    /// Sweeps of the same priority share the workers.
    SharedWorkers {
        /// Weight of the sweep that is explained.
        weight: f64,
        /// Ids of the others.
        sweeps: Vec<SweepId>,
    },
}

/// How many cells are known to a precision.
#[derive(Debug, Clone, PartialEq)]
pub struct PrecisionFinding {
    /// Name of the metric.
    pub metric: String,
    /// Half the width of the 95 % interval that is asked for.
    pub ci95: f64,
    /// Number of cells.
    pub cells: u64,
    /// Cells known so well, by the number of repeats after which they were.
    pub reached_cells: BTreeMap<u32, u64>,
    /// Cells that are not, with all repeats.
    pub exhausted_cells: u64,
    /// Most repeats of a cell.
    pub max_repeats: u32,
    /// Cells that go on.
    pub open_cells: u64,
    /// Trials that the sweep should come to.
    pub expected_trials: u64,
}

/// How far successive halving is.
#[derive(Debug, Clone, PartialEq)]
pub struct HalvingFinding {
    /// Name of the metric.
    pub metric: String,
    /// One cell in this many goes on from a rung.
    pub factor: u32,
    /// Number of cells.
    pub cells: u64,
    /// Repeats at the current rung.
    pub rung: u32,
    /// Cells that come to this rung.
    pub standing_cells: u64,
    /// Cells of these with all the repeats.
    pub ready_cells: u64,
    /// Most repeats of a cell.
    pub max_repeats: u32,
}

/// How far a cell is, if that decides how often it is repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum CellFinding {
    /// Whether its mean is known to a precision.
    Precision {
        /// Name of the metric.
        metric: String,
        /// Half the width of the 95 % interval that is asked for.
        ci95: f64,
        /// Repeats after which it was known so well; none while it is not.
        reached: Option<u32>,
        /// Repeats that are run, as far as is known.
        allowed: u32,
        /// Most repeats of a cell.
        max_repeats: u32,
    },
    /// Whether it is among the best.
    Halving {
        /// Name of the metric.
        metric: String,
        /// Repeats after which it was not; none while it is.
        eliminated_after: Option<u32>,
        /// Repeats that are run, as far as is known.
        allowed: u32,
        /// Most repeats of a cell.
        max_repeats: u32,
    },
}

/// What a user can do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAction {
    /// Resume the sweep.
    Resume,
    /// Retry what failed of the sweep, or found no worker.
    Retry,
    /// Remove the sweep.
    Remove,
    /// Join a worker that offers the sweep's numerics class.
    JoinWorker,
    /// Launch the sweep's file again, as a sweep of the numerics class that is offered.
    LaunchAgain,
}

impl SweepFinding {
    /// What a user can do about it.
    pub fn actions(&self) -> &'static [UserAction] {
        match self {
            Self::Stopped {
                state: SweepState::Paused,
            } => &[UserAction::Resume],
            Self::Audits {
                counts,
                state: SweepState::Completed,
            } if counts.remaining() > 0 => &[UserAction::Retry],
            Self::Running(RunningFinding::NoWorker | RunningFinding::MissingClass { .. }) => {
                &[UserAction::JoinWorker]
            }
            Self::Running(RunningFinding::OtherVersion) => {
                &[UserAction::JoinWorker, UserAction::LaunchAgain]
            }
            _ => &[],
        }
    }
}

/// How far a sweep's cells are, if that decides how often they are repeated.
fn explain_adaptive_repeats(sweep: &Sweep) -> Option<SweepFinding> {
    let rule = sweep.spec.stopping_rule.as_ref()?;
    match (sweep.adaptive_repeats.as_ref()?, rule.criterion) {
        (AdaptiveRepeats::Precision(adaptive), StoppingCriterion::Precision { ci95 }) => Some(
            SweepFinding::Precision(explain_precision(sweep, adaptive, rule, ci95)),
        ),
        (AdaptiveRepeats::Halving(adaptive), StoppingCriterion::Halving { factor }) => Some(
            SweepFinding::Halving(explain_halving(sweep, adaptive, rule, factor)),
        ),
        _ => None,
    }
}

fn explain_precision(
    sweep: &Sweep,
    adaptive: &PrecisionRepeats,
    rule: &StoppingRule,
    ci95: f64,
) -> PrecisionFinding {
    let standing = adaptive.progress();
    let cells = sweep.spec.grid.cell_count();

    PrecisionFinding {
        metric: rule.metric.name().into_owned(),
        ci95,
        cells,
        reached_cells: standing.reached_cells.clone(),
        exhausted_cells: standing.exhausted_cells,
        max_repeats: sweep.spec.repeats,
        open_cells: standing.count_open_cells(cells),
        expected_trials: sweep.expected_trials(),
    }
}

fn explain_halving(
    sweep: &Sweep,
    adaptive: &SuccessiveHalving,
    rule: &StoppingRule,
    factor: u32,
) -> HalvingFinding {
    let (standing_cells, ready_cells) = adaptive.rung_progress();
    HalvingFinding {
        metric: rule.metric.name().into_owned(),
        factor,
        cells: sweep.spec.grid.cell_count(),
        rung: adaptive.current_rung(),
        standing_cells,
        ready_cells,
        max_repeats: sweep.spec.repeats,
    }
}

/// How far a sweep's audits are, if it has any. Trials whose files were lost are audited, too.
fn explain_audits(sweep: &Sweep) -> Option<SweepFinding> {
    let counts = sweep.audits.counts;
    (sweep.spec.scheduling.audit_share > 0.0 || counts.due > 0).then_some(SweepFinding::Audits {
        counts,
        state: sweep.state,
    })
}

/// The engine or experiment of a numerics class, without its version.
fn engine_name(class: &str) -> &str {
    if let Some((name, _)) = find_version(class) {
        return name;
    }
    class.split('/').next().unwrap_or_default()
}

fn collect_ids<'a>(sweeps: impl Iterator<Item = &'a &'a Sweep>) -> Vec<SweepId> {
    sweeps.map(|sweep| sweep.id.clone()).collect()
}

impl Sweep {
    /// How far a cell is, if that decides how often it is repeated.
    pub fn explain_cell(&self, cell: CellIndex) -> Option<CellFinding> {
        let adaptive = self.adaptive_repeats.as_ref()?;
        let rule = self.spec.stopping_rule.as_ref()?;
        let metric = rule.metric.name().into_owned();
        let allowed = adaptive.allowed_repeats(cell);
        let max_repeats = self.spec.repeats;

        match (adaptive, rule.criterion) {
            (AdaptiveRepeats::Precision(adaptive), StoppingCriterion::Precision { ci95 }) => {
                Some(CellFinding::Precision {
                    metric,
                    ci95,
                    reached: adaptive.reached_at(cell),
                    allowed,
                    max_repeats,
                })
            }
            (AdaptiveRepeats::Halving(adaptive), _) => Some(CellFinding::Halving {
                metric,
                eliminated_after: adaptive.eliminated_after(cell),
                allowed,
                max_repeats,
            }),
            _ => None,
        }
    }
}

impl Core {
    /// Why a sweep is where it is: the findings in the order in which they are told.
    pub fn explain_sweep(&self, sweep: &Sweep) -> Vec<SweepFinding> {
        let mut findings = vec![SweepFinding::Progress {
            trials: sweep.total_trials(),
            counts: sweep.counts,
            leased: sweep.leased,
        }];

        let withheld = sweep.withheld.clone();
        findings.extend(withheld.map(|why| SweepFinding::Withheld { why }));

        match sweep.state {
            SweepState::Running if sweep.withheld.is_some() => {}
            SweepState::Running => {
                let running = self.explain_running(sweep);
                findings.extend(running.into_iter().map(SweepFinding::Running));
            }
            state => findings.push(SweepFinding::Stopped { state }),
        }
        let failing = sweep.describe_failing().map(str::to_owned);
        findings.extend(failing.map(|cause| SweepFinding::Failing { cause }));

        if sweep.state.is_open() {
            let limit = sweep.spec.scheduling.time_limit;
            findings.extend(limit.map(|limit| SweepFinding::TimeLimit { limit }));
        }

        findings.extend(explain_adaptive_repeats(sweep));
        findings.extend(explain_audits(sweep));

        let results = sweep.tallies.mismatches;
        if results > 0 {
            findings.push(match sweep.spec.must_repeat_exactly() {
                true => SweepFinding::Mismatches { results },
                false => SweepFinding::Variations { results },
            });
        }

        findings
    }

    /// Who runs a sweep, or what stands in the way.
    fn explain_running(&self, sweep: &Sweep) -> Vec<RunningFinding> {
        let mut findings = Vec::new();
        self.explain_capacity(sweep, &mut findings);

        let leases = self.leases.of_sweep(sweep.number);
        findings.extend(leases.filter_map(|lease| {
            let worker = self.workers.get(&lease.row.worker)?;
            (!worker.connected).then(|| RunningFinding::WorkerAway {
                worker: worker.name.clone(),
                trials: lease.row.trials.len(),
            })
        }));

        let quarantined = sweep.quarantine.waiting_count();
        if quarantined > 0 {
            findings.push(RunningFinding::Quarantine {
                trials: quarantined,
            });
        }

        let connected = self.workers.values().filter(|worker| worker.connected);
        findings.extend(connected.filter_map(|worker| {
            let said = worker.unable_sweeps.get(&sweep.number);
            let said = said.map(|(_, why)| why.clone());
            let lack = || worker.explain_lack(&sweep.spec);
            Some(RunningFinding::WorkerUnable {
                worker: worker.name.clone(),
                why: said
                    .or_else(lack)
                    .or_else(|| self.explain_leaving(worker, sweep))?,
            })
        }));

        self.explain_share(sweep, &mut findings);
        findings
    }

    /// Why a worker that could run a sweep begins no further trial, if it does not.
    fn explain_leaving(&self, worker: &Worker, sweep: &Sweep) -> Option<String> {
        let is_leaving = !worker.begins_trials(self.latest_time());
        (is_leaving && worker.is_of_use_for(&sweep.spec)).then(|| {
            "it is leaving, because its time is over or somebody asked it to: it begins no further trial"
                .to_owned()
        })
    }

    /// Explains which workers can run a sweep, or why none can.
    fn explain_capacity(&self, sweep: &Sweep, findings: &mut Vec<RunningFinding>) {
        let (workers, slots) = self.capacity_for(&sweep.spec);
        let mut connected = self.workers.values().filter(|worker| worker.connected);
        let has_workers = connected.clone().next().is_some();
        // What these lack is told of each.
        let has_lacking = connected.any(|w| w.explain_lack(&sweep.spec).is_some());
        match (has_workers, workers) {
            (false, _) => findings.push(RunningFinding::NoWorker),
            (true, 0) if has_lacking => {}
            (true, 0) => self.explain_missing_class(&sweep.spec.numerics, findings),
            (true, _) => findings.push(RunningFinding::Capacity {
                workers,
                slots,
                names: self.name_holders(&sweep.spec),
            }),
        }
    }

    fn explain_missing_class(&self, numerics: &str, findings: &mut Vec<RunningFinding>) {
        let mut offered: BTreeMap<String, u32> = BTreeMap::new();
        for class in self.workers.values().flat_map(|worker| &worker.numerics) {
            *offered.entry(class.clone()).or_default() += 1;
        }

        let is_other_version = offered
            .keys()
            .any(|class| engine_name(class) == engine_name(numerics));
        findings.push(RunningFinding::MissingClass {
            numerics: numerics.to_owned(),
            offered,
        });
        findings.extend(is_other_version.then_some(RunningFinding::OtherVersion));
    }

    fn explain_share(&self, sweep: &Sweep, findings: &mut Vec<RunningFinding>) {
        let rivals = self.rival_sweeps(sweep);
        let Share { priority, weight } = sweep.share;
        let before = collect_ids(
            rivals
                .iter()
                .filter(|rival| rival.share.priority > priority),
        );
        let beside = collect_ids(
            rivals
                .iter()
                .filter(|rival| rival.share.priority == priority),
        );

        if !before.is_empty() {
            findings.push(RunningFinding::HigherPriority {
                priority,
                sweeps: before,
            });
        }

        if !beside.is_empty() {
            findings.push(RunningFinding::SharedWorkers {
                weight,
                sweeps: beside,
            });
        }
    }
}
