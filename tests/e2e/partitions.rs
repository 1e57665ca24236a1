//! Machines apart: coordinator and workers each in a network of their own, with cables that can be pulled.

use std::process::Command;

use ergodic_tests::{Cluster, skip};

use crate::{reach, trials, work};

/// Network namespaces, one for the coordinator and one per worker, each worker's joined with the coordinator's by a cable.
/// All of it is gone when dropped.
struct Networks {
    name: String,
    workers: u8,
}

impl Networks {
    /// None where the system gives no namespaces.
    fn lay(workers: u8) -> Result<Self, String> {
        let networks = Self {
            name: format!("ergodic-{}", std::process::id()),
            workers,
        };
        networks.ip(&["netns", "add", &networks.coordinator()])?;
        networks.within(&networks.coordinator(), &["link", "set", "lo", "up"])?;

        for n in 0..workers {
            let here = networks.coordinator();
            let there = networks.worker(n);
            networks.ip(&["netns", "add", &there])?;
            let cable = format!("worker{n}");
            let ends = [
                "type",
                "veth",
                "peer",
                "name",
                "coordinator",
                "netns",
                &there,
            ];
            networks.ip(&[&["link", "add", &cable, "netns", &here][..], &ends].concat())?;

            for (network, end, address) in [
                (&here, &cable[..], Self::address(n, 1)),
                (&there, "coordinator", Self::address(n, 2)),
            ] {
                networks.within(
                    network,
                    &["addr", "add", &format!("{address}/30"), "dev", end],
                )?;
                networks.within(network, &["link", "set", end, "up"])?;
            }
        }

        Ok(networks)
    }

    fn coordinator(&self) -> String {
        self.name.clone()
    }

    fn worker(&self, n: u8) -> String {
        format!("{}-{n}", self.name)
    }

    /// Of an end of a worker's cable: 1 is the coordinator's, 2 its own.
    fn address(n: u8, end: u8) -> String {
        format!("10.77.0.{}", 4 * n + end)
    }

    fn ip(&self, args: &[&str]) -> Result<(), String> {
        let output = Command::new("ip")
            .args(args)
            .output()
            .map_err(|e| format!("ip: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr);

        if output.status.success() {
            Ok(())
        } else {
            Err(format!("ip {}: {}", args.join(" "), said.trim()))
        }
    }

    fn within(&self, network: &str, args: &[&str]) -> Result<(), String> {
        self.ip(&[&["-n", network], args].concat())
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for network in (0..self.workers)
            .map(|n| self.worker(n))
            .chain([self.coordinator()])
        {
            let _ = self.ip(&["netns", "delete", &network]);
        }
    }
}

#[test]
fn workers_behind_a_cut_cable_and_behind_a_silent_one_come_back_and_nothing_is_lost() {
    // Dropped last: what runs in it has ended by then.
    let networks = match Networks::lay(2) {
        Ok(networks) => networks,
        Err(why) => {
            return skip(
                "workers_behind_a_cut_cable_and_behind_a_silent_one_come_back_and_nothing_is_lost",
                "netns",
                &format!("there are none: {why}"),
            );
        }
    };

    let (text, wanted) = work();
    let there = networks.coordinator();
    let launcher = ["ip", "netns", "exec", &there];
    let mut cluster =
        Cluster::under(&launcher, "0.0.0.0:0", &["--insecure", "--lease-ttl", "2s"]).counting();
    cluster.gate.hold_after(5);

    let (_, port) = cluster.url.rsplit_once(':').expect("an address has a port");
    let port = port.to_owned();
    let workers: Vec<_> = (0..2)
        .map(|n| {
            let url = format!("http://{}:{port}", Networks::address(n, 1));
            cluster.worker_under(&["ip", "netns", "exec", &networks.worker(n)], &url, 1, &[])
        })
        .collect();

    let id = cluster.launch(&text);
    let at_work = |s: &serde_json::Value| s["done"] == trials(5) && s["workers"] == 2;
    cluster.wait_until(&id, "both workers are at work", at_work);
    reach(&cluster, &id, 5);
    let behind = format!("{}/32", Networks::address(0, 2));
    networks
        .within(&there, &["route", "add", "blackhole", &behind])
        .expect("a route can be closed");

    networks
        .within(&there, &["link", "set", "worker1", "down"])
        .expect("a cable can be pulled");
    cluster.wait_until(&id, "both leases have run out", |s| {
        s["leased"] == 0 && s["releases"].as_u64() >= Some(2)
    });

    for worker in &workers {
        worker.wait_for_log("connection lost");
    }

    networks
        .within(&there, &["route", "delete", "blackhole", &behind])
        .expect("a route can be opened");
    networks
        .within(&there, &["link", "set", "worker1", "up"])
        .expect("a cable can be plugged in");

    for worker in &workers {
        worker.wait_for_log_times(" joined", 2);
    }

    cluster.gate.open();
    let (status, _) = cluster.settle(&id, wanted, workers);
    assert_eq!(status["failed"], 0, "{status}");
}
