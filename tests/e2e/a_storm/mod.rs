//! Storms: real processes that are stalled, killed and cut off from their disk or database at moments that a seed decides,
//! while a user launches, extends, shares, pauses and removes sweeps. In the end every change that was acknowledged is
//! there, every sweep has ended, and rows are those of a run without faults.
//!
//! A seed decides what is done and when, not what comes of it: processes run as fast as the machine lets them.

mod faults;
mod user;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ergodic_tests::{Cluster, note};
use faults::Ground;
use user::User;

/// How many storms; without it, a few.
const STORMS: &str = "ERGODIC_STORMS";
const FEW: u64 = 10;
/// The seed of the only one.
const ONE: &str = "ERGODIC_STORM";
/// Workers of one slot each. Whoever is killed has an heir.
const WORKERS: usize = 3;
/// Storms at a time: in each of them, most is waiting.
const AT_A_TIME: usize = 3;

/// What a seed decides.
struct Chance(u64);

impl Chance {
    /// The next number (SplitMix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A time between these two, short ones as often as long ones.
    fn time(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        let share = self.below(1000) as f64 / 1000.0;
        Duration::from_millis((from_ms as f64 * (to_ms as f64 / from_ms as f64).powf(share)) as u64)
    }
}

/// What happened in a storm, for whoever looks into one that went wrong.
struct Diary {
    begun: Instant,
    lines: Mutex<Vec<String>>,
}

impl Diary {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            lines: Mutex::default(),
        }
    }

    fn write(&self, line: &str) {
        let line = format!("{:7.2} s  {line}", self.begun.elapsed().as_secs_f64());
        self.lines
            .lock()
            .expect("nothing panics while it writes")
            .push(line);
    }

    fn read(&self) -> String {
        self.lines
            .lock()
            .expect("nothing panics while it writes")
            .join("\n")
    }
}

/// Raised when dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn storm(seed: u64, diary: &Diary) {
    let mut chance = Chance(seed);
    let ground = Ground::choose(&mut chance);
    let options = ground.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut cluster = Cluster::counted(&[&["--lease-ttl", "2s"], &options[..]].concat());
    let mut workers: Vec<_> = (0..WORKERS).map(|_| cluster.worker(1, &[])).collect();

    cluster.wait_for_workers(WORKERS);
    let over = AtomicBool::new(false);
    let mut user = User::of(&cluster, seed, diary);
    std::thread::scope(|scope| {
        let using = scope.spawn(|| {
            user.does_things(&over);
            user
        });

        // Also when something goes wrong here, the user is told: nobody waits for ever.
        let end = Over(&over);
        ground.strike(&mut cluster, &mut workers, &mut chance, diary);
        diary.write("the storm is over");
        drop(end);

        match using.join() {
            Ok(user) => user.finds_everything_as_acknowledged(&cluster),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });

    cluster.close(workers);
}

/// Whether a storm went well; if not, what there is to know is said.
fn goes_well(seed: u64) -> bool {
    let diary = Diary::new();
    let ended = catch_unwind(AssertUnwindSafe(|| storm(seed, &diary)));
    let Err(panic) = ended else {
        note(&format!(
            "storm {seed} went well in {:.0} s",
            diary.begun.elapsed().as_secs_f64()
        ));
        return true;
    };
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    note(&format!(
        "storm {seed} went wrong: {words}\n{}\nalone: {ONE}={seed} cargo test --workspace --locked --test e2e storm",
        diary.read()
    ));

    false
}

#[test]
fn whatever_happens_to_processes_disks_and_databases_nothing_is_lost_and_every_sweep_ends() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a whole number"))
    };
    let (first, last) =
        number(ONE).map_or((0, number(STORMS).unwrap_or(FEW)), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);

    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    if !goes_well(seed) {
                        wrong.lock().expect("nothing panics with it").push(seed);
                    }
                }
            });
        }
    });

    let wrong = wrong.into_inner().expect("nothing panicked with it");
    assert!(
        wrong.is_empty(),
        "{} of {} storms went wrong: {wrong:?}",
        wrong.len(),
        last - first
    );
}
