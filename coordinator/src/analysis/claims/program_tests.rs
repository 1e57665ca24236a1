//! Claims about programs, whose trials end where they do.

use ergodic_common::Spec;
use ergodic_common::spec::SpecSource;

use super::jobs::TrialValue;
use super::judge::{ClaimVerdict, JudgedEffect};
use super::read::TrialCounts;
use super::tests::Experiment;

/// Judges the mean of mean curves of trials that end after these steps.
fn judge_ends(ends: &[u32]) -> JudgedEffect {
    let text = "name = \"t\"\nrepeats = 12\n[program]\ncommand = [\"x\"]\nmetrics = { loss = \"min\" }\n[grid]\nc = [1, 2, 4]\n\
                [[claim]]\nname = \"c\"\nper = \"mean\"\nwhere = \"c == 1\"\nof = \"mean(loss)\"\nwithin = [0, 2]\n";
    let source = SpecSource {
        text: text.to_owned(),
        ..SpecSource::default()
    };
    let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
    let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
    let expanded = spec
        .expand_claims(&claims)
        .unwrap_or_else(|e| panic!("{e}"));
    let experiment = Experiment { spec, expanded };
    let trials = ends.iter().enumerate().map(|(repeat, end)| {
        let steps: Vec<f64> = (1..=*end).map(f64::from).collect();
        TrialValue::Series {
            series: vec![vec![1.0 + 0.01 * repeat as f64; steps.len()]],
            steps,
        }
    });
    let mut judged = experiment.judge(&[trials.collect()], TrialCounts::default());
    judged.swap_remove(0)
}

#[test]
fn trials_that_end_at_different_steps_have_no_mean_curve() {
    let alike = judge_ends(&[5; 6]);
    assert_eq!(alike.verdict, ClaimVerdict::Agrees, "{alike:?}");
    assert_eq!(alike.n, 6);

    let apart = judge_ends(&[5, 5, 3, 5, 4, 5]);
    assert_eq!(apart.verdict, ClaimVerdict::NotEnough);
    assert_eq!((apart.effect, apart.n), (None, 6), "{apart:?}");
    assert_eq!(
        apart.notes,
        [
            "trials reported at different steps, so that they have no mean curve: use per = \"trial\""
        ]
    );
}
