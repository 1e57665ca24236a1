//! What Linux tells of this machine and process: memory and CPU time.

use std::fs::{DirEntry, read_to_string};
use std::sync::OnceLock;
use std::time::Instant;

use ergodic_common::program::needs::GPU_VARIABLE;

/// Memory of the machine, or the limit of this process's control group, in bytes. `None` if the
/// system does not report it.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limits = limits
        .iter()
        .filter_map(|path| read_to_string(path).ok()?.trim().parse().ok());
    limits
        .chain(read_proc_bytes("/proc/meminfo", "MemTotal:"))
        .min()
}

/// The NVIDIA GPUs that this process may use: those that `CUDA_VISIBLE_DEVICES` names, or else all of this machine.
pub(crate) fn find_gpus() -> Vec<String> {
    if let Ok(names) = std::env::var(GPU_VARIABLE) {
        return parse_visible_gpus(&names);
    }
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = devices.filter_map(|device| device.file_name().into_string().ok());
    number_gpus(names)
}

/// The ordinals of as many GPUs as there are device nodes. CUDA counts those that it finds, whatever their nodes are called.
fn number_gpus(nodes: impl Iterator<Item = String>) -> Vec<String> {
    let is_gpu = |name: &String| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let count = nodes.filter(is_gpu).count();
    (0..count).map(|ordinal| ordinal.to_string()).collect()
}

/// The GPUs that CUDA finds by this value of `CUDA_VISIBLE_DEVICES`, each once: those before the first that is none, such as
/// `-1` or `NoDevFiles`.
fn parse_visible_gpus(names: &str) -> Vec<String> {
    let mut gpus: Vec<String> = Vec::new();
    for name in names.split(',').map_while(parse_gpu) {
        if !gpus.contains(&name) {
            gpus.push(name);
        }
    }
    gpus
}

/// A GPU by its ordinal or UUID.
fn parse_gpu(name: &str) -> Option<String> {
    let name = name.trim();
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok().map(|ordinal: u32| ordinal.to_string());
    }

    let id = ["GPU-", "MIG-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    let is_id = !id.is_empty()
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-/".contains(c));
    is_id.then(|| name.to_owned())
}

/// Peak memory of this process, in bytes. `None` if the system does not report it.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    read_proc_bytes("/proc/self/status", "VmHWM:")
}

/// The number of bytes that follows `words` in a file below `/proc`.
fn read_proc_bytes(path: &str, words: &str) -> Option<u64> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(words))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// CPU time of all threads, as Linux counts it, or else time since the first call; in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    let tasks = std::fs::read_dir("/proc/self/task").ok();
    let nanoseconds =
        tasks.and_then(|tasks| tasks.flatten().map(task_nanoseconds).sum::<Option<u64>>());
    nanoseconds.map_or_else(|| start.elapsed().as_secs_f64(), |ns| ns as f64 * 1e-9)
}

/// CPU time of one thread, in nanoseconds.
fn task_nanoseconds(task: DirEntry) -> Option<u64> {
    let text = read_to_string(task.path().join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse::<u64>().ok()
}

#[cfg(test)]
mod tests {
    use crate::system::*;

    #[test]
    fn gpus_end_where_cuda_stops_to_read() {
        assert_eq!(parse_visible_gpus("1, GPU-ab"), ["1", "GPU-ab"]);
        assert_eq!(parse_visible_gpus("2,-1,3"), ["2"]);
        let none = ["", "-1", "NoDevFiles", "all", "GPU-", "4294967296"];
        for none in none {
            assert!(parse_visible_gpus(none).is_empty(), "{none}");
        }
        assert_eq!(parse_visible_gpus("MIG-GPU-ab/1/0,x,3"), ["MIG-GPU-ab/1/0"]);
    }

    #[test]
    fn a_gpu_that_is_named_twice_is_one() {
        assert_eq!(
            parse_visible_gpus("1,01,0,1,GPU-a,GPU-a"),
            ["1", "0", "GPU-a"]
        );
    }

    #[test]
    fn gpus_are_counted_from_0_whatever_their_nodes_are_called() {
        let nodes = ["nvidia3", "nvidiactl", "nvidia-uvm", "nvidia7", "null"];
        assert_eq!(
            number_gpus(nodes.map(str::to_owned).into_iter()),
            ["0", "1"]
        );
    }
}
