//! A queue of what is to happen later, in memory.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The longest delay, so that no caller's arithmetic overflows a clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Items that come due; those that do at the same moment keep their order.
#[derive(Debug)]
pub(super) struct Delayed<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    sequence: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

impl<T> Default for Delayed<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            next: 0,
        }
    }
}

impl<T> Delayed<T> {
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn push(&mut self, delay: Duration, item: T) {
        let sequence = self.next;
        self.next += 1;
        self.heap.push(Reverse(Entry {
            due: Instant::now() + delay.min(LONGEST),
            sequence,
            item,
        }));
    }

    /// When the next item comes due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(next)| next.due)
    }

    /// Takes the next item if it is due.
    pub(super) fn pop_due(&mut self) -> Option<T> {
        if self.due()? <= Instant::now() {
            self.pop()
        } else {
            None
        }
    }

    /// Takes the next item, due or not.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|Reverse(next)| next.item)
    }
}

/// Wakes a task when something comes due.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `due`; pending for ever if nothing is to come.
    pub(super) fn poll(&mut self, due: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = due else {
            return Poll::Pending;
        };
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}
