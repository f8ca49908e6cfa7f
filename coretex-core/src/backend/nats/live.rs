//! Subscriptions to what is live: core NATS, with retries kept in this process (docs/spec/bus.md §3).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use metrics::counter;
use parking_lot::Mutex;

use super::source::Source;
use crate::backend::delayed::{Alarm, Delayed};
use crate::bus::{Delivery, Error, Settle};

/// How many messages of one subscription may wait for their next try.
const MAX_DELAYED: usize = 65_536;

/// A core subscription of which nothing is ever settled.
#[derive(Debug)]
pub(super) struct Tap(Source);

impl Tap {
    pub(super) fn new(subscriber: Source) -> Self {
        Self(subscriber)
    }
}

impl Stream for Tap {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.0
            .poll_next_unpin(cx)
            .map(|message| message.map(|message| Delivery::new(message.subject.into_string(), message.payload, None)))
    }
}

/// A core subscription whose messages can be tried again.
#[derive(Debug)]
pub(super) struct Live {
    subscriber: Source,
    window: Arc<Window>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Window {
    max_in_flight: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    delayed: Delayed<Item>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Item {
    subject: String,
    payload: Bytes,
}

impl Live {
    pub(super) fn new(subscriber: Source, max_in_flight: usize) -> Self {
        Self {
            subscriber,
            window: Arc::new(Window {
                max_in_flight: max_in_flight.max(1),
                state: Mutex::default(),
            }),
            alarm: Alarm::default(),
        }
    }

    fn deliver(&self, item: Item) -> Delivery {
        let (subject, payload) = (item.subject.clone(), item.payload.clone());
        let receipt = Receipt {
            window: Arc::clone(&self.window),
            item: Some(item),
        };
        Delivery::new(subject, payload, Some(Box::new(receipt)))
    }
}

impl Stream for Live {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let this = &mut *self;
        loop {
            let mut state = this.window.state.lock();
            let has_room = state.in_flight < this.window.max_in_flight;
            if has_room {
                // Taken back below, if there is nothing after all.
                state.in_flight += 1;
                if let Some(item) = state.delayed.pop_due() {
                    drop(state);
                    return Poll::Ready(Some(this.deliver(item)));
                }
            }
            state.waker = Some(cx.waker().clone());
            let due = state.delayed.due();
            drop(state);
            if !has_room {
                return Poll::Pending;
            }
            match this.subscriber.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => {
                    return Poll::Ready(Some(this.deliver(Item {
                        subject: message.subject.into_string(),
                        payload: message.payload,
                    })));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => this.window.state.lock().in_flight -= 1,
            }
            ready!(this.alarm.poll(due, cx));
        }
    }
}

/// What is owed for one delivery. The item is gone once it is settled.
#[derive(Debug)]
struct Receipt {
    window: Arc<Window>,
    item: Option<Item>,
}

impl Receipt {
    fn settle(&mut self, again: Option<Duration>) {
        let Some(item) = self.item.take() else { return };
        let waker = {
            let mut state = self.window.state.lock();
            state.in_flight -= 1;
            match again {
                Some(_) if state.delayed.len() >= MAX_DELAYED => {
                    counter!("coretex_bus_dropped_total", "bus" => "nats", "reason" => "too_many_retries").increment(1);
                }
                Some(delay) => state.delayed.push(delay, item),
                None => {}
            }
            // Whether it waits for room or for a message: a retry that comes due sooner needs a new alarm.
            let was_full = state.in_flight + 1 >= self.window.max_in_flight;
            if was_full || again.is_some() {
                state.waker.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[async_trait]
impl Settle for Receipt {
    async fn ack(mut self: Box<Self>) -> Result<(), Error> {
        self.settle(None);
        Ok(())
    }

    async fn retry_after(mut self: Box<Self>, delay: Duration) -> Result<(), Error> {
        self.settle(Some(delay));
        Ok(())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(None);
    }
}
