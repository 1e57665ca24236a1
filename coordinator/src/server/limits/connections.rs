//! The limit on connections: on their total, and on those of each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::options::ConnectionCapacity;
use super::rate::peer_network;

/// Open connections, by address.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    capacity: ConnectionCapacity,
    counts: Mutex<ConnectionCounts>,
}

#[derive(Debug, Default)]
struct ConnectionCounts {
    total: usize,
    /// Numbers of connections by address, of connected addresses only, so that the map stays small.
    by_address: HashMap<IpAddr, usize>,
}

/// A permit for one connection, which is returned on drop.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: IpAddr,
}

/// The reason why a connection is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionRefusal {
    /// All connections are taken.
    #[error("{0} connections are open, the most that --max-connections allows")]
    Full(usize),
    /// An address, or an IPv6 network, has all connections that it may have.
    #[error("{0} has {1} connections, the most that --max-connections-per-address allows")]
    AddressFull(IpAddr, usize),
}

impl ConnectionRefusal {
    /// The kind of refusal, by which repeated ones are logged together.
    pub(crate) fn describe_kind(&self) -> &'static str {
        match self {
            Self::Full(_) => "connections were refused: all are taken",
            Self::AddressFull(..) => "connections were refused: an address has too many",
        }
    }
}

impl ConnectionLimit {
    /// Creates a limit with all connections free.
    pub(crate) fn new(capacity: ConnectionCapacity) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            counts: Mutex::default(),
        })
    }

    /// A permit for a connection from this address.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<ConnectionPermit, ConnectionRefusal> {
        let address = peer_network(address);
        let ConnectionCapacity { total, per_address } = self.capacity;
        let mut counts = self.lock_counts();

        if counts.total >= total {
            return Err(ConnectionRefusal::Full(total));
        }
        if counts.by_address.get(&address).copied().unwrap_or_default() >= per_address {
            return Err(ConnectionRefusal::AddressFull(address, per_address));
        }

        *counts.by_address.entry(address).or_default() += 1;
        counts.total += 1;
        Ok(ConnectionPermit {
            limit: self.clone(),
            address,
        })
    }

    fn lock_counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.counts
            .lock()
            .expect("nothing panics while it holds the counts")
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limit.lock_counts();
        counts.total -= 1;
        if let Some(from) = counts.by_address.get_mut(&self.address) {
            *from -= 1;
            if *from == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::connections::*;

    #[test]
    fn one_address_takes_its_share_and_all_are_free_again() {
        let capacity = ConnectionCapacity {
            total: 4,
            per_address: 2,
        };
        let limit = ConnectionLimit::new(capacity);
        let connect = |text: &str| limit.try_acquire(text.parse().expect("an address"));
        let first = [connect("192.0.2.1"), connect("192.0.2.1")];
        assert!(first.iter().all(Result::is_ok));
        let refused = connect("192.0.2.1").expect_err("the address has its share");
        assert_eq!(
            refused.to_string(),
            "192.0.2.1 has 2 connections, the most that --max-connections-per-address allows"
        );

        let others = [connect("192.0.2.2"), connect("192.0.2.3")];
        assert!(others.iter().all(Result::is_ok));
        let refused = connect("192.0.2.4").expect_err("all are taken");
        assert_eq!(
            refused.to_string(),
            "4 connections are open, the most that --max-connections allows"
        );

        drop(first);
        assert!(connect("192.0.2.1").is_ok());
        drop(others);
        let counts = limit.lock_counts();
        assert!(counts.total == 0 && counts.by_address.is_empty());
    }
}
