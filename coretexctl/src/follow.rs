//! Following one job until it is over.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::api::Api;
use crate::doc::{Doc, shorten};
use crate::failure::{Failure, Kind};

/// The first pause between two looks; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Whether a job in this state is over.
pub(crate) fn is_terminal(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED" | "TIMEOUT" | "DENIED")
}

/// Looks at the job again and again until it is over, and returns it as it ended. `seen` gets every look.
pub(crate) async fn until_over(
    api: &Api,
    id: &str,
    limit: Option<Duration>,
    mut seen: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    loop {
        let job = api.get(&["jobs", id], &[]).await?;
        seen(&job)?;
        let state = Doc(&job).text("state");
        if is_terminal(state) {
            return Ok(job);
        }
        if state != last {
            state.clone_into(&mut last);
            pause = FIRST_PAUSE;
        }
        let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
        if left == Some(Duration::ZERO) {
            let waiting = waiting_for(&job);
            return Err(
                Failure::of(Kind::WaitOver, format!("job {id} is still {state}{waiting}"))
                    .hint(format!("coretexctl job explain {id}")),
            );
        }
        tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        pause = (pause + pause / 2).min(LONGEST_PAUSE);
    }
}

/// Turns the end of a job into the end of the command.
pub(crate) fn verdict(job: &Value) -> Result<(), Failure> {
    let doc = Doc(job);
    let (id, state) = (doc.text("id"), doc.text("state"));
    if state == "SUCCEEDED" {
        return Ok(());
    }
    let why = [doc.text("error_message"), doc.text("safety_reason")]
        .into_iter()
        .find(|text| !text.is_empty())
        .map(|text| format!(": {}", shorten(text, 300)))
        .unwrap_or_default();
    Err(
        Failure::of(Kind::JobNotSucceeded, format!("job {id} ended {state}{why}"))
            .hint(format!("coretexctl job explain {id}")),
    )
}

/// What an open job waits for, in brackets; empty if nothing is known.
pub(crate) fn waiting_for(job: &Value) -> String {
    let doc = Doc(job);
    if doc.text("state") == "APPROVAL_REQUIRED" {
        return " (waits for approval)".to_owned();
    }
    match (doc.text("pending_reason"), doc.text("pending_detail")) {
        ("", "") => String::new(),
        (reason, "") => format!(" ({reason})"),
        (_, detail) => format!(" ({})", shorten(detail, 120)),
    }
}
