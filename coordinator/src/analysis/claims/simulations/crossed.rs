//! Claims about repeats that cross two streams, whose levels are the units.

use ergodic_common::random_streams::fixed_stream;

use super::super::judge::ClaimVerdict;
use super::super::tests::{Experiment, claim};
use super::laws::{ALPHA, NUMBER_LAWS, NumberLaw, SimulatedCase};

/// Numbers of levels of both streams.
pub(super) type CrossedLevels = [usize; 2];

/// Designs to simulate, with all of `sweeps/intrinsic-lr`.
pub(super) const ALL_DESIGNS: [CrossedLevels; 6] =
    [[2, 6], [3, 4], [5, 4], [8, 8], [20, 20], [50, 50]];

/// Standard deviations of the levels of both streams, and of what is left.
const DEVIATIONS: [[f64; 3]; 6] = [
    [1.0, 0.0, 0.1],
    [0.0, 1.0, 0.1],
    [1.0, 0.4, 0.0],
    [1.0, 1.0, 0.0],
    [1.0, 0.3, 0.5],
    [0.1, 0.1, 1.0],
];

/// The share of experiments in which a claim at the margin agrees.
fn wrong_agreement(
    law: NumberLaw,
    [slow, fast]: CrossedLevels,
    deviations: [f64; 3],
    experiments: u32,
) -> f64 {
    let seeds = format!("seeds = {{ crossed = {{ init = {slow}, order = {fast} }} }}");
    let repeats = format!("repeats={}", slow * fast);
    // Two levels leave one degree of freedom, with which they are judged here.
    let text = claim("where = 'c == 1'\nbelow = 1\nmin = 2");
    let experiment = Experiment::with_settings(&seeds, &text, &[&repeats]);
    let mut stream = fixed_stream("crossed streams at the margin", slow as u64);
    let agreed = (0..experiments).filter(|_| {
        let of_slow: Vec<f64> = (0..slow).map(|_| law.draw(&mut stream)).collect();
        let of_fast: Vec<f64> = (0..fast).map(|_| law.draw(&mut stream)).collect();
        let repeats = (0..slow * fast).map(|repeat| {
            let levels = [of_slow[repeat / fast], of_fast[repeat % fast]];
            let parts = [levels[0], levels[1], law.draw(&mut stream)];
            let moved = parts.iter().zip(deviations).map(|(x, by)| x * by);
            1.0 + moved.sum::<f64>()
        });
        let numbers: Vec<f64> = repeats.collect();
        experiment.judge_numbers(&[numbers])[0].verdict == ClaimVerdict::Agrees
    });
    f64::from(agreed.count() as u32) / f64::from(experiments)
}

/// Checks and prints the shares of wrong verdicts of some designs, with all laws.
#[expect(
    clippy::print_stdout,
    reason = "the figures stand in the documentation"
)]
pub(super) fn check_designs(designs: &[CrossedLevels], experiments: u32) {
    let error = (ALPHA * (1.0 - ALPHA) / f64::from(experiments)).sqrt();
    for levels in designs {
        let n = levels[0].min(levels[1]);
        for law in NUMBER_LAWS {
            let shares = DEVIATIONS.map(|of| wrong_agreement(law, *levels, of, experiments));
            println!("crossed {levels:?} {law:?}: {shares:.3?}");
            let allowed = SimulatedCase { law, n }.allowed_share();
            for (wrong, of) in shares.iter().zip(DEVIATIONS) {
                assert!(
                    allowed.is_none_or(|allowed| *wrong <= allowed + 3.0 * error),
                    "{levels:?} {law:?} {of:?}: {wrong}"
                );
            }
        }
    }
}

#[test]
fn few_claims_on_crossed_streams_agree_at_the_margin() {
    check_designs(&[[2, 6], [6, 2], [3, 4], [5, 4]], 1_000);
    check_designs(&[[8, 8]], 300);
}
