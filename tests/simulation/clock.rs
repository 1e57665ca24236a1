//! Time and chance of this process, as the simulation wants them.
//!
//! Programs ask the C library what time it is and for random bytes, and a symbol of the executable comes before one of a
//! library. So a simulated process reads the simulation's clock wherever it reads one, and its hash maps and its runtime
//! have the same seeds each time. Until [`set`] is called, time is real. The kernel's own timers know nothing of this.

#![allow(
    unsafe_code,
    reason = "symbols of the C library are replaced, and pointers of its callers written to"
)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::ClockId;

/// Nanoseconds since the simulation began, plus one; 0 while time is real.
static NOW: AtomicU64 = AtomicU64::new(0);
/// What a simulated clock shows at first, in seconds: a moment in 2026, and long after a machine's start.
const BEGIN: i64 = 1_780_000_000;

/// Sets the clock of all threads to a time since the simulation began.
pub(crate) fn set(time: Duration) {
    NOW.store(time.as_nanos() as u64 + 1, Ordering::Relaxed);
}

#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

fn real(clock: i32) -> Option<Time> {
    let id = match clock {
        0 => ClockId::Realtime,
        1 => ClockId::Monotonic,
        2 => ClockId::ProcessCPUTime,
        3 => ClockId::ThreadCPUTime,
        5 => ClockId::RealtimeCoarse,
        6 => ClockId::MonotonicCoarse,
        7 => ClockId::Boottime,
        _ => return None,
    };
    let time = rustix::time::clock_gettime(id);

    Some(Time {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    })
}

#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: i32, time: *mut Time) -> i32 {
    let now = NOW.load(Ordering::Relaxed);
    // What a thread or process has used up is measured even here.
    let shown = if now == 0 || matches!(clock, 2 | 3) {
        real(clock)
    } else {
        let now = now - 1;
        Some(Time {
            seconds: BEGIN + (now / 1_000_000_000) as i64,
            nanoseconds: (now % 1_000_000_000) as i64,
        })
    };
    let Some(shown) = shown else { return -1 };

    // SAFETY: the caller of this function passes a place for the time.
    unsafe { time.write(shown) };
    0
}

thread_local! {
    static STREAM: Cell<u64> = const { Cell::new(0x5eed) };
}

/// The same bytes in every process, in each thread the same.
#[unsafe(no_mangle)]
extern "C" fn getrandom(bytes: *mut u8, len: usize, _flags: u32) -> isize {
    for at in 0..len {
        let next = STREAM
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        STREAM.set(next);

        // SAFETY: the caller of this function passes room for so many bytes.
        unsafe { bytes.add(at).write((next >> 33) as u8) };
    }

    len as isize
}
