//! A user who works through a storm, and insists: what was acknowledged is so from then on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ergodic_tests::{Cluster, Finished, run};
use serde_json::Value;

use super::{Chance, Diary, WORKERS};

/// How long anything may take, storm included.
const PATIENCE: Duration = Duration::from_secs(180);
/// Sweeps that are launched in one storm.
const SWEEPS: usize = 5;

/// Kinds of sweeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Many short trials, some of which are run again by another worker.
    Audited,
    /// Cells that are repeated until their means are known.
    Growing,
    /// Cells of which the best are repeated further.
    Halving,
    /// Networks with crossed random streams.
    Crossed,
    /// Networks whose weights and predictions are kept.
    Keeping,
}

const KINDS: [Kind; 5] = [
    Kind::Audited,
    Kind::Growing,
    Kind::Halving,
    Kind::Crossed,
    Kind::Keeping,
];

impl Kind {
    /// A sweep file of this kind, and how many repeats of it there are.
    fn text(self, name: &str, seed: u64, repeats: u32) -> String {
        let toy = "[model]\nkind = \"toy\"\nstart = [1, 1, 1, 1]\nnoise = 0.5\n[train]\nsteps = 2000\nwd = 0.01\n\
                   [grid]\nlr = [0.05, 0.1, 0.4]\n[measure]\nevery = \"1000 steps\"\nmetrics = [\"train_loss\", \"weight_norm_sq\"]\n";
        let net = "[data]\ndataset = \"glyphs\"\ntrain = 500\ntest = 100\n[model]\nkind = \"mlp\"\nhidden = [16]\n\
                   [train]\nsteps = 40\nbatch_size = 32\n[grid]\nlr = [0.05, 0.2]\n[measure]\nmetrics = [\"test_acc\"]\n";
        let head = format!("name = \"{name}\"\nseed = {seed}\n");

        match self {
            Self::Audited => format!("{head}repeats = {repeats}\naudit = 0.2\n{toy}"),
            Self::Growing => format!(
                "{head}[repeats]\nmin = 40\nmax = {repeats}\nuntil = {{ metric = \"weight_norm_sq\", ci95 = 0.02 }}\n{toy}"
            ),
            Self::Halving => {
                let rates = "lr = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1e30]";
                let toy = toy.replace("lr = [0.05, 0.1, 0.4]", rates);
                format!(
                    "{head}[repeats]\nmin = 20\nmax = {repeats}\nhalving = {{ metric = \"train_loss\", factor = 3 }}\n{toy}"
                )
            }
            Self::Crossed => {
                format!(
                    "{head}repeats = {repeats}\nseeds = {{ crossed = {{ init = 12, order = 10 }} }}\n{net}"
                )
            }
            Self::Keeping => {
                format!(
                    "{head}repeats = {repeats}\n{net}probe = {{ points = 50 }}\nsave = [\"final\"]\n"
                )
            }
        }
    }

    fn repeats(self) -> u32 {
        match self {
            Self::Audited => 300,
            Self::Growing => 300,
            Self::Halving => 180,
            Self::Crossed => 120,
            Self::Keeping => 60,
        }
    }

    /// Whether results decide on the number of repeats.
    fn grows(self) -> bool {
        matches!(self, Self::Growing | Self::Halving)
    }

    /// Whether more repeats can be asked for.
    fn extends(self) -> bool {
        matches!(self, Self::Audited | Self::Keeping)
    }
}

/// A sweep as it was acknowledged.
#[derive(Debug)]
struct Sweep {
    id: String,
    name: String,
    kind: Kind,
    seed: u64,
    /// The repeats that the sweep was launched with, and those that were asked for since.
    launched: u32,
    repeats: u32,
    weight: f64,
    paused: bool,
    removed: bool,
}

pub(super) struct User<'a> {
    url: String,
    file: PathBuf,
    chance: Chance,
    storm: u64,
    diary: &'a Diary,
    sweeps: Vec<Sweep>,
}

impl<'a> User<'a> {
    pub(super) fn of(cluster: &Cluster, seed: u64, diary: &'a Diary) -> Self {
        let url = cluster.url.clone();
        let file = cluster.path("sweep.toml");
        Self {
            url,
            file,
            chance: Chance(!seed),
            storm: seed,
            diary,
            sweeps: Vec::new(),
        }
    }

    /// One thing after another until the storm is over and all sweeps are launched; then nothing is paused.
    pub(super) fn does_things(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) || self.sweeps.len() < SWEEPS {
            let pause = self.chance.time(20, 500);
            std::thread::sleep(pause);

            match self.chance.below(10) {
                0..3 if self.sweeps.len() < SWEEPS => self.launch(),
                3 => self.extend(),
                4 => self.share(),
                5 => self.pause_or_resume(),
                6 => self.remove(),
                // One more, so that there is something of which to launch more.
                7..9 if self.sweeps.len() <= SWEEPS => self.launch_more(),
                _ => self.look(),
            }
        }

        for at in 0..self.sweeps.len() {
            if self.sweeps[at].paused && !self.sweeps[at].removed {
                self.resume(at);
            }
        }
    }

    fn run(&self, args: &[&str]) -> Finished {
        let finished = run(&[args, &["--coordinator", &self.url]].concat());
        let said = format!("{}{}", finished.stderr, finished.stdout);
        let said: String = said
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        self.diary
            .write(&format!("{args:?}: {} {said}", finished.code));

        finished
    }

    /// Does something until it is so.
    fn insist(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn list(&self) -> Option<Vec<Value>> {
        let finished = run(&["list", "--format", "json", "--coordinator", &self.url]);
        (finished.code == 0)
            .then(|| serde_json::from_str(&finished.stdout).expect("the list is JSON"))
    }

    /// The status of a sweep, if anybody answers; null where there is no such sweep.
    fn status(&self, id: &str) -> Option<Value> {
        let finished = run(&["status", id, "--format", "json", "--coordinator", &self.url]);
        match finished.code {
            0 => Some(serde_json::from_str(&finished.stdout).expect("the status is JSON")),
            5 => Some(Value::Null),
            _ => None,
        }
    }

    fn launch(&mut self) {
        let kind = self.chance.pick(&KINDS);
        let seed = self.chance.next() % 1_000_000;
        self.launch_one(kind, seed, kind.repeats());
    }

    /// Launches a file with all trials of a sweep that has ended, whose rows are copied, and more.
    fn launch_more(&mut self) {
        let Some(at) = self.some(|sweep| sweep.kind.extends()) else {
            return;
        };
        let Sweep { kind, seed, .. } = self.sweeps[at];

        // While others run some of its trials, it would be refused.
        let mut alike = self
            .sweeps
            .iter()
            .filter(|sweep| sweep.seed == seed && !sweep.removed);
        if alike.all(|sweep| {
            self.status(&sweep.id)
                .is_some_and(|status| status["state"] == "completed")
        }) {
            let repeats = self.more_repeats(at);
            self.launch_one(kind, seed, repeats);
        }
    }

    fn launch_one(&mut self, kind: Kind, seed: u64, repeats: u32) {
        let name = format!("storm-{}-{}", self.storm, self.sweeps.len());
        std::fs::write(&self.file, kind.text(&name, seed, repeats)).expect("a file can be written");
        let path = self.file.to_string_lossy().into_owned();
        let mut id = None;
        self.insist("a launch", || {
            let finished = self.run(&["launch", &path]);
            if finished.code == 0 {
                id = Some(finished.stdout.trim().to_owned());
            } else {
                let is_bad =
                    [2, 5].contains(&finished.code) && !finished.stderr.contains("No space left");
                assert!(!is_bad, "{finished:?}");
                let list = self.list().unwrap_or_default();
                let there = list.iter().find(|sweep| sweep["name"] == name.as_str());
                id = there
                    .and_then(|sweep| sweep["id"].as_str())
                    .map(str::to_owned);
            }

            id.is_some()
        });

        let id = id.expect("it was insisted on");
        let launched = repeats;
        self.sweeps.push(Sweep {
            id,
            name,
            kind,
            seed,
            launched,
            repeats,
            weight: 1.0,
            paused: false,
            removed: false,
        });
    }

    /// A sweep that is there, and of which this is so.
    fn some(&mut self, is_so: impl Fn(&Sweep) -> bool) -> Option<usize> {
        let there: Vec<usize> = (0..self.sweeps.len())
            .filter(|at| !self.sweeps[*at].removed && is_so(&self.sweeps[*at]))
            .collect();
        (!there.is_empty()).then(|| self.chance.pick(&there))
    }

    fn extend(&mut self) {
        let Some(at) = self.some(|sweep| sweep.kind.extends() && !sweep.paused) else {
            return;
        };
        let repeats = self.more_repeats(at);
        let id = self.sweeps[at].id.clone();
        let number = repeats.to_string();
        self.insist("an extension", || {
            self.run(&["extend", &id, "--repeats", &number]).code == 0
                || self
                    .status(&id)
                    .is_some_and(|status| status["repeats"] == repeats)
        });

        self.sweeps[at].repeats = repeats;
    }

    fn more_repeats(&mut self, at: usize) -> u32 {
        let Sweep { repeats, kind, .. } = &self.sweeps[at];
        repeats + 1 + self.chance.below(kind.repeats() as usize / 4) as u32
    }

    /// Of a sweep that has ended nothing is shared any more.
    fn share(&mut self) {
        let Some(at) = self.some(|sweep| !sweep.paused) else {
            return;
        };
        let weight = f64::from(1 + self.chance.below(50) as u32);
        let id = self.sweeps[at].id.clone();
        let text = weight.to_string();

        let mut so = false;
        self.insist("a share", || {
            so = self.run(&["share", &id, "--weight", &text]).code == 0;
            let status = self.status(&id);
            so = so
                || status
                    .as_ref()
                    .is_some_and(|status| status["weight"] == weight);

            so || status.is_some_and(|status| status["state"] == "completed")
        });

        if so {
            self.sweeps[at].weight = weight;
        }
    }

    fn pause_or_resume(&mut self) {
        let Some(at) = self.some(|_| true) else {
            return;
        };
        if self.sweeps[at].paused {
            self.resume(at);
        } else {
            let id = self.sweeps[at].id.clone();
            let mut so = false;
            self.insist("a pause", || {
                so = self.run(&["pause", &id]).code == 0;
                let state = self.status(&id).map(|status| status["state"].clone());
                so = so || state.as_ref().is_some_and(|state| state == "paused");
                so || state.is_some_and(|state| state == "completed")
            });

            self.sweeps[at].paused = so;
        }
    }

    fn resume(&mut self, at: usize) {
        let id = self.sweeps[at].id.clone();
        let is_paused = |status: &Value| status["state"] == "paused";
        self.insist("to resume", || {
            self.run(&["resume", &id]).code == 0
                || self.status(&id).is_some_and(|status| !is_paused(&status))
        });
        self.sweeps[at].paused = false;
    }

    fn remove(&mut self) {
        // The last one stays.
        let there = self.sweeps.iter().filter(|sweep| !sweep.removed).count();
        if there < 3 || self.chance.below(3) != 0 {
            return;
        }

        let Some(at) = self.some(|_| true) else {
            return;
        };
        let id = self.sweeps[at].id.clone();
        self.insist("a removal", || {
            self.run(&["rm", "--force", &id]).code == 0
                || self.status(&id).is_some_and(|status| status.is_null())
        });

        self.sweeps[at].removed = true;
    }

    /// Asks for something large. That it is not answered in a storm costs nothing.
    fn look(&mut self) {
        let Some(at) = self.some(|_| true) else {
            return;
        };
        let id = self.sweeps[at].id.clone();
        let command = self
            .chance
            .pick(&["table", "trials", "curves", "explain", "retry"]);
        self.run(&[command, &id]);
    }

    /// After the storm: what was acknowledged is there, whatever is there ends, and it has the rows of a run without faults.
    pub(super) fn finds_everything_as_acknowledged(&self, cluster: &Cluster) {
        let mut list = None;
        self.insist("a list", || {
            list = self.list();
            list.is_some()
        });
        let list = list.expect("it was insisted on");

        for sweep in &self.sweeps {
            let is_there = list.iter().any(|listed| listed["id"] == sweep.id.as_str());
            assert_eq!(is_there, !sweep.removed, "{sweep:?} in {list:?}");
        }

        let mut calm = Cluster::start(&[]);
        let _workers = [calm.worker(1, &[]), calm.worker(1, &[])];

        for listed in &list {
            let id = listed["id"].as_str().expect("an id");
            let name = listed["name"].as_str().expect("a name");
            let sweep = self
                .sweeps
                .iter()
                .find(|sweep| sweep.name == name)
                .expect("nobody else launches");
            self.check(cluster, &calm, sweep, id);
        }
    }

    /// One sweep; with another id it was launched by a command that was not answered.
    fn check(&self, cluster: &Cluster, calm: &Cluster, sweep: &Sweep, id: &str) {
        let ended = cluster.wait_for_end(id);
        let is_own = id == sweep.id;
        if is_own {
            assert_eq!(ended["weight"], sweep.weight, "{sweep:?}: {ended}");
            assert!(
                sweep.kind.grows() || ended["repeats"] == sweep.repeats,
                "{sweep:?}: {ended}"
            );
        }

        if sweep.kind == Kind::Audited {
            // Whoever audits may have been away when the others ended, and is to be back before it ends once more.
            cluster.wait_for_workers(WORKERS);
            cluster.run(&["retry", id]);
            let settled = cluster.wait_until(id, "its audits are made", |status| {
                status["audits_left"] == 0
            });
            assert_eq!(settled["audits_same"], settled["audits_due"], "{settled}");
        }

        let ended = cluster.wait_for_end(id);
        for (what, wanted) in [
            ("done", &ended["trials"]),
            ("leased", &0.into()),
            ("failed", &0.into()),
        ] {
            assert_eq!(&ended[what], wanted, "{what} of {sweep:?}: {ended}");
        }

        assert_eq!(ended["mismatches"], 0, "{ended}");
        let repeats = if is_own {
            sweep.repeats
        } else {
            sweep.launched
        };
        let undisturbed = calm.launch(&sweep.kind.text(&sweep.name, sweep.seed, repeats));
        calm.wait_for_end(&undisturbed);

        let answers = |cluster: &Cluster, id: &str| {
            (
                cluster.rows(id),
                cluster.ask(&["curves", id, "--format", "csv"]),
            )
        };
        assert!(
            answers(cluster, id) == answers(calm, &undisturbed),
            "rows of {sweep:?} are not those of a calm run"
        );

        if sweep.kind == Kind::Keeping {
            let predictions = |cluster: &Cluster, id: &str| cluster.ask(&["predictions", id]);
            assert!(
                predictions(cluster, id) == predictions(calm, &undisturbed),
                "predictions of {sweep:?}"
            );
            let file = cluster.path("weights").to_string_lossy().into_owned();
            cluster.ask(&["weights", id, &format!("1/{}", repeats - 1), "-o", &file]);
        }

        calm.ask(&["rm", &undisturbed]);
    }
}
