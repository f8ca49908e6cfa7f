//! A subscription of the client that can be closed without losing what is on its way.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber};
use futures::{FutureExt, Stream, StreamExt};
use tokio_util::sync::CancellationToken;

/// The messages of a subject. After `close` the server is told to send no more, and the stream ends with the last one that it
/// had sent before.
#[derive(Debug)]
pub(super) struct Source {
    subscriber: Subscriber,
    close: CancellationToken,
    draining: bool,
}

impl Source {
    pub(super) fn new(subscriber: Subscriber, close: CancellationToken) -> Self {
        Self {
            subscriber,
            close,
            draining: false,
        }
    }
}

impl Stream for Source {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        if !this.draining && this.close.is_cancelled() {
            // Only hands a command to the client. If it has no room for one at present, the next look tries again.
            match this.subscriber.drain().now_or_never() {
                Some(_) => this.draining = true,
                None => cx.waker().wake_by_ref(),
            }
        }
        this.subscriber.poll_next_unpin(cx)
    }
}
