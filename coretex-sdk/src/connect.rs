//! Connections of a worker that is a process of its own.

use std::sync::Arc;
use std::time::Duration;

use coretex_core::bus::Bus;
#[cfg(any(feature = "nats", feature = "redis"))]
use coretex_core::error::chain;
use coretex_core::pointers::PointerStore;
#[cfg(any(feature = "nats", feature = "redis"))]
use tokio::time::Instant;

#[cfg(any(feature = "nats", feature = "redis"))]
use crate::backoff::Backoff;
use crate::error::Error;

/// Where NATS is.
#[cfg(feature = "nats")]
const NATS_URL: &str = "NATS_URL";
/// Where Redis is.
#[cfg(feature = "redis")]
const REDIS_URL: &str = "REDIS_URL";
/// How long payloads are kept, such as `24h`.
#[cfg(feature = "redis")]
const REDIS_DATA_TTL: &str = "REDIS_DATA_TTL";
/// The same in seconds; the other one wins.
#[cfg(feature = "redis")]
const REDIS_DATA_TTL_SECONDS: &str = "REDIS_DATA_TTL_SECONDS";

/// Where a worker finds its servers, and how long it tries to.
#[derive(Clone, Default)]
pub(crate) struct Servers {
    pub(crate) nats: Option<String>,
    pub(crate) redis: Option<String>,
    /// `None`: for ever.
    pub(crate) patience: Option<Duration>,
}

/// One variable of the environment; an empty one is none.
#[cfg(any(feature = "nats", feature = "redis"))]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

#[cfg(feature = "nats")]
pub(crate) async fn bus(servers: &Servers) -> Result<Arc<dyn Bus>, Error> {
    use coretex_core::backend::nats::{NatsBus, Options};

    let url = servers.nats.clone().or_else(|| env(NATS_URL));
    let url = url.as_deref().unwrap_or("nats://127.0.0.1:4222");
    let mut attempts = Attempts::new("NATS", servers.patience);
    loop {
        // Without JetStream, also where the control plane uses it: workers are live subscribers, and the streams
        // capture their results (docs/spec/bus.md §4).
        let options = Options::new(url).with_connect_timeout(Duration::from_secs(5));
        match NatsBus::connect(options).await {
            Ok(bus) => return Ok(Arc::new(bus)),
            Err(error) => attempts.failed(error.retry(), chain(&error), error).await?,
        }
    }
}

#[cfg(not(feature = "nats"))]
#[expect(clippy::unused_async, reason = "the same signature with and without the feature")]
pub(crate) async fn bus(_servers: &Servers) -> Result<Arc<dyn Bus>, Error> {
    Err(Error::Setting {
        setting: "bus",
        reason: "none is given, and this program was built without the feature `nats`".to_owned(),
    })
}

#[cfg(feature = "redis")]
pub(crate) async fn payloads(servers: &Servers) -> Result<Arc<dyn PointerStore>, Error> {
    use coretex_core::backend::redis::{RedisOptions, RedisPayloads};

    let url = servers.redis.clone().or_else(|| env(REDIS_URL));
    let url = url.as_deref().unwrap_or("redis://127.0.0.1:6379");
    let mut options = RedisOptions::default();
    if let Some(ttl) = data_ttl(env(REDIS_DATA_TTL).as_deref(), env(REDIS_DATA_TTL_SECONDS).as_deref())? {
        options.data_ttl = ttl;
    }
    let mut attempts = Attempts::new("Redis", servers.patience);
    loop {
        match RedisPayloads::connect(url, &options).await {
            Ok(payloads) => return Ok(payloads),
            Err(error) => attempts.failed(error.retry(), chain(&error), error).await?,
        }
    }
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "the same signature with and without the feature")]
pub(crate) async fn payloads(_servers: &Servers) -> Result<Arc<dyn PointerStore>, Error> {
    Err(Error::Setting {
        setting: "payloads",
        reason: "none is given, and this program was built without the feature `redis`".to_owned(),
    })
}

/// Attempts to connect: what is wrong for good ends them at once, what is not there yet is waited for.
#[cfg(any(feature = "nats", feature = "redis"))]
struct Attempts {
    what: &'static str,
    give_up: Option<Instant>,
    backoff: Backoff,
}

#[cfg(any(feature = "nats", feature = "redis"))]
impl Attempts {
    fn new(what: &'static str, patience: Option<Duration>) -> Self {
        Self {
            what,
            give_up: patience.and_then(|patience| Instant::now().checked_add(patience)),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
        }
    }

    async fn failed(
        &mut self,
        retry: coretex_core::error::Retry,
        why: String,
        error: impl Into<coretex_core::error::BoxError>,
    ) -> Result<(), Error> {
        let next = Instant::now() + self.backoff.next_delay();
        let in_time = self.give_up.is_none_or(|give_up| next <= give_up);
        if retry == coretex_core::error::Retry::Never || !in_time {
            return Err(Error::Connect {
                what: self.what,
                source: error.into(),
            });
        }
        tracing::warn!(error = why, "could not connect to {}; trying again", self.what);
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}

/// How long payloads are kept, as the two variables say it.
#[cfg(feature = "redis")]
fn data_ttl(text: Option<&str>, seconds: Option<&str>) -> Result<Option<Duration>, Error> {
    let invalid = |setting, value: &str| Error::Setting {
        setting,
        reason: format!("`{value}` is not a time such as 24h"),
    };
    match (text, seconds) {
        (Some(text), _) => duration(text).map(Some).ok_or_else(|| invalid(REDIS_DATA_TTL, text)),
        (None, Some(seconds)) => match seconds.trim().parse() {
            Ok(0) | Err(_) => Err(invalid(REDIS_DATA_TTL_SECONDS, seconds)),
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        },
        (None, None) => Ok(None),
    }
}

/// Reads whole numbers with units, such as `1h30m`; more than nothing.
#[cfg(feature = "redis")]
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!total.is_zero()).then_some(total)
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), (" 90s ", 90), ("2000ms", 2)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0s",
            "5",
            "h",
            "5d",
            "-1h",
            "5 h",
            "99999999999999999999h",
            "9999999999999999999h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_time_with_a_unit_wins() {
        assert_eq!(data_ttl(Some("1m"), Some("5")).unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(data_ttl(None, Some("5")).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(data_ttl(None, None).unwrap(), None);
        let error = data_ttl(None, Some("0")).unwrap_err().to_string();
        assert!(error.starts_with("REDIS_DATA_TTL_SECONDS: `0`"), "{error}");
    }
}
