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
    let mut numbers: Vec<u32> = devices
        .filter_map(|device| {
            let name = device.file_name().into_string().ok()?;
            name.strip_prefix("nvidia")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers.iter().map(u32::to_string).collect()
}

/// The GPUs that CUDA finds by this value of `CUDA_VISIBLE_DEVICES`: those before the first that is none.
fn parse_visible_gpus(names: &str) -> Vec<String> {
    let names = names.split(',').map(str::trim);
    names
        .take_while(|name| !name.is_empty() && !name.starts_with('-'))
        .map(str::to_owned)
        .collect()
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
        assert!(parse_visible_gpus("").is_empty());
    }
}
