//! Waiting for something to become true, with a limit, instead of for time to pass.

use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that should be immediate.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it answers, and returns the answer.
///
/// # Panics
/// If it does not within [`PATIENCE`]; `what` says what was waited for.
pub async fn until<T, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    until_within(PATIENCE, what, probe).await
}

/// The same with a patience of its own, for what takes a slow machine its time.
///
/// # Panics
/// If it does not within `patience`.
pub async fn until_within<T, F>(patience: Duration, what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let Ok(answer) = tokio::time::timeout(patience, asking).await else {
        panic!("waited {patience:?} in vain: {what}");
    };
    answer
}
