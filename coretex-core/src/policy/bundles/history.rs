//! Snapshots of all bundles, and the list of what was published and rolled back. See `docs/spec/policy.md` §12.4.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::config::MAX_UPDATE_BYTES;
use crate::protocol::canonical::{self, Numbers};
use crate::protocol::hash::hex;

/// As many snapshots are kept, if there is room for them.
pub const MAX_SNAPSHOTS: usize = 10;
/// As many entries of the list are kept.
pub const MAX_AUDIT_ENTRIES: usize = 100;
/// All snapshots together are at most this large; the rest of the document is small.
const MAX_SNAPSHOT_BYTES: usize = MAX_UPDATE_BYTES - 64 * 1024;

/// All bundles as they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub id: String,
    /// When it was taken.
    #[serde(default)]
    pub created_at: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The bundles, by id.
    #[serde(default)]
    pub bundles: Map<String, Value>,
}

/// A snapshot without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Its name.
    pub id: String,
    /// When it was taken.
    #[serde(default)]
    pub created_at: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Somebody published or rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its name.
    pub id: String,
    /// `publish` or `rollback`.
    pub action: String,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor_id: String,
    /// In which role.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Which bundles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundle_ids: Vec<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What was before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snapshot_before: String,
    /// What is now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snapshot_after: String,
    /// When.
    #[serde(default)]
    pub created_at: String,
}

/// `<time>-<first 10 digits of the hash of the bundles>`.
pub fn snapshot_id(created_at: &str, bundles: &Map<String, Value>) -> String {
    let hash = canonical::hash_object(bundles, Numbers::Doubles);
    format!("{created_at}-{}", &hash[..10])
}

/// `<time>-<first 12 digits of the hash of what was done>`.
pub fn audit_id(action: &str, bundle_ids: &[String], created_at: &str) -> String {
    let what = format!("{action}|{}|{created_at}", bundle_ids.join(","));
    format!("{created_at}-{}", &hex(&Sha256::digest(what))[..12])
}

/// Puts a snapshot first, under an id that no other has, and drops the oldest. Returns it as it is kept.
pub(super) fn keep_snapshot(
    list: &mut Vec<Value>,
    created_at: &str,
    note: &str,
    bundles: &Map<String, Value>,
) -> Snapshot {
    let id = unique(snapshot_id(created_at, bundles), list);
    let snapshot = Snapshot {
        id,
        created_at: created_at.to_owned(),
        note: note.to_owned(),
        bundles: bundles.clone(),
    };
    list.insert(0, serde_json::to_value(&snapshot).unwrap_or_default());
    list.truncate(MAX_SNAPSHOTS);
    fit(list, MAX_SNAPSHOT_BYTES);
    snapshot
}

/// Drops the oldest until the rest fits. The newest stays in any case: if it is too large by itself, its document is refused.
fn fit(list: &mut Vec<Value>, mut room: usize) {
    let fitting = list
        .iter()
        .take_while(|snapshot| {
            let size = snapshot.to_string().len();
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .count();
    list.truncate(fitting.max(1));
}

/// Puts an entry first, and drops the oldest.
pub(super) fn keep_entry(list: &mut Vec<Value>, mut entry: AuditEntry) {
    entry.id = unique(entry.id, list);
    list.insert(0, serde_json::to_value(&entry).unwrap_or_default());
    list.truncate(MAX_AUDIT_ENTRIES);
}

/// What happens twice within a second has one more number.
fn unique(id: String, list: &[Value]) -> String {
    let taken = |id: &str| {
        list.iter()
            .any(|item| item.get("id").and_then(Value::as_str) == Some(id))
    };
    if !taken(&id) {
        return id;
    }
    // Of so many numbers one more than there are items is free.
    (2..list.len() + 3)
        .map(|number| format!("{id}-{number}"))
        .find(|id| !taken(id))
        .unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: &str = "2026-01-02T03:04:05Z";

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    /// docs/spec/policy.md §12.4.
    #[test]
    fn ids_are_those_of_the_vectors() {
        let ids = ["secops/a".to_owned(), "secops/b".to_owned()];
        assert_eq!(audit_id("publish", &ids, AT), "2026-01-02T03:04:05Z-562ab133bbd3");
        // SHA-256 of `{}`.
        assert_eq!(snapshot_id(AT, &Map::new()), "2026-01-02T03:04:05Z-44136fa355");
        // SHA-256 of `{"model":"gpt-4","timeout":30}`: members are sorted, numbers are doubles.
        let bundles = object(&json!({"timeout": 30.0, "model": "gpt-4"}));
        assert_eq!(snapshot_id(AT, &bundles), "2026-01-02T03:04:05Z-6580e236b6");
    }

    #[test]
    fn snapshots_have_ids_of_their_own_and_the_oldest_go() {
        let mut list = Vec::new();
        let bundles = object(&json!({"secops/a": {"content": "rules: []"}}));
        let ids: Vec<String> = (0..12).map(|_| keep_snapshot(&mut list, AT, "", &bundles).id).collect();
        assert_eq!(ids[1], format!("{}-2", ids[0]));
        assert_eq!(list.len(), MAX_SNAPSHOTS);
        assert_eq!(list[0]["id"], *ids[11]);
        assert_eq!(list[9]["id"], *ids[2]);
        assert!(list[0].get("note").is_none());
    }

    #[test]
    fn large_snapshots_push_out_more() {
        let list: Vec<Value> = (0..4)
            .map(|_| json!({"bundles": {"secops/a": "x".repeat(100)}}))
            .collect();
        for (room, expected) in [(1000, 4), (300, 2), (10, 1)] {
            let mut list = list.clone();
            fit(&mut list, room);
            assert_eq!(list.len(), expected, "{room}");
        }
    }

    #[test]
    fn entries_go_after_a_hundred() {
        let mut list = Vec::new();
        for _ in 0..=MAX_AUDIT_ENTRIES {
            let id = audit_id("publish", &[], AT);
            keep_entry(
                &mut list,
                AuditEntry {
                    id,
                    action: "publish".to_owned(),
                    actor_id: String::new(),
                    role: String::new(),
                    bundle_ids: Vec::new(),
                    message: String::new(),
                    snapshot_before: String::new(),
                    snapshot_after: String::new(),
                    created_at: AT.to_owned(),
                },
            );
        }
        assert_eq!(list.len(), MAX_AUDIT_ENTRIES);
    }
}
