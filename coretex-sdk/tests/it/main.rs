//! The worker against a scripted scheduler: in process with paused time, and on real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod behaviour;
mod drain;
mod failures;
mod servers;
mod stops;

use std::time::Duration;

/// Looks until something is so, for a minute at most.
async fn until(what: &str, so: impl Fn() -> bool) {
    let looking = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(60), looking).await.is_ok(),
        "{what} did not happen"
    );
}
