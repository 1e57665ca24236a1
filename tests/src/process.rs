//! What Linux tells of a process.

use std::path::Path;

/// A process, by its number.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    pub(crate) fn of(id: u32) -> Self {
        Self(id)
    }

    fn read(self, what: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{what}", self.0))
            .expect("a process that runs can be looked at")
    }

    /// Fields of `stat` from the state on: the name before them may hold anything.
    fn stat(self) -> Vec<String> {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        fields.split_whitespace().map(str::to_owned).collect()
    }

    /// The state of the process as one letter: `R` running, `S` waiting, `T` stopped.
    ///
    /// # Panics
    /// The process has ended.
    pub fn state(self) -> char {
        self.stat()[0].chars().next().expect("a letter")
    }

    /// CPU time it has used, in seconds.
    ///
    /// # Panics
    /// The process has ended.
    pub fn cpu_seconds(self) -> f64 {
        let ticks = |n: usize| self.stat()[n].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Files and sockets it has open.
    ///
    /// # Panics
    /// The process has ended.
    pub fn descriptors(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0))
            .expect("a process that runs can be looked at")
            .count()
    }

    /// How often it has this file open.
    ///
    /// # Panics
    /// The process has ended.
    pub fn times_open(self, file: &Path) -> usize {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.0))
            .expect("a process that runs can be looked at");
        // One that is closed meanwhile is gone.
        all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|open| open == file)
            .count()
    }

    /// The most memory it has held, in MiB.
    ///
    /// # Panics
    /// The process has ended.
    pub fn peak_memory_mib(self) -> u64 {
        let status = self.read("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("the peak is told");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number")
            / 1024
    }
}

/// Processes that this one has started and that run still.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc")
        .expect("Linux shows its processes")
        .flatten();
    let numbers =
        processes.filter_map(|process| process.file_name().to_string_lossy().parse().ok());
    let is_child = |number: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };

    numbers.filter(is_child).collect()
}

/// Command lines of all processes that name this path.
pub fn naming(path: &std::path::Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc")
        .expect("Linux shows its processes")
        .flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines
        .filter(|line| line.contains(&*path.to_string_lossy()))
        .collect()
}
