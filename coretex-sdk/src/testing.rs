//! A control plane in a box: run a worker in a test, send it jobs, and see what it says.
//!
//! ```
//! use coretex_sdk::testing::ControlPlane;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), coretex_sdk::Error> {
//!     let plane = ControlPlane::start().await;
//!     let mut worker = plane
//!         .worker()
//!         .handle("job.double", |_ctx, number: u32| async move { Ok(number * 2) })
//!         .start()
//!         .await?;
//!
//!     let job = plane.submit("job.double", &21).await;
//!     let ended = plane.ended(&job).await;
//!     assert_eq!(ended.output::<u32>(), 42);
//!     worker.stop().await
//! }
//! ```

mod memory;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use coretex_core::backend::in_process::InProcessBus;
use coretex_core::bus::{Bus, Message, SubscribeOptions, Subscription};
use coretex_core::pointers::{Pointer, PointerStore};
use coretex_core::protocol::agent::{
    BusPacket, Heartbeat, JobCancel, JobProgress, JobRequest, JobResult, JobStatus, bus_packet::Payload,
};
use coretex_core::protocol::{JobId, WorkerId, decode_packet, encode_packet, packet, subjects};
use coretex_core::test_util::wait::{PATIENCE, until};
use coretex_core::time::Clock;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::memory::MemoryPayloads;
use crate::{Builder, Worker};

/// How many messages of each kind are remembered.
const MEMORY: usize = 100_000;

/// The scheduler's side of the bus, scripted by a test: it sends exactly what it is told to, and writes down everything
/// that workers say.
///
/// Methods that wait panic when nothing comes within a minute.
#[derive(Debug)]
pub struct ControlPlane {
    bus: Arc<dyn Bus>,
    payloads: Arc<dyn PointerStore>,
    log: Arc<Mutex<Log>>,
    changed: watch::Receiver<()>,
    _end: DropGuard,
}

#[derive(Debug, Default)]
struct Log {
    results: VecDeque<(String, JobResult)>,
    progress: VecDeque<(String, JobProgress)>,
    heartbeats: VecDeque<Heartbeat>,
}

/// How a job ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ended {
    /// What the worker reported.
    pub result: JobResult,
    /// The trace in which it reported.
    pub trace_id: String,
    /// What is stored behind the result's pointer.
    pub stored: Option<Bytes>,
}

impl Ended {
    /// The status.
    pub fn status(&self) -> JobStatus {
        self.result.status()
    }

    /// The output of a job that succeeded.
    ///
    /// # Panics
    /// If the job did not succeed, or its output is something else.
    #[track_caller]
    pub fn output<O: DeserializeOwned>(&self) -> O {
        assert_eq!(self.status(), JobStatus::Succeeded, "{:?}", self.result);
        let stored = self.stored.as_deref().unwrap_or(b"null");
        match serde_json::from_slice(stored) {
            Ok(output) => output,
            Err(error) => panic!("{error}: {}", String::from_utf8_lossy(stored)),
        }
    }
}

impl ControlPlane {
    /// One in this process, with payloads in memory.
    pub async fn start() -> Self {
        Self::on(Arc::new(InProcessBus::new()), Arc::new(MemoryPayloads::default())).await
    }

    /// One on a bus and a store of your choice.
    pub async fn on(bus: Arc<dyn Bus>, payloads: Arc<dyn PointerStore>) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (notify, changed) = watch::channel(());
        let notify = Arc::new(notify);
        let end = CancellationToken::new();
        let tasks = TaskTracker::new();
        for subject in [subjects::RESULT, subjects::PROGRESS, subjects::HEARTBEAT] {
            let subscription = match bus.subscribe(subject, SubscribeOptions::tap()).await {
                Ok(subscription) => subscription,
                Err(error) => panic!("{}", coretex_core::error::chain(&error)),
            };
            let (log, notify) = (Arc::clone(&log), Arc::clone(&notify));
            tasks.spawn(end.clone().run_until_cancelled_owned(listen(subscription, log, notify)));
        }
        Self {
            bus,
            payloads,
            log,
            changed,
            _end: end.drop_guard(),
        }
    }

    /// A worker on this control plane's bus and store.
    pub fn worker(&self) -> Builder {
        Worker::builder()
            .bus(Arc::clone(&self.bus))
            .payloads(Arc::clone(&self.payloads))
    }

    /// The bus.
    pub fn bus(&self) -> &Arc<dyn Bus> {
        &self.bus
    }

    /// The payload store.
    pub fn payloads(&self) -> &Arc<dyn PointerStore> {
        &self.payloads
    }

    /// Stores an input and sends a job with it to the workers of a topic.
    pub async fn submit(&self, topic: &str, input: &(impl Serialize + Sync)) -> JobId {
        let job = JobId::random();
        let request = self.request(&job, topic, input).await;
        self.dispatch(topic, request).await;
        job
    }

    /// Stores an input, and returns a request for a job with it, to be changed and [dispatched](Self::dispatch).
    pub async fn request(&self, job: &JobId, topic: &str, input: &(impl Serialize + Sync)) -> JobRequest {
        let pointer = Pointer::context(job);
        let payload = serde_json::to_vec(input).unwrap_or_else(|error| panic!("input: {error}"));
        if let Err(error) = self.payloads.put(&pointer, payload.into(), None).await {
            panic!("{}", coretex_core::error::chain(&error));
        }
        JobRequest {
            job_id: job.to_string(),
            topic: topic.to_owned(),
            context_ptr: pointer.into(),
            tenant_id: "default".to_owned(),
            ..JobRequest::default()
        }
    }

    /// Sends a job to whoever listens on `subject`: a topic, or [`subjects::worker_jobs`]. The trace is `trace-` and its
    /// id.
    pub async fn dispatch(&self, subject: &str, request: JobRequest) {
        let trace = format!("trace-{}", request.job_id);
        self.publish(subject, &trace, Payload::JobRequest(request)).await;
    }

    /// Sends a job to one worker.
    pub async fn dispatch_to(&self, worker: &WorkerId, request: JobRequest) {
        self.dispatch(&subjects::worker_jobs(worker), request).await;
    }

    /// Asks for a job to be cancelled.
    pub async fn cancel(&self, job: &JobId, reason: &str) {
        let cancel = JobCancel {
            job_id: job.to_string(),
            reason: reason.to_owned(),
            requested_by: "test".to_owned(),
        };
        self.publish(subjects::CANCEL, job.as_str(), Payload::JobCancel(cancel))
            .await;
    }

    /// Sends any bytes to any subject.
    pub async fn publish_bytes(&self, subject: &str, payload: impl Into<Bytes>) {
        let message = Message {
            subject: subject.to_owned(),
            payload: payload.into(),
            message_id: None,
        };
        if let Err(error) = self.bus.publish(message).await {
            panic!("{}", coretex_core::error::chain(&error));
        }
    }

    async fn publish(&self, subject: &str, trace_id: &str, payload: Payload) {
        let packet = packet(trace_id, subjects::SCHEDULER, Clock::system().now(), payload);
        self.publish_bytes(subject, encode_packet(&packet)).await;
    }

    /// Waits for the first result of a job.
    pub async fn ended(&self, job: &JobId) -> Ended {
        self.results(job, 1).await.swap_remove(0)
    }

    /// Waits until a job was reported as ended `count` times.
    pub async fn results(&self, job: &JobId, count: usize) -> Vec<Ended> {
        let found = self
            .wait_for(&format!("{count} results of {job}"), |log| {
                let of_job = log.results.iter().filter(|(_, result)| result.job_id == job.as_str());
                let found: Vec<_> = of_job.cloned().collect();
                (found.len() >= count).then_some(found)
            })
            .await;
        let mut ended = Vec::with_capacity(found.len());
        for (trace_id, result) in found {
            let stored = match result.result_ptr.parse::<Pointer>() {
                Ok(pointer) => self.stored(&pointer).await,
                Err(_) => None,
            };
            ended.push(Ended {
                result,
                trace_id,
                stored,
            });
        }
        ended
    }

    async fn stored(&self, pointer: &Pointer) -> Option<Bytes> {
        // A store that was just restarted may refuse the first call.
        until("an answer of the payload store", async || {
            self.payloads.get(pointer).await.ok()
        })
        .await
    }

    /// Waits until `count` progress notes of a job have come.
    pub async fn progress(&self, job: &JobId, count: usize) -> Vec<JobProgress> {
        self.wait_for(&format!("{count} progress notes of {job}"), |log| {
            let of_job = log.progress.iter().filter(|(_, note)| note.job_id == job.as_str());
            let found: Vec<_> = of_job.map(|(_, note)| note.clone()).collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// How many progress notes of a job have come so far.
    pub fn progress_so_far(&self, job: &JobId) -> usize {
        let log = self.log.lock();
        log.progress
            .iter()
            .filter(|(_, note)| note.job_id == job.as_str())
            .count()
    }

    /// Waits until the *latest* heartbeat of any worker is one that `wanted` accepts.
    pub async fn heartbeat(&self, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        self.wait_for("a heartbeat", |log| {
            log.heartbeats.back().filter(|beat| wanted(beat)).cloned()
        })
        .await
    }

    /// All heartbeats so far, oldest first.
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.log.lock().heartbeats.iter().cloned().collect()
    }

    /// How many results came so far, by job; repeats counted.
    pub fn result_counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (_, result) in &self.log.lock().results {
            *counts.entry(result.job_id.clone()).or_default() += 1;
        }
        counts
    }

    async fn wait_for<T>(&self, what: &str, look: impl Fn(&Log) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        let waiting = async {
            loop {
                // Seen before looking, so that a change in between is not missed.
                changed.mark_unchanged();
                if let Some(found) = look(&self.log.lock()) {
                    return found;
                }
                assert!(
                    changed.changed().await.is_ok(),
                    "the bus was closed while waiting for {what}"
                );
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("{what} did not come; {}", self.log.lock()))
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seen: {} results, {} progress notes, {} heartbeats; the last result: {:?}",
            self.results.len(),
            self.progress.len(),
            self.heartbeats.len(),
            self.results.back()
        )
    }
}

async fn listen(mut subscription: Subscription, log: Arc<Mutex<Log>>, notify: Arc<watch::Sender<()>>) {
    while let Some(delivery) = subscription.next().await {
        let Ok(BusPacket {
            trace_id,
            payload: Some(payload),
            ..
        }) = decode_packet(&delivery.payload)
        else {
            continue;
        };
        {
            let mut log = log.lock();
            match payload {
                Payload::JobResult(result) => remember(&mut log.results, (trace_id, result)),
                Payload::JobProgress(note) => remember(&mut log.progress, (trace_id, note)),
                Payload::Heartbeat(beat) => remember(&mut log.heartbeats, beat),
                Payload::JobRequest(_) | Payload::JobCancel(_) | Payload::Alert(_) => {}
            }
        }
        notify.send_replace(());
    }
}

fn remember<T>(memory: &mut VecDeque<T>, item: T) {
    if memory.len() >= MEMORY {
        memory.pop_front();
    }
    memory.push_back(item);
}
