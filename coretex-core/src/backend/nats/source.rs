//! A subscription of the client that can be closed without losing what is on its way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// A closing subscription goes on until nothing has come for so long,
const QUIET: Duration = Duration::from_millis(100);
/// and no longer than this in all. The client forgets a subscription when it tells the server, and drops what the server had
/// sent by then: it is told when nothing is on its way.
const LINGER: Duration = Duration::from_millis(500);

/// The messages of a subject, until some time after `close`.
#[derive(Debug)]
pub(super) struct Source {
    subscriber: Subscriber,
    close: CancellationToken,
    linger: Option<Linger>,
    draining: bool,
}

#[derive(Debug)]
struct Linger {
    quiet: Pin<Box<Sleep>>,
    until: Instant,
}

impl Source {
    pub(super) fn new(subscriber: Subscriber, close: CancellationToken) -> Self {
        Self {
            subscriber,
            close,
            linger: None,
            draining: false,
        }
    }

    /// Whether it is time to tell the server; registers the waker if not.
    fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let linger = self.linger.get_or_insert_with(|| Linger {
            quiet: Box::pin(tokio::time::sleep(QUIET)),
            until: Instant::now() + LINGER,
        });
        Instant::now() >= linger.until || linger.quiet.as_mut().poll(cx).is_ready()
    }
}

impl Stream for Source {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        let closing = !this.draining && this.close.is_cancelled();
        if closing && this.is_quiet(cx) {
            // Only hands a command to the client. If it has no room for one at present, the next look tries again.
            match this.subscriber.drain().now_or_never() {
                Some(_) => this.draining = true,
                None => cx.waker().wake_by_ref(),
            }
        }
        let next = this.subscriber.poll_next_unpin(cx);
        if let (Poll::Ready(Some(_)), Some(linger)) = (&next, &mut this.linger) {
            linger.quiet.as_mut().reset(Instant::now() + QUIET);
        }
        next
    }
}
