//! What is paused: topics, pools and workflows of which nothing new is begun. See `docs/spec/config.md` §5.
//!
//! One document, [`PAUSES`], for the whole installation: who schedules reads it, and hears of changes like those of any other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::service::{ConfigService, Error, UpdateError};
use super::store::Document;
use super::{SYSTEM, document_name};
use crate::audit::{Actor, AuditRecord};
use crate::time::Clock;

/// The document of [`SYSTEM`] that says what is paused.
pub const PAUSES: &str = "pauses";

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pausable {
    /// Jobs of this topic are not dispatched.
    Topic,
    /// Workers of this pool get no jobs.
    Pool,
    /// Runs of this workflow begin nothing.
    Workflow,
}

impl Pausable {
    /// The member of the document that lists them.
    fn member(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::Pool => "pools",
            Self::Workflow => "workflows",
        }
    }

    /// The word for one of them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Pool => "pool",
            Self::Workflow => "workflow",
        }
    }
}

/// Who paused something, when and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// All that is paused, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pauses {
    /// Topics.
    pub topics: BTreeMap<String, Pause>,
    /// Pools.
    pub pools: BTreeMap<String, Pause>,
    /// Workflows.
    pub workflows: BTreeMap<String, Pause>,
}

impl Pauses {
    /// What the document says. A member that is there pauses, whatever it says about when and why.
    pub fn of(document: Option<&Document>) -> Self {
        let read = |kind: Pausable| {
            let members = document
                .and_then(|document| document.data.get(kind.member()))
                .and_then(Value::as_object);
            members
                .into_iter()
                .flatten()
                .filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)))
                .map(|(name, value)| (name.clone(), Pause::deserialize(value).unwrap_or_default()))
                .collect()
        };
        Self {
            topics: read(Pausable::Topic),
            pools: read(Pausable::Pool),
            workflows: read(Pausable::Workflow),
        }
    }

    /// The pause of one of them.
    pub fn get(&self, kind: Pausable, name: &str) -> Option<&Pause> {
        match kind {
            Pausable::Topic => self.topics.get(name),
            Pausable::Pool => self.pools.get(name),
            Pausable::Workflow => self.workflows.get(name),
        }
    }
}

/// Pauses and resumes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PauseService {
    config: ConfigService,
    clock: Clock,
}

impl PauseService {
    /// On the configuration of the installation.
    pub fn new(config: ConfigService, clock: Clock) -> Self {
        Self { config, clock }
    }

    /// All that is paused.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be read.
    pub async fn all(&self) -> Result<Pauses, Error> {
        Ok(Pauses::of(self.config.get(SYSTEM, PAUSES).await?.as_ref()))
    }

    /// Pauses something. Pausing it again keeps the first pause. Whether it changed anything.
    ///
    /// # Errors
    /// [`Error`] if the document cannot be read or written.
    pub async fn pause(&self, kind: Pausable, name: &str, reason: &str, by: &Actor) -> Result<bool, Error> {
        let pause = Pause {
            by: by.id.clone(),
            at: self.clock.now().rfc3339(),
            reason: reason.to_owned(),
        };
        let pause = serde_json::to_value(pause).unwrap_or(Value::Bool(true));
        self.edit(kind, name, by, "pause", |paused| match paused.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => {
                paused.insert(name.to_owned(), pause.clone());
                true
            }
            Some(_) => false,
        })
        .await
    }

    /// Lets something go on. Whether it was paused.
    ///
    /// # Errors
    /// [`Error`] if the document cannot be read or written.
    pub async fn resume(&self, kind: Pausable, name: &str, by: &Actor) -> Result<bool, Error> {
        self.edit(kind, name, by, "resume", |paused| paused.remove(name).is_some())
            .await
    }

    async fn edit(
        &self,
        kind: Pausable,
        name: &str,
        by: &Actor,
        verb: &str,
        change: impl Fn(&mut serde_json::Map<String, Value>) -> bool,
    ) -> Result<bool, Error> {
        let record = AuditRecord::by(
            self.clock.now(),
            by,
            &format!("{}.{verb}", kind.as_str()),
            &format!("{}:{name}", kind.as_str()),
        )
        .with("document", document_name(SYSTEM, PAUSES));
        let edit = |document: &mut Document| {
            let member = document
                .data
                .entry(kind.member())
                .or_insert_with(|| Value::Object(serde_json::Map::new()));
            if !member.is_object() {
                *member = Value::Object(serde_json::Map::new());
            }
            Ok::<_, std::convert::Infallible>(member.as_object_mut().is_some_and(&change))
        };
        let audit = |changed: &bool| changed.then(|| record.clone());
        match self.config.update(SYSTEM, PAUSES, edit, audit).await {
            Ok(updated) => Ok(updated.value),
            Err(UpdateError::Config(error)) => Err(error),
            Err(UpdateError::Refused(never)) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_pauses_whatever_it_says() {
        let data = json!({
            "topics": {"job.a": {"by": "anna", "at": "2026-01-01T00:00:00Z", "reason": "broken"}, "job.b": true,
                       "job.c": false, "job.d": null, "job.e": "yes"},
            "pools": ["not", "an", "object"],
        });
        let document = Document {
            data: data.as_object().cloned().unwrap_or_default(),
            ..Document::default()
        };
        let pauses = Pauses::of(Some(&document));
        let topics: Vec<&str> = pauses.topics.keys().map(String::as_str).collect();
        assert_eq!(topics, ["job.a", "job.b", "job.e"]);
        assert_eq!(
            pauses.get(Pausable::Topic, "job.a").map(|pause| pause.reason.as_str()),
            Some("broken")
        );
        assert!(pauses.pools.is_empty() && pauses.workflows.is_empty());
        assert_eq!(Pauses::of(None), Pauses::default());
    }
}
