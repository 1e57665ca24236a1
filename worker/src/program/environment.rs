//! What a trial gets besides its arguments: environment variables and the description of the trial. Pure.

use ergodic_common::program::needs::{GPU_ORDER_VARIABLE, GPU_VARIABLE, TrialNeeds};
use ergodic_common::program::seeds::{seeds_by_purpose, trial_seed};
use ergodic_common::program::{Program, ProgramCell, ProgramValue, TrialFacts};
use serde_json::{Map, Value, json};

/// Variables that every program gets from the worker.
const BASE_VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Begins the names of variables that only Ergodic sets. Those of the worker may lead to its token.
const OWN_PREFIX: &str = "ERGODIC_";
/// Largest number up to which a whole one is written without a point.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// All variables of a program, later ones of a name in place of earlier ones: those of the worker that it may have, then `set`,
/// those that the sweep file sets, then `own`, those of Ergodic.
pub(super) fn build_environment(
    program: &Program,
    inherited: impl Fn(&str) -> Option<String>,
    set: Vec<(String, String)>,
    own: &[(&str, &str)],
) -> Vec<(String, String)> {
    let passed = program.pass_env.iter().map(String::as_str);
    let names = BASE_VARIABLES.into_iter().chain(passed);
    let inherited = names
        .filter(|name| !name.starts_with(OWN_PREFIX))
        .filter_map(|name| Some((name.to_owned(), inherited(name)?)));
    let set = set
        .into_iter()
        .filter(|(name, _)| !name.starts_with(OWN_PREFIX));
    let own = own
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    inherited.chain(set).chain(own).collect()
}

/// The variables by which a program finds its GPUs, if it takes any: their names, and the order in which the worker's CUDA counts.
pub(super) fn list_gpu_variables(
    needs: TrialNeeds,
    gpus: &[String],
    inherited: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    if needs.gpu_parts == 0 {
        return Vec::new();
    }
    let order = inherited(GPU_ORDER_VARIABLE).map(|order| (GPU_ORDER_VARIABLE, order));
    [(GPU_VARIABLE, gpus.join(","))]
        .into_iter()
        .chain(order)
        .collect()
}

/// The description of a trial, for `ERGODIC_TRIAL`. `checkpoint` is the step that it goes on from.
pub(super) fn describe_trial(
    sweep: &str,
    cell: &ProgramCell,
    facts: &TrialFacts<'_>,
    checkpoint: Option<u64>,
) -> Value {
    let values = cell.values.iter();
    let values: Map<String, Value> = values
        .map(|(name, value)| (name.clone(), to_json(value)))
        .collect();
    let seeds = seeds_by_purpose(facts.streams).into_iter();
    let seeds: Map<String, Value> = seeds
        .map(|(purpose, seed)| (purpose.to_owned(), json!(seed)))
        .collect();

    json!({
        "sweep": sweep,
        "cell": facts.streams.cell.to_string(),
        "values": values,
        "repeat": facts.streams.repeat.0,
        "seed": trial_seed(facts.streams),
        "seeds": seeds,
        "dir": facts.dir,
        "checkpoint": checkpoint,
    })
}

/// The value with all its bits. Whole numbers have no point, so that programs can count with them.
fn to_json(value: &ProgramValue) -> Value {
    match value {
        ProgramValue::Number(x) if x.fract() == 0.0 && x.abs() <= MAX_EXACT => json!(*x as i64),
        ProgramValue::Number(x) => json!(x),
        ProgramValue::Text(text) => json!(text),
        ProgramValue::Bool(value) => json!(value),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ergodic_common::ids::{CellHash, Repeat};
    use ergodic_common::program::DEFAULT_CHECKPOINT_LIMIT;
    use ergodic_common::random_streams::{SeedPlan, Streams};

    use crate::program::environment::*;

    fn program(pass_env: &[&str]) -> Program {
        Program {
            command: Vec::new(),
            files: Vec::new(),
            bundle: None,
            env: Vec::new(),
            pass_env: pass_env.iter().map(|name| (*name).to_owned()).collect(),
            metrics: Vec::new(),
            require: Vec::new(),
            deterministic: false,
            checkpoint_limit: DEFAULT_CHECKPOINT_LIMIT,
            save: Vec::new(),
            needs: TrialNeeds::ONE_SLOT,
            experiment: None,
        }
    }

    #[test]
    fn a_program_gets_no_variable_that_it_may_not_have() {
        let program = program(&["CUDA_VISIBLE_DEVICES", "ABSENT", "ERGODIC_TOKEN_FILE"]);
        let worker = |name: &str| (name != "ABSENT").then(|| format!("worker's {name}"));
        let set = vec![
            ("LANG".to_owned(), "C".to_owned()),
            ("ERGODIC_METRICS".to_owned(), "x".to_owned()),
        ];
        let all = build_environment(&program, worker, set, &[("ERGODIC_METRICS", "pipe")]);
        let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            all,
            [
                ("PATH", "worker's PATH"),
                ("HOME", "worker's HOME"),
                ("LANG", "worker's LANG"),
                ("TMPDIR", "worker's TMPDIR"),
                ("CUDA_VISIBLE_DEVICES", "worker's CUDA_VISIBLE_DEVICES"),
                ("LANG", "C"),
                ("ERGODIC_METRICS", "pipe"),
            ]
        );
    }

    #[test]
    fn gpus_are_named_to_those_that_take_some_in_the_order_of_the_worker() {
        let needs = TrialNeeds {
            gpu_parts: 200,
            ..TrialNeeds::ONE_SLOT
        };
        let gpus = ["0".to_owned(), "GPU-a".to_owned()];
        let worker = |_: &str| Some("PCI_BUS_ID".to_owned());
        let visible = ("CUDA_VISIBLE_DEVICES", "0,GPU-a".to_owned());
        let order = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
        assert_eq!(
            list_gpu_variables(needs, &gpus, worker),
            [visible.clone(), order]
        );
        assert_eq!(list_gpu_variables(needs, &gpus, |_| None), [visible]);
        assert_eq!(list_gpu_variables(TrialNeeds::ONE_SLOT, &gpus, worker), []);
    }

    #[test]
    fn a_trial_is_described_without_losing_a_bit() {
        let cell = ProgramCell {
            program: Arc::new(program(&[])),
            values: vec![
                ("lr".into(), ProgramValue::Number(0.1 + 0.2)),
                ("width".into(), ProgramValue::Number(64.0)),
                ("kind".into(), ProgramValue::Text("a \"b\"".into())),
                ("nesterov".into(), ProgramValue::Bool(true)),
            ],
            has_data: false,
        };
        let streams = Streams {
            sweep_seed: 7,
            repeat: Repeat(3),
            cell: CellHash([1; 32]),
            plan: SeedPlan::default(),
        };
        let facts = TrialFacts {
            streams: &streams,
            dir: "/x",
        };
        let described = describe_trial("s", &cell, &facts, None);
        let text = described.to_string();
        assert!(text.contains(r#""lr":0.30000000000000004"#), "{text}");
        assert!(text.contains(r#""width":64}"#), "{text}");
        assert!(text.contains(r#""kind":"a \"b\"","#), "{text}");
        assert!(text.contains(r#""nesterov":true"#), "{text}");
        assert!(text.contains(r#""checkpoint":null"#), "{text}");
        assert_eq!(
            described["seeds"]["init"],
            json!(seeds_by_purpose(&streams)[0].1)
        );
        assert_eq!(described["repeat"], json!(3));
        assert_eq!(described["cell"], json!("01".repeat(32)));
    }
}
