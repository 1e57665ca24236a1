//! Requests per second and peer: a bucket of tokens for each, kept as the one moment at which it is full again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Peers that are told apart; what comes beyond them shares a bucket.
const PEERS: usize = 4096;
/// So many seconds' worth of requests may come at once.
const BURST: u32 = 2;
/// Whoever was too fast stays away for at least this time.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// All who come with one token.
    Token(String),
    /// All who come from one address; of IPv6, from one network.
    Address(IpAddr),
    /// All for whom there was no room.
    Other,
}

impl Peer {
    /// Whoever comes from there.
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// What is one peer's own: an IPv4 address, or the half of an IPv6 address that names a network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// The buckets. Time is told from outside.
#[derive(Debug)]
pub(crate) struct Rates {
    /// What one request takes of a bucket.
    each: Duration,
    full_at: HashMap<Peer, Duration>,
}

impl Rates {
    /// So many requests per second and peer, at least one.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), full_at: HashMap::new() }
    }

    /// Takes a token out of a peer's bucket, or says when to come again.
    pub(crate) fn take(&mut self, peer: Peer, now: Duration) -> Result<(), Duration> {
        let peer = if self.has_room_for(&peer, now) { peer } else { Peer::Other };
        let full_at = self.full_at.entry(peer).or_insert(now);
        let next = (*full_at).max(now) + self.each;
        let burst = Duration::from_secs(BURST.into()).max(self.each);
        match next.checked_sub(now + burst) {
            Some(early) if !early.is_zero() => Err(early.max(PAUSE)),
            _ => {
                *full_at = next;
                Ok(())
            }
        }
    }

    /// A full bucket is as good as none.
    fn has_room_for(&mut self, peer: &Peer, now: Duration) -> bool {
        if self.full_at.len() >= PEERS && !self.full_at.contains_key(peer) {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < PEERS || self.full_at.contains_key(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(n: u32) -> Peer {
        Peer::at(IpAddr::V4(n.into()))
    }

    /// How many of `asked` requests at one moment get through.
    fn through(rates: &mut Rates, peer: &Peer, now: Duration, asked: u32) -> usize {
        (0..asked).filter(|_| rates.take(peer.clone(), now).is_ok()).count()
    }

    #[test]
    fn a_peer_gets_its_burst_and_then_its_rate_and_takes_from_nobody_else() {
        let mut rates = Rates::new(10);
        assert_eq!(through(&mut rates, &peer(1), SECOND, 100), 20);
        assert_eq!(through(&mut rates, &peer(2), SECOND, 100), 20);
        assert_eq!(through(&mut rates, &peer(1), 2 * SECOND, 100), 10);
        let wait = rates.take(peer(1), 2 * SECOND).expect_err("its bucket is empty");
        assert!(rates.take(peer(1), 2 * SECOND + wait).is_ok(), "whoever waits as told is let in");
        assert_eq!(through(&mut rates, &peer(1), 100 * SECOND, 100), 20);
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let at = |text: &str| Peer::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn no_number_of_peers_fills_the_memory_or_locks_out_those_who_are_known() {
        let mut rates = Rates::new(10);
        assert!(rates.take(peer(0), SECOND).is_ok());
        for n in 1..10 * PEERS as u32 {
            let _ = rates.take(peer(n), SECOND);
        }
        assert!(rates.full_at.len() <= PEERS + 1, "{}", rates.full_at.len());
        assert!(rates.take(peer(0), SECOND).is_ok());
        // Those that have been quiet are forgotten.
        assert_eq!(through(&mut rates, &peer(u32::MAX), 100 * SECOND, 100), 20);
        assert!(rates.full_at.len() <= 2, "{}", rates.full_at.len());
    }
}
