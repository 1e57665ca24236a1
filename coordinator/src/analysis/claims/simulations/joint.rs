//! Claims about the joint distance of all predicted labels, which sees what points have in common.

use ergodic_common::TrialKey;
use ergodic_common::random_streams::fixed_stream;
use ergodic_common::trial::Predictions;

use super::super::jobs::TrialValue;
use super::super::judge::ClaimVerdict;
use super::super::label_laws::LabelLaws;
use super::super::read::TrialCounts;
use super::super::tests::Experiment;
use super::check_cases;
use super::laws::{NumberLaw, SimulatedCase};

const CLAIMS: [&str; 4] = [
    "large joint distance below",
    "large joint distance above",
    "small joint distance below",
    "small joint distance above",
];
const POINTS: usize = 50;
/// Mean number of points with the second label, in each cell.
const MEANS: [f64; 3] = [18.0, 30.0, 20.0];
const DEVIATION: f64 = 5.0;

/// The number of points of a trial with the second label, which are its first ones.
fn round_to_points(mean: f64, moved: f64) -> usize {
    let count = (mean + DEVIATION * moved).round();
    count.clamp(0.0, POINTS as f64) as usize
}

/// The chance of each number of points.
fn chances(law: NumberLaw, mean: f64) -> Vec<f64> {
    let chance = |count: f64| law.chance_up_to((count + 0.5 - mean) / DEVIATION);
    let up_to = (0..POINTS).map(|count| chance(count as f64)).chain([1.0]);
    let mut below = 0.0;
    let chances = up_to.map(|up_to| {
        let chance = up_to - below;
        below = up_to;
        chance
    });
    chances.collect()
}

/// The joint distance of two cells, from the chances of all numbers of points.
fn true_distance(law: NumberLaw, means: [f64; 2]) -> f64 {
    let [a, b] = means.map(|mean| chances(law, mean));
    let mean_root = |x: &[f64], y: &[f64]| {
        let pairs = x.iter().enumerate().flat_map(|(i, p)| {
            let others = y.iter().enumerate();
            others.map(move |(j, q)| p * q * (i.abs_diff(j) as f64 / POINTS as f64).sqrt())
        });
        pairs.sum::<f64>()
    };
    2.0 * mean_root(&a, &b) - mean_root(&a, &a) - mean_root(&b, &b)
}

fn write_claims(law: NumberLaw) -> String {
    let distances = [1, 2].map(|cell| true_distance(law, [MEANS[0], MEANS[cell]]));
    let claims = distances.iter().zip(["c == 2", "c == 4"]).flat_map(|(distance, cell)| {
        ["below", "above"].map(|side| {
            format!(
                "[[claim]]\nname = '{cell} {side}'\nform = 'labels'\njoint = true\nwhere = '{cell}'\nto = 'c == 1'\n\
                 {side} = {distance}\n"
            )
        })
    });
    claims.collect()
}

fn count_wrong_distances(case: SimulatedCase, experiments: u32) -> Vec<u32> {
    let points = format!("measure.probe.points={POINTS}");
    let experiment = Experiment::with_settings("", &write_claims(case.law), &[&points]);
    let ended = vec![vec![TrialValue::Nothing; case.n]; MEANS.len()];
    let mut stream = fixed_stream("joint labels at the margin", case.n as u64);
    let mut agreed = vec![0; CLAIMS.len()];
    for _ in 0..experiments {
        let mut labels =
            LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
        for (cell, mean) in (0..).zip(MEANS) {
            for repeat in 0..case.n as u32 {
                let ones = round_to_points(mean, case.law.draw(&mut stream));
                let classes = (0..POINTS).map(|point| u8::from(point < ones));
                let predictions = Predictions {
                    steps: vec![100],
                    classes: classes.collect(),
                };
                labels.add_trial(TrialKey::new(cell, repeat), &predictions);
            }
        }

        let judged = experiment.judge_beside(&ended, TrialCounts::default(), &labels);
        for (agreed, judged) in agreed.iter_mut().zip(&judged) {
            *agreed += u32::from(judged.verdict == ClaimVerdict::Agrees);
        }
    }
    agreed
}

pub(super) fn check_distances(counts: impl IntoIterator<Item = usize>, experiments: u32) {
    check_cases(counts, experiments, &CLAIMS, &count_wrong_distances);
}

#[test]
fn few_claims_about_joint_distances_agree_at_the_margin() {
    check_distances([6, 12, 50], 200);
}
