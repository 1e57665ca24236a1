//! Which rows of a table are the best, and which cannot be distinguished from the best.
//!
//! Cells are ordered by [`rank`](crate::estimators::rank). A row is left in the set of those that may be the best unless its trials are worse
//! than those of the row that looks best, repeat by repeat, at a level that allows for having looked for it: of k rows, 5 %/(k − 1)
//! on one side. So the set contains the truly best row in 95 % of all cases (multiple comparisons with the best, Hsu 1981, with
//! Bonferroni's correction). What is compared are values by a paired t test, or, where one of both rows has trials that diverged,
//! the shares of other cells that did better in the same repeat. A row all of whose trials diverged is left in only if all rows are such.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::spec::misleading::{describe_unranked_losses, find_mixed_losses};
use ergodic_common::spec::stopping_rule::StoppingCriterion;

use crate::analysis::table_metric::TableMetric;
use crate::estimators::Sample;
use crate::estimators::crossed::Crossing;
use crate::estimators::rank::{CellEnds, Ranks, TrialEnd, better_first, find_repeat};
use crate::estimators::sample::mean_of_finite_values;
use crate::estimators::special::student_t_cdf;

/// The scores of a row, in the order of repeats: mean of the values, `None` if one diverged or is
/// not finite, and mean share of other cells that did better.
type RepeatScores = Vec<(u32, Score)>;

/// The score of a row in a repeat.
type Score = (Option<f64>, f64);

/// The rank of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowRank {
    /// Position of the row; 1 is the best.
    pub rank: u64,
    /// Mean rank of the row's trials within repeats; for several cells, over all of them.
    pub mean_rank: f64,
    /// Whether the row cannot be distinguished from the best; true for the best itself.
    pub may_be_best: bool,
}

/// Share of cases in which the truly best row may be left out.
const ERROR_RATE: f64 = 0.05;

/// The reason why a metric cannot rank the cells of a sweep, if it cannot.
pub fn unranked_reason(spec: &Spec, metric: &TableMetric) -> Option<String> {
    let name = metric.name();
    if metric.larger_is_better().is_none() {
        return Some(format!(
            "for {name}, neither larger nor smaller values are better"
        ));
    }

    let losses = find_mixed_losses(spec, metric.stored()?)?;
    Some(describe_unranked_losses(&name, &losses))
}

/// The stage that a cell reached. Under halving, cells that went on rank before the others. A cell
/// that has exactly the repeats of a rung did not go on yet: it may only have been faster than
/// others.
fn halving_stage(spec: &Spec, ends: &CellEnds) -> usize {
    let Some(until) = spec
        .stopping_rule
        .as_ref()
        .filter(|until| matches!(until.criterion, StoppingCriterion::Halving { .. }))
    else {
        return 0;
    };

    until
        .rungs(spec.repeats)
        .iter()
        .take_while(|rung| ends.last().is_some_and(|(repeat, _)| repeat >= *rung))
        .count()
}

/// Groups cells with a completed or diverged trial by the stage that they reached.
fn group_by_stage<'a>(
    spec: &Spec,
    cells: impl Iterator<Item = (&'a CellIndex, &'a CellEnds)>,
) -> BTreeMap<usize, Vec<CellIndex>> {
    let mut stages: BTreeMap<usize, Vec<CellIndex>> = BTreeMap::new();
    for (cell, ends) in
        cells.filter(|(_, ends)| ends.iter().any(|(_, end)| *end != TrialEnd::Failed))
    {
        stages
            .entry(halving_stage(spec, ends))
            .or_default()
            .push(*cell);
    }

    stages
}

/// The cells that compete for the first place: those with a completed or diverged trial that
/// reached the last stage.
pub fn find_contenders(spec: &Spec, cells: &BTreeMap<CellIndex, CellEnds>) -> Vec<CellIndex> {
    group_by_stage(spec, cells.iter())
        .pop_last()
        .map(|(_, cells)| cells)
        .unwrap_or_default()
}

/// Ranks rows, each with its cells, by a metric that can [rank](unranked_reason) them. Rows have no
/// rank if their cells have no completed or diverged trial or, for several cells, no repeat that
/// has ended in all of them.
pub fn rank_rows(
    spec: &Spec,
    metric: &Metric,
    cells: &BTreeMap<CellIndex, CellEnds>,
    rows: &[Vec<CellIndex>],
) -> Vec<Option<RowRank>> {
    let mut places = vec![None; rows.len()];
    let contest = RankedRows::new(spec, metric.larger_is_better() == Some(true), cells, rows);
    let order = contest.order_best_first();
    let Some(best) = order.first().copied() else {
        return places;
    };

    for (at, row) in order.iter().enumerate() {
        places[contest.rows[*row].row_index] = Some(RowRank {
            rank: at as u64 + 1,
            mean_rank: contest.rows[*row].mean_rank,
            may_be_best: *row == best || !contest.is_worse_than(*row, best),
        });
    }

    places
}

/// The rows that have a rank.
struct RankedRows {
    crossing: Option<Crossing>,
    larger_is_better: bool,
    rows: Vec<RankedRow>,
}

struct RankedRow {
    /// Index of the row among all rows.
    row_index: usize,
    stage: usize,
    mean_rank: f64,
    /// Mean of the row's finite values, which orders rows of equal rank.
    mean: Option<f64>,
    repeats: RepeatScores,
}

impl RankedRows {
    fn new(
        spec: &Spec,
        larger_is_better: bool,
        cells: &BTreeMap<CellIndex, CellEnds>,
        rows: &[Vec<CellIndex>],
    ) -> Self {
        let alone = rows.iter().all(|row| row.len() <= 1);
        let whole = if alone {
            BTreeMap::new()
        } else {
            find_complete_ends(cells, rows)
        };
        let cells = cells
            .iter()
            .map(|(cell, ends)| (cell, whole.get(cell).unwrap_or(ends)));
        let mut stages = group_by_stage(spec, cells.clone());

        if !alone {
            // A row of several cells is compared by the repeats that its cells share, whatever
            // stage they reached.
            let mut all: Vec<CellIndex> = std::mem::take(&mut stages)
                .into_values()
                .flatten()
                .collect();
            all.sort_unstable();

            stages.insert(0, all);
        }

        let known = score_cells(&stages, &cells.collect(), larger_is_better);
        Self {
            crossing: Crossing::from_spec(spec),
            larger_is_better,
            rows: rows
                .iter()
                .enumerate()
                .filter_map(|(at, of)| {
                    RankedRow::new(at, of.iter().filter_map(|cell| known.get(cell)))
                })
                .collect(),
        }
    }

    /// Orders rows, best first.
    fn order_best_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| {
            let a = &self.rows[*a];
            let b = &self.rows[*b];
            b.stage
                .cmp(&a.stage)
                .then_with(|| better_first(a.order_key(), b.order_key(), self.larger_is_better))
        });

        order
    }

    /// Whether a row is significantly worse than the best-looking one, allowing for having picked
    /// that one.
    fn is_worse_than(&self, row: usize, best: usize) -> bool {
        let row = &self.rows[row];
        let best = &self.rows[best];
        // What never yields a value is not the best of rows that do, however few its repeats are.
        if row.mean.is_none() && best.mean.is_some() {
            return true;
        }

        let sign = if self.larger_is_better { -1.0 } else { 1.0 };
        let differences = row
            .differences(best, |here, there| Some(sign * (here.0? - there.0?)))
            .or_else(|| row.differences(best, |here, there| Some(here.1 - there.1)))
            .unwrap_or_default();

        let repeats = match self.crossing {
            Some(_) => row.common_repeats(best),
            None => Vec::new(),
        };
        let others = self.rows.len() as f64 - 1.0;
        p_value_above_zero(differences, &repeats, self.crossing.as_ref())
            .is_some_and(|p| p <= ERROR_RATE / others)
    }
}

/// One-sided p, by Student's t, of the hypothesis that differences are not above 0. `None` for
/// fewer than two. Only crossed streams need the repeats of the differences.
fn p_value_above_zero(
    differences: Vec<f64>,
    repeats: &[u32],
    crossing: Option<&Crossing>,
) -> Option<f64> {
    let sample = match crossing {
        None => Sample::new(differences),
        Some(crossing) => Sample::from_crossed(differences, repeats, crossing),
    };
    let mean = sample.mean()?;
    let error = sample.standard_error()?;

    // A standard error below this is rounding: the differences are equal.
    Some(match error > 1e-13 * mean.abs() {
        true => student_t_cdf(-mean / error, sample.degrees_of_freedom()),
        // With equal differences t is infinite. A sign test is the honest p, but crossed streams
        // have too few independent levels for one.
        false if mean > 0.0 && crossing.is_none() => 0.5_f64.powi(sample.n().min(1000) as i32),
        false => 1.0,
    })
}

/// For the cells of rows with several cells, the ends of repeats that all cells of the row have. A
/// repeat that only some have would compare other cells.
fn find_complete_ends(
    cells: &BTreeMap<CellIndex, CellEnds>,
    rows: &[Vec<CellIndex>],
) -> BTreeMap<CellIndex, CellEnds> {
    let mut whole = BTreeMap::new();
    for row in rows.iter().filter(|row| row.len() > 1) {
        let ends = || {
            row.iter().map(|cell| {
                (
                    *cell,
                    cells.get(cell).map(Vec::as_slice).unwrap_or_default(),
                )
            })
        };

        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        ends()
            .flat_map(|(_, ends)| ends)
            .for_each(|(repeat, _)| *counts.entry(*repeat).or_default() += 1);
        whole.extend(ends().map(|(cell, ends)| {
            (
                cell,
                ends.iter()
                    .filter(|end| counts.get(&end.0) == Some(&row.len()))
                    .copied()
                    .collect(),
            )
        }));
    }

    whole
}

/// The scores of a cell.
struct CellScores {
    stage: usize,
    mean_rank: Option<f64>,
    repeats: RepeatScores,
}

/// Scores each cell: ranks are taken among cells of the same stage, and shares, by which any two
/// cells are compared, among all.
fn score_cells(
    stages: &BTreeMap<usize, Vec<CellIndex>>,
    cells: &BTreeMap<&CellIndex, &CellEnds>,
    larger: bool,
) -> BTreeMap<CellIndex, CellScores> {
    let mut all: Vec<CellIndex> = stages.values().flatten().copied().collect();
    all.sort_unstable();
    let shares = rank_members(&all, cells, larger);
    let mut known = BTreeMap::new();

    for (stage, members) in stages {
        let mean_ranks = if stages.len() == 1 {
            shares.unweighted_mean_ranks()
        } else {
            rank_members(members, cells, larger).unweighted_mean_ranks()
        };
        for (cell, mean_rank) in members.iter().zip(mean_ranks) {
            let at = all.binary_search(cell).expect("it is one of all");
            known.insert(
                *cell,
                CellScores::new(*stage, mean_rank, cells[cell], |repeat| {
                    shares.share_beaten_by(repeat, at)
                }),
            );
        }
    }

    known
}

fn rank_members(
    members: &[CellIndex],
    cells: &BTreeMap<&CellIndex, &CellEnds>,
    larger: bool,
) -> Ranks {
    let ends: Vec<&[(u32, TrialEnd)]> = members.iter().map(|cell| cells[cell].as_slice()).collect();
    Ranks::from_ends(&ends, larger)
}

impl CellScores {
    fn new(
        stage: usize,
        mean_rank: Option<f64>,
        ends: &CellEnds,
        share: impl Fn(u32) -> Option<f64>,
    ) -> Self {
        Self {
            stage,
            mean_rank,
            repeats: ends
                .iter()
                .filter_map(|(repeat, end)| {
                    let value = if let TrialEnd::Completed(value) = end {
                        Some(*value).filter(|x| x.is_finite())
                    } else {
                        None
                    };
                    Some((*repeat, (value, share(*repeat)?)))
                })
                .collect(),
        }
    }
}

impl RankedRow {
    fn order_key(&self) -> (Option<f64>, Option<f64>) {
        (Some(self.mean_rank), self.mean)
    }

    fn new<'a>(at: usize, cells: impl Iterator<Item = &'a CellScores>) -> Option<Self> {
        let cells: Vec<&CellScores> = cells.filter(|known| known.mean_rank.is_some()).collect();
        let count = cells.len() as f64;
        let mean_rank = cells
            .iter()
            .filter_map(|known| known.mean_rank)
            .sum::<f64>()
            / count;

        let repeats = match cells[..] {
            [one] => one.repeats.clone(),
            _ => mean_scores_by_repeat(&cells),
        };
        let finite: Vec<f64> = cells
            .iter()
            .flat_map(|known| &known.repeats)
            .filter_map(|(_, x)| x.0)
            .collect();
        let mean = mean_of_finite_values(&finite);

        let stage = cells.iter().map(|known| known.stage).max()?;
        Some(Self {
            row_index: at,
            stage,
            mean_rank,
            mean,
            repeats,
        })
    }

    /// The score in a repeat, if the cell has the repeat.
    fn score_in_repeat(&self, repeat: u32) -> Option<Score> {
        let at = find_repeat(&self.repeats, repeat, |(repeat, _)| *repeat)?;
        Some(self.repeats[at].1)
    }

    /// A difference from another row in each common repeat; `None` if a repeat has none.
    fn differences(
        &self,
        other: &Self,
        difference: impl Fn(Score, Score) -> Option<f64>,
    ) -> Option<Vec<f64>> {
        let mut found = Vec::with_capacity(self.repeats.len());
        for (repeat, here) in &self.repeats {
            if let Some(there) = other.score_in_repeat(*repeat) {
                found.push(difference(*here, there)?);
            }
        }
        Some(found)
    }

    fn common_repeats(&self, other: &Self) -> Vec<u32> {
        let repeats = self.repeats.iter().map(|(repeat, _)| *repeat);
        repeats
            .filter(|repeat| other.score_in_repeat(*repeat).is_some())
            .collect()
    }
}

/// Mean scores of several cells in each repeat.
fn mean_scores_by_repeat(cells: &[&CellScores]) -> RepeatScores {
    let mut sums: BTreeMap<u32, (Option<f64>, f64, f64)> = BTreeMap::new();
    for (repeat, (value, share)) in cells.iter().flat_map(|known| &known.repeats) {
        let sum = sums.entry(*repeat).or_insert((Some(0.0), 0.0, 0.0));
        *sum = (
            sum.0.zip(*value).map(|(sum, value)| sum + value),
            sum.1 + share,
            sum.2 + 1.0,
        );
    }

    sums.into_iter()
        .map(|(repeat, (value, share, n))| (repeat, (value.map(|sum| sum / n), share / n)))
        .collect()
}

#[cfg(test)]
mod tests {
    use ergodic_common::random_streams::fixed_stream;
    use ergodic_common::spec::SpecSource;

    use crate::analysis::ranking::*;

    fn sweep(axis: &str) -> Spec {
        sweep_of(axis, "repeats = 12")
    }

    fn sweep_of(axis: &str, repeats: &str) -> Spec {
        let text = format!(
            "name = \"t\"\n{repeats}\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nepochs = 1\nbatch_size = 32\nlr = 0.1\n\
             [measure]\nmetrics = [\"test_acc\", \"test_loss\", \"weight_norm\"]\n[grid]\n{axis}\n"
        );
        let source = SpecSource {
            file: "t".into(),
            text,
            ..SpecSource::default()
        };

        Spec::read_stored(&source).expect("a valid sweep")
    }

    fn cells(n: usize) -> Spec {
        sweep(&format!("lr = {{ linear = [0.1, 1.0], points = {n} }}"))
    }

    fn found(spec: &Spec, metric: &Metric, ends: Vec<CellEnds>) -> Vec<Option<RowRank>> {
        let rows: Vec<Vec<CellIndex>> = (0..ends.len() as u64)
            .map(|cell| vec![CellIndex(cell)])
            .collect();
        rank_rows(
            spec,
            metric,
            &(0..).map(CellIndex).zip(ends).collect(),
            &rows,
        )
    }

    #[test]
    fn the_set_contains_the_best_cell_as_often_as_it_says() {
        const ROUNDS: u64 = 400;
        for (n, repeats) in [(2, 5), (9, 5), (20, 10)] {
            let spec = cells(n);
            // All are equal: any of them is the best one.
            let left_out = (0..ROUNDS).filter(|round| {
                let mut stream = fixed_stream("best", *round);
                let mut cell = |_| {
                    (0..repeats)
                        .map(|repeat| (repeat, TrialEnd::Completed(stream.next_normal())))
                        .collect::<CellEnds>()
                };
                let places = found(&spec, &Metric::TestAcc, (0..n).map(&mut cell).collect());
                !places[n - 1].expect("a place").may_be_best
            });
            let share = left_out.count() as f64 / ROUNDS as f64;

            assert!(
                share <= 0.05 + 3.0 * (0.05_f64 * 0.95 / ROUNDS as f64).sqrt(),
                "{n} cells: {share}"
            );
        }
    }

    /// If one stream does all, sixteen repeats are as many draws as it has levels.
    #[test]
    fn under_crossed_streams_the_set_contains_the_best_cell_as_often_as_it_says() {
        const ROUNDS: u64 = 400;
        const LEVELS: u32 = 4;
        let crossed = "repeats = 16\nseeds = { crossed = { init = 4, order = 4 } }";
        let spec = sweep_of("lr = [0.1, 0.2]", crossed);

        for level_of in [|repeat: u32| repeat / LEVELS, |repeat: u32| repeat % LEVELS] {
            let left_out = (0..ROUNDS).filter(|round| {
                let mut stream = fixed_stream("crossed best", *round);
                let mut cell = |_| {
                    let levels: Vec<f64> = (0..LEVELS).map(|_| stream.next_normal()).collect();
                    (0..LEVELS * LEVELS)
                        .map(|repeat| (repeat, levels[level_of(repeat) as usize]))
                        .map(|(repeat, value)| (repeat, TrialEnd::Completed(value)))
                        .collect::<CellEnds>()
                };
                let places = found(&spec, &Metric::TestAcc, (0..2).map(&mut cell).collect());
                !places[1].expect("a place").may_be_best
            });
            let share = left_out.count() as f64 / ROUNDS as f64;

            assert!(
                share <= 0.05 + 3.0 * (0.05_f64 * 0.95 / ROUNDS as f64).sqrt(),
                "{share}"
            );
        }

        // What is told apart within the levels of both streams is still told apart.
        let cell = |mean: f64| -> CellEnds {
            (0..LEVELS * LEVELS)
                .map(|repeat| (repeat, mean + 0.1 * f64::from((repeat * 5) % 7)))
                .map(|(repeat, value)| (repeat, TrialEnd::Completed(value)))
                .collect()
        };
        let worse: CellEnds = cell(0.0)
            .into_iter()
            .rev()
            .map(|(_, end)| end)
            .zip(0..)
            .map(|(end, repeat)| (repeat, end))
            .collect();
        let places = found(&spec, &Metric::TestAcc, vec![cell(10.0), worse]);
        let may: Vec<bool> = places
            .iter()
            .flatten()
            .map(|place| place.may_be_best)
            .collect();
        assert_eq!(may, [true, false]);
    }

    #[test]
    fn what_is_clearly_worse_is_left_out_diverged_or_not() {
        let mut stream = fixed_stream("worse", 0);
        let mut cell = |mean: f64| -> CellEnds {
            (0..12)
                .map(|repeat| {
                    (
                        repeat,
                        TrialEnd::Completed(mean + 0.01 * stream.next_normal()),
                    )
                })
                .collect()
        };
        let best = cell(0.9);

        let near = cell(0.899);
        let far = cell(0.7);
        let survivor = cell(0.95);
        let rarely = survivor.iter().map(|(repeat, end)| {
            (
                *repeat,
                if *repeat < 2 {
                    *end
                } else {
                    TrialEnd::Diverged
                },
            )
        });
        let ends = vec![
            best,
            near,
            far,
            rarely.collect(),
            (0..12).map(|repeat| (repeat, TrialEnd::Diverged)).collect(),
        ];
        let places = found(&cells(5), &Metric::TestAcc, ends);
        let order: Vec<u64> = places.iter().flatten().map(|place| place.rank).collect();
        let may: Vec<bool> = places
            .iter()
            .flatten()
            .map(|place| place.may_be_best)
            .collect();

        assert!(
            order[0] + order[1] == 3 && order[2..] == [3, 4, 5],
            "{order:?}"
        );
        assert_eq!(may, [true, true, false, false, false]);
    }

    /// Even where a few repeats of many cells say too little for any test.
    #[test]
    fn what_always_diverges_is_no_candidate_unless_all_do() {
        let ends = |cell: u32| -> CellEnds {
            (0..5)
                .map(|repeat| {
                    let value = f64::from((7 * cell + 5 * repeat) % 20) / 20.0;
                    (repeat, TrialEnd::Completed(value))
                })
                .collect()
        };
        let diverged: CellEnds = (0..5).map(|repeat| (repeat, TrialEnd::Diverged)).collect();

        let mut some: Vec<CellEnds> = (0..20).map(ends).collect();
        some.push(diverged.clone());
        let places = found(&cells(21), &Metric::TestAcc, some);
        let may: Vec<bool> = places
            .iter()
            .flatten()
            .map(|place| place.may_be_best)
            .collect();
        assert!(may[..20].iter().filter(|may| **may).count() > 1, "{may:?}");
        assert!(!may[20]);

        let places = found(&cells(3), &Metric::TestAcc, vec![diverged; 3]);
        assert!(places.iter().flatten().all(|place| place.may_be_best));
        assert_eq!(places.iter().flatten().count(), 3);
    }

    #[test]
    fn a_row_of_several_cells_has_the_mean_of_their_ranks() {
        let ends = |value: f64| -> CellEnds {
            (0..5)
                .map(|repeat| (repeat, TrialEnd::Completed(value)))
                .collect()
        };

        let spec = cells(4);
        let all: BTreeMap<CellIndex, CellEnds> = (0..)
            .map(CellIndex)
            .zip([0.1, 0.9, 0.5, 0.6].map(ends))
            .collect();
        let places = rank_rows(
            &spec,
            &Metric::TestAcc,
            &all,
            &[
                vec![CellIndex(0), CellIndex(1)],
                vec![CellIndex(2), CellIndex(3)],
                vec![],
                vec![CellIndex(7)],
            ],
        );
        let ranks: Vec<Option<(u64, f64)>> = places
            .iter()
            .map(|p| p.map(|p| (p.rank, p.mean_rank)))
            .collect();

        assert_eq!(
            ranks,
            [Some((2, 2.5)), Some((1, 2.5)), None, None],
            "equal ranks, and the lower mean second"
        );
    }

    fn ranked_by(metric: Metric) -> TableMetric {
        TableMetric::Stored(0, metric)
    }

    #[test]
    fn losses_of_different_losses_are_not_ranked() {
        let mixed = sweep("\"train.loss\" = [\"cross-entropy\", \"mse\"]");
        let why = unranked_reason(&mixed, &ranked_by(Metric::TestLoss)).expect("another quantity");
        assert!(why.contains("(cross-entropy, mse)"), "{why}");
        assert_eq!(
            (
                unranked_reason(&mixed, &ranked_by(Metric::TestAcc)),
                unranked_reason(&cells(3), &ranked_by(Metric::TestLoss))
            ),
            (None, None)
        );

        assert!(
            unranked_reason(&mixed, &ranked_by(Metric::WeightNorm))
                .is_some_and(|why| why.contains("neither"))
        );
    }

    #[test]
    fn who_went_on_stands_before_who_did_not() {
        let halving =
            "repeats = { min = 2, max = 4, halving = { metric = \"test_acc\", factor = 2 } }";
        let spec = sweep_of("lr = [0.1, 0.2, 0.3, 0.4]", halving);
        let ends = |values: &[f64]| -> CellEnds {
            (0..)
                .zip(values.iter().map(|x| TrialEnd::Completed(*x)))
                .collect()
        };

        // The first one was lucky twice, and did not go on when it was decided by something else.
        let all = vec![
            ends(&[0.9, 0.9]),
            ends(&[0.5, 0.6, 0.5, 0.7]),
            ends(&[0.6, 0.6, 0.6, 0.6]),
            ends(&[0.1, 0.2]),
        ];
        let order: Vec<u64> = found(&spec, &Metric::TestAcc, all)
            .iter()
            .flatten()
            .map(|place| place.rank)
            .collect();
        assert_eq!(order, [3, 2, 1, 4]);

        // While a rung is climbed, who is done with it first does not stand before the others.
        let all = vec![ends(&[0.5, 0.4]), ends(&[0.6]), ends(&[0.7]), ends(&[])];
        let places: Vec<Option<u64>> = found(&spec, &Metric::TestAcc, all)
            .iter()
            .map(|p| p.map(|p| p.rank))
            .collect();
        assert_eq!(places, [Some(3), Some(2), Some(1), None]);
    }

    #[test]
    fn who_did_not_go_on_is_compared_by_what_it_did_among_all() {
        let halving =
            "repeats = { min = 8, max = 16, halving = { metric = \"test_acc\", factor = 2 } }";
        let spec = sweep_of("lr = [0.1, 0.2, 0.3, 0.4]", halving);
        let value = |cell: u32, repeat: u32| {
            TrialEnd::Completed(f64::from(cell) + f64::from((cell + repeat) % 3))
        };
        let cell = |cell: u32, n: u32| -> CellEnds {
            (0..n).map(|repeat| (repeat, value(cell, repeat))).collect()
        };

        // The best one has a trial that diverged, so that shares are compared.
        let mut best = cell(30, 16);
        best[3].1 = TrialEnd::Diverged;
        let places = found(
            &spec,
            &Metric::TestAcc,
            vec![cell(0, 8), cell(10, 8), cell(20, 16), best],
        );
        let may: Vec<bool> = places
            .iter()
            .flatten()
            .map(|place| place.may_be_best)
            .collect();

        // Among those that stayed behind, the second was the best in each repeat; among all it was the third.
        assert_eq!(may, [false, false, false, true], "{places:?}");
    }

    #[test]
    fn a_cell_that_lags_leaves_the_others_told_apart() {
        let mut stream = fixed_stream("lags", 0);
        let mut cell = |mean: f64, n: u32| -> CellEnds {
            (0..n)
                .map(|repeat| {
                    (
                        repeat,
                        TrialEnd::Completed(mean + 0.01 * stream.next_normal()),
                    )
                })
                .collect()
        };

        // One has had one trial, one half of them, and one none.
        let ends = vec![
            cell(0.9, 12),
            cell(0.7, 12),
            cell(0.5, 12),
            cell(0.6, 1),
            cell(0.6, 6),
            Vec::new(),
        ];
        let places = found(&cells(6), &Metric::TestAcc, ends);
        let order: Vec<Option<u64>> = places
            .iter()
            .map(|place| place.map(|place| place.rank))
            .collect();
        assert_eq!(
            (order[0], order[1], order[5]),
            (Some(1), Some(2), None),
            "{places:?}"
        );

        let may: Vec<bool> = places
            .iter()
            .flatten()
            .map(|place| place.may_be_best)
            .collect();
        assert_eq!(
            may,
            [true, false, false, true, false],
            "of one trial nothing can be told"
        );
    }

    #[test]
    fn rows_of_several_cells_are_ranked_by_repeats_that_all_of_them_have() {
        let ends = |n: u32, value: f64| -> CellEnds {
            (0..n)
                .map(|repeat| (repeat, TrialEnd::Completed(value)))
                .collect()
        };

        let spec = cells(4);
        // The good cell of the first row has more repeats than the bad one.
        let all: BTreeMap<CellIndex, CellEnds> = (0..)
            .map(CellIndex)
            .zip([ends(8, 0.9), ends(2, 0.1), ends(8, 0.6), ends(8, 0.6)])
            .collect();
        let found = rank_rows(
            &spec,
            &Metric::TestAcc,
            &all,
            &[
                vec![CellIndex(0), CellIndex(1)],
                vec![CellIndex(2), CellIndex(3)],
            ],
        );
        assert_eq!(
            found.iter().map(|p| p.map(|p| p.rank)).collect::<Vec<_>>(),
            [Some(2), Some(1)],
            "{found:?}"
        );

        let none = rank_rows(
            &spec,
            &Metric::TestAcc,
            &all,
            &[
                vec![CellIndex(0), CellIndex(1)],
                vec![CellIndex(2), CellIndex(9)],
            ],
        );
        assert_eq!(
            none.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false],
            "of 9 there is no trial"
        );
    }
}
