//! How long things may take: the contents of `timeouts.yaml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{ConfigError, OverlayError, overlay, yaml};

/// Time limits: of the reconciler, of topics and of workflows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a dispatched job may wait to be started.
    pub dispatch_timeout: Duration,
    /// How long a job may run.
    pub running_timeout: Duration,
    /// How often the reconciler looks.
    pub scan_interval: Duration,
    /// By topic.
    pub topics: BTreeMap<String, TopicTimeouts>,
    /// By workflow id.
    pub workflows: BTreeMap<String, WorkflowTimeouts>,
}

/// Limits of the jobs of one topic, for who enforces them. What is `None` is not stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TopicTimeouts {
    /// How long such a job may run.
    #[serde(
        rename = "timeout_seconds",
        serialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    /// How often it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// Limits of the runs of one workflow, for who enforces them. What is `None` is not stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WorkflowTimeouts {
    /// How long a step may take.
    #[serde(
        rename = "child_timeout_seconds",
        serialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub child_timeout: Option<Duration>,
    /// How long a run may take.
    #[serde(
        rename = "total_timeout_seconds",
        serialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub total_timeout: Option<Duration>,
    /// How often a step may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dispatch_timeout: Duration::from_secs(300),
            running_timeout: Duration::from_secs(9_000),
            scan_interval: Duration::from_secs(30),
            topics: BTreeMap::new(),
            workflows: BTreeMap::new(),
        }
    }
}

impl Timeouts {
    /// Reads a timeouts file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and what is wrong there.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = yaml::read(path)?;
        Self::from_yaml(&path.to_string_lossy(), &text)
    }

    /// Reads the text of a timeouts file; `file` is only for errors. What it does not state has its default.
    ///
    /// # Errors
    /// [`ConfigError`] names the line and what is wrong there.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = yaml::parse(file, text)?;
        let mut timeouts = Self::default();
        let reconciler = raw.reconciler.unwrap_or_default();
        for (slot, seconds) in [
            (&mut timeouts.dispatch_timeout, reconciler.dispatch_timeout_seconds),
            (&mut timeouts.running_timeout, reconciler.running_timeout_seconds),
            (&mut timeouts.scan_interval, reconciler.scan_interval_seconds),
        ] {
            if let Some(Seconds(duration)) = seconds {
                *slot = duration;
            }
        }
        for (topic, raw) in raw.topics.unwrap_or_default() {
            let raw = raw.unwrap_or_default();
            timeouts.topics.insert(
                topic,
                TopicTimeouts {
                    timeout: raw.timeout_seconds.map(|s| s.0),
                    max_retries: raw.max_retries,
                },
            );
        }
        for (workflow, raw) in raw.workflows.unwrap_or_default() {
            let raw = raw.unwrap_or_default();
            timeouts.workflows.insert(
                workflow,
                WorkflowTimeouts {
                    child_timeout: raw.child_timeout_seconds.map(|s| s.0),
                    total_timeout: raw.total_timeout_seconds.map(|s| s.0),
                    max_retries: raw.max_retries,
                },
            );
        }
        Ok(timeouts)
    }

    /// The file's limits with the `timeouts` member of `cfg:system:default` over them, key by key. Without an overlay they
    /// are the file's again.
    ///
    /// # Errors
    /// [`OverlayError`] names the member that cannot be used; whoever calls keeps what it had.
    pub fn merged(file: &Self, overlay: Option<&Value>) -> Result<Self, OverlayError> {
        overlay::merge_timeouts(file, overlay)
    }
}

/// As the file spells it.
impl Serialize for Timeouts {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            workflows: &'a BTreeMap<String, WorkflowTimeouts>,
            topics: &'a BTreeMap<String, TopicTimeouts>,
            reconciler: Reconciler,
        }

        #[derive(Serialize)]
        #[expect(clippy::struct_field_names, reason = "the keys of the file")]
        struct Reconciler {
            dispatch_timeout_seconds: u64,
            running_timeout_seconds: u64,
            scan_interval_seconds: u64,
        }

        Shape {
            workflows: &self.workflows,
            topics: &self.topics,
            reconciler: Reconciler {
                dispatch_timeout_seconds: self.dispatch_timeout.as_secs(),
                running_timeout_seconds: self.running_timeout.as_secs(),
                scan_interval_seconds: self.scan_interval.as_secs(),
            },
        }
        .serialize(out)
    }
}

#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn seconds<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs()).serialize(out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    workflows: Option<BTreeMap<String, Option<RawWorkflow>>>,
    topics: Option<BTreeMap<String, Option<RawTopic>>>,
    reconciler: Option<RawReconciler>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the keys of the file")]
struct RawReconciler {
    dispatch_timeout_seconds: Option<Seconds>,
    running_timeout_seconds: Option<Seconds>,
    scan_interval_seconds: Option<Seconds>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTopic {
    timeout_seconds: Option<Seconds>,
    max_retries: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawWorkflow {
    child_timeout_seconds: Option<Seconds>,
    total_timeout_seconds: Option<Seconds>,
    max_retries: Option<u32>,
}

/// A whole number of seconds, at least one and at most [`MAX_SECONDS`].
struct Seconds(Duration);

/// Ten years: more is a mistake of units.
pub(super) const MAX_SECONDS: u64 = 10 * 366 * 86_400;

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Positive;

        impl Visitor<'_> for Positive {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number of seconds from 1 to {MAX_SECONDS}")
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                if (1..=MAX_SECONDS).contains(&seconds) {
                    Ok(Seconds(Duration::from_secs(seconds)))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Unsigned(seconds), &self))
                }
            }

            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                match u64::try_from(seconds) {
                    Ok(seconds) => self.visit_u64(seconds),
                    Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(seconds), &self)),
                }
            }
        }

        input.deserialize_i64(Positive)
    }
}
