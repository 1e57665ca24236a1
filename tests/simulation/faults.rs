//! What happens to the machines, and when: all of it follows from the kind and the seed.

use std::time::Duration;

use crate::hosts::mix;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// None.
    Calm,
    /// Whatever is sent between the coordinator and a worker is lost.
    Partition,
    /// Whatever is sent waits.
    Hold,
    /// A process dies and comes back after a while.
    Crash,
    /// A process dies and comes back at once.
    Bounce,
    /// Whatever is sent travels long.
    Latency,
    /// All of these.
    Storm,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Calm,
        Self::Partition,
        Self::Hold,
        Self::Crash,
        Self::Bounce,
        Self::Latency,
        Self::Storm,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Partition => "partition",
            Self::Hold => "hold",
            Self::Crash => "crash",
            Self::Bounce => "bounce",
            Self::Latency => "latency",
            Self::Storm => "storm",
        }
    }
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Coordinator,
    Worker(usize),
}

impl Host {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker(at) => WORKERS[at],
        }
    }
}

pub(crate) const WORKERS: [&str; 3] = ["ada", "bea", "cleo"];

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Whose process dies, or which worker is cut off.
    pub(crate) host: Host,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Of the network, where that is the fault.
    pub(crate) latency: Duration,
}

/// Deaths of workers at most: a trial that three of them die with is given up.
const DEATHS: usize = 2;

/// The faults of a seed, in the order in which they begin.
pub(crate) fn plan(kind: Kind, seed: u64) -> Vec<Fault> {
    if kind == Kind::Calm {
        return Vec::new();
    }

    let mut chance = seed
        ^ mix(kind
            .name()
            .bytes()
            .fold(0, |n, byte| n * 31 + u64::from(byte)));
    let mut draw = |below: u64| {
        chance = mix(chance);
        chance % below
    };

    let mut faults: Vec<Fault> = Vec::new();
    let mut deaths = 0;

    for _ in 0..3 + draw(4) {
        let kind = if kind == Kind::Storm {
            Kind::ALL[1 + draw(5) as usize]
        } else {
            kind
        };
        let dies = matches!(kind, Kind::Crash | Kind::Bounce);

        let mut host = Host::Worker(draw(WORKERS.len() as u64) as usize);
        if dies && (draw(2) == 0 || deaths == DEATHS) {
            host = Host::Coordinator;
        }

        let millis = Duration::from_millis;
        let from = millis(1500 + draw(20_000));
        let lasts = match kind {
            Kind::Bounce => Duration::ZERO,
            Kind::Crash => millis(50 + draw(8_000)),
            _ => millis(200 + draw(14_000)),
        };

        let latency = millis(50 + draw(1_500));
        let fault = Fault {
            kind,
            host,
            from,
            to: from + lasts,
            latency,
        };

        // One thing at a time happens to a machine.
        let meanwhile =
            |other: &Fault| other.host == host && other.from <= fault.to && fault.from <= other.to;
        if !faults.iter().any(meanwhile) {
            deaths += usize::from(dies && host != Host::Coordinator);
            faults.push(fault);
        }
    }

    faults.sort_by_key(|fault| fault.from);
    faults
}
