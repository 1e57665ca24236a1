//! What must hold when a scenario is over, whatever happened in it.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::cluster::{Cluster, Program, deadline};
use crate::gate::Gate;
use crate::process::naming;

/// What workers say they did: counted in their logs, which [`Cluster::counted`] has them write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Trials begun.
    pub begun: u64,
    /// Results that the coordinator acknowledged as stored.
    pub stored: u64,
    /// Results that it acknowledged as there already.
    pub duplicates: u64,
}

impl Done {
    /// What a worker did, by its log.
    pub fn of(log: &str) -> Self {
        let mut done = Self {
            begun: log.matches("trial begins").count() as u64,
            ..Self::default()
        };

        // A line that is still being written says nothing yet.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole
            .lines()
            .filter(|line| line.contains("results acknowledged"))
        {
            done.stored += number(line, "stored=");
            done.duplicates += number(line, "duplicates=");
        }

        done
    }

    /// Results that nobody has acknowledged, and trials that are running.
    pub fn open(self) -> u64 {
        self.begun - self.stored - self.duplicates
    }
}

impl Cluster {
    /// What the workers did up to now.
    pub fn done(&self) -> Done {
        let each = self.worker_logs().map(|log| Done::of(&log));
        each.fold(Done::default(), |sum, done| Done {
            begun: sum.begun + done.begun,
            stored: sum.stored + done.stored,
            duplicates: sum.duplicates + done.duplicates,
        })
    }

    /// Lets more trials through the gate and waits until one of them has begun: what strikes now meets work under way. For
    /// clusters that are [`Cluster::counted`].
    ///
    /// # Panics
    /// None begins.
    pub fn set_in_motion(&self, let_through: impl FnOnce(&Gate)) {
        let before = self.done().begun;
        let start = Instant::now();
        let_through(&self.gate);

        while self.done().begun == before {
            assert!(
                start.elapsed() < deadline(),
                "waited in vain until a trial begins:\n{}",
                self.logs()
            );

            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a sweep's end, looks at its rows, dismisses the workers, stops the coordinator and looks at the store.
    /// Gives the sweep's last status and what the workers did.
    ///
    /// # Panics
    /// A trial has no row or two, a row is other than `wanted`, an acknowledged result was lost, a lease, a process or a
    /// descriptor is left, or somebody does not leave in good order.
    pub fn settle(self, id: &str, wanted: &str, workers: Vec<Program>) -> (Value, Done) {
        let status = self.wait_for_end(id);
        let trials = status["trials"].as_u64().expect("a number");
        assert_eq!(
            (&status["done"], &status["leased"], &status["mismatches"]),
            (&trials.into(), &0.into(), &0.into())
        );

        let rows = self.rows(id);
        self.check_rows(&rows, trials);
        assert!(
            rows == wanted,
            "rows differ from those of a run without faults:\n{}",
            first_difference(&rows, wanted)
        );

        let (stored, done) = self.close(workers);
        assert!(stored >= trials, "{stored} rows");
        // Whatever was stored twice over would have been acknowledged as stored twice.
        assert!(
            done.stored <= stored,
            "{done:?} of {stored} rows: acknowledged results were lost and stored again"
        );

        (status, done)
    }

    /// Dismisses the workers, stops the coordinator and looks at the store. Gives the rows it has, and what the workers did.
    ///
    /// # Panics
    /// A lease, a process or a descriptor is left, or somebody does not leave in good order.
    pub fn close(mut self, workers: Vec<Program>) -> (u64, Done) {
        for worker in workers {
            worker.signal("TERM");
            let log = worker.log();
            assert_eq!(
                worker.wait(),
                0,
                "a worker did not leave in good order:\n{log}"
            );
        }

        if self.store().is_some() {
            self.check_descriptors();
        }

        let coordinator = self.take_coordinator();
        coordinator.signal("TERM");
        assert_eq!(
            coordinator.wait(),
            0,
            "the coordinator did not stop in good order:\n{}",
            self.logs()
        );

        let logs = self.logs();
        let stored = self.store().map_or(0, |store| check_store(&store, &logs));
        let left = naming(&self.path(""));
        assert!(left.is_empty(), "processes are left: {left:?}");
        (stored, self.done())
    }

    /// One row per trial, in order.
    fn check_rows(&self, rows: &str, trials: u64) {
        let header: Vec<&str> = rows.lines().next().unwrap_or_default().split(',').collect();
        let at = |name: &str| {
            header
                .iter()
                .position(|column| *column == name)
                .expect("a column of every sweep")
        };
        let cell = at("cell");

        let repeat = at("repeat");
        let key = |line: &str| {
            let fields: Vec<u64> = [cell, repeat]
                .map(|at| {
                    line.split(',')
                        .nth(at)
                        .unwrap_or_default()
                        .parse()
                        .unwrap_or(u64::MAX)
                })
                .into();

            (fields[0], fields[1])
        };
        let keys: Vec<(u64, u64)> = rows.lines().skip(1).map(key).collect();
        assert_eq!(keys.len() as u64, trials, "one row per trial");

        assert!(
            keys.is_sorted_by(|a, b| a < b),
            "rows are unique and in order"
        );
    }

    /// Connections that were opened are closed.
    fn check_descriptors(&self) {
        let start = Instant::now();
        while self.coordinator().process().descriptors() > self.descriptors() {
            let now = self.coordinator().process().descriptors();
            let before = self.descriptors();
            assert!(
                start.elapsed() < deadline(),
                "the coordinator leaks descriptors: {now}, {before} before anybody came"
            );

            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The database of a coordinator that has stopped: whole, with a curve per row and no lease. Gives the number of rows, of
/// all sweeps.
fn check_store(folder: &Path, logs: &str) -> u64 {
    let path = folder.join("ergodic.sqlite");
    assert!(
        !folder.join("ergodic.sqlite-wal").exists(),
        "what was written ahead is not in the database:\n{logs}"
    );
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("the store can be read");
    let whole: String = store
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it can be checked");
    assert_eq!(whole, "ok");

    let count = |sql: &str| {
        store
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .expect("it can be counted") as u64
    };
    assert_eq!(count("SELECT count(*) FROM leases"), 0, "leases are left");

    let rows = count("SELECT count(*) FROM trials");
    assert_eq!(
        count("SELECT count(*) FROM curves"),
        rows,
        "curves without a row"
    );

    rows
}

fn first_difference(rows: &str, wanted: &str) -> String {
    let pairs = rows.lines().zip(wanted.lines());
    let different = pairs.enumerate().find(|(_, (a, b))| a != b);
    different.map_or_else(
        || {
            format!(
                "{} lines, {} wanted",
                rows.lines().count(),
                wanted.lines().count()
            )
        },
        |(n, (a, b))| format!("line {n}: {a}\nwanted:  {b}"),
    )
}

/// The number after `name` in a line of a log.
fn number(line: &str, name: &str) -> u64 {
    let rest = line.split_once(name).map_or("", |(_, rest)| rest);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number after '{name}' in: {line}"))
}
