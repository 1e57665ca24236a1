//! Claims about the distance of predicted labels, whose estimate is skewed, and about the ratio of two.

use ergodic_common::TrialKey;
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use ergodic_common::trial::Predictions;

use super::super::jobs::TrialValue;
use super::super::judge::ClaimVerdict;
use super::super::label_laws::LabelLaws;
use super::super::read::TrialCounts;
use super::super::tests::Experiment;
use super::laws::{NumberLaw, SimulatedCase};
use super::{check_cases, shipped_repeats};

pub(super) const CLAIMS: [&str; 6] = [
    "large distance below",
    "large distance above",
    "small distance below",
    "small distance above",
    "ratio of distances below",
    "ratio of distances above",
];

/// The distances of the two cells after 50 steps and at the end.
const DISTANCES: [f64; 2] = [0.1, 0.002];
const POINTS: usize = 50;
/// Chance that the first cell predicts the second class.
const SECOND_CLASS: f64 = 0.1;

/// The labels of both cells in a repeat. Both predict alike but for some labels, of which a repeat has the more, the greater the
/// severity is that all of its points share. The mean of severities is 1, and each cell's label of a point has the same chances in all
/// repeats.
fn draw_labels(stream: &mut RandomStream, severity: f64, distance: f64) -> [Vec<u8>; 2] {
    // The distance is twice the squared difference of the chances of the second class.
    let changed = (0.5 * distance).sqrt() / (1.0 - 2.0 * SECOND_CLASS);
    let labels = (0..POINTS).map(|_| {
        let label = u8::from(stream.next_uniform() < SECOND_CLASS);
        let is_changed = stream.next_uniform() < changed * severity;
        [label, label ^ u8::from(is_changed)]
    });
    let labels: Vec<[u8; 2]> = labels.collect();
    [0, 1].map(|cell| labels.iter().map(|both| both[cell]).collect())
}

/// A severity with mean 1. Symmetric laws are cut off at equal distances from it, so that no chance is below 0.
fn draw_severity(law: NumberLaw, stream: &mut RandomStream) -> f64 {
    let severity = 1.0 + 0.4 * law.draw(stream);
    match law {
        NumberLaw::Skewed => severity,
        _ => severity.clamp(0.0, 2.0),
    }
}

fn label_claims() -> String {
    let [large, small] = DISTANCES;
    let ratio = small / large;
    let keys = [
        format!("at = '50 steps'\nbelow = {large}"),
        format!("at = '50 steps'\nabove = {large}"),
        format!("at = 'final'\nbelow = {small}"),
        format!("at = 'final'\nabove = {small}"),
        format!("at = 'final'\nrelative_to = '50 steps'\nbelow = {ratio}"),
        format!("at = 'final'\nrelative_to = '50 steps'\nabove = {ratio}"),
    ];
    let claims = keys.iter().zip(CLAIMS).map(|(keys, name)| {
        format!(
            "[[claim]]\nname = '{name}'\nform = 'labels'\nwhere = 'c == 2'\nto = 'c == 1'\n{keys}\n"
        )
    });
    claims.collect()
}

pub(super) fn count_wrong_labels(case: SimulatedCase, experiments: u32) -> Vec<u32> {
    let points = format!("measure.probe.points={POINTS}");
    let experiment = Experiment::with_settings("", &label_claims(), &[&points]);
    let ended = vec![vec![TrialValue::Nothing; case.n]; 2];
    let mut stream = fixed_stream("labels at the margin", case.n as u64);
    let mut agreed = vec![0; CLAIMS.len()];
    for _ in 0..experiments {
        let mut labels =
            LabelLaws::new(&experiment.spec, &experiment.expanded).expect("few predictions");
        let repeats = (0..case.n as u32).map(|_| {
            let severity = draw_severity(case.law, &mut stream);
            DISTANCES.map(|distance| draw_labels(&mut stream, severity, distance))
        });
        let repeats: Vec<[[Vec<u8>; 2]; 2]> = repeats.collect();
        for cell in [0, 1] {
            for (repeat, moments) in (0..).zip(&repeats) {
                let predictions = Predictions {
                    steps: vec![50, 100],
                    classes: moments.iter().flat_map(|of| of[cell].clone()).collect(),
                };
                labels.add_trial(TrialKey::new(cell as u64, repeat), &predictions);
            }
        }

        let judged = experiment.judge_beside(&ended, TrialCounts::default(), &labels);
        for (agreed, judged) in agreed.iter_mut().zip(&judged) {
            *agreed += u32::from(judged.verdict == ClaimVerdict::Agrees);
        }
    }
    agreed
}

#[test]
fn few_claims_about_labels_agree_at_the_margin() {
    check_cases(
        shipped_repeats(&|_| true),
        200,
        &CLAIMS,
        &count_wrong_labels,
    );
}
