//! The rules of all bundles as they are written. See `docs/spec/policy.md` §12.3.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::stored::{is_enabled, text};
use super::summary::member;
use crate::policy::model::{Document, parse_value};

/// The rules of all bundles.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RuleList {
    /// Bundles without rules, because they cannot be read. They are not in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<RuleError>,
    /// The rules, each with a member `source`.
    pub items: Vec<Map<String, Value>>,
}

/// A bundle that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleError {
    /// Which one.
    pub fragment_id: String,
    /// Why not.
    pub error: String,
}

/// Where a rule is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSource {
    /// The bundle.
    pub fragment_id: String,
    /// The part of its id before the first slash.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pack_id: String,
    /// The part after it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub overlay_name: String,
    /// The version of its pack.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// When its pack was installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub installed_at: String,
    /// The hash of its text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

impl RuleSource {
    fn new(id: &str, bundle: &Value) -> Self {
        let (pack, overlay) = id.split_once('/').unwrap_or((id, ""));
        Self {
            fragment_id: id.to_owned(),
            pack_id: pack.to_owned(),
            overlay_name: overlay.to_owned(),
            version: member(bundle, "version"),
            installed_at: member(bundle, "installed_at"),
            sha256: member(bundle, "sha256"),
        }
    }
}

/// Lists the rules of bundles, by id; those of disabled ones only if asked for.
pub(super) fn list(bundles: &Map<String, Value>, include_disabled: bool) -> RuleList {
    let mut list = RuleList::default();
    for (id, bundle) in bundles {
        if !include_disabled && !is_enabled(bundle) {
            continue;
        }
        let Some(text) = text(bundle).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        match rules(text, id) {
            Ok(rules) => {
                let source = serde_json::to_value(RuleSource::new(id, bundle)).unwrap_or_default();
                list.items.extend(rules.into_iter().map(|mut rule| {
                    rule.insert("source".to_owned(), source.clone());
                    rule
                }));
            }
            Err(error) => list.errors.push(RuleError {
                fragment_id: id.clone(),
                error,
            }),
        }
    }
    list
}

fn rules(text: &str, id: &str) -> Result<Vec<Map<String, Value>>, String> {
    Document::parse(text.as_bytes(), id).map_err(|error| error.to_string())?;
    let mut written = parse_value(text).map_err(|error| error.to_string())?;
    let rules: Vec<Map<String, Value>> = match written.get_mut("rules").map(Value::take) {
        Some(Value::Array(rules)) => rules.into_iter().filter_map(into_object).collect(),
        _ => Vec::new(),
    };
    if !rules.is_empty() {
        return Ok(rules);
    }
    let tenants = written.get("tenants").and_then(Value::as_object);
    Ok(tenants
        .into_iter()
        .flatten()
        .flat_map(|(tenant, policy)| derived(tenant, policy))
        .filter_map(into_object)
        .collect())
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// The rules that stand for the topic lists of a tenant, numbered as decisions name them.
fn derived(tenant: &str, policy: &Value) -> Vec<Value> {
    let mcp = policy.get("mcp").filter(|mcp| !mcp.is_null());
    let mut rules = Vec::new();
    for (list, word) in [("deny_topics", "deny"), ("allow_topics", "allow")] {
        let topics = policy.get(list).and_then(Value::as_array);
        let topics = topics.into_iter().flatten().filter_map(|topic| match topic {
            Value::String(topic) => Some(topic.trim().to_owned()),
            Value::Null => None,
            other => Some(other.to_string()),
        });
        for (number, topic) in (1..).zip(topics) {
            if topic.is_empty() {
                continue;
            }
            let mut rule = json!({
                "id": format!("legacy:{tenant}:{word}:{number}"),
                "decision": word,
                "match": {"tenants": [tenant], "topics": [topic]},
            });
            if word == "deny" {
                rule["reason"] = format!("topic '{topic}' denied by tenant policy").into();
            }
            if let Some(mcp) = mcp {
                rule["match"]["mcp"] = mcp.clone();
            }
            rules.push(rule);
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(bundles: &Value, include_disabled: bool) -> Value {
        serde_json::to_value(list(bundles.as_object().unwrap(), include_disabled)).unwrap()
    }

    /// docs/spec/policy.md §12.3.
    #[test]
    fn rules_are_listed_as_written() {
        let bundles = json!({
            "sre/limits/x": {
                "content": "rules:\n- id: r1\n  decision: deny\n  owner: {1: ops, yes: 2}\n  match: {topics: [job.a]}\n- null\n",
                "version": "1.0", "installed_at": "t", "sha256": "s",
            },
            "core": "rules: [{id: r2, decision: allow}]",
            "secops/off": {"content": "rules: [{id: r3, decision: allow}]", "enabled": false},
            "secops/none": {"content": "rules: []"},
            "secops/blank": {"content": " "},
            "secops/number": 7,
        });
        let core = json!({"id": "r2", "decision": "allow", "source": {"fragment_id": "core", "pack_id": "core"}});
        let off = json!({"id": "r3", "decision": "allow",
            "source": {"fragment_id": "secops/off", "pack_id": "secops", "overlay_name": "off"}});
        let sre = json!({"id": "r1", "decision": "deny", "owner": {"1": "ops", "yes": 2}, "match": {"topics": ["job.a"]},
            "source": {"fragment_id": "sre/limits/x", "pack_id": "sre", "overlay_name": "limits/x", "version": "1.0",
                "installed_at": "t", "sha256": "s"}});
        assert_eq!(listed(&bundles, false), json!({"items": [core, sre]}));
        assert_eq!(listed(&bundles, true), json!({"items": [core, off, sre]}));
        assert_eq!(listed(&json!({}), true), json!({"items": []}));
    }

    #[test]
    fn topics_of_tenants_are_listed_as_rules() {
        let bundles = json!({"secops/t": {"content":
            "tenants:\n  b: {allow_topics: [job.b]}\n  a:\n    deny_topics: ['', ' job.x ']\n    mcp: {deny_tools: [t]}\n"}});
        let source = json!({"fragment_id": "secops/t", "pack_id": "secops", "overlay_name": "t"});
        assert_eq!(
            listed(&bundles, false),
            json!({"items": [
                {"id": "legacy:a:deny:2", "decision": "deny", "reason": "topic 'job.x' denied by tenant policy",
                 "match": {"tenants": ["a"], "topics": ["job.x"], "mcp": {"deny_tools": ["t"]}}, "source": source},
                {"id": "legacy:b:allow:1", "decision": "allow", "match": {"tenants": ["b"], "topics": ["job.b"]}, "source": source},
            ]})
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let bundles = json!({
            "secops/bad": {"content": "rules: [{id: r1, decision: perhaps}]"},
            "secops/worse": {"content": "rules: ["},
            "secops/z": {"content": "rules: [{id: z, decision: deny}]"},
        });
        let list = list(bundles.as_object().unwrap(), false);
        let ids: Vec<&str> = list.errors.iter().map(|error| &*error.fragment_id).collect();
        assert_eq!(ids, ["secops/bad", "secops/worse"]);
        assert!(list.errors[0].error.contains("unknown decision `perhaps`"), "{list:?}");
        assert_eq!(list.items.len(), 1);
    }
}
