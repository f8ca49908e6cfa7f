//! Configuration out of the store, over that of the files.
//!
//! What is stored was written by several programs over several years: members that we do not know are passed over, and the
//! capitalised copies that older control planes left behind fill in only what neither the file nor the lower-case members
//! state.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::timeouts::MAX_SECONDS;
use super::{Pool, Routing, Timeouts, TopicTimeouts, WorkflowTimeouts};

/// A member of `cfg:system:default` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` must be {expected}")]
pub struct OverlayError {
    /// Where it is: `pools.topics.job.x`.
    pub path: String,
    /// What should be there.
    pub expected: &'static str,
}

fn wrong(path: impl Into<String>, expected: &'static str) -> OverlayError {
    OverlayError {
        path: path.into(),
        expected,
    }
}

type Object = Map<String, Value>;

/// The object itself; `None` if it is absent or null.
fn object<'v>(value: Option<&'v Value>, path: &str) -> Result<Option<&'v Object>, OverlayError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(_) => Err(wrong(path, "an object")),
    }
}

/// The entries of the object at `key`, without those that are null.
fn entries<'v>(
    members: &'v Object,
    key: &str,
    path: &str,
) -> Result<Vec<(&'v String, &'v Value, String)>, OverlayError> {
    let path = format!("{path}.{key}");
    Ok(object(members.get(key), &path)?
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name, value, format!("{path}.{name}")))
        .collect())
}

fn names(value: &Value, path: &str, expected: &'static str) -> Result<Vec<String>, OverlayError> {
    let name = |value: &Value| {
        let text = value.as_str().filter(|text| !text.trim().is_empty());
        text.map(str::to_owned).ok_or_else(|| wrong(path, expected))
    };
    match value {
        Value::Array(items) => items.iter().map(name).collect(),
        one => Ok(vec![name(one)?]),
    }
}

pub(super) fn merge_routing(file: &Routing, overlay: Option<&Value>) -> Result<Routing, OverlayError> {
    let mut merged = file.clone();
    let Some(members) = object(overlay, "pools")? else {
        return Ok(merged);
    };
    for (topic, value, path) in entries(members, "topics", "pools")? {
        merged.topics.insert(topic.clone(), served_by(value, &path)?);
    }
    for (topic, value, path) in entries(members, "Topics", "pools")? {
        if !merged.topics.contains_key(topic) {
            merged.topics.insert(topic.clone(), served_by(value, &path)?);
        }
    }
    for (name, value, path) in entries(members, "pools", "pools")? {
        let requires = requires(value, "requires", &path)?;
        // An emptied shell, as removed packs leave it, says nothing about what the pool offers.
        let pool = merged.pools.entry(name.clone()).or_default();
        if let Some(requires) = requires {
            pool.requires = requires;
        }
    }
    for (name, value, path) in entries(members, "Pools", "pools")? {
        let requires = requires(value, "Requires", &path)?.unwrap_or_default();
        merged.pools.entry(name.clone()).or_insert(Pool { requires });
    }
    Ok(merged)
}

fn served_by(value: &Value, path: &str) -> Result<Vec<String>, OverlayError> {
    const EXPECTED: &str = "the name of a pool, or a list of names";
    let mut pools = Vec::new();
    for name in names(value, path, EXPECTED)? {
        if !pools.contains(&name) {
            pools.push(name);
        }
    }
    if pools.is_empty() {
        return Err(wrong(path, EXPECTED));
    }
    Ok(pools)
}

fn requires(pool: &Value, key: &str, path: &str) -> Result<Option<Vec<String>>, OverlayError> {
    let Some(members) = object(Some(pool), path)? else {
        return Ok(None);
    };
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) if value.is_array() => names(value, &format!("{path}.{key}"), "a list of names").map(Some),
        Some(_) => Err(wrong(format!("{path}.{key}"), "a list of names")),
    }
}

pub(super) fn merge_timeouts(file: &Timeouts, overlay: Option<&Value>) -> Result<Timeouts, OverlayError> {
    let mut merged = file.clone();
    let Some(members) = object(overlay, "timeouts")? else {
        return Ok(merged);
    };
    // The capitalised reconciler section is a copy of a file that once was; this file is newer.
    if let Some(reconciler) = object(members.get("reconciler"), "timeouts.reconciler")? {
        for (slot, key) in [
            (&mut merged.dispatch_timeout, "dispatch_timeout_seconds"),
            (&mut merged.running_timeout, "running_timeout_seconds"),
            (&mut merged.scan_interval, "scan_interval_seconds"),
        ] {
            if let Some(duration) = seconds(reconciler, key, "timeouts.reconciler")? {
                *slot = duration;
            }
        }
    }
    for (section, spelling) in [("topics", &LOWER), ("Topics", &UPPER)] {
        for (topic, value, path) in entries(members, section, "timeouts")? {
            let Some(stated) = object(Some(value), &path)? else {
                continue;
            };
            let stated = TopicTimeouts {
                timeout: seconds(stated, spelling.timeout, &path)?,
                max_retries: count(stated, spelling.retries, &path)?,
            };
            let known = slot(&mut merged.topics, topic);
            layer(&mut known.timeout, stated.timeout, spelling);
            layer(&mut known.max_retries, stated.max_retries, spelling);
        }
    }
    for (section, spelling) in [("workflows", &LOWER), ("Workflows", &UPPER)] {
        for (workflow, value, path) in entries(members, section, "timeouts")? {
            let Some(stated) = object(Some(value), &path)? else {
                continue;
            };
            let stated = WorkflowTimeouts {
                child_timeout: seconds(stated, spelling.child, &path)?,
                total_timeout: seconds(stated, spelling.total, &path)?,
                max_retries: count(stated, spelling.retries, &path)?,
            };
            let known = slot(&mut merged.workflows, workflow);
            layer(&mut known.child_timeout, stated.child_timeout, spelling);
            layer(&mut known.total_timeout, stated.total_timeout, spelling);
            layer(&mut known.max_retries, stated.max_retries, spelling);
        }
    }
    Ok(merged)
}

struct Spelling {
    timeout: &'static str,
    retries: &'static str,
    child: &'static str,
    total: &'static str,
    /// Whether it only fills in what is not stated otherwise.
    fills: bool,
}

const LOWER: Spelling = Spelling {
    timeout: "timeout_seconds",
    retries: "max_retries",
    child: "child_timeout_seconds",
    total: "total_timeout_seconds",
    fills: false,
};

const UPPER: Spelling = Spelling {
    timeout: "TimeoutSeconds",
    retries: "MaxRetries",
    child: "ChildTimeoutSeconds",
    total: "TotalTimeoutSeconds",
    fills: true,
};

fn slot<'m, T: Default>(map: &'m mut BTreeMap<String, T>, key: &str) -> &'m mut T {
    map.entry(key.to_owned()).or_default()
}

fn layer<T>(known: &mut Option<T>, stated: Option<T>, spelling: &Spelling) {
    if stated.is_some() && !(spelling.fills && known.is_some()) {
        *known = stated;
    }
}

/// A time limit; zero, which older control planes write for "not stated", is none.
fn seconds(members: &Object, key: &str, path: &str) -> Result<Option<Duration>, OverlayError> {
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(0) => Ok(None),
            Some(seconds) if seconds <= MAX_SECONDS => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(wrong(
                format!("{path}.{key}"),
                "a whole number of seconds from 1 to ten years",
            )),
        },
    }
}

fn count(members: &Object, key: &str, path: &str) -> Result<Option<u32>, OverlayError> {
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .map(Some)
            .ok_or_else(|| wrong(format!("{path}.{key}"), "a whole number, zero or more")),
    }
}
