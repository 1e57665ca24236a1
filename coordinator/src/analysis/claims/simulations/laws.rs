//! The laws of simulated numbers, and how many claims about them may agree wrongly.

use ergodic_common::random_streams::RandomStream;

use super::super::weighed::SMALL_REPEATS;
use crate::estimators::special::{normal_cdf, student_t_cdf};

/// The probability of a wrong verdict that claims state.
pub(super) const ALPHA: f64 = 0.05;

/// A law of numbers with mean 0 and standard deviation 1.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumberLaw {
    Normal,
    /// Student's t with 5 degrees of freedom.
    HeavyTailed,
    /// Exponential, which has a long tail above.
    Skewed,
}

pub(super) const NUMBER_LAWS: [NumberLaw; 3] =
    [NumberLaw::Normal, NumberLaw::HeavyTailed, NumberLaw::Skewed];

impl NumberLaw {
    pub(super) fn draw(self, stream: &mut RandomStream) -> f64 {
        match self {
            Self::Normal => stream.next_normal(),
            Self::HeavyTailed => {
                let squares = (0..5).map(|_| stream.next_normal().powi(2));
                let mean = squares.sum::<f64>() / 5.0;
                (3.0_f64 / 5.0).sqrt() * stream.next_normal() / mean.sqrt()
            }
            Self::Skewed => -libm::log1p(-stream.next_uniform()) - 1.0,
        }
    }

    /// The chance of a number up to `x`.
    pub(super) fn chance_up_to(self, x: f64) -> f64 {
        match self {
            Self::Normal => normal_cdf(x),
            Self::HeavyTailed => student_t_cdf(x / (3.0_f64 / 5.0).sqrt(), 5.0),
            Self::Skewed => -libm::expm1(-(x + 1.0).max(0.0)),
        }
    }

    /// The chance of a number above 1.
    pub(super) fn chance_above_1(self) -> &'static str {
        match self {
            Self::Normal => "0.15865525393145707",
            Self::HeavyTailed => "0.12658499755016134",
            Self::Skewed => "0.1353352832366127",
        }
    }
}

/// A law of numbers, and a number of repeats.
#[derive(Debug, Clone, Copy)]
pub(super) struct SimulatedCase {
    pub(super) law: NumberLaw,
    pub(super) n: usize,
}

/// Counts the experiments among so many in which each of some claims agrees wrongly.
pub(super) type CountWrong<'a> = dyn Fn(SimulatedCase, u32) -> Vec<u32> + Sync + 'a;

impl SimulatedCase {
    /// All laws with these numbers of repeats, the most repeats first.
    pub(super) fn cross(counts: impl IntoIterator<Item = usize>) -> Vec<Self> {
        let cases = counts
            .into_iter()
            .flat_map(|n| NUMBER_LAWS.map(|law| Self { law, n }));
        let mut cases: Vec<Self> = cases.collect();
        cases.sort_by_key(|case| std::cmp::Reverse(case.n));
        cases
    }

    /// The largest share of wrong verdicts: α, and twice that for skewed numbers. `None` where there is no bound, and verdicts
    /// say "small n".
    pub(super) fn allowed_share(self) -> Option<f64> {
        match self.law {
            NumberLaw::Skewed if (self.n as u64) < SMALL_REPEATS => None,
            NumberLaw::Skewed => Some(2.0 * ALPHA),
            _ => Some(ALPHA),
        }
    }

    /// Checks in which shares of `experiments` experiments claims agree wrongly, and returns the shares. Among hundreds of shares,
    /// some lie three standard errors off by chance: where one lies two above what is allowed, ten times as many experiments decide.
    pub(super) fn check(
        self,
        experiments: u32,
        claims: &[&str],
        count: &CountWrong<'_>,
    ) -> Vec<f64> {
        let error = |experiments: u32| (ALPHA * (1.0 - ALPHA) / f64::from(experiments)).sqrt();
        let share = |experiments: u32| {
            let counts = count(self, experiments).into_iter();
            counts
                .map(|wrong| f64::from(wrong) / f64::from(experiments))
                .collect::<Vec<f64>>()
        };

        let shares = share(experiments);
        assert_eq!(shares.len(), claims.len(), "every claim is judged");
        let Some(allowed) = self.allowed_share() else {
            return shares;
        };
        let is_open = shares
            .iter()
            .any(|wrong| *wrong > allowed + 2.0 * error(experiments));
        let (shares, experiments) = match is_open {
            true => (share(10 * experiments), 10 * experiments),
            false => (shares, experiments),
        };
        for (claim, wrong) in claims.iter().zip(&shares) {
            assert!(
                *wrong <= allowed + 3.0 * error(experiments),
                "{claim}, {self:?}: {wrong} of {experiments} experiments agree wrongly"
            );
        }
        shares
    }
}
