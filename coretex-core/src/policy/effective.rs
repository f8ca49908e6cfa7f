//! What the merged configuration adds to policy. See `docs/spec/policy.md` §5.

use serde_json::Value;

use super::glob::Glob;
use super::input::PolicyInput;
use super::mcp::McpRules;
use super::model::McpLists;

/// The part of an effective configuration that policy looks at, parsed.
#[derive(Debug, Clone, Default)]
pub struct EffectiveSafety {
    denied_topics: Vec<Glob>,
    allowed_topics: Vec<Glob>,
    mcp: McpRules,
    /// What could not be read. Then nothing is allowed: what is unreadable may be a ban.
    unreadable: Option<String>,
}

/// A ban.
pub(super) struct Ban {
    pub(super) reason: String,
    /// Where it is written.
    pub(super) source: String,
}

impl EffectiveSafety {
    /// Reads the JSON text of a configuration. Never fails: what cannot be read forbids everything, with the reason.
    pub fn parse(json: &[u8]) -> Self {
        if json.is_empty() {
            return Self::default();
        }
        read(json).unwrap_or_else(|unreadable| Self {
            unreadable: Some(unreadable),
            ..Self::default()
        })
    }

    /// Why the job may not run, if the configuration says so. The last reason wins.
    pub(super) fn ban(&self, input: &PolicyInput<'_>) -> Option<Ban> {
        let topic = input.topic;
        if let Some(what) = &self.unreadable {
            return Some(Ban {
                reason: format!("effective config cannot be read: {what}"),
                source: format!("effective config: {what}"),
            });
        }
        if let Some(refusal) = self.mcp.refuse(&input.mcp) {
            return Some(Ban {
                reason: refusal.reason(),
                source: format!("effective config: safety.mcp.{} refuses {}", refusal.list(), input.mcp),
            });
        }
        if !self.allowed_topics.is_empty() && !self.allowed_topics.iter().any(|glob| glob.matches(topic)) {
            return Some(Ban {
                reason: format!("topic '{topic}' not allowed by effective config"),
                source: format!("effective config: safety.allowed_topics does not match {topic}"),
            });
        }
        let glob = self.denied_topics.iter().find(|glob| glob.matches(topic))?;
        Some(Ban {
            reason: format!("topic '{topic}' denied by effective config"),
            source: format!("effective config: safety.denied_topics: {glob} matches {topic}"),
        })
    }
}

fn read(json: &[u8]) -> Result<EffectiveSafety, String> {
    let config: Value = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
    let config = match &config {
        Value::Null => return Ok(EffectiveSafety::default()),
        Value::Object(config) => config,
        _ => return Err("not an object".to_owned()),
    };
    let safety = config
        .get("safety")
        .or_else(|| config.get("data").and_then(|data| data.get("safety")));
    let mut found = EffectiveSafety::default();
    let mut mcp = McpLists::default();
    for (name, value) in members(safety, "safety")? {
        match name.as_str() {
            "denied_topics" => found.denied_topics.extend(globs(value, "safety.denied_topics")?),
            "allowed_topics" => found.allowed_topics.extend(globs(value, "safety.allowed_topics")?),
            "mcp" => {
                for (name, value) in members(Some(value), "safety.mcp")? {
                    let list = match name.as_str() {
                        "allow_servers" => &mut mcp.allow_servers,
                        "deny_servers" => &mut mcp.deny_servers,
                        "allow_tools" => &mut mcp.allow_tools,
                        "deny_tools" => &mut mcp.deny_tools,
                        "allow_resources" => &mut mcp.allow_resources,
                        "deny_resources" => &mut mcp.deny_resources,
                        "allow_actions" => &mut mcp.allow_actions,
                        "deny_actions" => &mut mcp.deny_actions,
                        _ => continue,
                    };
                    list.extend(texts(value, "safety.mcp", &name)?);
                }
            }
            _ => {}
        }
    }
    found.mcp = McpRules::new(&mcp);
    Ok(found)
}

/// The members of an object, names in lower case; none for null.
fn members<'a>(value: Option<&'a Value>, path: &str) -> Result<Vec<(String, &'a Value)>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => Ok(map.iter().map(|(name, v)| (name.to_ascii_lowercase(), v)).collect()),
        Some(_) => Err(format!("{path}: not an object")),
    }
}

fn texts(value: &Value, path: &str, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{path}.{name}: not a list of strings");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                // An entry all the same: a list of nothing but null allows nothing.
                Value::Null => Ok(String::new()),
                Value::String(text) => Ok(text.clone()),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn globs(value: &Value, path: &str) -> Result<Vec<Glob>, String> {
    let (parent, name) = path.split_once('.').unwrap_or(("", path));
    texts(value, parent, name)?
        .iter()
        .map(|text| Glob::new(text).map_err(|error| format!("{path}: malformed pattern `{text}`: {error}")))
        .collect()
}
