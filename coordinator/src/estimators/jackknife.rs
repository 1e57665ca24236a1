//! The uncertainty of a smooth function of several samples, by the jackknife: it is computed again without each repeat in turn.
//!
//! Whole repeats are deleted, from all samples at once, so that what repeats have in common cancels where the function cancels
//! it. Where repeats cross random streams, whole levels of each stream are deleted, and the squared standard errors are summed.

use super::cluster::MeanUncertainty;
use super::sample::mean_of_finite_values;

/// Numbers that a function has without each group of repeats, for each random stream that repeats cross. Without crossed streams
/// there is one list, and each repeat is a group.
pub type DeletedNumbers = [Vec<f64>];

/// Number of levels of a stream below which its degrees of freedom count alone.
pub const FEW_LEVELS: usize = 3;

/// The squared standard error, with its degrees of freedom. `None` if a stream has fewer than two groups, or a number is undefined.
///
/// The degrees of freedom are the harmonic mean of those of the streams, weighted by their variances, and the smallest ones if a
/// stream has fewer than [`FEW_LEVELS`] groups. Satterthwaite's (1946), which are larger, let up to 8 % of effects on the edge of
/// a region seem to lie inside, in place of 5 %, where streams have 2 and 10 levels.
pub fn jackknife_uncertainty(streams: &DeletedNumbers) -> Option<MeanUncertainty> {
    let parts = streams.iter().map(|without| {
        let groups = without.len() as f64;
        // Equal numbers have themselves as mean, so that they leave no spread.
        let mean = mean_of_finite_values(without).unwrap_or(f64::NAN);
        let squares: f64 = without.iter().map(|x| (x - mean) * (x - mean)).sum();
        let variance = squares * (groups - 1.0) / groups;
        (groups >= 2.0 && variance.is_finite()).then_some((variance, groups - 1.0))
    });
    let parts: Vec<(f64, f64)> = parts.collect::<Option<_>>()?;

    let fewest = parts.iter().map(|(_, degrees)| *degrees);
    let fewest = fewest.fold(f64::INFINITY, f64::min);
    let variance: f64 = parts.iter().map(|(variance, _)| variance).sum();
    let shares: f64 = parts.iter().map(|(v, degrees)| v / degrees).sum();
    let has_few = fewest + 1.0 < FEW_LEVELS as f64;
    let degrees = if shares > 0.0 && !has_few {
        variance / shares
    } else {
        fewest
    };
    fewest
        .is_finite()
        .then_some(MeanUncertainty { variance, degrees })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_mean_it_is_the_standard_error() {
        let values = [1.0, 4.0, 2.0, 9.0];
        let sum: f64 = values.iter().sum();
        let without = values.iter().map(|x| (sum - x) / 3.0).collect();

        let spread = jackknife_uncertainty(&[without]).expect("four values have a spread");
        let mean = sum / 4.0;
        let variance: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 3.0;
        assert!((spread.variance - variance / 4.0).abs() < 1e-12);
        assert!((spread.degrees - 3.0).abs() < 1e-12);
    }

    #[test]
    fn degrees_lie_between_those_of_the_streams_and_are_the_smallest_of_few_levels() {
        let spread = |streams: &DeletedNumbers| {
            let found = jackknife_uncertainty(streams).expect("there is a spread");
            (found.variance, found.degrees)
        };
        let of_three = vec![1.0, 2.0, 3.0];
        let of_five = vec![1.0, 1.5, 2.0, 2.5, 3.0];
        let (v3, _) = spread(std::slice::from_ref(&of_three));
        let (v5, _) = spread(std::slice::from_ref(&of_five));
        let (variance, degrees) = spread(&[of_three.clone(), of_five]);
        assert!((variance - v3 - v5).abs() < 1e-12);
        assert!((degrees - (v3 + v5) / (v3 / 2.0 + v5 / 4.0)).abs() < 1e-12);

        let (_, degrees) = spread(&[vec![1.0, 1.1], of_three]);
        assert!((degrees - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_numbers_have_no_spread() {
        let spread = jackknife_uncertainty(&[vec![0.1; 6]]).expect("six numbers");
        assert_eq!((spread.variance, spread.degrees), (0.0, 5.0));
    }

    #[test]
    fn one_group_and_undefined_numbers_have_none() {
        assert!(jackknife_uncertainty(&[vec![1.0]]).is_none());
        assert!(jackknife_uncertainty(&[vec![1.0, f64::NAN]]).is_none());
        assert!(jackknife_uncertainty(&[]).is_none());
        assert!(jackknife_uncertainty(&[vec![1.0, 2.0], vec![1.0]]).is_none());
    }
}
