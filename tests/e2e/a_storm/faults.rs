//! What befalls processes, disk and database.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ergodic_tests::{Cluster, Postgres, Program, SmallDisk, skip};
use rusqlite::Connection;

use super::{Chance, Diary};

/// Workers that may be killed in a storm: a third death with the same trial would make it a failure, rightly.
const KILLS: usize = 2;
/// A disk that a storm's store fits into.
const DISK_MIB: u32 = 256;

/// Where the store is.
pub(super) enum Ground {
    /// In a directory, on a disk of its own where one can be had.
    Directory(Option<SmallDisk>, tempfile::TempDir),
    /// In a database, and its files in a directory.
    Database(Postgres, tempfile::TempDir),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    StalledCoordinator,
    StalledWorker,
    StalledProcesses,
    KilledWorker,
    KilledCoordinator,
    FullDisk,
    FrozenDatabase,
}

impl Ground {
    /// Two of three storms strike a directory.
    pub(super) fn choose(chance: &mut Chance) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if chance.below(3) == 0 {
            match Postgres::start() {
                Ok(database) => return Self::Database(database, dir),
                Err(why) => skip("storms on PostgreSQL", "postgres", &why),
            }
        }

        let disk = SmallDisk::mount(&dir.path().join("disk"), DISK_MIB);
        if disk.is_none() {
            skip(
                "storms with a full disk",
                "tmpfs",
                "mounting one needs root",
            );
        }

        Self::Directory(disk, dir)
    }

    pub(super) fn options(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match self {
            Self::Directory(_, dir) => vec!["--store".into(), text(&dir.path().join("disk/store"))],
            Self::Database(database, dir) => {
                vec![
                    "--store".into(),
                    database.url(),
                    "--files".into(),
                    text(dir.path()),
                ]
            }
        }
    }

    fn faults(&self, within: Option<Fault>) -> Vec<Fault> {
        use Fault::{
            FrozenDatabase, FullDisk, KilledCoordinator, KilledWorker, StalledCoordinator,
            StalledProcesses, StalledWorker,
        };

        match within {
            None => {
                let full = matches!(self, Self::Directory(Some(_), _)).then_some(FullDisk);
                let all = [
                    StalledCoordinator,
                    StalledWorker,
                    StalledProcesses,
                    KilledWorker,
                    KilledCoordinator,
                ];

                all.into_iter()
                    .chain([FrozenDatabase])
                    .chain(full)
                    .collect()
            }
            // Whoever is killed while everything stands still is not missed by anybody.
            Some(FullDisk | FrozenDatabase | KilledCoordinator | KilledWorker) => {
                vec![StalledWorker, KilledWorker, StalledWorker]
            }
            Some(_) => vec![KilledWorker, FrozenDatabase],
        }
    }

    /// One fault after another, some of them within others. In the end all processes are there, and nothing is in their way.
    pub(super) fn strike(
        &self,
        cluster: &mut Cluster,
        workers: &mut Vec<Program>,
        chance: &mut Chance,
        diary: &Diary,
    ) {
        let number = 4 + chance.below(4);
        let mut storm = Strikes {
            ground: self,
            cluster,
            workers,
            chance,
            diary,
            kills: 0,
        };

        for _ in 0..number {
            let pause = storm.chance.time(100, 1500);
            std::thread::sleep(pause);
            storm.strike(None);
        }
    }
}

struct Strikes<'a> {
    ground: &'a Ground,
    cluster: &'a mut Cluster,
    workers: &'a mut Vec<Program>,
    chance: &'a mut Chance,
    diary: &'a Diary,
    kills: usize,
}

impl Strikes<'_> {
    fn strike(&mut self, within: Option<Fault>) {
        let fault = self.chance.pick(&self.ground.faults(within));
        let victim = self.chance.below(self.workers.len());
        self.diary
            .write(&format!("{fault:?} begins (of the workers: {victim})"));

        match fault {
            Fault::StalledCoordinator => {
                self.cluster.coordinator().freeze();
                self.stall(fault);
                self.cluster.coordinator().thaw();
            }
            Fault::StalledWorker => {
                self.workers[victim].freeze();
                self.last(fault, 200, 6000);
                self.workers.iter().for_each(Program::thaw);
            }
            Fault::StalledProcesses => {
                self.cluster.coordinator().freeze();
                self.workers.iter().for_each(Program::freeze);
                self.stall(fault);
                self.workers.iter().for_each(Program::thaw);
                self.cluster.coordinator().thaw();
            }
            Fault::KilledWorker if self.kills < KILLS => {
                self.kills += 1;
                self.workers.swap_remove(victim).kill();
                self.last(fault, 50, 2000);
                let heir = self.cluster.worker(1, &[]);
                self.workers.push(heir);
            }
            Fault::KilledWorker => {}
            Fault::KilledCoordinator => {
                self.cluster.take_coordinator().kill();
                self.last(fault, 50, 3000);
                self.cluster.restart_coordinator(&[]);
            }
            Fault::FullDisk => {
                let fillers = self.fill();
                self.last(fault, 300, 5000);
                fillers.iter().for_each(|filler| {
                    std::fs::remove_file(filler).expect("a file can be removed")
                });
            }
            Fault::FrozenDatabase => self.freeze_database(),
        }

        self.diary.write(&format!("{fault:?} is over"));
    }

    /// For a moment, or for longer than leases live and a claim to lead lasts.
    fn stall(&mut self, fault: Fault) {
        let (from_ms, to_ms) = self.chance.pick(&[(200, 5000), (6000, 9000)]);
        self.last(fault, from_ms, to_ms);
    }

    /// Time goes by, or something else happens meanwhile.
    fn last(&mut self, fault: Fault, from_ms: u64, to_ms: u64) {
        let time = self.chance.time(from_ms, to_ms);
        self.diary
            .write(&format!("{fault:?} lasts {:.1} s", time.as_secs_f64()));

        if self.kills < KILLS && self.chance.below(3) == 0 {
            std::thread::sleep(time / 2);
            self.strike(Some(fault));
            std::thread::sleep(time / 2);
        } else {
            std::thread::sleep(time);
        }
    }

    /// Takes all room on the disk: the most of it at once, the last bytes one by one.
    fn fill(&self) -> [std::path::PathBuf; 2] {
        let Ground::Directory(Some(disk), _) = self.ground else {
            panic!("this fault needs a disk of its own")
        };
        let fillers = ["filler", "last"].map(|name| disk.path().join(name));
        for (filler, piece) in fillers.iter().zip([1 << 20, 512]) {
            let mut bytes = std::fs::File::create(filler).expect("an empty file needs no room");
            while bytes.write_all(&vec![0; piece]).is_ok() {}
        }

        fillers
    }

    /// Whoever writes has to wait.
    fn freeze_database(&mut self) {
        match self.ground {
            Ground::Database(database, _) => {
                database.freeze();
                self.stall(Fault::FrozenDatabase);
                database.thaw();
            }
            Ground::Directory(_, dir) => {
                let store = Connection::open(dir.path().join("disk/store/ergodic.sqlite"))
                    .expect("the store is there");
                store
                    .busy_timeout(Duration::from_secs(5))
                    .expect("it can wait");

                // Where it is too busy, or the disk is full, it is not frozen this time.
                let frozen = store.execute_batch("BEGIN IMMEDIATE").is_ok();
                self.stall(Fault::FrozenDatabase);

                if frozen {
                    store
                        .execute_batch("ROLLBACK")
                        .expect("it can be given back");
                }
            }
        }
    }
}
