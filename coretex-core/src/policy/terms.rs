//! What a rule says about approval, and the safer ways it offers. See `docs/spec/policy.md` §§1.6, 1.7.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde_saphyr::Spanned;

use super::evaluate::TOPIC_PREFIX;
use super::read::{Cursor, Place, Read, fields};
use crate::jobs::{ApprovalTerms, OnExpiry};
use crate::protocol::agent::PolicyRemediation;

/// More people need not be asked.
const MAX_QUORUM: u32 = 100;

/// Terms of approval as they are written. What is left out is said elsewhere.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Approval {
    /// How many distinct principals must say yes; 1 unless set.
    pub quorum: Quorum,
    /// How long after the decision they may: `30m`, `1h30m`, `2d`; for ever unless set.
    pub expires_after: Period,
    /// What happens then; denied unless set.
    pub on_expiry: ExpiryWord,
}

/// A number of people, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quorum(pub Option<u32>);

/// A length of time, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period(pub Option<Duration>);

/// What happens when the time is over, if it is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpiryWord(pub Option<OnExpiry>);

impl Approval {
    /// With what `other` says where this says nothing.
    #[must_use]
    pub(super) fn or(&self, other: &Self) -> Self {
        Self {
            quorum: Quorum(self.quorum.0.or(other.quorum.0)),
            expires_after: Period(self.expires_after.0.or(other.expires_after.0)),
            on_expiry: ExpiryWord(self.on_expiry.0.or(other.on_expiry.0)),
        }
    }

    /// With one yes, for ever, and no after that, where nothing is said.
    pub(super) fn terms(&self) -> ApprovalTerms {
        ApprovalTerms {
            quorum: self.quorum.0.unwrap_or(1),
            expires_after: self.expires_after.0,
            on_expiry: self.on_expiry.0.unwrap_or_default(),
        }
    }
}

/// The terms that are met only if both are.
pub(super) fn strictest_terms(a: &ApprovalTerms, b: &ApprovalTerms) -> ApprovalTerms {
    let on_expiry = match (a.on_expiry, b.on_expiry) {
        (OnExpiry::Allow, OnExpiry::Allow) => OnExpiry::Allow,
        _ => OnExpiry::Deny,
    };
    ApprovalTerms {
        quorum: a.quorum.max(b.quorum),
        expires_after: match (a.expires_after, b.expires_after, on_expiry) {
            (Some(a), Some(b), OnExpiry::Deny) => Some(a.min(b)),
            (a, b, OnExpiry::Deny) => a.or(b),
            // A job that then runs has to wait as long as either says.
            (Some(a), Some(b), OnExpiry::Allow) => Some(a.max(b)),
            (_, _, OnExpiry::Allow) => None,
        },
        on_expiry,
    }
}

/// A safer way to ask for the same thing.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Remediation {
    /// Its name; required, unique within the rule.
    pub id: String,
    /// In a few words.
    pub title: String,
    /// In more.
    pub summary: String,
    /// The topic to use instead.
    pub replacement_topic: String,
    /// The capability to use instead.
    pub replacement_capability: String,
    /// Labels to add.
    pub add_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
    #[schemars(skip)]
    place: Place,
}

impl PartialEq for Remediation {
    /// Where it is written does not count.
    fn eq(&self, other: &Self) -> bool {
        self.to_wire() == other.to_wire()
    }
}

impl Remediation {
    pub(super) fn to_wire(&self) -> PolicyRemediation {
        PolicyRemediation {
            id: self.id.clone(),
            title: self.title.clone(),
            summary: self.summary.clone(),
            replacement_topic: self.replacement_topic.trim().to_owned(),
            replacement_capability: self.replacement_capability.trim().to_owned(),
            add_labels: self.add_labels.clone(),
            remove_labels: self.remove_labels.clone(),
        }
    }
}

fields!(Approval {
    "quorum" => quorum,
    "expires_after" => expires_after,
    "on_expiry" => on_expiry,
});
fields!(Remediation {
    "id" => id,
    "title" => title,
    "summary" => summary,
    "replacement_topic" => replacement_topic,
    "replacement_capability" => replacement_capability,
    "add_labels" => add_labels,
    "remove_labels" => remove_labels,
} done check_remediation);

/// What a remediation must have.
fn check_remediation(remediation: &mut Remediation, place: Place, _: (usize, usize), at: &Cursor) {
    remediation.place = place;
    if remediation.id.trim().is_empty() {
        at.problem(place, "id: missing or empty");
    }
    let topic = remediation.replacement_topic.trim();
    if !topic.is_empty() {
        let literal = topic.len() > TOPIC_PREFIX.len()
            && topic.starts_with(TOPIC_PREFIX)
            && !topic.contains(|c: char| c.is_whitespace() || "*?[]\\>".contains(c));
        if !literal {
            at.problem(
                place,
                format!(
                    "replacement_topic: `{}` is no topic; expected one like job.safer, without wildcards",
                    topic.escape_debug()
                ),
            );
        }
    }
    if let Some(label) = remediation.add_labels.keys().find(|label| {
        let label = label.to_ascii_lowercase();
        label.starts_with("approval_") || label.starts_with("coretex.")
    }) {
        at.problem(place, format!("add_labels: `{}` is reserved", label.escape_debug()));
    }
    if topic.is_empty()
        && remediation.replacement_capability.trim().is_empty()
        && remediation.add_labels.is_empty()
        && remediation.remove_labels.is_empty()
    {
        at.problem(
            place,
            "changes nothing; expected replacement_topic, replacement_capability, add_labels or remove_labels",
        );
    }
}

/// Ids are unique within a rule.
pub(super) fn check_unique(remediations: &[Remediation], at: &Cursor) {
    let mut seen = HashSet::new();
    for remediation in remediations {
        if !remediation.id.is_empty() && !seen.insert(remediation.id.as_str()) {
            at.problem(
                remediation.place,
                format!("remediations: id `{}` is used twice", remediation.id.escape_debug()),
            );
        }
    }
}

/// A scalar as it is written; `None` if it says nothing.
fn scalar<'de, D: Deserializer<'de>>(de: D) -> Result<(Option<String>, Place), D::Error> {
    let word: Spanned<Option<String>> = serde::Deserialize::deserialize(de)?;
    let place = Place::from(&word);
    let text = word.value.map(|text| text.trim().to_owned());
    Ok((text.filter(|text| !text.is_empty()), place))
}

impl Read for Quorum {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let (text, place) = scalar(de)?;
        let Some(text) = text else { return Ok(Self(None)) };
        let quorum = text.parse().ok().filter(|quorum| (1..=MAX_QUORUM).contains(quorum));
        if quorum.is_none() {
            at.problem(
                place,
                format!(
                    "`{}`; expected a whole number from 1 to {MAX_QUORUM}",
                    text.escape_debug()
                ),
            );
        }
        Ok(Self(quorum))
    }
}

impl Read for Period {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let (text, place) = scalar(de)?;
        let Some(text) = text else { return Ok(Self(None)) };
        let period = duration(&text);
        if period.is_none() {
            at.problem(
                place,
                format!(
                    "`{}` is no duration; expected one like 30m, 1h30m or 2d",
                    text.escape_debug()
                ),
            );
        }
        Ok(Self(period))
    }
}

/// At least a millisecond, in whole milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    let millis = u64::try_from(duration.as_millis()).ok().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis))
}

impl Read for ExpiryWord {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let (text, place) = scalar(de)?;
        let Some(text) = text else { return Ok(Self(None)) };
        let word = match text.to_lowercase().as_str() {
            "deny" => Some(OnExpiry::Deny),
            "allow" => Some(OnExpiry::Allow),
            _ => {
                at.problem(
                    place,
                    format!("unknown word `{}`; expected deny or allow", text.escape_debug()),
                );
                None
            }
        };
        Ok(Self(word))
    }
}

/// The terms of a rule that has some.
impl Read for Option<Approval> {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        Approval::read(de, at).map(Some)
    }
}

impl JsonSchema for Quorum {
    fn schema_name() -> Cow<'static, str> {
        "Quorum".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "null"], "minimum": 1, "maximum": MAX_QUORUM })
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "`30m`, `1h30m`, `2d`", "type": ["string", "null"] })
    }
}

impl JsonSchema for ExpiryWord {
    fn schema_name() -> Cow<'static, str> {
        "OnExpiry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["deny", "allow", null] })
    }
}
