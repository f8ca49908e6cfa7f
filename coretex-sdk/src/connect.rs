//! Connections of a worker that is a process of its own.

use std::sync::Arc;

use coretex_core::bus::Bus;
use coretex_core::pointers::PointerStore;

use crate::error::Error;

#[expect(clippy::unused_async, reason = "connecting waits")]
pub(crate) async fn bus(_url: Option<String>) -> Result<Arc<dyn Bus>, Error> {
    Err(Error::Setting {
        setting: "bus",
        reason: "give the worker a bus; it cannot make a connection of its own yet".to_owned(),
    })
}

#[expect(clippy::unused_async, reason = "connecting waits")]
pub(crate) async fn payloads(_url: Option<String>) -> Result<Arc<dyn PointerStore>, Error> {
    Err(Error::Setting {
        setting: "payloads",
        reason: "give the worker a payload store; it cannot make a connection of its own yet".to_owned(),
    })
}
