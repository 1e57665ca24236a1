//! The processes below this one, as `/proc` lists them.

use std::collections::{HashMap, HashSet};
use std::fs::{read_dir, read_to_string};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Sends a signal to all processes below this one, whatever their sessions and groups.
pub(super) fn signal_descendants(signal: Signal) {
    for pid in list_descendants(getpid().as_raw_nonzero().get(), &read_parents()) {
        if let Some(pid) = Pid::from_raw(pid) {
            // A process may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

/// All processes, each with its parent.
fn read_parents() -> HashMap<i32, i32> {
    let entries = read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, parse_parent(&stat)?))
    });
    processes.collect()
}

/// The parent in a line of `/proc/PID/stat`. The name of the process, in parentheses, may contain anything.
fn parse_parent(stat: &str) -> Option<i32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok()
}

/// The processes below a process.
fn list_descendants(root: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in parents {
        children.entry(*parent).or_default().push(*pid);
    }

    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            // Processes end and numbers are used again while `/proc` is read: there may be circles.
            if seen.insert(*child) {
                found.push(*child);
                open.push(*child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::program::supervisor::descendants::*;

    #[test]
    fn the_parent_stands_behind_the_name() {
        assert_eq!(parse_parent("12 (sleep) S 7 12 12"), Some(7));
        assert_eq!(parse_parent("12 (a) R 1 (b) S 7 12 12"), Some(7));
        assert_eq!(parse_parent("12"), None);
    }

    #[test]
    fn all_generations_are_found_once() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 7), (7, 6)]);
        let mut below = list_descendants(2, &parents);
        below.sort_unstable();
        assert_eq!(below, [3, 4]);
        assert_eq!(list_descendants(6, &parents), [7]);
        assert!(list_descendants(4, &parents).is_empty());
    }
}
