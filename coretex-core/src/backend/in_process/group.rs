//! A queue group: one queue, and the members that take turns to pull from it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::backend::delayed::{Alarm, Delayed};
use crate::bus::{Delivery, Error, Settle, SubscribeOptions, subject};
use crate::protocol::{JobId, subjects};

/// How many messages wait in one group before its publishers wait.
pub(super) const QUEUE_LEN: usize = 65_536;
/// How many bytes of payload wait in one group before its publishers wait.
const QUEUE_BYTES: usize = 64 << 20;
/// When a durable message whose delivery was dropped comes back: what the ack wait is to `JetStream`.
const ABANDONED_DELAY: Duration = Duration::from_secs(1);
/// One message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// The job, if this is a dispatch.
    pub(super) job: Option<JobId>,
}

/// What a group promises, derived from what was subscribed to (docs/spec/bus.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Only watches: nothing to settle, and when the queue is full the oldest message is dropped.
    Watches,
    /// Listens like a worker: nothing to settle, but a dispatch is not dropped because the worker is busy.
    Works,
    /// Gets what is live. A delivery can be retried; when the queue is full the oldest message is dropped.
    Live,
    /// Gets each message until it is settled; a full queue makes the publisher wait.
    Durable {
        /// The queue outlives its last member.
        kept: bool,
    },
}

impl Promise {
    fn of(filter: &str, options: &SubscribeOptions) -> Self {
        let queued = options.queue.is_some();
        let one_worker = filter.starts_with("worker.") && !subject::has_wildcard(filter);
        match options.tap {
            true if queued || one_worker => Self::Works,
            true => Self::Watches,
            false if subjects::is_durable(filter) => Self::Durable {
                kept: queued && is_kept(filter),
            },
            false => Self::Live,
        }
    }

    fn settles(self) -> bool {
        matches!(self, Self::Live | Self::Durable { .. })
    }

    fn redelivers(self) -> bool {
        matches!(self, Self::Durable { .. })
    }

    fn waits(self) -> bool {
        matches!(self, Self::Works | Self::Durable { .. })
    }

    fn kept(self) -> bool {
        self == Self::Durable { kept: true }
    }
}

/// Whether messages on `subject` wait for a subscriber that is yet to come.
pub(super) fn is_kept(subject: &str) -> bool {
    matches!(subject, subjects::SUBMIT | subjects::RESULT | subjects::DLQ)
}

/// Messages on a kept subject that nobody has consumed yet; the oldest give way.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, item: Item) {
        self.bytes += item.payload.len();
        self.items.push_back(item);
        while self.items.len() > QUEUE_LEN || self.bytes > QUEUE_BYTES {
            let Some(oldest) = self.items.pop_front() else { return };
            self.bytes -= oldest.payload.len();
            dropped("no_subscriber");
        }
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) filter: String,
    pub(super) queue: Option<String>,
    promise: Promise,
    home: Weak<Shared>,
    state: Mutex<State>,
    /// Publishers wait here for room.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Item>,
    delayed: Delayed<Item>,
    bytes: usize,
    seats: Vec<Seat>,
    next_seat: u64,
    publishers_waiting: usize,
    closed: bool,
}

/// A member's place in its group.
#[derive(Debug)]
struct Seat {
    id: u64,
    in_flight: usize,
    max_in_flight: usize,
    waker: Option<Waker>,
}

impl State {
    fn is_full(&self) -> bool {
        self.ready.len() + self.delayed.len() >= QUEUE_LEN || self.bytes >= QUEUE_BYTES
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.payload.len();
        self.ready.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.ready.pop_front()?;
        self.bytes -= item.payload.len();
        Some(item)
    }

    /// Moves what has come due to the front of the queue.
    fn promote(&mut self) {
        let mut due = Vec::new();
        while let Some(item) = self.delayed.pop_due() {
            due.push(item);
        }
        for item in due.into_iter().rev() {
            self.ready.push_front(item);
        }
    }

    /// Everybody who waits and could take a message. All of them, because one that is woken need not come back: its task
    /// may be busy with something else.
    fn idle(&mut self) -> Vec<Waker> {
        self.seats
            .iter_mut()
            .filter(|seat| seat.in_flight < seat.max_in_flight)
            .filter_map(|seat| seat.waker.take())
            .collect()
    }

    /// Takes one delivery off a member's account, and wakes it if that makes room.
    fn release(&mut self, seat: u64) -> Option<Waker> {
        let seat = self.seats.iter_mut().find(|candidate| candidate.id == seat)?;
        let was_full = seat.in_flight >= seat.max_in_flight;
        seat.in_flight = seat.in_flight.saturating_sub(1);
        if was_full { seat.waker.take() } else { None }
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

impl Group {
    pub(super) fn new(filter: &str, options: &SubscribeOptions, home: Weak<Shared>) -> Self {
        Self {
            filter: filter.to_owned(),
            queue: options.queue.clone(),
            promise: Promise::of(filter, options),
            home,
            state: Mutex::default(),
            room: Notify::new(),
        }
    }

    /// Whether somebody who subscribes like this belongs in this group.
    pub(super) fn admits(&self, filter: &str, options: &SubscribeOptions) -> bool {
        self.queue.is_some()
            && self.queue == options.queue
            && self.filter == filter
            && self.promise == Promise::of(filter, options)
    }

    /// Whether what is published on a kept subject is in good hands here.
    pub(super) fn redelivers(&self) -> bool {
        self.promise.redelivers()
    }

    /// Queues a message; gives it back if the publisher has to wait for room, or the group has ended.
    pub(super) fn offer(&self, item: Item) -> Result<(), Item> {
        let wakers = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(item);
            }
            if state.is_full() {
                if self.promise.waits() && !state.seats.is_empty() {
                    return Err(item);
                }
                state.pop();
                dropped("queue_full");
            }
            state.push(item);
            state.idle()
        };
        wake(wakers);
        Ok(())
    }

    /// Queues a message as soon as there is room, or finds it another place should the group end first.
    ///
    /// # Cancel safety
    /// The message is queued or not, never twice.
    pub(super) async fn offer_when_room(&self, mut item: Item) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let waiting = Waiting::new(self);
            match self.offer(item) {
                Ok(()) => return,
                Err(back) => item = back,
            }
            if self.state.lock().closed {
                if let Some(home) = self.home.upgrade() {
                    home.orphan(self, vec![item]);
                }
                return;
            }
            room.await;
            drop(waiting);
        }
    }

    pub(super) fn join(
        self: &Arc<Self>,
        options: &SubscribeOptions,
        backlog: Backlog,
        close: CancellationToken,
    ) -> Member {
        let mut state = self.state.lock();
        let id = state.next_seat;
        state.next_seat += 1;
        state.seats.push(Seat {
            id,
            in_flight: 0,
            max_in_flight: options.max_in_flight.max(1),
            waker: None,
        });
        for item in backlog.items {
            state.push(item);
        }
        drop(state);
        Member {
            group: Arc::clone(self),
            seat: id,
            alarm: Alarm::default(),
            close,
        }
    }

    /// Takes a member away. If it was the last one of a group that is not kept, the group ends, and what it still held
    /// is returned.
    pub(super) fn leave(&self, seat: u64) -> Option<Vec<Item>> {
        let mut state = self.state.lock();
        state.seats.retain(|candidate| candidate.id != seat);
        if !state.seats.is_empty() {
            // What the leaver was woken for, somebody else has to fetch.
            let wakers = state.idle();
            drop(state);
            wake(wakers);
            return None;
        }
        let left = if self.promise.kept() {
            None
        } else {
            state.closed = true;
            state.bytes = 0;
            let mut left: Vec<Item> = std::mem::take(&mut state.ready).into();
            let mut delayed = std::mem::take(&mut state.delayed);
            while let Some(item) = delayed.pop() {
                left.push(item);
            }
            Some(left)
        };
        drop(state);
        self.room.notify_waiters();
        left
    }

    /// Ends every member's stream.
    pub(super) fn close(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.seats.iter_mut().filter_map(|seat| seat.waker.take()).collect()
        };
        wake(wakers);
        self.room.notify_waiters();
    }

    fn settled(&self, seat: u64) {
        let waker = self.state.lock().release(seat);
        wake(waker);
    }

    fn again(&self, seat: u64, item: Item, delay: Duration) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            let released = state.release(seat);
            if state.closed {
                drop(state);
                if let Some(home) = self.home.upgrade() {
                    home.orphan(self, vec![item]);
                }
                return;
            }
            state.bytes += item.payload.len();
            state.delayed.push(delay, item);
            // Everybody who waits has to set an alarm.
            released.into_iter().chain(state.idle()).collect()
        };
        wake(wakers);
    }
}

/// Counts a publisher as waiting for as long as it lives.
struct Waiting<'a>(&'a Group);

impl<'a> Waiting<'a> {
    fn new(group: &'a Group) -> Self {
        group.state.lock().publishers_waiting += 1;
        Self(group)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().publishers_waiting -= 1;
    }
}

fn dropped(reason: &'static str) {
    counter!("coretex_bus_dropped_total", "bus" => "in_process", "reason" => reason).increment(1);
}

/// A subscription's end of its group.
#[derive(Debug)]
pub(super) struct Member {
    group: Arc<Group>,
    seat: u64,
    alarm: Alarm,
    close: CancellationToken,
}

impl Stream for Member {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let this = &mut *self;
        loop {
            let mut state = this.group.state.lock();
            if state.closed {
                return Poll::Ready(None);
            }
            state.promote();
            let id = this.seat;
            let Some(index) = state.seats.iter().position(|seat| seat.id == id) else {
                return Poll::Ready(None);
            };
            let has_room = state.seats[index].in_flight < state.seats[index].max_in_flight;
            if has_room && let Some(item) = state.pop() {
                if this.group.promise.settles() {
                    state.seats[index].in_flight += 1;
                }
                let publishers_waiting = state.publishers_waiting > 0;
                drop(state);
                if publishers_waiting {
                    this.group.room.notify_waiters();
                }
                return Poll::Ready(Some(this.deliver(item)));
            }
            if this.close.is_cancelled() && state.ready.is_empty() {
                return Poll::Ready(None);
            }
            let seat = &mut state.seats[index];
            match &seat.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => seat.waker = Some(cx.waker().clone()),
            }
            let due = state.delayed.due().filter(|_| has_room);
            drop(state);
            ready!(this.alarm.poll(due, cx));
        }
    }
}

impl Member {
    fn deliver(&self, item: Item) -> Delivery {
        if !self.group.promise.settles() {
            return Delivery::new(item.subject, item.payload, None);
        }
        let (subject, payload) = (item.subject.clone(), item.payload.clone());
        let receipt = Receipt {
            group: Arc::clone(&self.group),
            seat: self.seat,
            item: Some(item),
        };
        Delivery::new(subject, payload, Some(Box::new(receipt)))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(home) = self.group.home.upgrade() {
            home.leave(&self.group, self.seat);
        } else {
            self.group.leave(self.seat);
        }
    }
}

/// What is owed for one delivery. The item is gone once it is settled.
#[derive(Debug)]
struct Receipt {
    group: Arc<Group>,
    seat: u64,
    item: Option<Item>,
}

#[async_trait]
impl Settle for Receipt {
    async fn ack(mut self: Box<Self>) -> Result<(), Error> {
        self.item = None;
        self.group.settled(self.seat);
        Ok(())
    }

    async fn retry_after(mut self: Box<Self>, delay: Duration) -> Result<(), Error> {
        if let Some(item) = self.item.take() {
            self.group.again(self.seat, item, delay);
        }
        Ok(())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        match self.item.take() {
            Some(item) if self.group.promise.redelivers() => self.group.again(self.seat, item, ABANDONED_DELAY),
            Some(_) => self.group.settled(self.seat),
            None => {}
        }
    }
}
