//! Sweeps of experiments, which some worker programs have.

use crate::core::tests::*;
use crate::experiments::KnownExperiment;

const CLASS: &str = "custom/walk/3";

fn walk(schema: &str) -> KnownExperiment {
    KnownExperiment {
        name: "walk".into(),
        version: 3,
        metrics: Vec::new(),
        schema: serde_json::from_str(schema).expect("JSON"),
        needs_data: false,
    }
}

/// A core with a sweep of the experiment and workers of these names that have it, with such schemas.
fn core_with(workers: &[(&str, &str)]) -> Core {
    let text = format!(
        "name = \"t\"\nnumerics = \"{CLASS}\"\n[model]\nkind = \"custom:walk\"\nmetrics = {{ loss = \"min\" }}\n"
    );
    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    core.on_sweep_added(read_sweep(SweepNumber(1), text), [], CoreTime::ZERO);
    for (name, schema) in workers {
        let joining = JoiningWorker {
            numerics: vec![CLASS.into()],
            experiments: vec![walk(schema)],
            ..joining_worker(name, Vec::new())
        };
        core.on_worker_joined(joining, CoreTime::ZERO);
    }
    core.on_worker_joined(joining_worker("other", Vec::new()), CoreTime::ZERO);
    core
}

#[test]
fn the_workers_that_have_an_experiment_are_named() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    for count in [1, 7] {
        let workers: Vec<_> = names[..count].iter().map(|name| (*name, "{}")).collect();
        let core = core_with(&workers);
        let sweep = core.sweep(SweepNumber(1)).expect("a sweep");
        let capacity = SweepFinding::Running(RunningFinding::Capacity {
            workers: count as u32,
            slots: count as u32,
            names: names[..count.min(5)]
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        });
        let found = core.explain_sweep(sweep);
        assert!(found.contains(&capacity), "{found:?}");
    }
}

#[test]
fn an_experiment_is_offered_once_with_its_workers_and_apart_from_another_of_its_version() {
    let core = core_with(&[("a", "{}"), ("b", "{\"type\":\"object\"}"), ("c", "{}")]);
    let offered = core.offered_experiments();
    let of = |schema: &str| {
        let mut all = offered.iter();
        let one = all.find(|one| one.experiment == walk(schema));
        one.map(|one| one.workers.clone())
    };
    assert_eq!(offered.len(), 2);
    assert_eq!(of("{}"), Some(vec!["a".to_owned(), "c".to_owned()]));
    assert_eq!(of("{\"type\":\"object\"}"), Some(vec!["b".to_owned()]));
}
