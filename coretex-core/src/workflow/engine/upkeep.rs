//! Old runs go, and runs of the reference are found.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Inner;
use crate::error::chain;

/// How many runs are deleted or found in one call.
const PAGE: usize = 500;

impl Inner {
    /// Looks after what nobody asks for, now and then.
    pub(super) async fn run_upkeep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.keep_up() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.options.upkeep) => {}
            }
        }
    }

    async fn keep_up(&self) {
        loop {
            match self.parts.store.adopt_legacy(PAGE).await {
                Ok(0) => break,
                Ok(found) => {
                    info!(found, "open runs of another program taken over");
                    if found < PAGE as u64 {
                        break;
                    }
                }
                Err(error) => {
                    warn!(error = %chain(&error), "runs of another program cannot be looked for");
                    break;
                }
            }
        }
        let Some(ttl) = self.options.run_ttl else { return };
        loop {
            let before = self.parts.clock.now().minus(ttl);
            match self.parts.store.expire_runs(before, PAGE).await {
                Ok(deleted) if deleted >= PAGE as u64 => {}
                Ok(_) => return,
                Err(error) => {
                    warn!(error = %chain(&error), "old runs cannot be deleted");
                    return;
                }
            }
        }
    }
}
