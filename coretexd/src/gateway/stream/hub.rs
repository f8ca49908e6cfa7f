//! One reader of the bus for all clients of the stream.
//!
//! The bus is listened to only while somebody watches: what nobody sees costs nothing. Whoever reads too slowly is let go;
//! nobody else waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coretex_core::bus::{self, Bus, SubscribeOptions, Subscription};
use coretex_core::protocol::subjects;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, SelectAll};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::frame::{Batch, Filter};

/// All that is shown.
const SUBJECTS: [&str; 5] = [
    subjects::HEARTBEAT,
    "sys.job.>",
    "sys.audit.>",
    subjects::WORKFLOW_EVENT,
    subjects::WORKFLOW_TIMELINE,
];
/// How many clients there may be.
const MAX_CLIENTS: usize = 1_024;
/// How many messages may wait for one client.
const QUEUE: usize = 1_024;
/// How many bytes may wait for one client.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Why nobody can be let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// There are too many.
    #[error("too many clients of the stream")]
    Full,
    /// The bus cannot be listened to.
    #[error("the bus cannot be listened to")]
    Bus(#[from] bus::Error),
}

/// Where clients come in.
#[derive(Debug)]
pub(in crate::gateway) struct Hub {
    bus: Arc<dyn Bus>,
    state: Mutex<State>,
    /// Held while the subscriptions are made, so that they are made once.
    starting: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    /// The reader and the clients.
    pub(super) tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<u64, Client>,
    next: u64,
    /// Stops the reader; `None` if there is none.
    reader: Option<CancellationToken>,
}

#[derive(Debug)]
struct Client {
    filter: Filter,
    queue: mpsc::Sender<Arc<Batch>>,
    waiting: Arc<AtomicUsize>,
}

/// A client's end of the queue. Leaving is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Arc<Hub>,
    number: u64,
    filter: Filter,
    queue: mpsc::Receiver<Arc<Batch>>,
    waiting: Arc<AtomicUsize>,
}

impl Seat {
    /// What the client wants to see.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The next messages; `None` if the client was too slow, or the bus is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Arc<Batch>> {
        let batch = self.queue.recv().await?;
        self.waiting.fetch_sub(batch.bytes, Ordering::Relaxed);
        Some(batch)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(self.number);
    }
}

impl Hub {
    pub(in crate::gateway) fn new(bus: Arc<dyn Bus>, stop: CancellationToken) -> Self {
        Self {
            bus,
            state: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until all clients are gone. They go when the process stops.
    pub(in crate::gateway) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Lets a client in: it sees what is published from now on.
    ///
    /// # Errors
    /// [`Refused`] if there are too many, or the bus cannot be listened to.
    pub(super) async fn join(self: &Arc<Self>, filter: Filter) -> Result<Seat, Refused> {
        let seat = self.sit(filter)?;
        if self.state.lock().reader.is_none() {
            let _starting = self.starting.lock().await;
            if self.state.lock().reader.is_none() {
                let messages = self.subscribe().await?;
                let stop = self.stop.child_token();
                self.state.lock().reader = Some(stop.clone());
                self.tasks.spawn(Arc::clone(self).read(messages, stop));
            }
        }
        Ok(seat)
    }

    fn sit(self: &Arc<Self>, filter: Filter) -> Result<Seat, Refused> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut state = self.state.lock();
        if state.clients.len() >= MAX_CLIENTS {
            return Err(Refused::Full);
        }
        let number = state.next;
        state.next += 1;
        let client = Client {
            filter: filter.clone(),
            queue: sender,
            waiting: Arc::clone(&waiting),
        };
        state.clients.insert(number, client);
        Ok(Seat {
            hub: Arc::clone(self),
            number,
            filter,
            queue,
            waiting,
        })
    }

    fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        state.clients.remove(&number);
        if state.clients.is_empty()
            && let Some(reader) = state.reader.take()
        {
            reader.cancel();
        }
    }

    async fn subscribe(&self) -> Result<SelectAll<BoxStream<'static, bus::Delivery>>, bus::Error> {
        let mut all = SelectAll::new();
        for subject in SUBJECTS {
            let subscription = self.bus.subscribe(subject, SubscribeOptions::tap()).await?;
            let next = |mut subscription: Subscription| async {
                let delivery = subscription.next().await?;
                Some((delivery, subscription))
            };
            all.push(stream::unfold(subscription, next).boxed());
        }
        Ok(all)
    }

    async fn read(
        self: Arc<Self>,
        mut messages: SelectAll<BoxStream<'static, bus::Delivery>>,
        stop: CancellationToken,
    ) {
        debug!("somebody watches the stream: listening to the bus");
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                delivery = messages.next() => delivery,
            };
            let Some(delivery) = delivery else { break };
            let batch = if delivery.subject == subjects::WORKFLOW_TIMELINE {
                Batch::of_run(delivery.subject, &delivery.payload)
            } else {
                Batch::of_packet(delivery.subject, &delivery.payload)
            };
            if let Some(batch) = batch {
                self.share(&Arc::new(batch));
            }
        }
        if !stop.is_cancelled() {
            // The bus is closed: nobody will see anything any more.
            let mut state = self.state.lock();
            state.clients.clear();
            state.reader = None;
        }
        debug!("not listening to the bus any more");
    }

    fn share(&self, batch: &Arc<Batch>) {
        self.state.lock().clients.retain(|number, client| {
            if !client.filter.wants(batch) {
                return true;
            }
            let before = client.waiting.fetch_add(batch.bytes, Ordering::Relaxed);
            let fits = before == 0 || before + batch.bytes <= QUEUE_BYTES;
            let taken = fits && client.queue.try_send(Arc::clone(batch)).is_ok();
            if !taken {
                // Its queue ends with the sender that is dropped here; it is told then.
                metrics::counter!("coretex_api_gateway_stream_dropped_total").increment(1);
                warn!(client = number, "a client of the stream is too slow and has to go");
            }
            taken
        });
    }
}
