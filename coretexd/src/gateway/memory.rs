//! `GET /api/v1/memory`: reads what a pointer names. See `docs/spec/http.md` §7.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coretex_core::pointers::{Family, Pointer, PointerError, Stored};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::query::Query;
use super::{App, json};

/// How many members of a collection are shown at most.
const MEMBERS_MAX: usize = 10_000;
const UNSUPPORTED: &str = "unsupported pointer key (only ctx:*, res:*, or mem:*)";

#[derive(Serialize)]
struct Memory<'a> {
    base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    key: &'a str,
    kind: &'static str,
    pointer: &'a str,
    size_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

fn trimmed(text: Option<&str>) -> &str {
    text.unwrap_or_default().trim().trim_matches(['"', '\'']).trim()
}

/// What the query names, and how the answer calls it.
fn named(query: &Query) -> Result<(Pointer, String), ApiError> {
    let key = trimmed(query.text("key"));
    let ptr = trimmed(query.text("ptr"));
    let family = |error| match error {
        PointerError::Family(_) => ApiError::invalid("key", UNSUPPORTED),
        _ => ApiError::invalid("ptr", "invalid pointer"),
    };
    if key.is_empty() && ptr.is_empty() {
        return Err(ApiError::invalid("ptr", "missing ptr or key"));
    }
    if key.is_empty() {
        return Ok((ptr.parse().map_err(family)?, ptr.to_owned()));
    }
    if key.starts_with(Pointer::SCHEME) {
        let pointer = key.parse().map_err(|error| match error {
            PointerError::Family(_) => ApiError::invalid("key", UNSUPPORTED),
            _ => ApiError::invalid("key", "invalid key pointer"),
        })?;
        return Ok((pointer, key.to_owned()));
    }
    let pointer = Pointer::from_key(key).map_err(family)?;
    let shown = if ptr.is_empty() {
        pointer.to_string()
    } else {
        ptr.to_owned()
    };
    Ok((pointer, shown))
}

/// One member of a collection: JSON if it is JSON, else the text.
fn member(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() {
        return Value::String(text.into_owned());
    }
    serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
}

/// What a `mem:` key holds, as a JSON document.
fn document(stored: Stored) -> Result<Vec<u8>, ApiError> {
    let mut document = Map::new();
    let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
    match stored {
        Stored::Bytes(bytes) => {
            put("redis_type", "string".into());
            if std::str::from_utf8(&bytes).is_ok() {
                put("value", member(&bytes));
            } else {
                put("base64", STANDARD.encode(&bytes).into());
            }
        }
        Stored::List(items) => {
            put("redis_type", "list".into());
            put("length", items.len().into());
            put("items", items.iter().map(|item| member(item)).collect());
        }
        Stored::Set(items) => {
            put("redis_type", "set".into());
            put("length", items.len().into());
            put("items", items.iter().map(|item| member(item)).collect());
        }
        Stored::Hash(fields) => {
            put("redis_type", "hash".into());
            put("length", fields.len().into());
            let fields = fields.iter().map(|(name, value)| (name.clone(), member(value)));
            put("items", Value::Object(fields.collect()));
        }
        Stored::Other(kind) => {
            return Err(ApiError::invalid("key", format!("unsupported redis key type: {kind}")));
        }
    }
    serde_json::to_vec(&document).map_err(|_| ApiError::internal())
}

/// Reads what a `ctx:`, `res:` or `mem:` pointer names.
pub(super) async fn get(State(app): State<Arc<App>>, query: Query) -> Result<Response, ApiError> {
    let (pointer, shown) = named(&query)?;
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "not found");
    let kind = match pointer.family() {
        Family::Context => "context",
        Family::Result => "result",
        Family::Memory => "memory",
        Family::Artifact => return Err(ApiError::invalid("key", UNSUPPORTED)),
    };
    let bytes: Bytes = if pointer.family() == Family::Memory {
        let stored = app.services.stores.payloads.inspect(&pointer, MEMBERS_MAX).await?;
        document(stored.ok_or_else(missing)?)?.into()
    } else {
        app.services.stores.payloads.get(&pointer).await?.ok_or_else(missing)?
    };
    Ok(json::ok(&Memory {
        base64: STANDARD.encode(&bytes),
        json: json::raw(&bytes),
        key: pointer.key(),
        kind,
        pointer: &shown,
        size_bytes: bytes.len(),
        text: std::str::from_utf8(&bytes).ok(),
    }))
}
