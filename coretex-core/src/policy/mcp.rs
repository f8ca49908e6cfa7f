//! What a job does over the Model Context Protocol, and what it may. See `docs/spec/policy.md` §3.3.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::model::McpLists;
use super::words::Words;

/// In the order in which they are checked.
const FIELDS: [&str; 4] = ["server", "tool", "resource", "action"];

/// Spellings of the labels, per field.
const LABELS: [[&str; 3]; 4] = [
    ["mcp.server", "mcp_server", "mcpServer"],
    ["mcp.tool", "mcp_tool", "mcpTool"],
    ["mcp.resource", "mcp_resource", "mcpResource"],
    ["mcp.action", "mcp_action", "mcpAction"],
];

/// What a job wants to use.
#[derive(Debug, Clone, Default)]
pub(super) struct McpUse<'a> {
    values: [Cow<'a, str>; 4],
}

impl<'a> McpUse<'a> {
    pub(super) fn from_labels(labels: &'a BTreeMap<String, String>) -> Self {
        let mut values: [Cow<'a, str>; 4] = Default::default();
        if labels.is_empty() {
            return Self { values };
        }
        for (value, spellings) in values.iter_mut().zip(LABELS) {
            *value = spellings
                .iter()
                .filter_map(|label| labels.get(*label))
                .map(|text| text.trim())
                .find(|text| !text.is_empty())
                .unwrap_or_default()
                .into();
        }
        if values[3].chars().any(char::is_uppercase) {
            values[3] = values[3].to_lowercase().into();
        }
        Self { values }
    }

    /// Whether MCP is used at all.
    pub(super) fn any(&self) -> bool {
        self.values.iter().any(|value| !value.is_empty())
    }
}

impl fmt::Display for McpUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (field, value) in FIELDS.iter().zip(&self.values) {
            if !value.is_empty() {
                write!(f, "{separator}{field} {value}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// What may be used.
#[derive(Debug, Clone, Default)]
pub(super) struct McpRules {
    /// Per field.
    lists: [Lists; 4],
}

#[derive(Debug, Clone, Default)]
struct Lists {
    allow: Words,
    deny: Words,
}

/// Why something may not be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    field: &'static str,
    value: &'a str,
    denied: bool,
}

impl Refusal<'_> {
    /// As the decision's reason has it.
    pub(super) fn reason(&self) -> String {
        let verb = if self.denied { "denied" } else { "not allowed" };
        format!("mcp {} '{}' {verb}", self.field, self.value)
    }

    /// The list that says so.
    pub(super) fn list(&self) -> String {
        format!("{}_{}s", if self.denied { "deny" } else { "allow" }, self.field)
    }
}

impl McpRules {
    pub(super) fn new(lists: &McpLists) -> Self {
        let lists = [
            (&lists.allow_servers, &lists.deny_servers),
            (&lists.allow_tools, &lists.deny_tools),
            (&lists.allow_resources, &lists.deny_resources),
            (&lists.allow_actions, &lists.deny_actions),
        ];
        Self {
            lists: lists.map(|(allow, deny)| Lists {
                allow: Words::new(allow),
                deny: Words::new(deny),
            }),
        }
    }

    /// Adds what `other` says.
    pub(super) fn merge(&mut self, other: Self) {
        for (mine, other) in self.lists.iter_mut().zip(other.lists) {
            mine.allow.extend(other.allow);
            mine.deny.extend(other.deny);
        }
    }

    /// Whether both say the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        let same = |a: &Words, b: &Words| a.include(b) && b.include(a);
        self.lists
            .iter()
            .zip(&other.lists)
            .all(|(a, b)| same(&a.allow, &b.allow) && same(&a.deny, &b.deny))
    }

    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.iter().all(|l| l.allow.is_empty() && l.deny.is_empty())
    }

    /// The first field that these lists refuse. A job that uses no MCP is refused nothing.
    pub(super) fn refuse<'u>(&self, used: &'u McpUse<'_>) -> Option<Refusal<'u>> {
        if !used.any() {
            return None;
        }
        for ((lists, field), value) in self.lists.iter().zip(FIELDS).zip(&used.values) {
            let refusal = |denied| Refusal { field, value, denied };
            if lists.deny.find(value).is_some() {
                return Some(refusal(true));
            }
            if !lists.allow.is_empty() && lists.allow.find(value).is_none() {
                return Some(refusal(false));
            }
        }
        None
    }
}
