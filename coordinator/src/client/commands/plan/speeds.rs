//! How fast this machine trains the classes of a sweep: measured once by the worker program, and kept in the user's cache.

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
/// Maximum number of speeds in the cache; beyond it, all are forgotten.
const MAX_KEPT_SPEEDS: usize = 2_000;

/// Floating-point operations per second of CPU time, by what decides them.
type SpeedTable = BTreeMap<String, f64>;

/// The measured speeds of the classes of a sweep.
#[derive(Debug, Default)]
pub struct ClassSpeeds(SpeedTable);

impl ClassSpeeds {
    /// Whether nothing is measured.
    pub(super) fn is_assumed(&self) -> bool {
        self.0.is_empty()
    }

    /// The speed of a class: as measured, or the mean of those that are.
    pub(super) fn of_class(&self, class: &ClassPlan) -> f64 {
        let mean = self.0.values().sum::<f64>() / self.0.len() as f64;
        match self.0.get(&class.speed_key) {
            Some(speed) => *speed,
            None if self.is_assumed() => ASSUMED_FLOPS,
            None => mean,
        }
    }
}

/// Finds the speeds of the classes with the most work: in the cache, or by measuring them. None are found where no worker program
/// of this build is, or for classes that do not run on a CPU.
pub(super) async fn find_class_speeds(source: &SpecSource, spec: &Spec) -> ClassSpeeds {
    if spec.numerics != CPU_F32 {
        return ClassSpeeds::default();
    }

    let mut classes = plan_classes(spec);
    classes.sort_by(|a, b| total_flops(b).total_cmp(&total_flops(a)));
    let mut seen = HashSet::new();
    classes.retain(|class| seen.insert(class.speed_key.clone()));
    classes.truncate(MAX_MEASURED_CLASSES);

    let path = cache_file();
    let mut kept = path.as_deref().map(read_speeds).unwrap_or_default();
    let machine = describe_machine();
    let key = |class: &ClassPlan| format!("{machine} {}", class.speed_key);
    let missing: Vec<&ClassPlan> = classes
        .iter()
        .filter(|class| !kept.contains_key(&key(class)))
        .collect();

    if !missing.is_empty()
        && let Some(speeds) = measure_classes(source, &missing).await
    {
        let measured = missing.iter().zip(speeds);
        kept.extend(measured.filter_map(|(class, speed)| Some((key(class), speed?))));
        if kept.len() > MAX_KEPT_SPEEDS {
            kept.retain(|kept, _| classes.iter().any(|class| *kept == key(class)));
        }
        if let Some(path) = path {
            keep_speeds(&path, &kept);
        }
    }

    let found = classes
        .iter()
        .filter_map(|class| Some((class.speed_key.clone(), *kept.get(&key(class))?)));
    ClassSpeeds(found.collect())
}

fn total_flops(class: &ClassPlan) -> f64 {
    class.trial_flops * class.cells as f64
}

/// Has the worker program measure classes. `None` if it cannot.
async fn measure_classes(source: &SpecSource, classes: &[&ClassPlan]) -> Option<Vec<Option<f64>>> {
    let program = find_worker(None).await.ok()?;
    let mut command = Command::new(program);
    ignore_cluster_variables(&mut command);
    let cells = classes.iter().map(|class| class.cell.0.to_string());
    let mut child = command
        .args(["step-rates", "--budget", BUDGET])
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
    let speeds: Vec<Option<f64>> = serde_json::from_slice(&output.ok()??.stdout).ok()?;
    (speeds.len() == classes.len()).then_some(speeds)
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
    Some(folder?.join("speeds.json"))
}

/// Reads what was kept. A file that is damaged is as good as none.
fn read_speeds(path: &Path) -> SpeedTable {
    let text = std::fs::read(path).unwrap_or_default();
    let speeds: SpeedTable = serde_json::from_slice(&text).unwrap_or_default();
    speeds
        .into_iter()
        .filter(|(_, speed)| speed.is_finite() && *speed > 0.0)
        .collect()
}

/// Keeps speeds for later plans. If they cannot be kept, they are measured again.
fn keep_speeds(path: &Path, speeds: &SpeedTable) {
    let folder = path.parent().unwrap_or(Path::new("."));
    let _ = std::fs::create_dir_all(folder);
    if let Ok(text) = serde_json::to_vec_pretty(speeds) {
        let _ = replace_file(path, &text, FileAccess::AsUmask, Durability::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_damage_is_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/speeds.json");
        assert_eq!(read_speeds(&path), SpeedTable::new());

        let speeds = SpeedTable::from([("a".to_owned(), 1e9), ("b".to_owned(), -1.0)]);
        keep_speeds(&path, &speeds);
        assert_eq!(
            read_speeds(&path),
            SpeedTable::from([("a".to_owned(), 1e9)])
        );

        std::fs::write(&path, "{\"a\": \"fast\"}").expect("a file can be written");
        assert_eq!(read_speeds(&path), SpeedTable::new());
    }
}
