//! Jobs that wait: when they are looked at again, and how they get there. See `docs/spec/scheduler.md` §4.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tracing::{debug, warn};

use super::decide::tenant_of;
use super::desk::{Item, Reserved};
use super::parked::{Class, Entry};
use super::placement::{Demand, Placement, place};
use super::{Inner, gauge};
use crate::jobs::{Note, PendingNote};
use crate::protocol::agent::JobRequest;
use crate::protocol::{JobId, TraceId};
use crate::time::Timestamp;

/// How many waiting jobs are taken at once.
const WAKE_BATCH: usize = 128;

impl Inner {
    /// Serves waiting jobs whenever there may be room, and those whose pause is over.
    pub(super) async fn serve_waiting(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.room.notified() => {}
                _ = tick.tick() => self.let_in(),
            }
            self.serve_due().await;
            loop {
                let Ok(permit) = Arc::clone(&self.intake).acquire_owned().await else {
                    return;
                };
                let taken = self.take_placeable();
                if taken.is_empty() || self.stop.is_cancelled() {
                    self.put_back(taken);
                    break;
                }
                let this = Arc::clone(&self);
                self.tasks.spawn(async move {
                    this.resume(taken).await;
                    drop(permit);
                });
            }
        }
    }

    fn take_placeable(&self) -> Vec<(Entry, Reserved)> {
        let routing = self.routing.load();
        let mut desk = self.desk.lock();
        let desk = &mut *desk;
        // While nobody takes anything, which is when most jobs wait, there is no need to ask for each.
        if desk.parked.is_empty() || !desk.fleet.has_room() {
            return Vec::new();
        }
        let fleet = &mut desk.fleet;
        desk.parked
            .take(WAKE_BATCH, |demand| match place(demand, &routing, fleet) {
                Placement::On {
                    worker,
                    direct,
                    confirms,
                    why,
                } => {
                    fleet.reserve(worker.as_ref());
                    Some(Reserved {
                        worker,
                        direct,
                        confirms,
                        why,
                    })
                }
                Placement::Wait { .. } | Placement::Impossible { .. } => None,
            })
    }

    fn put_back(&self, taken: Vec<(Entry, Reserved)>) {
        let mut desk = self.desk.lock();
        for (_, place) in taken {
            // Only at shutdown: the job is PENDING in the store, and its place is given back.
            desk.fleet.release(place.worker.as_ref());
        }
    }

    /// Moves jobs whose turn may have come: of tenants that may have room again, and old ones upwards.
    fn let_in(&self) {
        let now = self.parts.clock.now();
        let mut desk = self.desk.lock();
        let tenants: Vec<Arc<str>> = desk.limited.keys().cloned().collect();
        for tenant in tenants {
            // Other replicas free places as well, unseen from here: let one job find out.
            desk.unlimit(&tenant, 1);
        }
        desk.parked.age(now);
        gauge(&desk);
    }

    /// Looks again at the jobs whose pause is over.
    async fn serve_due(self: &Arc<Self>) {
        let now = self.parts.clock.now();
        while self.desk.lock().is_due(now) && !self.stop.is_cancelled() {
            let Ok(permit) = Arc::clone(&self.intake).acquire_owned().await else {
                return;
            };
            let due = self.desk.lock().take_due(now, WAKE_BATCH);
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                let items = this.reload(due.into_iter().map(|entry| (entry, None)).collect()).await;
                this.process(items).await;
                drop(permit);
            });
            // As long as policy does not answer, a few jobs find out for all.
            if self.unjudged.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn resume(self: &Arc<Self>, taken: Vec<(Entry, Reserved)>) {
        let items = self
            .reload(taken.into_iter().map(|(entry, place)| (entry, Some(place))).collect())
            .await;
        self.process(items).await;
    }

    /// Makes items of waiting jobs again; reads the requests that were not kept. A job whose request is gone is forgotten
    /// here: whoever looks over the store deals with it.
    async fn reload(&self, entries: Vec<(Entry, Option<Reserved>)>) -> Vec<Item> {
        let missing: Vec<JobId> = entries
            .iter()
            .filter(|(entry, _)| entry.request.is_none())
            .map(|(entry, _)| entry.id.clone())
            .collect();
        let mut read = match self.read_requests(&missing).await {
            Some(requests) => missing
                .into_iter()
                .zip(requests)
                .collect::<std::collections::HashMap<_, _>>(),
            None => std::collections::HashMap::new(),
        };
        let mut items = Vec::with_capacity(entries.len());
        for (entry, reserved) in entries {
            let request = match &entry.request {
                Some(bytes) => JobRequest::decode(bytes.clone()).ok(),
                None => read.remove(&entry.id).flatten(),
            };
            match request {
                Some(request) => items.push(Item {
                    id: entry.id,
                    trace_id: entry.trace_id,
                    request: Arc::new(request),
                    stored: true,
                    since: entry.since,
                    held: entry.held,
                    reserved,
                }),
                None => {
                    warn!(job_id = %entry.id, "the request of a waiting job is gone");
                    if let Some(place) = reserved {
                        self.desk.lock().fleet.release(place.worker.as_ref());
                    }
                }
            }
        }
        items
    }

    pub(super) fn entry(&self, item: &Item) -> Entry {
        Entry {
            held: item.held,
            ..self.entry_of(&item.id, item.trace_id.clone(), &item.request, item.since)
        }
    }

    pub(super) fn entry_of(
        &self,
        id: &JobId,
        trace_id: Option<TraceId>,
        request: &JobRequest,
        since: Timestamp,
    ) -> Entry {
        let small = request.encoded_len() <= self.options.keep_request_bytes;
        Entry {
            id: id.clone(),
            trace_id,
            request: small.then(|| Bytes::from(request.encode_to_vec())),
            tenant: tenant_of(request).as_str().into(),
            class: Class::of(request.priority),
            since,
            held: None,
        }
    }

    /// Looks at a job again at `at`.
    pub(super) fn set_aside(&self, item: &Item, at: Timestamp) {
        let entry = self.entry(item);
        let mut desk = self.desk.lock();
        if desk.admits(self.options.max_parked) {
            desk.delay(at, entry);
        }
    }

    /// Lets a job wait for room. With `pending`, why and where is written down at the next occasion.
    pub(super) fn park(&self, item: &Item, demand: Demand, pending: Option<PendingNote>) {
        let entry = self.entry(item);
        let mut desk = self.desk.lock();
        if !desk.admits(self.options.max_parked) {
            // It stays PENDING in the store, and is adopted when there is room.
            debug!(job_id = %item.id, "too many jobs wait here");
            return;
        }
        if let Some(pending) = pending {
            desk.notes.push(Note::Waiting {
                id: item.id.clone(),
                pending,
                owner: self.options.instance.clone(),
            });
        }
        desk.parked.push(demand, entry);
        drop(desk);
        // A worker may have come between looking and waiting.
        self.room.notify_one();
    }
}
