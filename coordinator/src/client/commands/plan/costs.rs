//! What trials of a sweep's classes cost on this machine: measured once by the worker program, and kept in the user's cache.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ergodic_common::spec::SpecSource;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{BUILD, Spec};
use ergodic_proto::atomic_file::{Durability, FileAccess, replace_file};
use ergodic_proto::v1;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::classes::{ClassPlan, plan_classes};
use crate::worker_processes::{find_worker, ignore_cluster_variables};

/// Assumed speed of a core, in floating-point operations per second, where none is measured.
pub(super) const ASSUMED_FLOPS: f64 = 40e9;
/// Maximum number of classes that are measured for one plan: those with the most work. Others are assumed to be as fast as these.
const MAX_MEASURED_CLASSES: usize = 5;
/// Time in which a measurement should end, and time after which it is given up.
const BUDGET: &str = "800ms";
const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of classes in the cache; beyond it, all others are forgotten.
const MAX_KEPT_COSTS: usize = 2_000;

/// The costs of the parts of a trial, in seconds of CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct TrialCosts {
    /// Before the first step, and after the last.
    set_up: f64,
    /// A training step.
    step: f64,
    /// A sample, without metrics that compute gradients of their own.
    sample: f64,
}

impl TrialCosts {
    fn is_plausible(self) -> bool {
        [self.set_up, self.step, self.sample]
            .iter()
            .all(|seconds| seconds.is_finite() && *seconds >= 0.0)
    }

    /// The seconds of a trial of a class.
    fn of_trial(self, class: &ClassPlan) -> f64 {
        self.set_up + class.gradient_steps * self.step + class.samples as f64 * self.sample
    }
}

/// Costs of trials, by what decides them.
type CostTable = BTreeMap<String, TrialCosts>;

/// The costs of the classes of a sweep.
#[derive(Debug)]
pub struct ClassCosts {
    measured: CostTable,
    /// What a class that is not measured takes, over what it would take at the assumed speed.
    slowness: f64,
}

impl Default for ClassCosts {
    /// Nothing is measured.
    fn default() -> Self {
        Self {
            measured: CostTable::new(),
            slowness: 1.0,
        }
    }
}

impl ClassCosts {
    /// The costs of these classes, as far as they are in a table.
    fn of_classes(classes: &[ClassPlan], table: impl Fn(&ClassPlan) -> Option<TrialCosts>) -> Self {
        let mut costs = Self::default();
        let mut ratios = Vec::new();
        for class in classes {
            if let Some(found) = table(class) {
                ratios.push(found.of_trial(class) / assume_seconds(class));
                costs.measured.insert(class.cost_key.clone(), found);
            }
        }

        if !ratios.is_empty() {
            costs.slowness = ratios.iter().sum::<f64>() / ratios.len() as f64;
        }
        costs
    }

    /// Whether nothing is measured.
    pub(super) fn is_assumed(&self) -> bool {
        self.measured.is_empty()
    }

    /// The seconds of a trial of a class: as measured, or as much slower than assumed as those that are.
    pub(super) fn trial_seconds(&self, class: &ClassPlan) -> f64 {
        match self.measured.get(&class.cost_key) {
            Some(costs) => costs.of_trial(class),
            None => self.slowness * assume_seconds(class),
        }
    }
}

/// The seconds of a trial at the assumed speed.
fn assume_seconds(class: &ClassPlan) -> f64 {
    class.trial_flops / ASSUMED_FLOPS
}

/// Finds the costs of the classes with the most work: in the cache, or by measuring them. None are found where no worker program
/// of this build is, or for classes that do not run on a CPU.
pub(super) async fn find_class_costs(source: &SpecSource, spec: &Spec) -> ClassCosts {
    if spec.numerics != CPU_F32 {
        return ClassCosts::default();
    }

    let mut classes = plan_classes(spec);
    classes.sort_by(|a, b| total_flops(b).total_cmp(&total_flops(a)));
    let mut seen = HashSet::new();
    classes.retain(|class| seen.insert(class.cost_key.clone()));
    classes.truncate(MAX_MEASURED_CLASSES);

    let path = cache_file();
    let mut kept = path.as_deref().map(read_costs).unwrap_or_default();
    let machine = describe_machine();
    let key = |class: &ClassPlan| format!("{machine} {}", class.cost_key);
    let missing: Vec<&ClassPlan> = classes
        .iter()
        .filter(|class| !kept.contains_key(&key(class)))
        .collect();

    if !missing.is_empty()
        && let Some(costs) = measure_classes(source, &missing).await
    {
        let measured = missing.iter().zip(costs);
        kept.extend(measured.filter_map(|(class, costs)| Some((key(class), costs?))));
        if kept.len() > MAX_KEPT_COSTS {
            kept.retain(|kept, _| classes.iter().any(|class| *kept == key(class)));
        }
        if let Some(path) = path {
            keep_costs(&path, &kept);
        }
    }

    ClassCosts::of_classes(&classes, |class| kept.get(&key(class)).copied())
}

fn total_flops(class: &ClassPlan) -> f64 {
    class.trial_flops * class.cells as f64
}

/// Has the worker program measure classes. `None` if it cannot.
async fn measure_classes(
    source: &SpecSource,
    classes: &[&ClassPlan],
) -> Option<Vec<Option<TrialCosts>>> {
    let program = find_worker(None).await.ok()?;
    let mut command = Command::new(program);
    ignore_cluster_variables(&mut command);
    let cells = classes.iter().map(|class| class.cell.0.to_string());
    let mut child = command
        .args(["trial-costs", "--budget", BUDGET])
        .args(cells)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;

    let mut input = child.stdin.take()?;
    let sweep = v1::SpecSource::from(source).encode_to_vec();
    let answer = async {
        input.write_all(&sweep).await.ok()?;
        drop(input);
        child.wait_with_output().await.ok()
    };
    let output = tokio::time::timeout(MEASUREMENT_TIMEOUT, answer).await;
    let costs: Vec<Option<TrialCosts>> = serde_json::from_slice(&output.ok()??.stdout).ok()?;
    (costs.len() == classes.len()).then_some(costs)
}

/// The build of this program, and the processor, between whose kinds speeds differ.
fn describe_machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown", |(_, name)| name.trim());
    format!("{BUILD} {model}:")
}

/// The file of the cache; `None` for a user without a home.
fn cache_file() -> Option<PathBuf> {
    let of_base = |name: &str| {
        let base = std::env::var_os(name).map(PathBuf::from)?;
        base.is_absolute().then_some(base)
    };
    let folder = of_base("ERGODIC_CACHE")
        .or_else(|| Some(of_base("XDG_CACHE_HOME")?.join("ergodic")))
        .or_else(|| Some(of_base("HOME")?.join(".cache/ergodic")));
    Some(folder?.join("trial-costs.json"))
}

/// Reads what was kept. A file that is damaged is as good as none.
fn read_costs(path: &Path) -> CostTable {
    let text = std::fs::read(path).unwrap_or_default();
    let costs: CostTable = serde_json::from_slice(&text).unwrap_or_default();
    costs
        .into_iter()
        .filter(|(_, costs)| costs.is_plausible())
        .collect()
}

/// Keeps costs for later plans. If they cannot be kept, they are measured again.
fn keep_costs(path: &Path, costs: &CostTable) {
    let folder = path.parent().unwrap_or(Path::new("."));
    let _ = std::fs::create_dir_all(folder);
    if let Ok(text) = serde_json::to_vec_pretty(costs) {
        let _ = replace_file(path, &text, FileAccess::AsUmask, Durability::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: TrialCosts = TrialCosts {
        set_up: 0.5,
        step: 0.01,
        sample: 0.1,
    };

    #[test]
    fn what_was_kept_is_read_and_damage_is_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/costs.json");
        assert_eq!(read_costs(&path), CostTable::new());

        let wrong = TrialCosts {
            step: -1.0,
            ..COSTS
        };
        let costs = CostTable::from([("a".to_owned(), COSTS), ("b".to_owned(), wrong)]);
        keep_costs(&path, &costs);
        assert_eq!(
            read_costs(&path),
            CostTable::from([("a".to_owned(), COSTS)])
        );

        std::fs::write(&path, "{\"a\": \"fast\"}").expect("a file can be written");
        assert_eq!(read_costs(&path), CostTable::new());
    }

    #[test]
    fn a_trial_costs_its_set_up_its_steps_and_its_samples() {
        let spec = Spec::read_stored(&SpecSource {
            text: "name = \"t\"\n[model]\nkind = \"mlp\"\n[train]\nsteps = 100\nlr = 0.1\n\
                   [grid]\n\"train.batch_size\" = [16, 32]\n\
                   [measure]\nevery = \"10 steps\"\nmetrics = [\"train_loss\", \"grad_noise_trace\"]\n"
                .to_owned(),
            ..SpecSource::default()
        });
        let classes = plan_classes(&spec.expect("a valid sweep"));
        let [first, second] = &classes[..] else {
            panic!("two classes, one of each batch")
        };
        // 64 gradients for the noise of each of 10 samples.
        assert_eq!(COSTS.of_trial(first), 0.5 + 0.01 * (100.0 + 640.0) + 1.0);

        let costs = ClassCosts::of_classes(&classes, |class| {
            (class.cost_key == first.cost_key).then_some(COSTS)
        });
        assert!(!costs.is_assumed());
        assert_eq!(costs.trial_seconds(first), COSTS.of_trial(first));
        let ratio = second.trial_flops / first.trial_flops;
        let expected = ratio * COSTS.of_trial(first);
        assert!((costs.trial_seconds(second) / expected - 1.0).abs() < 1e-12);
    }
}
