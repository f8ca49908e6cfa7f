//! The workflow engine's part.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::file::WorkflowsSection;
use super::{Layers, Span, listen_addr};
use crate::env_vars;

/// Where the engine says that it is well, in a process that was started to be one.
const DEFAULT_ADDR: &str = ":9093";
/// How many entries of each timeline are kept.
const TIMELINE_LIMIT: u32 = 10_000;
/// How many runs are taken at once whose time has come.
const SCAN_LIMIT: u32 = 200;

/// The workflow engine's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkflowSettings {
    /// Where health, readiness and metrics are served, beside the metrics port.
    pub addr: Option<SocketAddr>,
    /// After this time without success, what has to be done outside a run is tried again.
    pub scan_interval: Span,
    /// How many runs are taken at once whose time has come.
    pub scan_limit: u32,
    /// How many entries of each timeline are kept, the newest.
    pub timeline_limit: u32,
    /// Runs that ended longer ago are deleted; unset, they are kept.
    pub run_ttl: Option<Span>,
}

pub(super) fn resolve(
    layers: &mut Layers<'_>,
    here: bool,
    named: bool,
    open: bool,
    file: WorkflowsSection,
) -> WorkflowSettings {
    let addr = layers
        .env
        .text(env_vars::WORKFLOW_ENGINE_HTTP_ADDR)
        .or(file.addr)
        .or_else(|| named.then(|| DEFAULT_ADDR.to_owned()))
        .filter(|_| here);
    let addr = addr.and_then(|addr| {
        listen_addr(addr.trim(), open)
            .map_err(|problem| {
                let name = env_vars::WORKFLOW_ENGINE_HTTP_ADDR;
                layers.problems.push(format!("{name}: {problem}"));
            })
            .ok()
    });
    let scan_interval = layers
        .span(env_vars::WORKFLOW_ENGINE_SCAN_INTERVAL)
        .or(file.scan_interval)
        .unwrap_or(Span(Duration::from_secs(5)));
    let scan_limit = layers
        .count(env_vars::WORKFLOW_ENGINE_RUN_SCAN_LIMIT)
        .or(file.scan_limit)
        .filter(|limit| *limit > 0)
        .unwrap_or(SCAN_LIMIT);
    let timeline_limit = layers
        .count(env_vars::WORKFLOW_TIMELINE_LIMIT)
        .or(file.timeline_limit)
        .filter(|limit| *limit > 0)
        .unwrap_or(TIMELINE_LIMIT);
    let run_ttl = layers.span(env_vars::WORKFLOW_RUN_TTL).or(file.run_ttl);
    WorkflowSettings {
        addr,
        scan_interval,
        scan_limit,
        timeline_limit,
        run_ttl,
    }
}
