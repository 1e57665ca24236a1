//! The limit on connections: on their total, and at half of it for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::rate::peer_network;

/// Open connections, by address.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    capacity: usize,
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

impl ConnectionLimit {
    /// Creates a limit of `most` connections.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: most,
            counts: Mutex::default(),
        })
    }

    /// A permit for a connection from this address; `None` if the limit is reached.
    pub(crate) fn try_acquire(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let address = peer_network(address);
        let mut seats = self.lock_counts();
        let taken = seats.total;
        let from = seats.by_address.entry(address).or_default();

        // A whole cluster may share one address, but half of the capacity stays for others.
        if taken >= self.capacity || *from >= self.capacity.div_ceil(2) {
            if *from == 0 {
                seats.by_address.remove(&address);
            }
            return None;
        }

        *from += 1;
        seats.total += 1;
        Some(ConnectionPermit {
            limit: self.clone(),
            address,
        })
    }

    fn lock_counts(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.counts
            .lock()
            .expect("nothing panics while it holds the seats")
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut seats = self.limit.lock_counts();
        seats.total -= 1;
        if let Some(from) = seats.by_address.get_mut(&self.address) {
            *from -= 1;
            if *from == 0 {
                seats.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::connections::*;

    #[test]
    fn one_address_takes_half_of_the_seats_and_all_are_free_again() {
        let connection_limit = ConnectionLimit::new(4);
        let sit = |text: &str| connection_limit.try_acquire(text.parse().expect("an address"));
        let first = [sit("192.0.2.1"), sit("192.0.2.1")];
        assert!(first.iter().all(Option::is_some) && sit("192.0.2.1").is_none());
        let others = [sit("192.0.2.2"), sit("192.0.2.3")];
        assert!(others.iter().all(Option::is_some) && sit("192.0.2.4").is_none());

        drop(first);
        assert!(sit("192.0.2.1").is_some());
        drop(others);
        let seats = connection_limit.lock_counts();
        assert!(seats.total == 0 && seats.by_address.is_empty());
    }
}
