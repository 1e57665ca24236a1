//! Claims that curves are equal to the last bit: they have no margin, and nothing may differ.

use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{ClaimForm, SampledCurve};
use ergodic_common::random_streams::fixed_stream;

use super::super::batches::split_into_batches;
use super::super::jobs::{ClaimJobs, TrialValue};
use super::super::judge::ClaimVerdict;
use super::super::read::TrialCounts;
use super::super::references::ReferenceCurves;
use super::super::tests::Experiment;
use super::shipped_repeats;

const SAMPLES: usize = 3;

/// What trials with these curves give to the claim.
fn fingerprint_curves(
    experiment: &Experiment,
    cell: u64,
    curves: &[[f64; SAMPLES]],
) -> Vec<TrialValue> {
    let batch = &split_into_batches(&experiment.expanded, 12)[0];
    let jobs = ClaimJobs::new(&experiment.spec, &experiment.expanded, batch);
    let evaluation = jobs
        .open_cell(CellIndex(cell))
        .expect("the sweep has the cell");
    let values = (0..).zip(curves).map(|(repeat, curve)| {
        let columns = [curve.to_vec()];
        let curve = SampledCurve {
            steps: &[10.0, 50.0, 100.0],
            columns: &columns,
        };
        let references = ReferenceCurves::default();
        let mut values =
            jobs.evaluate_trial((CellIndex(cell), &evaluation), repeat, curve, &references);
        values.remove(0)
    });
    values.collect()
}

#[test]
fn one_bit_of_one_sample_of_one_repeat_makes_the_claim_disagree() {
    let counts = shipped_repeats(&|claim| claim.form == ClaimForm::Bits);
    assert!(!counts.is_empty(), "an experiment has such a claim");
    let experiment = Experiment::new(
        "",
        "[[claim]]\nname = 'c'\nof = 'train_loss'\nform = 'bits'\nwhere = 'c == 2'\nto = 'c == 1'\n",
    );
    for n in counts {
        let mut stream = fixed_stream("bits", n as u64);
        let curves = (0..n).map(|_| [(); SAMPLES].map(|()| stream.next_normal()));
        let curves: Vec<[f64; SAMPLES]> = curves.collect();
        let first = fingerprint_curves(&experiment, 0, &curves);
        let judge = |curves: &[[f64; SAMPLES]]| {
            let other = fingerprint_curves(&experiment, 1, curves);
            experiment.judge(&[first.clone(), other], TrialCounts::default())[0].verdict
        };
        assert_eq!(judge(&curves), ClaimVerdict::Agrees);

        for bit in 0..64 {
            let mut changed = curves.clone();
            let sample = &mut changed[stream.next_below(n as u32) as usize]
                [stream.next_below(SAMPLES as u32) as usize];
            *sample = f64::from_bits(sample.to_bits() ^ (1 << bit));
            assert_eq!(judge(&changed), ClaimVerdict::Disagrees, "bit {bit}");
        }
    }
}
