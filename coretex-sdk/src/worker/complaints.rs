//! Packets that make no sense: counted always, logged rarely.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::metrics;

/// A sender is named once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// How many senders are told apart; beyond that they share one line.
const MAX_SENDERS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Counts a bad packet, and logs it unless its sender was named within the last minute. Whether it was logged.
    pub(crate) fn bad_packet(&self, sender: &str, subject: &str, what: &str, now: Instant) -> bool {
        metrics::bad_packet();
        let mut senders = self.0.lock();
        if senders.len() >= MAX_SENDERS && !senders.contains_key(sender) {
            senders.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        let sender = if senders.len() < MAX_SENDERS || senders.contains_key(sender) {
            sender
        } else {
            "(others)"
        };
        match senders.get(sender) {
            Some(at) if now.duration_since(*at) < QUIET => false,
            _ => {
                senders.insert(sender.to_owned(), now);
                warn!(sender, subject, what, "ignored a bad packet");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_is_named_once_a_minute() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let log = |sender: &str, after: u64| {
            complaints.bad_packet(sender, "job.x", "not a packet", now + Duration::from_secs(after))
        };
        assert!(log("a", 0) && log("b", 0));
        assert!(!log("a", 59));
        assert!(log("a", 60));
    }

    #[test]
    fn made_up_senders_do_not_fill_the_memory() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        for n in 0..MAX_SENDERS * 2 {
            complaints.bad_packet(&n.to_string(), "job.x", "not a packet", now);
        }
        assert!(complaints.0.lock().len() <= MAX_SENDERS + 1);
    }
}
