//! What holds for somebody: the documents of all scopes, merged. See `docs/spec/config.md` §3.

use serde::Serialize;
use serde_json::{Map, Value};

use super::store::{ConfigStore, Document};
use super::{DEFAULT, SYSTEM};
use crate::error::StoreError;
use crate::protocol::canonical::{self, Numbers};

/// The scopes that take part, widest first.
pub const SCOPES: [&str; 5] = [SYSTEM, "org", "team", "workflow", "step"];

/// For whom: one id per scope. An empty id leaves the scope out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    /// Tenant.
    pub org: String,
    /// Team.
    pub team: String,
    /// Workflow.
    pub workflow: String,
    /// Step.
    pub step: String,
}

/// A merged configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The revisions that went into it: `system:3|org:0|team:1|workflow:0|step:0`, 0 where there is no document.
    pub version: String,
    /// The hash of the canonical JSON of `data`.
    pub hash: String,
    /// The configuration.
    pub data: Map<String, Value>,
}

/// Merges the documents of [`SCOPES`]: each top-level member replaces that of the wider scopes whole, also by null.
pub fn merge(documents: [Option<Document>; SCOPES.len()]) -> Snapshot {
    let mut data = Map::new();
    let mut version = String::new();
    for (scope, document) in SCOPES.into_iter().zip(documents) {
        if !version.is_empty() {
            version.push('|');
        }
        version.push_str(scope);
        version.push(':');
        version.push_str(&document.as_ref().map_or(0, |document| document.revision).to_string());
        data.extend(document.into_iter().flat_map(|document| document.data));
    }
    Snapshot {
        version,
        hash: canonical::hash_object(&data, Numbers::Doubles),
        data,
    }
}

/// Reads and merges what holds for somebody, in one round trip.
///
/// # Errors
/// The store's own: what cannot be read is not the same as missing, it may hold a limit or a ban.
pub async fn read_effective(store: &dyn ConfigStore, scopes: &Scopes) -> Result<Snapshot, StoreError> {
    let ids = [DEFAULT, &scopes.org, &scopes.team, &scopes.workflow, &scopes.step];
    let present: Vec<usize> = (0..ids.len()).filter(|i| !ids[*i].is_empty()).collect();
    let names: Vec<(String, String)> = present
        .iter()
        .map(|i| (SCOPES[*i].to_owned(), ids[*i].to_owned()))
        .collect();
    let mut documents = [const { None }; SCOPES.len()];
    for (i, document) in present.into_iter().zip(store.get_many(&names).await?) {
        documents[i] = document;
    }
    Ok(merge(documents))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EMPTY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[track_caller]
    fn check(documents: [Option<(u64, Value)>; 5], version: &str, data: &Value, hash: Option<&str>) {
        let documents = documents.map(|document| {
            document.map(|(revision, data)| Document {
                data: data.as_object().cloned().unwrap_or_default(),
                revision,
                ..Document::default()
            })
        });
        let merged = merge(documents);
        assert_eq!(merged.version, version);
        assert_eq!(&Value::Object(merged.data.clone()), data);
        if let Some(hash) = hash {
            assert_eq!(merged.hash, hash);
        }
    }

    /// docs/spec/config.md §3.
    #[test]
    fn narrower_scopes_replace_whole_members() {
        let none = "system:0|org:0|team:0|workflow:0|step:0";
        check([const { None }; 5], none, &json!({}), Some(EMPTY));
        check(
            [Some((3, json!({}))), None, None, None, Some((1, json!({})))],
            "system:3|org:0|team:0|workflow:0|step:1",
            &json!({}),
            Some(EMPTY),
        );
        let vector = "6580e236b6839749af457feb0d8c9a19a497084b38b054e506be39329f5dde07";
        check(
            [
                Some((1, json!({"timeout": 30}))),
                Some((2, json!({"model": "gpt-4"}))),
                None,
                None,
                None,
            ],
            "system:1|org:2|team:0|workflow:0|step:0",
            &json!({"timeout": 30, "model": "gpt-4"}),
            Some(vector),
        );
        check(
            [
                Some((1, json!({"a": {"x": 1, "y": 2}, "b": 1, "c": 1, "d": 1}))),
                Some((1, json!({"a": {"x": 3}}))),
                Some((4, json!({"b": null}))),
                Some((5, json!({"c": [1, 2]}))),
                Some((6, json!({"d": {}, "e": true}))),
            ],
            "system:1|org:1|team:4|workflow:5|step:6",
            &json!({"a": {"x": 3}, "b": null, "c": [1, 2], "d": {}, "e": true}),
            None,
        );
    }
}
