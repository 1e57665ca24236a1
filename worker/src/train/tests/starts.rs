//! Weights that trials keep on their way, and trials that start from the mean of such weights.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ergodic_common::TrialConfig;
use ergodic_common::config::{Length, ModelKind, Norm, ScheduleStep};
use ergodic_common::ids::TrialIdentity;
use ergodic_common::metric::Metric;
use ergodic_common::net::Net;
use ergodic_common::spec::saved_moments::SavedMoments;
use ergodic_common::spec::{EvalStatistics, Measure, Moment, Probe};
use ergodic_common::trial::Outcome;
use ergodic_common::weights::{Weights, extract_moment, list_moments};

use super::cases;
use crate::train::{CheckpointStore, FinishedTrial, StartPart};

fn after(steps: u64) -> Moment {
    Moment::After(Length::Steps(steps))
}

fn measure_saving(moments: Vec<Moment>) -> Measure {
    let metrics = vec![Metric::TestAcc, Metric::WeightNormSq];
    Measure {
        save: SavedMoments::at(moments),
        ..Measure::with_metrics(Length::Steps(2), metrics)
    }
}

fn config_of(steps: u64) -> TrialConfig {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    config.train.length = Length::Steps(steps);
    config
}

fn file_of(finished: &FinishedTrial) -> &[u8] {
    finished.weights.as_deref().expect("weights are kept")
}

/// The last weights of a trial of so many steps.
pub(super) fn train_part(config: &TrialConfig, steps: u64) -> StartPart {
    let mut config = config.clone();
    config.train.length = Length::Steps(steps);
    let finished = cases::finished(&config, &measure_saving(vec![Moment::Final]));
    StartPart {
        file: file_of(&finished).into(),
        step: None,
    }
}

/// A trial that ends there has the same weights.
#[test]
fn the_weights_of_a_moment_are_the_last_ones_of_a_trial_that_ends_then() {
    let end = |steps| cases::finished(&config_of(steps), &measure_saving(vec![Moment::Final]));
    let saving = vec![after(3), after(5), Moment::Final, after(5)];
    let all = cases::finished(&config_of(8), &measure_saving(saving));
    assert_eq!(list_moments(file_of(&all)), Ok(vec![3, 5]));
    for steps in [3, 5] {
        let kept = extract_moment(file_of(&all), Some(steps)).expect("a file of weights");
        assert_eq!(kept.as_deref(), end(steps).weights.as_deref(), "{steps}");
    }
    let last = extract_moment(file_of(&all), None).expect("a file of weights");
    assert_eq!(last.as_deref(), end(8).weights.as_deref());
    assert_eq!(all.result.digest, end(8).result.digest);

    // The end by its number of steps, or alone, is kept as "final" is.
    let by_number = cases::finished(&config_of(8), &measure_saving(vec![after(8)]));
    assert_eq!(by_number.weights, end(8).weights);
    let without_end = cases::finished(&config_of(8), &measure_saving(vec![after(3)]));
    assert_eq!(extract_moment(file_of(&without_end), None), Ok(None));
    assert_eq!(list_moments(file_of(&without_end)), Ok(vec![3]));
}

/// Keeps one checkpoint, made after a given step.
#[derive(Default)]
struct OneCheckpoint {
    at: u64,
    kept: Mutex<HashMap<TrialIdentity, Vec<u8>>>,
    loads: AtomicU64,
}

impl CheckpointStore for OneCheckpoint {
    fn load_checkpoints(&self, identity: TrialIdentity) -> Vec<Vec<u8>> {
        let kept = self.kept.lock().expect("the lock is not poisoned");
        let found = kept.get(&identity).cloned();
        self.loads
            .fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found.into_iter().collect()
    }
    fn should_save(&self, steps: u64) -> bool {
        steps == self.at
    }
    fn save_checkpoint(&self, identity: TrialIdentity, _: u64, checkpoint: Vec<u8>) {
        let mut kept = self.kept.lock().expect("the lock is not poisoned");
        kept.insert(identity, checkpoint);
    }
    fn should_stop_at_once(&self) -> bool {
        false
    }
    fn discard_checkpoints(&self, _: TrialIdentity) {}
}

#[test]
fn a_trial_that_goes_on_from_a_checkpoint_keeps_what_it_had_kept() {
    let config = config_of(6);
    let parts = [1, 2].map(|steps| train_part(&config_of(1), steps));
    let mut measure = measure_saving(vec![after(2), after(4), Moment::Final]);
    measure.metrics.push(Metric::PartsCos);
    let expected = cases::finished_from_parts(&config, &measure, &parts, None);

    for at in 1..6 {
        let store = OneCheckpoint {
            at,
            ..OneCheckpoint::default()
        };
        for loads in 0..2 {
            let found = cases::finished_from_parts(&config, &measure, &parts, Some(&store));
            assert_eq!(found.weights, expected.weights, "from step {at}");
            assert_eq!(
                found.result.metrics, expected.result.metrics,
                "from step {at}"
            );
            assert_eq!(store.loads.load(Ordering::Relaxed), loads);
        }
    }
}

/// Numbers of the parts, tensor by tensor.
fn numbers_of(part: &StartPart, net: &Net) -> Weights {
    Weights::read_moment(&part.file, net, part.step).expect("weights of the network")
}

/// The mean in f64 of all numbers, rounded once.
fn mean_of(parts: &[StartPart], net: &Net) -> Weights {
    let all: Vec<Weights> = parts.iter().map(|part| numbers_of(part, net)).collect();
    let mean = |pick: &dyn Fn(&Weights) -> f32| {
        let sum = all.iter().fold(0.0, |sum, w| sum + f64::from(pick(w)));
        (sum / all.len() as f64) as f32
    };
    let mut expected = all[0].clone();
    for (tensor, numbers) in expected.params.iter_mut().enumerate() {
        for (at, x) in numbers.iter_mut().enumerate() {
            *x = mean(&|w| w.params[tensor][at]);
        }
    }
    for (norm, both) in expected.statistics.iter_mut().enumerate() {
        for (which, numbers) in both.iter_mut().enumerate() {
            for (at, x) in numbers.iter_mut().enumerate() {
                *x = mean(&|w| w.statistics[norm][which][at]);
            }
        }
    }
    expected
}

#[test]
fn a_trial_without_steps_measures_the_mean_that_it_starts_from() {
    let mut trained = config_of(6);
    trained.train.schedule = Vec::<ScheduleStep>::new();
    let net = Net::from_config(&trained).expect("a network");
    let moments = cases::finished(&trained, &measure_saving(vec![after(2), Moment::Final]));
    let moment = StartPart {
        file: file_of(&moments).into(),
        step: Some(2),
    };
    let parts = [train_part(&trained, 1), moment, train_part(&trained, 5)];

    let mut start = trained.clone();
    start.train.length = Length::Steps(0);
    let mut measure = measure_saving(vec![Moment::Final]);
    measure.metrics = vec![
        Metric::TestAcc,
        Metric::TestLoss,
        Metric::WeightNormSq,
        Metric::InitDistance,
        Metric::GradNoiseTrace,
        Metric::TrainLoss,
    ];
    measure.statistics = EvalStatistics::ReEstimated;
    measure.probe = Some(Probe {
        points: 10,
        at: vec![Moment::Final],
    });
    let found = cases::finished_from_parts(&start, &measure, &parts, None);

    let expected = mean_of(&parts, &net);
    assert_eq!(
        Weights::from_safetensors(file_of(&found), &net),
        Ok(expected.clone())
    );
    assert_eq!(
        (&found.result.outcome, found.result.steps),
        (&Outcome::Completed, 0)
    );
    assert_eq!(
        (
            found.result.curve.steps.as_slice(),
            found.result.predictions.steps.as_slice()
        ),
        (&[0][..], &[0][..])
    );
    let norm_sq: f64 = expected.params[0]
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum();
    assert!((found.result.metrics[2] / norm_sq - 1.0).abs() < 1e-12);
    assert_eq!(found.result.metrics[3], 0.0);
    assert!(found.result.metrics[4] > 0.0 && found.result.metrics[5].is_nan());

    // A trial that does not move from the file of the same weights measures the same.
    let file = expected.to_safetensors(&net, None);
    let mut still = trained.clone();
    (still.train.length, still.train.lr) = (Length::Steps(1), 0.0);
    still.model.init_file = Some(blake3::hash(&file).into());
    let fast = crate::train::Isa::detect_fastest();
    let same = cases::result_from(&still, &measure, fast, (None, None), Some(&file));
    assert_eq!(found.result.metrics[..3], same.metrics[..3]);
}

#[test]
fn one_part_is_taken_bit_by_bit_and_scales_apply_to_the_mean() {
    let config = config_of(4);
    let net = Net::from_config(&config).expect("a network");
    let part = train_part(&config, 3);
    let mut start = config.clone();
    start.train.length = Length::Steps(0);
    let measure = measure_saving(vec![Moment::Final]);
    let found = cases::finished_from_parts(&start, &measure, std::slice::from_ref(&part), None);
    assert_eq!(found.weights.as_deref(), Some(&part.file[..]));

    start.model.init_scale = 2.0;
    let scaled = cases::finished_from_parts(&start, &measure, std::slice::from_ref(&part), None);
    let [once, twice] = [&found, &scaled]
        .map(|trial| Weights::from_safetensors(file_of(trial), &net).expect("weights"));
    let doubled: Vec<f32> = once.params[0].iter().map(|x| 2.0 * x).collect();
    assert_eq!(twice.params[0], doubled);
    assert_eq!(twice.statistics, once.statistics);
}

/// The definitions, in plain loops over the weights that norms follow: here all but those of the head.
#[test]
fn parts_are_compared_as_their_metrics_say() {
    let mut config = cases::small_trial(
        ModelKind::Mlp {
            hidden: vec![24, 17],
        },
        Norm::Batch,
    );
    config.train.length = Length::Steps(2);
    let net = Net::from_config(&config).expect("a network");
    let parts = [1, 4, 7, 12].map(|steps| train_part(&config, steps));
    let vectors: Vec<Vec<f64>> = parts
        .iter()
        .map(|part| {
            let params = numbers_of(part, &net).params;
            params[..2]
                .iter()
                .flatten()
                .map(|x| f64::from(*x))
                .collect()
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let (mut cosine, mut gap, mut square, mut pairs) = (0.0, 0.0, 0.0, 0.0);
    for i in 0..parts.len() {
        for j in 0..i {
            let (a, b) = (&vectors[i], &vectors[j]);
            let (na, nb) = (dot(a, a).sqrt(), dot(b, b).sqrt());
            cosine += dot(a, b) / (na * nb);
            let unit: Vec<f64> = a.iter().zip(b).map(|(x, y)| x / na - y / nb).collect();
            gap += dot(&unit, &unit) / 2.0;
            let difference: Vec<f64> = a.iter().zip(b).map(|(x, y)| x - y).collect();
            square += dot(&difference, &difference);
            pairs += 1.0;
        }
    }

    let measure = Measure::with_metrics(
        Length::Steps(1),
        vec![Metric::PartsCos, Metric::PartsCosGap, Metric::PartsDistance],
    );
    let mut scaled = config.clone();
    scaled.model.init_scale = 3.0;
    let found = cases::finished_from_parts(&scaled, &measure, &parts, None).result;
    let expected = [cosine / pairs, gap / pairs, (square / pairs).sqrt()];
    for (found, expected) in found.metrics.iter().zip(expected) {
        assert!(
            (found / expected - 1.0).abs() < 1e-9,
            "{found} is not {expected}"
        );
    }
    assert_eq!(found.curve.steps, [1, 2]);
    assert_eq!(
        found.curve.values[..3],
        found.curve.values[3..],
        "they do not change on the way"
    );

    // Of equal weights up to a factor, the gap is rounding alone.
    let same = cases::finished_from_parts(
        &config,
        &measure,
        &[parts[0].clone(), parts[0].clone()],
        None,
    );
    assert!(
        same.result.metrics[1] < 1e-30 && same.result.metrics[2] == 0.0,
        "{:?}",
        same.result.metrics
    );
}

#[test]
fn parts_that_are_missing_or_of_another_network_fail_the_trial() {
    let config = config_of(2);
    let measure = measure_saving(vec![Moment::Final]);
    let other = cases::small_trial(ModelKind::Mlp { hidden: vec![8] }, Norm::Batch);
    let moment = StartPart {
        step: Some(1),
        ..train_part(&config, 2)
    };
    for (parts, words) in [
        (vec![], "no kept weights"),
        (vec![train_part(&other, 1)], "has the shape"),
        (
            vec![train_part(&config, 1), moment],
            "'step1.fc1.weight' is missing",
        ),
    ] {
        let found = cases::finished_from_parts(&config, &measure, &parts, None).result;
        assert!(
            matches!(&found.outcome, Outcome::Failed { cause } if cause.contains(words)),
            "{words}: {:?}",
            found.outcome
        );
    }
}
