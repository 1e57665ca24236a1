//! Rate limits per peer: a token bucket each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Maximum number of peers with a bucket; further ones share one.
const MAX_PEERS: usize = 4096;
/// Size of a burst, in seconds' worth of requests.
const BURST_SECONDS: u32 = 2;
/// Minimum time that a rejected peer must wait.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The peers that share a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RateLimitKey {
    /// All requests with one token.
    Token(String),
    /// All requests from one IPv4 address, or from one IPv6 network.
    Address(IpAddr),
    /// All peers without a bucket of their own.
    Overflow,
}

impl RateLimitKey {
    /// The key of a peer by its address.
    pub(crate) fn from_address(address: IpAddr) -> Self {
        Self::Address(peer_network(address))
    }
}

/// The network that counts as one peer: an IPv4 address, or the /64 network of an IPv6 address.
pub(crate) fn peer_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// A bucket of requests, which fills at a constant rate. It is stored as the time at which it is full again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenBucket {
    full_at: Duration,
}

impl TokenBucket {
    /// Takes a request out of the bucket, or returns the time to wait.
    pub(crate) fn take_token(&mut self, per_second: u32, now: Duration) -> Result<(), Duration> {
        let request_interval = Duration::from_secs(1) / per_second.max(1);
        let next = self.full_at.max(now) + request_interval;

        let burst = Duration::from_secs(BURST_SECONDS.into()).max(request_interval);
        match next.checked_sub(now + burst) {
            Some(early) if !early.is_zero() => Err(early.max(MIN_RETRY_DELAY)),
            _ => {
                self.full_at = next;
                Ok(())
            }
        }
    }
}

/// The buckets of peers. Time is handed in, not read. The crate `governor` counts in the same way, but its keyed store cannot be asked for a
/// peer: with all buckets taken, a peer that has one could not be told from a new one, which has to share one.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    per_second: u32,
    buckets: HashMap<RateLimitKey, TokenBucket>,
}

impl RateLimiter {
    /// Creates a limit of `per_second` requests, at least one, per second and peer.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: HashMap::new(),
        }
    }

    /// The requests per second that each peer may make.
    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes a request out of a peer's bucket, or returns the time to wait.
    pub(crate) fn take_token(&mut self, peer: RateLimitKey, now: Duration) -> Result<(), Duration> {
        let peer = if self.can_track(&peer, now) {
            peer
        } else {
            RateLimitKey::Overflow
        };
        let bucket = self.buckets.entry(peer).or_default();
        bucket.take_token(self.per_second, now)
    }

    /// Whether the peer has or can get a bucket. Drops full buckets, which equal new ones.
    fn can_track(&mut self, peer: &RateLimitKey, now: Duration) -> bool {
        if self.buckets.len() >= MAX_PEERS && !self.buckets.contains_key(peer) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        self.buckets.len() < MAX_PEERS || self.buckets.contains_key(peer)
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::rate::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(n: u32) -> RateLimitKey {
        RateLimitKey::from_address(IpAddr::V4(n.into()))
    }

    /// How many of `asked` requests at one moment get through.
    fn count_admitted(
        rates: &mut RateLimiter,
        peer: &RateLimitKey,
        now: Duration,
        asked: u32,
    ) -> usize {
        (0..asked)
            .filter(|_| rates.take_token(peer.clone(), now).is_ok())
            .count()
    }

    #[test]
    fn a_peer_gets_its_burst_and_then_its_rate_and_takes_from_nobody_else() {
        let mut rates = RateLimiter::new(10);
        assert_eq!(count_admitted(&mut rates, &peer(1), SECOND, 100), 20);
        assert_eq!(count_admitted(&mut rates, &peer(2), SECOND, 100), 20);
        assert_eq!(count_admitted(&mut rates, &peer(1), 2 * SECOND, 100), 10);
        let wait = rates
            .take_token(peer(1), 2 * SECOND)
            .expect_err("its bucket is empty");
        assert!(
            rates.take_token(peer(1), 2 * SECOND + wait).is_ok(),
            "whoever waits as told is let in"
        );

        assert_eq!(count_admitted(&mut rates, &peer(1), 100 * SECOND, 100), 20);
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let at = |text: &str| RateLimitKey::from_address(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn no_number_of_peers_fills_the_memory_or_locks_out_those_who_are_known() {
        let mut rates = RateLimiter::new(10);
        assert!(rates.take_token(peer(0), SECOND).is_ok());

        for n in 1..10 * MAX_PEERS as u32 {
            let _ = rates.take_token(peer(n), SECOND);
        }

        assert!(
            rates.buckets.len() <= MAX_PEERS + 1,
            "{}",
            rates.buckets.len()
        );
        assert!(rates.take_token(peer(0), SECOND).is_ok());

        // Peers that have been quiet are forgotten.
        assert_eq!(
            count_admitted(&mut rates, &peer(u32::MAX), 100 * SECOND, 100),
            20
        );
        assert!(rates.buckets.len() <= 2, "{}", rates.buckets.len());
    }
}
