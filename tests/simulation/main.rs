//! The coordinator and three workers in a simulated network, under faults that a seed decides.
//!
//! A seed runs in a process of its own, in which time and chance are simulated too (`clock.rs`): what it does once it does
//! again. `hosts.rs` says what is simulated.

mod clock;
mod faults;
mod hosts;
mod ledger;

use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ergodic_tests::{Done, note};
use faults::{Fault, Kind, WORKERS, plan};
use hosts::{Disk, Machines, coordinator, digest, sweep, user, worker};
use tokio::sync::watch;
use turmoil::Sim;

/// Names the one simulation that a process is to run, as in `crash:17`.
const ONE: &str = "ERGODIC_SIMULATE";
/// How many seeds of every kind of fault.
const SEEDS: &str = "ERGODIC_SEEDS";
/// Seeds where nobody says how many.
const FEW: u64 = 12;

const TICK: Duration = Duration::from_millis(5);
/// How long the sweep may take, and then the end.
const SWEEP_WITHIN: Duration = Duration::from_secs(300);
const END_WITHIN: Duration = Duration::from_secs(60);

// --- one simulation ---

/// What is logged, by whoever is simulated.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct ToLog;

impl std::io::Write for ToLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock()
            .expect("nothing panics while it writes")
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().expect("nothing panics while it writes")).into_owned()
}

struct World {
    sim: Sim<'static>,
    disk: Disk,
    machines: Machines,
    stop: watch::Sender<bool>,
    to_begin: Vec<Fault>,
    to_end: Vec<Fault>,
    dir: tempfile::TempDir,
}

impl World {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(CALM_LATENCY)
            .tcp_capacity(1 << 14)
            .build();

        let (source, spec) = sweep();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (stop, stopping) = watch::channel(false);
        let disk = Disk {
            dir: dir.path().join("store"),
            ledger: Default::default(),
            spec,
            seed,
            stop: stopping,
        };

        let machines = Machines::default();
        let on_disk = disk.clone();
        sim.host("coordinator", move || coordinator(on_disk.clone()));

        for name in WORKERS {
            let machines = machines.clone();
            let cache = dir.path().join("cache");
            sim.host(name, move || worker(machines.clone(), seed, cache.clone()));
        }

        sim.client("user", user(source));
        let to_begin = plan(kind, seed);
        Self {
            sim,
            disk,
            machines,
            stop,
            to_begin,
            to_end: Vec::new(),
            dir,
        }
    }

    fn step(&mut self) {
        let now = self.sim.elapsed();
        clock::set(now);

        while self.to_end.iter().any(|fault| fault.to <= now) {
            let at = self
                .to_end
                .iter()
                .position(|fault| fault.to <= now)
                .expect("there is one");
            let fault = self.to_end.remove(at);
            self.end(&fault);
        }

        while self.to_begin.first().is_some_and(|fault| fault.from <= now) {
            let fault = self.to_begin.remove(0);
            self.begin(&fault);
            self.to_end.push(fault);
        }

        self.sim.step().expect("no machine fails");
    }

    fn begin(&mut self, fault: &Fault) {
        tracing::info!(target: "ergodic", ?fault, "begins");
        let sim = &mut self.sim;
        let host = fault.host.name();

        match fault.kind {
            Kind::Partition => sim.partition("coordinator", host),
            Kind::Hold => sim.hold("coordinator", host),
            Kind::Latency => sim.set_link_latency("coordinator", host, fault.latency),
            Kind::Crash => sim.crash(host),
            Kind::Bounce => {
                sim.crash(host);
                sim.bounce(host);
            }
            Kind::Calm | Kind::Storm => {}
        }
    }

    fn end(&mut self, fault: &Fault) {
        tracing::info!(target: "ergodic", ?fault, "ends");
        let sim = &mut self.sim;
        let host = fault.host.name();

        match fault.kind {
            Kind::Partition => sim.repair("coordinator", host),
            Kind::Hold => sim.release("coordinator", host),
            Kind::Latency => sim.set_link_latency("coordinator", host, CALM_LATENCY),
            Kind::Crash => sim.bounce(host),
            Kind::Calm | Kind::Bounce | Kind::Storm => {}
        }
    }

    fn until(&mut self, what: &str, within: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = self.sim.elapsed() + within;
        while !done(self) {
            assert!(
                self.sim.elapsed() < limit,
                "after {within:?}, not yet: {what}"
            );
            self.step();
        }
    }
}

const CALM_LATENCY: Duration = Duration::from_millis(20);

/// Runs a seed to its end; what is to be said of it.
fn simulate(kind: Kind, seed: u64) -> String {
    clock::set(Duration::ZERO);
    let mut world = World::new(kind, seed);
    let trials = world.disk.spec.trial_count();
    let ledger = world.disk.ledger.clone();
    world.until("the sweep ends", SWEEP_WITHIN, |_| ledger.look().ended);
    let left = {
        let ledger = ledger.look();
        (ledger.rows(), ledger.leases())
    };
    assert_eq!(left, (trials, 0), "rows and leases at the end");

    world.until("the faults end", END_WITHIN, |world| {
        world.to_begin.is_empty() && world.to_end.is_empty()
    });
    world.machines.leave();
    world.until("the workers leave", END_WITHIN, |world| {
        WORKERS.iter().all(|name| !world.sim.is_host_running(*name))
    });

    let took = world.sim.elapsed();
    let _ = world.stop.send(true);
    world.until("the coordinator ends", END_WITHIN, |world| {
        !world.sim.is_host_running("coordinator")
    });

    // Only then is the last of its tasks gone, and the store free.
    let World { sim, disk, dir, .. } = world;
    drop(sim);
    let rows = digest(&disk.dir);
    drop(dir);
    let done = Done::of(&log());
    assert!(
        done.stored <= trials,
        "{done:?} of {trials}: acknowledged results were lost and stored again"
    );

    let story = blake3::hash(named(&log()).as_bytes()).to_hex()[..16].to_owned();
    let ledger = ledger.look();
    format!(
        "rows={rows} story={story} begun={} fenced={} known={} lost={} seconds={}",
        done.begun,
        ledger.fenced,
        ledger.known,
        ledger.lost,
        took.as_secs()
    )
}

/// The log without what is another one in every process: the sweep's id.
fn named(log: &str) -> String {
    let id = log
        .split_once("sweep=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(id, _)| id.to_owned());
    id.map_or_else(|| log.to_owned(), |id| log.replace(&id, "the-sweep"))
}

#[test]
#[ignore = "one simulation, for which the others start a process"]
fn one() {
    let Ok(name) = std::env::var(ONE) else {
        panic!("say which in {ONE}, as in crash:17")
    };
    let parsed = name.split_once(':').and_then(|(kind, seed)| {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        Some((kind, seed.parse().ok()?))
    });
    let (kind, seed) =
        parsed.unwrap_or_else(|| panic!("{ONE}={name}: expected something like crash:17"));

    let filter =
        tracing_subscriber::EnvFilter::new("ergodic=debug,ergodic_worker=debug,turmoil=info");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| ToLog)
        .init();

    // A panic in a task would otherwise end that task alone.
    std::panic::set_hook(Box::new(|panic| {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "{}\n{panic}", log());
        std::process::exit(101);
    }));

    // In a thread that has drawn no chance yet.
    let told = std::thread::spawn(move || simulate(kind, seed))
        .join()
        .expect("a panic ends the process");

    if std::env::var_os("ERGODIC_SIMULATE_LOG").is_some() {
        note(&named(&log()));
    }

    note(&format!("TOLD {name} {told}"));
}

// --- many of them ---

/// Runs a simulation in a process of its own; what it tells.
fn run(name: &str) -> Result<String, String> {
    // A process that fails leaves its folder to this one.
    let shared = std::path::Path::new("/dev/shm");
    let place = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    let dir = tempfile::tempdir_in(place).expect("a temporary directory");

    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command
        .args([
            "--ignored",
            "--exact",
            "one",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ONE, name)
        .env("TMPDIR", dir.path());

    let output = command.output().expect("a process can be started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = stderr
        .lines()
        .find_map(|line| line.strip_prefix("TOLD "))
        .map(str::to_owned);
    match told.filter(|_| output.status.success()) {
        Some(told) => Ok(told),
        None => Err(format!(
            "{}\nthe simulation {name} failed; to run it again:\n  {ONE}={name} cargo test --workspace --test simulation -- --ignored \
             --exact one --nocapture",
            tail(&stderr)
        )),
    }
}

/// The end of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Runs simulations, as many at a time as there are cores.
fn run_all(names: &[String]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run(name);
                    results
                        .lock()
                        .expect("nothing panics while it holds the results")
                        .push(result);
                }
            });
        }
    });

    let results = results
        .into_inner()
        .expect("nothing panics while it holds the results");
    let (told, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed\n{}",
        failed.len(),
        names.len(),
        failed.join("\n\n")
    );

    told.into_iter().filter_map(Result::ok).collect()
}

fn field<'a>(told: &'a str, name: &str) -> &'a str {
    told.split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .expect("a field of what is told")
}

fn sum(told: &[String], name: &str) -> u64 {
    told.iter()
        .map(|told| field(told, name).parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn whatever_happens_every_trial_has_the_row_that_it_has_in_calm() {
    let seeds = std::env::var(SEEDS).ok().map_or(FEW, |seeds| {
        seeds.parse().expect("ERGODIC_SEEDS is a number")
    });
    let names: Vec<String> = Kind::ALL
        .iter()
        .flat_map(|kind| (0..seeds).map(move |seed| format!("{}:{seed}", kind.name())))
        .collect();
    let told = run_all(&names);
    let wanted = field(&told[0], "rows");

    for told in &told {
        assert_eq!(field(told, "rows"), wanted, "{told}");
    }

    // That faults struck.
    let fenced = sum(&told, "fenced");
    let known = sum(&told, "known");
    let lost = sum(&told, "lost");
    note(&format!(
        "{} simulations: {fenced} batches fenced, {known} results known, {lost} leases lost",
        told.len()
    ));

    assert!(fenced > 0 && known > 0 && lost > 0, "nothing happened");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let names: Vec<String> = ["storm:1", "crash:2"]
        .iter()
        .flat_map(|name| [*name, *name])
        .map(str::to_owned)
        .collect();
    let mut told = run_all(&names);
    told.sort();

    assert_eq!((&told[0], &told[2]), (&told[1], &told[3]));
    assert_ne!(field(&told[0], "story"), field(&told[2], "story"));
}
