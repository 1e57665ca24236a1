//! Cells whose results decide how often they are repeated, and sweeps that are given more repeats.

use std::time::Duration;

use ergodic_common::ids::{CellIndex, Epoch, Fence, LeaseId, Repeat, SweepNumber, WorkerId};
use ergodic_common::spec::stopping_rule::precision_rungs;

use crate::core::stopping::{AdaptiveRepeats, PrecisionRepeats, SuccessiveHalving};
use crate::core::tests::*;
use crate::estimators::precision::{DECIDING_LEVEL, interval_quantile};
use crate::records::{LeaseRow, SweepRow, SweepState};

const TARGET: f64 = 0.05;

/// What decides how often a cell is repeated.
#[derive(Debug, Clone, Copy)]
enum By {
    Precision,
    /// One cell in so many goes on.
    Halving(u32),
}

fn text(by: By, min: u32, max: u32) -> String {
    let rule = match by {
        By::Precision => format!("until = {{ metric = \"test_loss\", ci95 = {TARGET} }}"),
        By::Halving(factor) => format!("halving = {{ metric = \"test_loss\", factor = {factor} }}"),
    };
    format!(
        "name = \"t\"\n[data]\ntrain = 64\n[model]\nkind = \"empty\"\n[measure]\nmetrics = [\"test_acc\", \"test_loss\"]\n\
         [repeats]\nmin = {min}\nmax = {max}\n{rule}\n\
         [grid]\nlr = [0.1, 0.2, 0.3]\nbatch_size = [8, 16]\n[where]\nkeep = \"lr * batch_size < 4\"\n"
    )
}

/// A sweep that is repeated from `min` to `max` times.
fn growing(by: By, min: u32, max: u32) -> Sweep {
    let source = SpecSource {
        file: "t".into(),
        text: text(by, min, max),
        ..SpecSource::default()
    };
    let spec = Arc::new(Spec::read_stored(&source).expect("a valid sweep"));

    let record = SweepRow {
        source,
        ..(*sweep(SweepNumber(1), 1).record).clone()
    };
    Sweep::new(Arc::new(record), spec)
}

/// What a trial yields: the larger the number of its cell, the more its values differ; one in nine diverges.
fn row(key: TrialKey) -> StoredRow {
    let mut hash =
        (key.cell.0 * 1_000_003 + u64::from(key.repeat.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^= hash >> 29;
    let value = key.cell.0 as f64 * 0.08 * ((hash % 1000) as f64 / 500.0 - 1.0);
    let diverges = hash.is_multiple_of(9);
    let outcome = if diverges {
        Outcome::Diverged { step: 1 }
    } else {
        Outcome::Completed
    };

    StoredRow {
        key,
        outcome,
        watched_metric: 0.5,
        deciding_metric: if diverges { f64::NAN } else { value },
        seconds: 0.5,
    }
}

/// The trials that are to be run, by the definition.
fn wanted(by: By, spec: &Spec, min: u32, max: u32) -> BTreeSet<TrialKey> {
    match by {
        By::Precision => wanted_to_know(spec, min, max),
        By::Halving(factor) => wanted_of_the_best(spec, factor, min, max),
    }
}

/// One rung after the other, of which one cell in `factor` goes on: that with the lowest mean rank, by how many others did better
/// in the same repeat. Less is better, and to diverge is worst.
fn wanted_of_the_best(spec: &Spec, factor: u32, min: u32, max: u32) -> BTreeSet<TrialKey> {
    let mut standing: Vec<CellIndex> = spec.grid.iter().collect();
    let mut from = 0;
    let mut to = min.min(max);
    let mut trials = BTreeSet::new();

    loop {
        trials.extend(standing.iter().flat_map(|cell| {
            (from..to).map(|repeat| TrialKey {
                cell: *cell,
                repeat: Repeat(repeat),
            })
        }));

        if to == max {
            return trials;
        }

        let loss = |cell: CellIndex, repeat| {
            Some(
                row(TrialKey {
                    cell,
                    repeat: Repeat(repeat),
                })
                .deciding_metric,
            )
            .filter(|x| x.is_finite())
        };
        let key = |cell, repeat| loss(cell, repeat).unwrap_or(f64::INFINITY);
        let beaten = |cell: CellIndex| {
            let by = |repeat| {
                let others = standing
                    .iter()
                    .map(|other| key(*other, repeat).partial_cmp(&key(cell, repeat)));
                others
                    .map(|order| order.map_or(0, |order| 1 - order as i64))
                    .sum::<i64>()
            };

            (0..to).map(by).sum::<i64>()
        };

        let mean = |cell: CellIndex| {
            let values: Vec<f64> = (0..to).filter_map(|repeat| loss(cell, repeat)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let mut ordered: Vec<(i64, f64, CellIndex)> = standing
            .iter()
            .map(|cell| (beaten(*cell), mean(*cell), *cell))
            .collect();
        ordered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));

        standing = ordered.into_iter().map(|(_, _, cell)| cell).collect();
        standing.truncate(standing.len().div_ceil(factor as usize));
        (from, to) = (to, max.min(to * factor));
    }
}

/// One cell after the other.
fn wanted_to_know(spec: &Spec, min: u32, max: u32) -> BTreeSet<TrialKey> {
    let enough = |cell: CellIndex, n: u32| {
        let values = (0..n)
            .map(|repeat| {
                row(TrialKey {
                    cell,
                    repeat: Repeat(repeat),
                })
                .deciding_metric
            })
            .filter(|x| x.is_finite());
        let values: Vec<f64> = values.collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        values.len() > 1
            && interval_quantile(DECIDING_LEVEL, values.len() as u64) * (variance / n).sqrt()
                <= TARGET
    };
    let cells = spec.grid.iter().map(|cell| {
        (
            cell,
            precision_rungs(min, max)
                .find(|n| enough(cell, *n))
                .unwrap_or(max),
        )
    });

    cells
        .flat_map(|(cell, n)| {
            (0..n).map(move |repeat| TrialKey {
                cell,
                repeat: Repeat(repeat),
            })
        })
        .collect()
}

/// A core, its store, and workers that do nothing wrong but vanish.
struct Lab {
    core: Core,
    now: CoreTime,
    by: By,
    min: u32,
    max: u32,
    rows: BTreeMap<TrialKey, StoredRow>,
    granted: BTreeMap<WorkerId, BTreeMap<Fence, Vec<TrialKey>>>,
    /// Trials in the order in which they were granted.
    order: Vec<TrialKey>,
}

impl Lab {
    fn new(by: By, min: u32, max: u32) -> Self {
        let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
        core.on_sweep_added(growing(by, min, max), [], CoreTime::ZERO);
        Self {
            core,
            now: CoreTime::ZERO,
            by,
            min,
            max,
            rows: BTreeMap::new(),
            granted: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    fn precision(&self) -> &PrecisionRepeats {
        match self.sweep().adaptive_repeats.as_ref() {
            Some(AdaptiveRepeats::Precision(growth)) => growth,
            other => panic!("{other:?}"),
        }
    }

    fn halving(&self) -> &SuccessiveHalving {
        match self.sweep().adaptive_repeats.as_ref() {
            Some(AdaptiveRepeats::Halving(growth)) => growth,
            other => panic!("{other:?}"),
        }
    }

    fn sweep(&self) -> &Sweep {
        self.core.sweep(SweepNumber(1)).expect("launched")
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Grant { lease, keys, .. } => {
                    self.order.extend(&keys);
                    self.granted
                        .entry(lease.worker)
                        .or_default()
                        .insert(lease.fence, keys);
                }
                Effect::RevokeLeases(worker, fences) => {
                    self.granted
                        .entry(worker)
                        .or_default()
                        .retain(|fence, _| !fences.contains(fence));
                }
                Effect::GiveUp(given_up) => panic!("nobody is to blame: {given_up:?}"),
                _ => {}
            }
        }

        self.core.check_invariants().expect("the invariant holds");
        let done = self.rows.len() as u64;
        let total = self.sweep().total_trials();
        let expected = self.sweep().expected_trials();
        assert!(
            self.sweep().counts.done() == done && done <= total && total <= expected,
            "{done} {total} {expected}"
        );
    }

    fn request_work(&mut self, worker: &str) {
        let held = self
            .granted
            .get(worker)
            .map_or_else(Vec::new, |leases| leases.keys().copied().collect());
        let effects = self
            .core
            .on_worker_joined(joining_worker(worker, held), self.now);
        self.carry_out(effects);

        let effects = self.core.on_work_requested(&worker.into(), 2, self.now);
        self.carry_out(effects);
    }

    /// Delivers some trials of a lease, from its end.
    fn deliver_batch(&mut self, worker: &str, n: usize) {
        let Some((fence, mut keys)) = self
            .granted
            .get_mut(worker)
            .and_then(|held| held.pop_last())
        else {
            return;
        };
        let delivered = keys.split_off(keys.len().saturating_sub(n));

        if !keys.is_empty() {
            self.granted
                .get_mut(worker)
                .expect("it was there")
                .insert(fence, keys);
        }

        let fenced =
            self.core.admit_batch(&worker.into(), fence, &delivered) == Ok(Admission::Compare);
        let mut committed = CommitOutcome {
            fenced,
            ..CommitOutcome::default()
        };

        for key in delivered {
            match self.rows.contains_key(&key) {
                true => committed.already_stored.push(key),
                false if committed.fenced => {}
                false => {
                    self.rows.insert(key, row(key));
                    committed.stored.push(row(key));
                }
            }
        }

        let effects = self.core.on_batch_committed(
            &worker.into(),
            fence,
            SweepNumber(1),
            &committed,
            self.now,
        );
        self.carry_out(effects);
    }

    /// All fall silent for longer than leases last.
    fn fall_silent(&mut self) {
        self.now += TTL;
        self.core.latest_time = self.now;
        let effects = self.core.on_tick(self.now);
        self.carry_out(effects);
    }

    fn restart(&mut self, shuffle: usize) {
        let leases: Vec<LeaseRow> = self
            .core
            .leases
            .values()
            .map(|lease| lease.row.clone())
            .collect();

        self.core = Core::new(
            Timing { lease_ttl: TTL },
            Epoch(self.core.epoch.0 + 1),
            self.core.next_lease,
        );
        let mut rows: Vec<StoredRow> = self.rows.values().cloned().collect();
        let n = rows.len().max(1);
        rows.rotate_left(shuffle % n);

        let effects =
            self.core
                .on_sweep_added(growing(self.by, self.min, self.max), rows, self.now);
        self.carry_out(effects);

        for lease in leases {
            let effects = self.core.on_recovered_lease(lease, self.now);
            self.carry_out(effects);
        }
    }

    fn extend(&mut self, more: u32) {
        self.max += more;
        let Sweep { record, spec, .. } = growing(self.by, self.min, self.max);
        let effects =
            self.core
                .on_sweep_extended(SweepNumber(1), record.source.clone(), spec, self.now);
        self.carry_out(effects);
    }

    /// All others leave without a word; one worker runs what is left.
    fn finish(&mut self) {
        self.now += TTL;
        let there: Vec<WorkerId> = self.core.workers.keys().cloned().collect();
        there.iter().for_each(|worker| {
            self.core
                .on_session_ended(worker, SessionEnd::ByPeer, self.now)
        });
        self.fall_silent();

        self.granted.clear();
        for _ in 0..10_000 {
            if self.sweep().state == SweepState::Completed {
                break;
            }
            self.request_work("z");
            self.deliver_batch("z", usize::MAX);
        }

        assert_eq!(self.sweep().state, SweepState::Completed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn which_trials_are_run_depends_on_their_results_alone(
        by in prop_oneof![Just(By::Precision), (2_u32..5).prop_map(By::Halving)],
        min in 2_u32..12,
        more in 1_u32..40,
        steps in prop::collection::vec((0..12_u8, 0..3_usize, 1..30_usize), 0..120),
    ) {
        let names = ["a", "b", "c"];
        let mut lab = Lab::new(by, min, min + more);
        for (what, who, n) in steps {
            lab.now += Duration::from_millis(300);
            match what {
                0..=3 => lab.request_work(names[who]),
                4..=8 => lab.deliver_batch(names[who], n),
                9 => lab.fall_silent(),
                10 => lab.restart(n),
                _ => lab.extend(n as u32 % 4),
            }
        }
        lab.finish();
        let rows: BTreeSet<TrialKey> = lab.rows.keys().copied().collect();
        let wanted = wanted(by, &lab.sweep().spec, lab.min, lab.max);
        // What was run up to an earlier most is no rung of the ladder of a later one.
        let extra: Vec<&TrialKey> = rows.difference(&wanted).collect();
        prop_assert!(wanted.is_subset(&rows) && (extra.is_empty() || lab.max > min + more), "{extra:?}");
        let standing = |lab: &Lab| match lab.sweep().adaptive_repeats.as_ref() {
            Some(AdaptiveRepeats::Precision(growth)) => format!("{:?}", growth.progress()),
            Some(AdaptiveRepeats::Halving(growth)) => format!("{} {:?}", growth.current_rung(), growth.rung_progress()),
            None => String::new(),
        };
        let before = standing(&lab);
        match by {
            By::Precision => prop_assert_eq!(lab.precision().progress().count_open_cells(lab.sweep().spec.grid.cell_count()), 0),
            By::Halving(_) => {
                let (climb, ready) = lab.halving().rung_progress();
                prop_assert_eq!((lab.halving().current_rung(), ready), (lab.max, climb));
            }
        }
        let total = rows.len() as u64;
        lab.restart(0);
        prop_assert_eq!((lab.sweep().total_trials(), lab.sweep().expected_trials(), lab.sweep().state), (total, total, SweepState::Completed));
        prop_assert_eq!(standing(&lab), before);
    }
}

#[test]
fn the_next_repeats_go_where_the_interval_is_widest() {
    let mut lab = Lab::new(By::Precision, 10, 200);
    let least: u64 = lab.sweep().total_trials();
    while (lab.rows.len() as u64) < least {
        lab.request_work("a");
        lab.deliver_batch("a", usize::MAX);
    }

    lab.order.clear();
    lab.request_work("a");
    lab.finish();
    let widest = lab.sweep().spec.grid.iter().max().expect("some cells");
    assert!(
        lab.order[0].cell == widest && lab.order[0].repeat >= Repeat(10),
        "{:?}",
        lab.order
    );

    let narrow = lab.order.iter().filter(|key| key.cell != widest).count();
    assert!(narrow > 0, "others go on, too: {:?}", lab.order);
    let explained = lab
        .core
        .explain_sweep(lab.sweep())
        .into_iter()
        .find_map(|finding| match finding {
            SweepFinding::Precision(precision) => Some(precision),
            _ => None,
        })
        .expect("a precision is asked for");
    let standing = lab.precision().progress();
    assert!(
        standing.reached_cells.contains_key(&10) && standing.reached_cells.len() > 1,
        "{standing:?}"
    );

    assert_eq!(explained.metric, "test_loss");
    assert_eq!((explained.cells, explained.open_cells), (5, 0));
    assert_eq!(explained.reached_cells, standing.reached_cells);
    let last = TrialKey {
        cell: widest,
        repeat: Repeat(199),
    };

    assert_eq!(
        lab.core.locate_trial(lab.sweep(), last),
        super::super::queries::TrialLocation::Unneeded
    );
}

#[test]
fn a_failed_trial_that_is_run_again_has_its_cell_judged_again() {
    let mut lab = Lab::new(By::Precision, 4, 8);
    lab.finish();
    let key = *lab.rows.keys().next().expect("a row");
    let mut rows = lab.rows.clone();
    let failed = StoredRow {
        outcome: Outcome::Failed {
            cause: "it broke".into(),
        },
        deciding_metric: f64::NAN,
        ..row(key)
    };
    rows.insert(key, failed);

    lab.core = Core::new(Timing { lease_ttl: TTL }, Epoch(2), LeaseId(1000));
    lab.core
        .on_sweep_added(growing(By::Precision, 4, 8), rows.into_values(), lab.now);
    assert_eq!(lab.sweep().counts.failed, 1);
    lab.rows.remove(&key);
    let effects = lab
        .core
        .on_trials_reopened(SweepNumber(1), &[key], &[], lab.now);
    lab.carry_out(effects);

    let growth = lab.precision();
    assert_eq!(
        (
            growth.progress().count_open_cells(5),
            growth.reached_at(key.cell)
        ),
        (1, None)
    );

    lab.finish();
    assert_eq!(
        lab.rows.keys().copied().collect::<BTreeSet<_>>(),
        wanted(By::Precision, &lab.sweep().spec, 4, 8)
    );
}

#[test]
fn the_best_cells_of_a_rung_go_on() {
    let mut lab = Lab::new(By::Halving(2), 3, 20);
    let plan = 5 * 3 + 3 * 3 + 2 * 6 + 8;
    assert_eq!(
        (lab.sweep().total_trials(), lab.sweep().expected_trials()),
        (15, plan)
    );

    lab.finish();
    assert_eq!(
        (
            lab.rows.len() as u64,
            lab.halving().current_rung(),
            lab.halving().rung_progress()
        ),
        (plan, 20, (1, 1))
    );

    let out: Vec<Option<u32>> = lab
        .sweep()
        .spec
        .grid
        .iter()
        .map(|cell| lab.halving().eliminated_after(cell))
        .collect();
    let out_after = |n| out.iter().filter(|out| **out == n).count();
    assert_eq!(
        [Some(3), Some(6), Some(12), None].map(out_after),
        [2, 1, 1, 1],
        "{out:?}"
    );

    let explained = lab
        .core
        .explain_sweep(lab.sweep())
        .into_iter()
        .find_map(|finding| match finding {
            SweepFinding::Halving(halving) => Some(halving),
            _ => None,
        })
        .expect("the sweep is halved");
    assert_eq!(
        (explained.cells, explained.rung, explained.max_repeats),
        (5, 20, 20)
    );
    assert_eq!((explained.standing_cells, explained.ready_cells), (1, 1));
}

#[test]
fn a_failed_trial_that_is_run_again_has_its_rung_decided_again() {
    let by = By::Halving(2);
    let mut lab = Lab::new(by, 2, 8);
    lab.finish();
    let best = *lab.rows.keys().max_by_key(|key| key.repeat).expect("rows");
    let key = TrialKey {
        repeat: Repeat(0),
        ..best
    };

    // As if it had failed: others went on meanwhile.
    let mut rows = lab.rows.clone();
    rows.insert(
        key,
        StoredRow {
            outcome: Outcome::Failed {
                cause: "it broke".into(),
            },
            deciding_metric: f64::NAN,
            ..row(key)
        },
    );

    lab.core = Core::new(Timing { lease_ttl: TTL }, Epoch(2), LeaseId(1000));
    lab.core
        .on_sweep_added(growing(by, 2, 8), rows.into_values(), lab.now);
    lab.rows.remove(&key);
    let effects = lab
        .core
        .on_trials_reopened(SweepNumber(1), &[key], &[], lab.now);
    lab.carry_out(effects);

    assert_eq!(
        (lab.halving().current_rung(), lab.halving().rung_progress()),
        (2, (5, 4))
    );
    lab.finish();
    let rows: BTreeSet<TrialKey> = lab.rows.keys().copied().collect();
    assert!(wanted(by, &lab.sweep().spec, 2, 8).is_subset(&rows));
}

#[test]
fn halving_by_a_loss_never_chooses_the_cell_in_which_all_diverged() {
    // Completed trials lose more than a network that knows nothing, ln 10.
    let source = SpecSource {
        file: "t".into(),
        text: text(By::Halving(5), 2, 4),
        ..SpecSource::default()
    };
    let spec = Arc::new(Spec::read_stored(&source).expect("a valid sweep"));

    let record = SweepRow {
        source,
        ..(*sweep(SweepNumber(1), 1).record).clone()
    };
    let wild = spec.grid.iter().next().expect("a cell");
    let rows = spec
        .grid
        .iter()
        .flat_map(|cell| {
            (0..2).map(move |repeat| TrialKey {
                cell,
                repeat: Repeat(repeat),
            })
        })
        .map(|key| {
            let outcome = if key.cell == wild {
                Outcome::Diverged { step: 1 }
            } else {
                Outcome::Completed
            };
            StoredRow {
                outcome,
                deciding_metric: 5.0 + key.cell.0 as f64,
                ..row(key)
            }
        });
    let rows: Vec<StoredRow> = rows.collect();

    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    core.on_sweep_added(Sweep::new(Arc::new(record), spec), rows, CoreTime::ZERO);
    let Some(AdaptiveRepeats::Halving(growth)) = &core
        .sweep(SweepNumber(1))
        .expect("launched")
        .adaptive_repeats
    else {
        panic!("it halves")
    };
    assert_eq!(
        (
            growth.current_rung(),
            growth.eliminated_after(wild),
            growth.rung_progress().0
        ),
        (4, Some(2), 1)
    );
}

#[test]
fn a_sweep_that_has_ended_stands_by_the_choices_that_its_rows_show() {
    // As another rule may have made them: the cells that went on are not those that would go on now.
    let by = By::Halving(5);
    let mut lab = Lab::new(by, 2, 8);
    lab.finish();
    let best = lab
        .rows
        .keys()
        .find(|key| key.repeat == Repeat(7))
        .expect("one went all the way")
        .cell;
    let other = lab
        .sweep()
        .spec
        .grid
        .iter()
        .find(|cell| *cell != best)
        .expect("another cell");
    let moved = |row: &StoredRow| match row.key {
        TrialKey { cell, repeat } if cell == best && repeat >= Repeat(2) => self::row(TrialKey {
            cell: other,
            repeat,
        }),
        _ => row.clone(),
    };
    let rows: Vec<StoredRow> = lab.rows.values().map(moved).collect();

    for (state, total) in [
        (SweepState::Completed, rows.len()),
        (SweepState::Running, rows.len() + 6),
    ] {
        let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(2), LeaseId(1000));
        let stored = Sweep {
            state,
            ..growing(by, 2, 8)
        };
        core.on_sweep_added(stored, rows.clone(), lab.now);

        let sweep = core.sweep(SweepNumber(1)).expect("launched");
        assert_eq!((sweep.state, sweep.total_trials()), (state, total as u64));
        core.check_invariants().expect("the invariant holds");
    }
}

#[test]
fn a_sweep_that_is_complete_goes_on_when_it_is_given_more_repeats() {
    let mut world = CoreModel::new(3);
    world.join("a");
    let run = |world: &mut CoreModel| {
        for _ in 0..100 {
            world.request_work("a");
            world.deliver_batch("a", usize::MAX);
        }
        world.rows.len() as u64
    };

    let cells = world
        .core
        .sweep(SweepNumber(1))
        .expect("launched")
        .spec
        .grid
        .cell_count();
    assert_eq!(run(&mut world), 3 * cells);

    let first = world.rows.clone();
    let Sweep { record, spec, .. } = sweep(SweepNumber(1), 5);
    assert!(
        world
            .core
            .validate_extension(SweepNumber(1), &record.source)
            .is_err_and(|why| why.contains("changed"))
    );

    let source = world
        .core
        .sweep(SweepNumber(1))
        .expect("launched")
        .record
        .source
        .clone();
    assert_eq!(
        world.core.validate_extension(SweepNumber(1), &source),
        Ok(())
    );
    world.states.clear();
    let effects =
        world
            .core
            .on_sweep_extended(SweepNumber(1), record.source.clone(), spec, world.now);
    world.carry_out(effects);

    assert_eq!(world.states, [SweepState::Running]);
    assert!(
        world
            .held_by("a")
            .iter()
            .all(|key| !first.contains(key) && key.repeat >= Repeat(3)),
        "only what is missing is run"
    );

    assert_eq!(run(&mut world), 5 * cells);
    assert_eq!(
        world.core.sweep(SweepNumber(1)).expect("launched").state,
        SweepState::Completed
    );
}

#[test]
fn a_sweep_whose_end_was_stored_before_what_it_lacks_goes_on() {
    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    let mut unfinished = sweep(SweepNumber(1), 5);
    unfinished.state = SweepState::Completed;
    core.on_sweep_added(unfinished, [], CoreTime::ZERO);
    assert_eq!(
        core.sweep(SweepNumber(1)).expect("launched").state,
        SweepState::Running
    );
}
