//! What a client of the stream sees of one message of the bus. See `docs/spec/http.md` §17.

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use coretex_core::bus::subject;
use coretex_core::protocol::agent::BusPacket;
use coretex_core::protocol::agent::bus_packet::Payload;
use coretex_core::protocol::decode_packet;
use coretex_core::protocol::json::{Mode, append_json, to_json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One text frame. Cheap to clone: the text is shared by all clients.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    text: Utf8Bytes,
    /// The run that it is about, if that can be told.
    run: Option<Box<str>>,
}

/// What became of one message: most are one frame, a commit of a run is as many as it has entries.
#[derive(Debug)]
pub(super) struct Batch {
    subject: String,
    frames: Vec<Frame>,
    /// What waiting for a slow client costs.
    pub(super) bytes: usize,
}

impl Batch {
    /// The frames of a packet; `None` if it is none.
    pub(super) fn of_packet(subject: String, payload: &Bytes) -> Option<Self> {
        let packet = decode_packet(payload).ok()?;
        let run = run_of(&packet).map(Into::into);
        // The payload stands at the top, where the protocol's JSON has it, and once more below `payload`, where some
        // clients look for it.
        let mut text = to_json(&packet, Mode::Compact);
        if packet.payload.is_some() {
            let only = BusPacket {
                payload: packet.payload,
                ..BusPacket::default()
            };
            text.pop();
            text.push_str(",\"payload\":");
            append_json(&mut text, &only, Mode::Compact);
            text.push('}');
        }
        Some(Self::new(subject, vec![Frame { text: text.into(), run }]))
    }

    /// The frames of a commit of a run: an array of entries of its timeline. `None` if it is none.
    pub(super) fn of_run(subject: String, payload: &Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            run_id: Option<Box<str>>,
        }
        let entries: Vec<Box<RawValue>> = serde_json::from_slice(payload).ok()?;
        let frames = entries
            .iter()
            .map(|entry| Frame {
                text: format!("{{\"workflowEvent\":{}}}", entry.get()).into(),
                run: serde_json::from_str::<Entry>(entry.get())
                    .ok()
                    .and_then(|entry| entry.run_id),
            })
            .collect();
        Some(Self::new(subject, frames))
    }

    fn new(subject: String, frames: Vec<Frame>) -> Self {
        let bytes = frames.iter().map(|frame| frame.text.len()).sum();
        Self { subject, frames, bytes }
    }
}

/// The run that a packet is about: that of a step's job, else the trace, which is the run's for all that a run sends.
fn run_of(packet: &BusPacket) -> Option<&str> {
    let job = match packet.payload.as_ref()? {
        Payload::JobRequest(request) => &request.job_id,
        Payload::JobResult(result) => &result.job_id,
        Payload::JobProgress(progress) => &progress.job_id,
        Payload::JobCancel(cancel) => &cancel.job_id,
        Payload::Heartbeat(_) => return None,
        Payload::Alert(_) => "",
    };
    match job.rsplit_once(':') {
        Some((run, _)) => Some(run),
        None => Some(packet.trace_id.as_str()).filter(|trace| !trace.is_empty()),
    }
}

/// What one client wants to see.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// Only of these subjects; empty is all.
    subjects: Vec<String>,
    /// Only about this run.
    run: Option<String>,
}

impl Filter {
    /// # Errors
    /// The first of the subjects that is none.
    pub(super) fn try_new(subjects: Option<&str>, run: Option<&str>) -> Result<Self, String> {
        let subjects: Vec<String> = subjects
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|subject| !subject.is_empty())
            .map(str::to_owned)
            .collect();
        match subjects.iter().find(|text| !subject::is_filter(text)) {
            Some(bad) => Err(bad.clone()),
            None => Ok(Self {
                subjects,
                run: run.map(str::to_owned),
            }),
        }
    }

    /// Whether anything of this subject is wanted.
    pub(super) fn wants(&self, batch: &Batch) -> bool {
        let wanted = |filter: &String| subject::matches(filter, &batch.subject);
        (self.subjects.is_empty() || self.subjects.iter().any(wanted))
            && (self.run.is_none() || batch.frames.iter().any(|frame| self.fits(frame)))
    }

    /// The texts of a batch that are wanted.
    pub(super) fn texts<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = Utf8Bytes> + 'a {
        batch
            .frames
            .iter()
            .filter(|frame| self.fits(frame))
            .map(|frame| frame.text.clone())
    }

    fn fits(&self, frame: &Frame) -> bool {
        self.run.is_none() || self.run.as_deref() == frame.run.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use coretex_core::protocol::agent::{Heartbeat, JobResult};
    use coretex_core::protocol::encode_packet;

    use super::*;

    fn packet(payload: Payload) -> Bytes {
        encode_packet(&BusPacket {
            trace_id: "t1".to_owned(),
            sender_id: "w".to_owned(),
            payload: Some(payload),
            ..BusPacket::default()
        })
    }

    fn result(job: &str) -> Bytes {
        packet(Payload::JobResult(JobResult {
            job_id: job.to_owned(),
            execution_ms: 42,
            ..JobResult::default()
        }))
    }

    fn seen(batch: &Batch, subjects: Option<&str>, run: Option<&str>) -> usize {
        let filter = Filter::try_new(subjects, run).unwrap();
        if filter.wants(batch) {
            filter.texts(batch).count()
        } else {
            0
        }
    }

    #[test]
    fn a_packet_is_shown_at_the_top_and_below_payload() {
        let batch = Batch::of_packet("sys.job.result".to_owned(), &result("j1")).unwrap();
        assert_eq!(
            batch.frames[0].text.as_str(),
            r#"{"traceId":"t1","senderId":"w","jobResult":{"jobId":"j1","executionMs":"42"},"payload":{"jobResult":{"jobId":"j1","executionMs":"42"}}}"#
        );
        assert!(Batch::of_packet("x".to_owned(), &Bytes::from_static(b"\xff\xff")).is_none());
    }

    #[test]
    fn filters_are_by_subject_and_run() {
        let batch = Batch::of_packet("sys.job.result".to_owned(), &result("r1:a@1")).unwrap();
        for (subjects, run, count) in [
            (None, None, 1),
            (Some("sys.job.>"), None, 1),
            (Some("sys.heartbeat, sys.job.result"), Some("r1"), 1),
            (Some("sys.heartbeat"), None, 0),
            (None, Some("r2"), 0),
        ] {
            assert_eq!(seen(&batch, subjects, run), count, "{subjects:?} {run:?}");
        }
        assert_eq!(Filter::try_new(Some("sys.>.job"), None).unwrap_err(), "sys.>.job");

        let beat = packet(Payload::Heartbeat(Heartbeat::default()));
        let batch = Batch::of_packet("sys.heartbeat".to_owned(), &beat).unwrap();
        assert_eq!((seen(&batch, None, None), seen(&batch, None, Some("t1"))), (1, 0));
        // A job that is no step's is about the run that its trace names, if it names one.
        let batch = Batch::of_packet("sys.job.result".to_owned(), &result("j1")).unwrap();
        assert_eq!(seen(&batch, None, Some("t1")), 1);
    }

    #[test]
    fn each_entry_of_a_commit_is_a_frame() {
        let payload = Bytes::from_static(br#"[{"type":"a","run_id":"r1"},{"type":"b","run_id":"r2"},{"type":"c"}]"#);
        let batch = Batch::of_run("coretex.workflow.events".to_owned(), &payload).unwrap();
        assert_eq!((seen(&batch, None, None), seen(&batch, None, Some("r2"))), (3, 1));
        assert_eq!(
            batch.frames[0].text.as_str(),
            r#"{"workflowEvent":{"type":"a","run_id":"r1"}}"#
        );
        assert!(Batch::of_run("x".to_owned(), &Bytes::from_static(b"{}")).is_none());
    }
}
