//! How often claims agree wrongly in simulated experiments whose true effect is on the edge of the region, or is the worst that may
//! not agree. All numbers of repeats of the experiments in `sweeps/intrinsic-lr` are simulated. Short runs are tests; the long ones
//! make the figures of the documentation:
//! `cargo test -p ergodic --release --lib -- --ignored --nocapture wrong_agreement`

mod bits;
mod crossed;
mod curves;
mod extremes;
mod joint;
mod labels;
mod laws;
mod shipped;

use ergodic_common::random_streams::fixed_stream;
use rayon::prelude::*;

use self::laws::{CountWrong, NUMBER_LAWS, SimulatedCase};
use self::shipped::shipped_repeats;
use super::judge::ClaimVerdict;
use super::tests::{Experiment, claim};
use super::weighed::SMALL_REPEATS;

/// Claims about cells with the means 5, 10 and 20, all of which are on the edge of being wrong.
const MARGINS: [(&str, &str); 9] = [
    ("value below", "where = 'c == 1'\nbelow = 5"),
    ("value above", "where = 'c == 1'\nabove = 5"),
    ("value outside", "where = 'c == 1'\noutside = [-90, 5]"),
    (
        "difference within",
        "form = 'difference'\nwhere = 'c == 2'\nto = 'c == 1'\nwithin = [-90, 5]",
    ),
    (
        "ratio within",
        "form = 'ratio'\nwhere = 'c == 2'\nto = 'c == 1'\nwithin = [0.1, 2]",
    ),
    ("slope below", "form = 'slope'\nagainst = 'c'\nbelow = 1"),
    ("spread below", "form = 'spread'\nbelow = 4"),
    ("spread above", "form = 'spread'\nabove = 4"),
    ("collapse below", "form = 'collapse'\nover = 'c'\nbelow = 4"),
];

/// Claims about the share of numbers above 1, all of which are on the edge of being wrong. The first cell counts them, the second one
/// has the numbers themselves.
const SHARE_MARGINS: [(&str, &str); 4] = [
    (
        "share below",
        "form = 'share'\nwhere = 'c == 1'\nof = 'at(train_loss, end) > 1'\nbelow = SHARE",
    ),
    (
        "share above",
        "form = 'share'\nwhere = 'c == 1'\nof = 'at(train_loss, end) > 1'\nabove = SHARE",
    ),
    (
        "extreme",
        "form = 'extreme'\nwhere = 'c == 2'\nof = 'at(train_loss, end)'\nbelow = 1\nchance = SHARE",
    ),
    (
        "extreme, control",
        "form = 'extreme'\nwhere = 'c == 2'\nof = 'at(train_loss, end)'\nbelow = 1\nchance = SHARE\ncontrol = true",
    ),
];

fn names<const N: usize>(margins: &[(&'static str, &str); N]) -> [&'static str; N] {
    margins.map(|(name, _)| name)
}

/// Judges `experiments` experiments with the numbers that `make` makes of three drawn ones, and counts those in which each claim
/// agrees.
fn count_agreements(
    case: SimulatedCase,
    experiments: u32,
    claims: &str,
    make: fn([f64; 3]) -> [f64; 3],
) -> Vec<u32> {
    let experiment = Experiment::new("", claims);
    let mut stream = fixed_stream("claims at the margin", case.n as u64);
    let mut agreed = vec![0; experiment.expanded.claims.len()];
    for _ in 0..experiments {
        let mut cells = [(); 3].map(|()| Vec::with_capacity(case.n));
        for _ in 0..case.n {
            let drawn = [(); 3].map(|()| case.law.draw(&mut stream));
            for (cell, number) in cells.iter_mut().zip(make(drawn)) {
                cell.push(number);
            }
        }
        let judged = experiment.judge_numbers(&cells);
        for (agreed, judged) in agreed.iter_mut().zip(&judged) {
            *agreed += u32::from(judged.verdict == ClaimVerdict::Agrees);
        }
    }
    agreed
}

fn count_wrong_numbers(case: SimulatedCase, experiments: u32) -> Vec<u32> {
    let claims = MARGINS.map(|(name, keys)| {
        claim(&format!("{keys}\nmin = 3")).replace("name = 'c'", &format!("name = '{name}'"))
    });
    count_agreements(case, experiments, &claims.concat(), |x| {
        [5.0 + x[0], 10.0 + 2.0 * x[1], 20.0 + 4.0 * x[2]]
    })
}

fn count_wrong_shares(case: SimulatedCase, experiments: u32) -> Vec<u32> {
    let claims = SHARE_MARGINS.map(|(name, keys)| {
        let keys = keys.replace("SHARE", case.law.chance_above_1());
        format!("[[claim]]\nname = '{name}'\n{keys}\n")
    });
    count_agreements(case, experiments, &claims.concat(), |x| {
        [f64::from(u8::from(x[0] > 1.0)), x[1], 0.0]
    })
}

/// Checks and prints the shares of wrong verdicts for all laws and numbers of repeats.
#[expect(
    clippy::print_stdout,
    reason = "the figures stand in the documentation"
)]
fn check_cases(
    counts: impl IntoIterator<Item = usize>,
    experiments: u32,
    claims: &[&str],
    count: &CountWrong<'_>,
) {
    let cases = SimulatedCase::cross(counts);
    let found: Vec<Vec<f64>> = cases
        .par_iter()
        .with_max_len(1)
        .map(|case| case.check(experiments, claims, count))
        .collect();
    for (at, claim) in claims.iter().enumerate() {
        for (first, law) in NUMBER_LAWS.iter().enumerate() {
            let of_law = cases
                .iter()
                .zip(&found)
                .skip(first)
                .step_by(NUMBER_LAWS.len());
            let shares =
                of_law.map(|(case, shares)| format!("{}: {:.1} %", case.n, 100.0 * shares[at]));
            let shares: Vec<String> = shares.collect();
            println!("{claim} {law:?}: {}", shares.join(", "));
        }
    }
}

#[test]
fn few_claims_agree_at_the_margin_with_any_number_of_repeats_that_ships() {
    let counts = shipped_repeats(&|_| true);
    assert!(counts.len() > 5, "{counts:?}");
    check_cases(counts.clone(), 250, &names(&MARGINS), &count_wrong_numbers);
    check_cases(counts, 250, &names(&SHARE_MARGINS), &count_wrong_shares);
}

#[test]
fn verdicts_on_fewer_repeats_than_skewed_numbers_need_say_so() {
    let few = SMALL_REPEATS as usize - 1;
    let claims =
        MARGINS.map(|(name, keys)| claim(keys).replace("name = 'c'", &format!("name = '{name}'")));
    let experiment = Experiment::new("", &claims.concat());
    let numbers = |n: usize| {
        let mut stream = fixed_stream("few repeats", n as u64);
        let cells = [5.0, 10.0, 20.0].map(|mean| {
            let numbers = (0..n).map(|_| mean + stream.next_normal());
            numbers.collect::<Vec<f64>>()
        });
        experiment.judge_numbers(&cells)
    };
    let says_so = |n: usize| {
        numbers(n)
            .iter()
            .map(|judged| judged.notes.iter().any(|note| note == "small n"))
            .collect::<Vec<bool>>()
    };
    assert_eq!(says_so(few), vec![true; MARGINS.len()]);
    assert_eq!(says_so(few + 1), vec![false; MARGINS.len()]);
}

#[test]
#[ignore = "some minutes; its figures stand in the documentation"]
fn wrong_agreement_of_all_forms() {
    let mut counts = shipped_repeats(&|_| true);
    // The numbers of a paper follow those of the documentation.
    counts.extend([3, 6, 12, 30, 50, 100, 250, 500]);
    check_cases(
        counts.clone(),
        10_000,
        &names(&MARGINS),
        &count_wrong_numbers,
    );
    check_cases(
        counts.clone(),
        10_000,
        &names(&SHARE_MARGINS),
        &count_wrong_shares,
    );
    check_cases(counts, 5_000, &labels::CLAIMS, &labels::count_wrong_labels);
    joint::check_distances([3, 6, 12, 30, 50, 100], 2_000);
    crossed::check_designs(&crossed::ALL_DESIGNS, 5_000);
    extremes::check_curves(&[3, 6, 12, 30, 50, 100], 1_000);
    let of_mean_curves = shipped_repeats(&curves::is_of_mean_curve);
    check_cases(
        of_mean_curves,
        2_000,
        &curves::CLAIMS,
        &curves::count_wrong_times,
    );
}
