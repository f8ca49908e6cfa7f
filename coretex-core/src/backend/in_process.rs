//! The bus in one process. See `docs/spec/bus.md` §2.

mod group;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::group::{Backlog, Group, Item};
use crate::bus::{Bus, Error, Health, Message, SubscribeOptions, Subscription, subject};
use crate::protocol::JobId;

const BACKEND: &str = "the in-process bus";
/// How long a publisher waits for room in a full queue.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// How many ids wait on [`Bus::undelivered`] before further ones are dropped.
const UNDELIVERED_LEN: usize = 65_536;

/// A bus inside this process: subjects, wildcards, queue groups, redelivery. Dropping it closes it.
#[derive(Debug)]
pub struct InProcessBus {
    shared: Arc<Shared>,
    undelivered: Mutex<Option<mpsc::Receiver<JobId>>>,
}

#[derive(Debug)]
struct Shared {
    routes: RwLock<Routes>,
    undelivered: mpsc::Sender<JobId>,
    health: watch::Sender<Health>,
}

#[derive(Debug, Default)]
struct Routes {
    exact: HashMap<String, Vec<Arc<Group>>>,
    wild: Vec<Arc<Group>>,
    /// Messages on kept subjects that nobody has ever consumed.
    unclaimed: Mutex<HashMap<String, Backlog>>,
    closed: bool,
}

/// Where a message could not go yet.
type Waiting = Vec<(Arc<Group>, Item)>;

impl Default for InProcessBus {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessBus {
    /// A bus without subscribers.
    pub fn new() -> Self {
        let (undelivered, receiver) = mpsc::channel(UNDELIVERED_LEN);
        let (health, _) = watch::channel(Health::Connected { server: String::new() });
        Self {
            shared: Arc::new(Shared {
                routes: RwLock::default(),
                undelivered,
                health,
            }),
            undelivered: Mutex::new(Some(receiver)),
        }
    }

    async fn send(&self, message: Message, job: Option<JobId>) -> Result<(), Error> {
        // Publishing need not wait for anything, so a loop of it would starve its thread.
        tokio::task::coop::consume_budget().await;
        if !subject::is_subject(&message.subject) {
            return Err(refused("publish", message.subject, "not a subject"));
        }
        let item = Item {
            subject: message.subject,
            payload: message.payload,
            job,
        };
        let waiting = self.shared.route(item)?;
        for (group, item) in waiting {
            let subject = item.subject.clone();
            if tokio::time::timeout(ROOM_TIMEOUT, group.offer_when_room(item))
                .await
                .is_err()
            {
                return Err(Error::Unavailable {
                    backend: BACKEND,
                    op: "publish",
                    subject,
                    source: "the subscribers are too slow".into(),
                });
            }
        }
        Ok(())
    }
}

impl Drop for InProcessBus {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// Gives a message to everybody it is for, and returns those who have no room.
    fn route(&self, item: Item) -> Result<Waiting, Error> {
        let routes = self.routes.read();
        if routes.closed {
            return Err(Error::Closed);
        }
        let mut targets: Vec<&Arc<Group>> = Vec::new();
        let exact = routes.exact.get(&item.subject).into_iter().flatten();
        let wild = routes
            .wild
            .iter()
            .filter(|group| subject::matches(&group.filter, &item.subject));
        for group in exact.chain(wild) {
            // A queue group may span several filters, and still gets one copy.
            let served = group.queue.is_some() && targets.iter().any(|other| other.queue == group.queue);
            if !served {
                targets.push(group);
            }
        }
        if item.job.is_none() && group::is_kept(&item.subject) && !targets.iter().any(|group| group.redelivers()) {
            routes.keep(item.clone());
        }
        let mut waiting = Vec::new();
        let Some((last, others)) = targets.split_last() else {
            if let Some(job) = item.job {
                self.undelivered(job);
            }
            return Ok(waiting);
        };
        for group in others {
            if let Err(item) = group.offer(item.clone()) {
                waiting.push((Arc::clone(group), item));
            }
        }
        if let Err(item) = last.offer(item) {
            waiting.push((Arc::clone(last), item));
        }
        Ok(waiting)
    }

    fn undelivered(&self, job: JobId) {
        if self.undelivered.try_send(job).is_err() {
            counter!("coretex_bus_undelivered_lost_total", "bus" => "in_process").increment(1);
        }
    }

    fn leave(&self, group: &Arc<Group>, seat: u64) {
        let left = {
            // The lock of the routes is held so that nobody joins a group while it ends.
            let mut routes = self.routes.write();
            let Some(left) = group.leave(seat) else {
                return;
            };
            routes.remove(group);
            left
        };
        self.orphan(group, left);
    }

    /// Finds a place for messages whose group is gone.
    fn orphan(&self, group: &Group, items: Vec<Item>) {
        let routes = self.routes.read();
        let mut siblings = routes.exact.get(&group.filter).into_iter().flatten();
        let keep = group.redelivers() && group::is_kept(&group.filter) && !siblings.any(|other| other.redelivers());
        for item in items {
            if let Some(job) = item.job {
                self.undelivered(job);
            } else if keep && !routes.closed {
                routes.keep(item);
            }
        }
    }

    fn close(&self) {
        let groups: Vec<Arc<Group>> = {
            let mut routes = self.routes.write();
            routes.closed = true;
            routes.unclaimed.get_mut().clear();
            let Routes { exact, wild, .. } = &mut *routes;
            exact
                .drain()
                .flat_map(|(_, groups)| groups)
                .chain(wild.drain(..))
                .collect()
        };
        for group in groups {
            group.close();
        }
        self.health.send_replace(Health::Closed);
    }
}

impl Routes {
    /// Keeps a message for the first consumer of its subject.
    fn keep(&self, item: Item) {
        let mut unclaimed = self.unclaimed.lock();
        unclaimed.entry(item.subject.clone()).or_default().push(item);
    }

    fn remove(&mut self, group: &Arc<Group>) {
        if let Some(groups) = self.exact.get_mut(&group.filter) {
            groups.retain(|other| !Arc::ptr_eq(other, group));
            if groups.is_empty() {
                self.exact.remove(&group.filter);
            }
        }
        self.wild.retain(|other| !Arc::ptr_eq(other, group));
    }
}

fn refused(op: &'static str, subject: String, why: &'static str) -> Error {
    Error::Refused {
        backend: BACKEND,
        op,
        subject,
        source: why.into(),
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn publish(&self, message: Message) -> Result<(), Error> {
        self.send(message, None).await
    }

    async fn publish_all(&self, messages: Vec<Message>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            results.push(self.send(message, None).await);
        }
        results
    }

    async fn dispatch(&self, messages: Vec<(JobId, Message)>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(messages.len());
        for (job, message) in messages {
            results.push(self.send(message, Some(job)).await);
        }
        results
    }

    fn undelivered(&self) -> Option<mpsc::Receiver<JobId>> {
        self.undelivered.lock().take()
    }

    async fn subscribe(&self, filter: &str, options: SubscribeOptions) -> Result<Subscription, Error> {
        if !subject::is_filter(filter) {
            return Err(refused("subscribe", filter.to_owned(), "not a subject"));
        }
        let mut routes = self.shared.routes.write();
        if routes.closed {
            return Err(Error::Closed);
        }
        let wild = subject::has_wildcard(filter);
        let Routes {
            exact,
            wild: wild_groups,
            unclaimed,
            ..
        } = &mut *routes;
        let groups = if wild {
            wild_groups
        } else {
            exact.entry(filter.to_owned()).or_default()
        };
        let group = if let Some(group) = groups.iter().find(|group| group.admits(filter, &options)) {
            Arc::clone(group)
        } else {
            let group = Arc::new(Group::new(filter, &options, Arc::downgrade(&self.shared)));
            groups.push(Arc::clone(&group));
            group
        };
        let backlog = if group.redelivers() {
            unclaimed.get_mut().remove(filter).unwrap_or_default()
        } else {
            Backlog::default()
        };
        let close = CancellationToken::new();
        Ok(Subscription::new(group.join(&options, backlog, close.clone()), close))
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn drain(&self) {
        self.shared.close();
    }
}
