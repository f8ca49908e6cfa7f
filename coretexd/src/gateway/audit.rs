//! Routes of the audit log. See `docs/spec/http.md` §11.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use coretex_core::audit::{AuditEntry, Error, Head};
use coretex_core::error::chain;
use serde::Serialize;
use tracing::error;

use super::auth::Caller;
use super::error::ApiError;
use super::query::Query;
use super::{App, json};

/// How many entries are sent at most.
const MAX_LIMIT: usize = 1_000;

#[derive(Serialize)]
struct End<'a> {
    seq: u64,
    hash: &'a str,
}

impl<'a> From<&'a Head> for End<'a> {
    fn from(head: &'a Head) -> Self {
        Self {
            seq: head.seq,
            hash: &head.hash,
        }
    }
}

/// The log tells about all tenants: keys with roles need one that may know.
fn may_read(caller: &Caller) -> Result<(), ApiError> {
    if caller.verified {
        caller.require_secops()?;
    }
    Ok(())
}

/// `GET /api/v1/audit`: a page from `from` on, by default the newest.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, query: Query) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        items: &'a [AuditEntry],
        next: Option<u64>,
        head: End<'a>,
    }

    may_read(&caller)?;
    let from = query.text("from").and_then(|from| from.parse().ok());
    let page = app.services.audit.page(from, query.limit(100).min(MAX_LIMIT)).await?;
    let last = page.entries.last().map_or(0, |entry| entry.seq);
    Ok(json::ok(&List {
        items: &page.entries,
        next: (last > 0 && last < page.head.seq).then(|| last.saturating_add(1)),
        head: (&page.head).into(),
    }))
}

/// `GET /api/v1/audit/verify`: proves the chain, or names the first broken place.
pub(super) async fn verify(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Broken<'a> {
        seq: u64,
        what: &'a str,
    }

    #[derive(Serialize)]
    struct Verified<'a> {
        ok: bool,
        entries: u64,
        head: End<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        broken: Option<Broken<'a>>,
    }

    may_read(&caller)?;
    let report = app.services.audit.verify(|_| ()).await?;
    Ok(json::ok(&Verified {
        ok: report.broken.is_none(),
        entries: report.entries,
        head: (&report.head).into(),
        broken: report.broken.as_ref().map(|broken| Broken {
            seq: broken.seq,
            what: &broken.what,
        }),
    }))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(coretex_core::error::StoreError::Unavailable { .. }) => {
                error!(error = %chain(&error), "the audit log did not answer");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "audit_unavailable",
                    "audit log unavailable",
                )
                .retry_after(1)
            }
            error => {
                error!(error = %chain(&error), "the audit log failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_failed", "audit log failed")
                    .detail("the audit log cannot be read; GET /api/v1/audit/verify names the first broken entry")
            }
        }
    }
}
