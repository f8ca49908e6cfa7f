//! How fast one client may go. See `docs/spec/http.md` §4.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::auth::Credential;
use crate::settings::RateLimit;

/// How many clients are remembered at once. When there are more, those with full buckets are forgotten.
const MAX_CLIENTS: usize = 10_000;

/// Whose bucket a request is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whoever holds this API key.
    Key(Credential),
    /// A peer of a gateway without a key.
    Peer(Option<IpAddr>),
}

/// One token bucket per client: a bucket starts full, and a token comes back every `1 s / rps`.
#[derive(Debug)]
pub(super) struct RateLimiter {
    interval: Duration,
    burst: u32,
    buckets: Mutex<HashMap<Client, Bucket>>,
}

/// A bucket as the moment at which it will be full again: no timer, no counter to refill.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
}

impl RateLimiter {
    /// A limiter with these totals per client.
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            interval: Duration::from_nanos(1_000_000_000 / u64::from(limit.rps.max(1))),
            burst: limit.burst.max(1),
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn take(&self, client: Client) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| bucket.full_at > now);
            if buckets.len() >= MAX_CLIENTS {
                // Rather refuse a new client than forget what the others have used.
                return Err(self.interval);
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + self.interval;
        let allowed = now + self.interval * self.burst;
        if full_at > allowed {
            return Err(full_at - allowed);
        }
        bucket.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_holds_the_burst_and_refills_at_the_rate() {
        let limiter = RateLimiter::new(RateLimit { rps: 10, burst: 3 });
        let peer = |n| Client::Peer(Some(IpAddr::from([10, 0, 0, n])));
        for _ in 0..3 {
            assert_eq!(limiter.take(peer(1)), Ok(()));
        }
        assert_eq!(limiter.take(peer(1)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(peer(2)), Ok(()), "another client has its own bucket");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(limiter.take(peer(1)), Ok(()));
        assert!(limiter.take(peer(1)).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            assert_eq!(limiter.take(peer(1)), Ok(()));
        }
        assert!(limiter.take(peer(1)).is_err(), "excess tokens are dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let limiter = RateLimiter::new(RateLimit { rps: 1, burst: 1 });
        for n in 0..MAX_CLIENTS {
            let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
            assert_eq!(limiter.take(Client::Peer(Some(IpAddr::from([10, 0, a, b])))), Ok(()));
        }
        let newcomer = Client::Peer(Some(IpAddr::from([10, 1, 0, 0])));
        assert!(limiter.take(newcomer).is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(limiter.take(newcomer), Ok(()));
        assert_eq!(limiter.buckets.lock().len(), 1);
    }
}
