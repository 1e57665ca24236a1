//! Resources that this process, or one that it has started, uses, as counted by Linux.

/// User and system CPU time in seconds; 0 if the system does not report it.
pub(crate) fn cpu_seconds() -> f64 {
    read_cpu_seconds("self")
}

/// User and system CPU time of another process in seconds; 0 if the system does not report it.
pub(crate) fn cpu_seconds_of(process: u32) -> f64 {
    read_cpu_seconds(&process.to_string())
}

fn read_cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Fields are counted after the parenthesised name, which may hold spaces; times are in hundredths of a second.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();

    ticks as f64 / 100.0
}

/// Peak memory, in bytes; 0 if the system does not report it.
pub(crate) fn peak_rss_bytes() -> u64 {
    read_status_kib("self", "VmHWM:") * 1024
}

/// Present memory, in bytes; 0 if the system does not report it.
pub(crate) fn rss_bytes() -> u64 {
    read_status_kib("self", "VmRSS:") * 1024
}

/// Present memory of another process, in bytes; 0 if the system does not report it.
pub(crate) fn rss_bytes_of(process: u32) -> u64 {
    read_status_kib(&process.to_string(), "VmRSS:") * 1024
}

/// Number of open files and connections; 0 if the system does not report it.
pub(crate) fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

fn read_status_kib(process: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}
