//! Effects against statsmodels, and against what they promise.
//!
//! `tests/oracles/analysis.py` makes the fixture.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use ergodic_common::spec::SpecSource;
use ergodic_common::spec_file::node::SpecValue;
use serde_json::Value as Json;

use super::design::EffectsDesign;
use super::resample::RepeatBlocks;
use crate::analysis::effects::best_cells::{find_best_cells, mean_value};
use crate::analysis::effects::caveats::describe_caveats;
use crate::analysis::effects::model::{EffectDraws, EffectsModel};
use crate::analysis::effects::query::check_resampling_work;
use crate::analysis::effects::*;
use crate::analysis::trial_values::CellTrials;
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::crossed::Crossing;

/// A sweep of axes with so many values each, and what else `[grid]` has.
fn sweep(levels: &[usize], more: &str) -> Spec {
    let names = ["batch_size", "lr", "\"model.width\""];
    let axis = |(name, n): (&&str, &usize)| {
        let values: Vec<String> = (0..*n)
            .map(|level| (10 * (level + 1)).to_string())
            .collect();
        format!("{name} = [{}]\n", values.join(", "))
    };
    let axes: String = names.iter().zip(levels).map(axis).collect();
    let text = format!(
        "name = \"t\"\nrepeats = 9\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nepochs = 1\nlr = 0.1\n\
         [grid]\n{axes}{more}"
    );
    let source = SpecSource {
        file: "t".into(),
        text,
        ..SpecSource::default()
    };

    Spec::read_stored(&source).expect("a valid sweep")
}

/// Cells and their values, as the store has them.
struct EffectsCase {
    spec: Spec,
    design: EffectsDesign,
    values: Vec<Vec<(u32, f64)>>,
}

impl EffectsCase {
    fn new(spec: Spec, cells: Vec<CellIndex>, values: Vec<Vec<(u32, f64)>>) -> Self {
        let design = EffectsDesign::new(&spec, cells).expect("there are cells to compare");
        Self {
            spec,
            design,
            values,
        }
    }

    fn slices(&self) -> Vec<&[(u32, f64)]> {
        self.values.iter().map(Vec::as_slice).collect()
    }

    /// The cells, of an accuracy, by how good they are.
    fn best(&self, stream: &mut RandomStream) -> Vec<TopCell> {
        let trials = self.design.cells.iter().zip(&self.values);
        let trials: BTreeMap<CellIndex, CellTrials> = trials
            .map(|(cell, values)| (*cell, CellTrials::with_values(values.clone())))
            .collect();
        let ends = trials
            .iter()
            .map(|(cell, trials)| (*cell, trials.ends.clone()))
            .collect();

        find_best_cells(
            &self.spec,
            &Metric::TestAcc,
            &trials,
            &ends,
            Some(stream.clone()),
        )
        .0
    }

    fn means(&self) -> Vec<f64> {
        self.values
            .iter()
            .filter_map(|values| mean_value(values))
            .collect()
    }

    fn terms(&self) -> (Vec<AnovaTerm>, Vec<String>) {
        let mut notes = Vec::new();
        let (slices, blocks) = (self.slices(), RepeatBlocks::new(&self.slices()));
        let terms = super::anova::compute_anova_terms(
            &self.spec,
            &self.design,
            &slices,
            &blocks,
            &self.means(),
            &mut notes,
        );

        (terms, notes)
    }
}

fn numbers(value: &Json) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("a list of numbers")
}

fn close(found: f64, wanted: f64, what: &str) {
    assert!(
        (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0),
        "{what}: {found} is not {wanted}"
    );
}

/// Cells of a fixture, which names them by their levels.
fn case(fixture: &Json) -> EffectsCase {
    let levels: Vec<usize> = serde_json::from_value(fixture["levels"].clone()).expect("levels");
    let spec = sweep(&levels, "");
    let cells: Vec<Vec<u64>> = serde_json::from_value(fixture["cells"].clone()).expect("cells");
    let number = |indices: &Vec<u64>| {
        let found = spec
            .grid
            .iter()
            .find(|cell| spec.grid.value_indices(*cell) == *indices);
        found.expect("such a cell")
    };
    let cells: Vec<CellIndex> = cells.iter().map(number).collect();
    let values: Vec<Vec<f64>> = serde_json::from_value(fixture["values"].clone()).expect("values");
    let values = values
        .into_iter()
        .map(|values| (0..).zip(values).collect())
        .collect();

    EffectsCase::new(spec, cells, values)
}

#[test]
fn effects_and_sums_of_squares_agree_with_statsmodels() {
    let fixture: Json =
        serde_json::from_str(include_str!("../../../../tests/oracles/analysis.json"))
            .expect("the fixture is JSON");
    let names = [("batch_size", "a"), ("lr", "b"), ("model.width", "c")];
    let fixtures = fixture["variance"].as_array().expect("a list");
    assert_eq!(fixtures.len(), 4);

    for fixture in fixtures {
        let case = case(fixture);
        let model =
            EffectsModel::new(&case.spec, &case.design, None).expect("a full grid, or nearly");
        let means = case.means();
        close(
            model.grand_mean(&means),
            fixture["mean"].as_f64().expect("a mean"),
            "mean",
        );

        let mut effects = model.level_effects(&means).into_iter();
        for (factor, (_, name)) in case.design.factors.iter().zip(names) {
            let wanted = numbers(&fixture["effects"][name]);
            let found: Vec<f64> = effects.by_ref().take(factor.levels.len()).collect();
            wanted
                .iter()
                .zip(&found)
                .for_each(|(wanted, found)| close(*found, *wanted, name));

            close(found.iter().sum(), 0.0, name);
        }

        check_squares(&case, fixture, &names);
    }
}

fn check_squares(case: &EffectsCase, fixture: &Json, names: &[(&str, &str)]) {
    let (terms, _) = case.terms();
    let word = |name: &str| {
        let parts = name
            .split(" × ")
            .map(|part| names.iter().find(|n| n.0 == part).map_or(part, |n| n.1));
        parts.collect::<Vec<_>>().join(" × ")
    };

    for (name, wanted) in fixture["squares"].as_object().expect("an object") {
        let term = terms
            .iter()
            .find(|term| word(&term.name) == *name)
            .unwrap_or_else(|| panic!("no {name}"));
        let wanted = numbers(wanted);
        assert_eq!(term.df as f64, wanted[0], "{name}");

        close(term.squares, wanted[1], name);
    }

    let inside: f64 = terms
        .iter()
        .filter(|term| term.between.is_none())
        .map(|term| term.squares)
        .sum();
    close(
        inside,
        fixture["within"].as_f64().expect("a number"),
        "within",
    );

    let all: f64 = terms.iter().filter_map(|term| term.share).sum();
    // In a full grid, nothing is counted twice or left out.
    let is_full = case.design.cells.len() as u64 == case.spec.grid.cell_count();
    assert!(!is_full || (all - 1.0).abs() < 1e-12, "{all}");
    let df: u64 = terms.iter().map(|term| term.df).sum();
    assert_eq!(
        df as usize,
        case.values.iter().map(Vec::len).sum::<usize>() - 1
    );
}

#[test]
fn axes_that_move_together_are_one_factor_and_constant_ones_none() {
    let spec = sweep(&[3, 3, 2], "zip = [[\"batch_size\", \"lr\"]]\n");
    assert_eq!(spec.grid.cell_count(), 6);
    let design = EffectsDesign::new(&spec, spec.grid.iter().collect()).expect("factors");
    let axes: Vec<&[usize]> = design
        .factors
        .iter()
        .map(|factor| &factor.axes[..])
        .collect();
    assert_eq!(
        (axes, design.factor_name(&spec, 0)),
        (vec![&[0, 1][..], &[2]], "batch_size+lr".to_owned())
    );

    let first = &design.factors[0].levels[0];
    let last = &design.factors[0].levels[2];
    assert_eq!(
        (first, last),
        (
            &vec![SpecValue::Int(10), SpecValue::Int(10)],
            &vec![SpecValue::Int(30), SpecValue::Int(30)]
        )
    );

    // Of the cells of one width, the width does nothing.
    let narrow = spec
        .grid
        .iter()
        .filter(|cell| spec.grid.value_indices(*cell)[2] == 0)
        .collect();
    let design = EffectsDesign::new(&spec, narrow).expect("factors");
    assert_eq!((design.factors.len(), design.constant_axes), (1, vec![2]));
}

/// Values of a grid of two axes whose repeats have something in common; `effect` per level of the first axis.
fn draw(
    cells: usize,
    repeats: usize,
    effect: impl Fn(usize) -> f64,
    stream: &mut RandomStream,
) -> Vec<Vec<(u32, f64)>> {
    let common: Vec<f64> = (0..repeats).map(|_| stream.next_normal()).collect();
    let mut values = Vec::new();
    for cell in 0..cells {
        let of =
            |(repeat, common): (u32, &f64)| (repeat, effect(cell) + common + stream.next_normal());
        values.push((0..).zip(&common).map(of).collect());
    }
    values
}

#[test]
fn intervals_cover_and_the_best_cell_is_less_sure_than_it_looks() {
    const ROUNDS: u64 = 120;
    let spec = sweep(&[2, 2], "");
    let mut covered = 0.0;
    let mut sum = 0.0;
    let mut hits = 0.0;

    for round in 0..ROUNDS {
        let mut stream = fixed_stream("effects", round);
        // The first axis adds ±0.4; the last cell is the best one.
        let effect =
            |cell: usize| if cell < 2 { -0.4 } else { 0.4 } + if cell == 3 { 0.1 } else { 0.0 };
        let case = EffectsCase::new(
            spec.clone(),
            [0, 1, 2, 3].map(CellIndex).to_vec(),
            draw(4, 30, effect, &mut stream),
        );
        let model = EffectsModel::new(&case.spec, &case.design, None).expect("a full grid");
        let drawn = EffectDraws::Resamples(
            model.evaluate_resamples(&RepeatBlocks::new(&case.slices()), &mut stream),
        );
        let levels = model.build_levels(&case.means(), &drawn, 0.9);
        let (low, high) = levels[0].interval.expect("an interval");
        covered += f64::from(u8::from(low <= -0.425 && -0.425 <= high)) / ROUNDS as f64;

        let best = case.best(&mut stream);
        close(
            best.iter().filter_map(|best| best.probability).sum(),
            1.0,
            "probabilities",
        );

        sum += best[0].probability.expect("resamples") / ROUNDS as f64;
        hits += f64::from(u8::from(best[0].cell == CellIndex(3))) / ROUNDS as f64;
    }

    // Percentiles of thirty repeats are a little short.
    assert!((0.8..=0.96).contains(&covered), "{covered}");
    // A cell that is said to be the best with some probability is so less often: it was chosen because it looks so.
    assert!(
        sum > hits - 0.05 && sum < hits + 0.3 && hits > 0.4,
        "{sum} {hits}"
    );
}

#[test]
fn whole_repeats_are_resampled_so_that_what_they_share_cancels() {
    let spec = sweep(&[2], "");
    let mut stream = fixed_stream("shared", 0);
    let common: Vec<f64> = (0..12).map(|_| 100.0 * stream.next_normal()).collect();
    let of = |shift: f64| {
        (0..)
            .zip(&common)
            .map(|(repeat, x)| (repeat, x + shift))
            .collect::<Vec<(u32, f64)>>()
    };
    let case = EffectsCase::new(
        spec,
        [0, 1].map(CellIndex).to_vec(),
        vec![of(0.0), of(0.01)],
    );
    let model = EffectsModel::new(&case.spec, &case.design, None).expect("a full grid");
    let drawn = model.evaluate_resamples(&RepeatBlocks::new(&case.slices()), &mut stream);
    assert_eq!(drawn.len(), RESAMPLES);

    let drawn = EffectDraws::Resamples(drawn);
    assert_eq!(case.best(&mut stream)[0].probability, Some(1.0));
    let (low, high) = model.build_levels(&case.means(), &drawn, 0.95)[1]
        .interval
        .expect("an interval");
    assert!(
        (low - 0.005).abs() < 1e-9 && (high - 0.005).abs() < 1e-9,
        "{low} {high}"
    );

    // What two equal cells differ by is 0, and no rounding.
    let equal = EffectsCase::new(
        sweep(&[3, 2], ""),
        (0..6).map(CellIndex).collect(),
        (0..6).map(|_| of(0.1)).collect(),
    );
    let model = EffectsModel::new(&equal.spec, &equal.design, Some((0, 1))).expect("a full grid");
    let effects = model.level_effects(&equal.means());
    assert!(effects.iter().all(|effect| *effect == 0.0));

    assert!(
        model
            .interaction_effects(&equal.means(), &effects)
            .iter()
            .all(|left| *left == Some(0.0))
    );

    let (terms, _) = case.terms();
    let share = |name: &str| {
        terms
            .iter()
            .find(|term| term.name == name)
            .and_then(|term| term.share)
            .expect("a share")
    };

    assert!(share("repeats") > 0.999 && share("residual") < 1e-9);
}

#[test]
fn cells_that_tie_in_a_resample_share_it() {
    let of = |last: f64| -> Vec<(u32, f64)> {
        (0..10_u32)
            .map(|repeat| {
                (
                    repeat,
                    if repeat == 9 {
                        last
                    } else {
                        f64::from(repeat % 4)
                    },
                )
            })
            .collect()
    };
    let two = EffectsCase::new(
        sweep(&[2], ""),
        [0, 1].map(CellIndex).to_vec(),
        vec![of(0.5), of(1.0)],
    );
    let best = two.best(&mut fixed_stream("ties", 0));

    // The one repeat in which they differ is missing in 0.9¹⁰ = 0.349 of the resamples, which tell nothing.
    let probability = best[0].probability.expect("resamples");
    assert!(
        best[0].cell == CellIndex(1) && (probability - (1.0 - 0.5 * 0.9_f64.powi(10))).abs() < 0.02,
        "{best:?}"
    );
    close(
        probability + best[1].probability.expect("resamples"),
        1.0,
        "probabilities",
    );

    assert_eq!(
        two.best(&mut fixed_stream("ties", 0)),
        best,
        "the same stream, the same shares"
    );
    let three = EffectsCase::new(
        sweep(&[3], ""),
        [0, 1, 2].map(CellIndex).to_vec(),
        vec![of(0.5); 3],
    );
    for best in three.best(&mut fixed_stream("ties", 1)) {
        close(
            best.probability.expect("resamples"),
            1.0 / 3.0,
            "a share of equals",
        );
    }
}

#[test]
fn what_is_missing_is_said() {
    let spec = sweep(&[2, 3], "");
    let value = |x: f64| vec![(0, x), (1, x + 1.0)];
    // One of six cells has no value, another one only one.
    let values = vec![
        value(1.0),
        value(2.0),
        value(4.0),
        value(3.0),
        vec![(1, 9.0)],
    ];
    let case = EffectsCase::new(
        spec.clone(),
        [0, 1, 2, 3, 5].map(CellIndex).to_vec(),
        values,
    );
    let model =
        EffectsModel::new(&case.spec, &case.design, Some((0, 1))).expect("it links all levels");

    let blocks = RepeatBlocks::new(&case.slices());
    let drawn = model.evaluate_resamples(&blocks, &mut fixed_stream("missing", 0));
    // The second repeat is missing in a quarter of the resamples.
    assert!((7300..7700).contains(&drawn.len()), "{}", drawn.len());
    let drawn = EffectDraws::Resamples(drawn);
    let notes = describe_caveats(&spec, &case.design, &blocks, &drawn).join("\n");

    for word in [
        "left out: 1: (batch_size=20, lr=20)",
        "5 of 6 combinations",
        "resamples a cell had no value",
    ] {
        assert!(notes.contains(word), "{word}: {notes}");
    }

    let pairs = model.build_pairs(&case.means(), &drawn, 0.95);
    assert_eq!(
        (
            pairs.len(),
            pairs[4].cells,
            pairs[4].mean,
            pairs[4].effect,
            pairs[4].interval
        ),
        (6, 0, None, None, None)
    );

    assert!(
        pairs
            .iter()
            .filter(|pair| pair.cells > 0)
            .all(|pair| pair.effect.is_some() && pair.interval.is_some())
    );

    let (terms, notes) = case.terms();
    assert!(
        notes[0].contains("1 of 10 trials have no value"),
        "{notes:?}"
    );

    assert_eq!(
        terms.last().map(|term| (term.name.as_str(), term.df)),
        Some(("within cells", 4))
    );
}

#[test]
fn what_cannot_be_known_is_left_out_or_refused() {
    // One repeat says nothing of chance.
    let spec = sweep(&[2, 3], "");
    let lone = EffectsCase::new(
        spec.clone(),
        (0..6).map(CellIndex).collect(),
        (0..6).map(|cell| vec![(3, f64::from(cell))]).collect(),
    );
    let blocks = RepeatBlocks::new(&lone.slices());

    let model = EffectsModel::new(&lone.spec, &lone.design, None).expect("a full grid");
    let drawn = model.evaluate_resamples(&blocks, &mut fixed_stream("missing", 0));
    assert!(drawn.is_empty());
    let drawn = EffectDraws::Resamples(drawn);
    assert!(
        model.build_levels(&lone.means(), &drawn, 0.95)[0]
            .interval
            .is_none()
    );

    assert!(
        super::caveats::describe_caveats(&spec, &lone.design, &blocks, &drawn)
            .join(" ")
            .contains("one repeat")
    );

    // Two cells that share no level.
    let apart = EffectsDesign::new(&spec, vec![CellIndex(0), CellIndex(4)]).expect("factors");
    assert_eq!(apart.factors.len(), 1, "the two axes move together");
    let error = EffectsDesign::new(&spec, vec![CellIndex(2)])
        .expect_err("one cell")
        .to_string();
    assert!(error.contains("only one cell of the sweep's 6"), "{error}");

    // Four cells in two blocks that have no level in common.
    let spec = sweep(&[4, 4], "");
    let cells = [0, 1, 4, 5, 10, 11, 14, 15].map(CellIndex).to_vec();
    let design = EffectsDesign::new(&spec, cells).expect("factors");
    let error = EffectsModel::new(&spec, &design, None)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        error.contains("effects of batch_size, lr cannot be told apart"),
        "{error}"
    );
}

#[test]
fn of_twenty_equal_cells_the_best_one_gets_more_than_its_share() {
    // What `ergodic effects --help` says of p(best): it is no probability of being the best.
    const ROUNDS: u64 = 12;
    let spec = sweep(&[5, 4], "");
    let mut sum = 0.0;
    let mut sets = 0;

    for round in 0..ROUNDS {
        let mut stream = fixed_stream("equal", round);
        let case = EffectsCase::new(
            spec.clone(),
            (0..20).map(CellIndex).collect(),
            draw(20, 10, |_| 0.0, &mut stream),
        );
        let best = case.best(&mut stream);
        sum += best[0].probability.expect("resamples") / ROUNDS as f64;

        sets += best.iter().filter(|best| best.rank.may_be_best).count();
    }

    assert!((0.25..0.55).contains(&sum), "{sum}");
    assert_eq!(
        sets,
        10 * ROUNDS as usize,
        "of those that are named, all may be the best"
    );
}

#[test]
fn under_crossed_streams_effects_are_those_of_the_streams() {
    let mut spec = sweep(&[2], "");
    let crossed = vec![
        (ergodic_common::random_streams::Purpose::Init, 4),
        (ergodic_common::random_streams::Purpose::Order, 4),
    ];
    spec.seeds.crossed = crossed;

    let crossing = Crossing::from_spec(&spec).expect("it crosses");
    let covered = {
        let hits = (0..200).filter(|round| {
            let mut stream = fixed_stream("crossed effects", *round);
            // What the initial weights do, they do differently in both cells: an effect of 0 with four independent values.
            let init: Vec<f64> = (0..4).map(|_| stream.next_normal()).collect();
            let of = |sign: f64| {
                (0..16)
                    .map(|repeat| (repeat, sign * init[repeat as usize / 4]))
                    .collect::<Vec<(u32, f64)>>()
            };
            let case = EffectsCase::new(
                spec.clone(),
                [0, 1].map(CellIndex).to_vec(),
                vec![of(1.0), of(-1.0)],
            );
            let model = EffectsModel::new(&case.spec, &case.design, None).expect("a full grid");

            let blocks = RepeatBlocks::new(&case.slices());
            let drawn = EffectDraws::Repeats(
                model.evaluate_repeats(&blocks),
                blocks.repeat_numbers().to_vec(),
                crossing.clone(),
            );
            let (low, high) = model.build_levels(&case.means(), &drawn, 0.95)[0]
                .interval
                .expect("an interval");

            low <= 0.0 && 0.0 <= high
        });

        hits.count() as f64 / 200.0
    };

    // Within three standard errors of 95 % of 200.
    assert!(covered >= 0.9, "{covered}");
}

#[test]
fn what_is_not_resampled_is_not_too_much() {
    let spec = sweep(&[5, 4], "");
    let design = EffectsDesign::new(&spec, (0..20).map(CellIndex).collect()).expect("factors");
    let values: Vec<(u32, f64)> = (0..110_000).map(|repeat| (repeat, 0.5)).collect();
    let blocks = RepeatBlocks::new(&[&values[..]; 20]);
    assert!(check_resampling_work(&design, &blocks, RESAMPLES).is_err());
    check_resampling_work(&design, &blocks, 1).expect("each repeat is looked at once");
}
