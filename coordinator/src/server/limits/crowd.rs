//! Connections: so many at a time, and no more than half of them from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::rate::network;

/// Those that are connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    /// Only those that are connected: as bounded as connections are.
    from: HashMap<IpAddr, usize>,
}

/// A place for one connection, free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    /// So many at most.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, seats: Mutex::default() })
    }

    /// A seat for whoever comes from there, if there is one.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = network(address);
        let mut seats = self.seats();
        let taken = seats.taken;
        let from = seats.from.entry(address).or_default();
        // One address may be a whole cluster, but another one is to find room too.
        if taken >= self.most || *from >= self.most.div_ceil(2) {
            if *from == 0 {
                seats.from.remove(&address);
            }
            return None;
        }
        *from += 1;
        seats.taken += 1;
        Some(Seat { crowd: self.clone(), address })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().expect("nothing panics while it holds the seats")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.crowd.seats();
        seats.taken -= 1;
        if let Some(from) = seats.from.get_mut(&self.address) {
            *from -= 1;
            if *from == 0 {
                seats.from.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_half_of_the_seats_and_all_are_free_again() {
        let crowd = Crowd::new(4);
        let sit = |text: &str| crowd.seat(text.parse().expect("an address"));
        let first = [sit("192.0.2.1"), sit("192.0.2.1")];
        assert!(first.iter().all(Option::is_some) && sit("192.0.2.1").is_none());
        let others = [sit("192.0.2.2"), sit("192.0.2.3")];
        assert!(others.iter().all(Option::is_some) && sit("192.0.2.4").is_none());
        drop(first);
        assert!(sit("192.0.2.1").is_some());
        drop(others);
        let seats = crowd.seats();
        assert!(seats.taken == 0 && seats.from.is_empty());
    }
}
