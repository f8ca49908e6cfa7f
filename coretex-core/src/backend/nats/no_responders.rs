//! Learning from the broker that a dispatch reached nobody (docs/spec/bus.md §3).

use async_nats::{Client, StatusCode, Subscriber};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::unavailable;
use crate::bus::Error;
use crate::protocol::JobId;

/// The inbox under which every dispatch has a reply subject of its own, which names its job.
#[derive(Debug)]
pub(super) struct ReplyInbox {
    prefix: String,
}

impl ReplyInbox {
    /// Opens the inbox. The subscription to it is for [`watch`].
    pub(super) async fn open(client: &Client) -> Result<(Self, Subscriber), Error> {
        let inbox = Self {
            prefix: client.new_inbox(),
        };
        let all = format!("{}.*", inbox.prefix);
        let replies = client
            .subscribe(all.clone())
            .await
            .map_err(|source| unavailable("subscribe", all, source))?;
        Ok((inbox, replies))
    }

    /// Where the broker answers if nobody gets `job`.
    pub(super) fn reply_for(&self, job: &JobId) -> String {
        format!("{}.{}", self.prefix, URL_SAFE_NO_PAD.encode(job.as_str()))
    }
}

/// Forwards the jobs that reached nobody, until `stop`.
pub(super) async fn watch(mut replies: Subscriber, undelivered: mpsc::Sender<JobId>, stop: CancellationToken) {
    loop {
        let reply = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            reply = replies.next() => reply,
        };
        let Some(reply) = reply else { return };
        // A stream that captures the subject answers too, and any worker could.
        if reply.status != Some(StatusCode::NO_RESPONDERS) {
            continue;
        }
        counter!("coretex_bus_no_responders_total").increment(1);
        let Some(job) = job_of(&reply.subject) else { continue };
        if undelivered.try_send(job).is_err() {
            counter!("coretex_bus_undelivered_lost_total", "bus" => "nats").increment(1);
        }
    }
}

fn job_of(reply: &str) -> Option<JobId> {
    let (_, encoded) = reply.rsplit_once('.')?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    JobId::try_new(std::str::from_utf8(&bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_names_its_job() {
        let inbox = ReplyInbox {
            prefix: "_INBOX.abc".to_owned(),
        };
        for id in ["42", "a.b c>*", "ünïcode"] {
            let job = JobId::try_new(id).unwrap();
            let reply = inbox.reply_for(&job);
            assert!(crate::bus::subject::is_subject(&reply), "{reply}");
            assert_eq!(job_of(&reply), Some(job));
        }
        for garbage in ["x", "_INBOX.abc.!!", "_INBOX.abc."] {
            assert_eq!(job_of(garbage), None);
        }
    }
}
