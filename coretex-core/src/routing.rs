//! Which pools serve a topic, and how long things may take. See `docs/spec/configuration.md` §1–3.

mod overlay;
mod timeouts;
pub(crate) mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::Serialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Unexpected, Visitor};
use serde_json::Value;

pub use overlay::OverlayError;
pub use timeouts::{Timeouts, TopicTimeouts, WorkflowTimeouts};
pub use yaml::ConfigError;

use crate::config::Pauses;

/// Topics to pools, and what pools offer: the contents of `pools.yaml`, or of the `pools` member of `cfg:system:default`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Routing {
    topics: BTreeMap<String, Vec<String>>,
    pools: BTreeMap<String, Pool>,
    /// Topics and pools that somebody paused, whether or not they are known here.
    #[serde(skip)]
    paused_topics: BTreeSet<String>,
    #[serde(skip)]
    paused_pools: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct Pool {
    requires: Vec<String>,
}

impl Routing {
    /// Reads a pools file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and what is wrong there.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = yaml::read(path)?;
        Self::from_yaml(&path.to_string_lossy(), &text)
    }

    /// Reads the text of a pools file; `file` is only for errors.
    ///
    /// # Errors
    /// [`ConfigError`] names the line and what is wrong there.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = yaml::parse(file, text)?;
        let topics: BTreeMap<_, _> = raw
            .topics
            .unwrap_or_default()
            .into_iter()
            .map(|(topic, pools)| (topic.0, pools.0))
            .collect();
        if topics.is_empty() {
            return Err(ConfigError::whole(
                file,
                "no topics: `topics` maps each topic to the pools that serve it",
            ));
        }
        let pools = raw
            .pools
            .unwrap_or_default()
            .into_iter()
            .map(|(name, pool)| {
                let requires = pool.and_then(|pool| pool.requires).unwrap_or_default();
                (name.0, Pool { requires })
            })
            .collect();
        Ok(Self {
            topics,
            pools,
            ..Self::default()
        })
    }

    /// Also serves `topic` by these pools, instead of what served it before.
    #[must_use]
    pub fn with_topic<P: Into<String>>(mut self, topic: &str, pools: impl IntoIterator<Item = P>) -> Self {
        self.topics
            .insert(topic.to_owned(), pools.into_iter().map(Into::into).collect());
        self
    }

    /// Also knows what `pool` offers.
    #[must_use]
    pub fn with_pool<R: Into<String>>(mut self, pool: &str, offers: impl IntoIterator<Item = R>) -> Self {
        let requires = offers.into_iter().map(Into::into).collect();
        self.pools.insert(pool.to_owned(), Pool { requires });
        self
    }

    /// The file's routing with the `pools` member of `cfg:system:default` over it, topic by topic and pool by pool.
    /// Without an overlay it is the file's again.
    ///
    /// # Errors
    /// [`OverlayError`] names the member that cannot be used; whoever calls keeps what it had.
    pub fn merged(file: &Self, overlay: Option<&Value>) -> Result<Self, OverlayError> {
        overlay::merge_routing(file, overlay)
    }

    /// With these topics and pools paused, and no others.
    #[must_use]
    pub fn with_pauses(mut self, pauses: &Pauses) -> Self {
        self.paused_topics = pauses.topics.keys().cloned().collect();
        self.paused_pools = pauses.pools.keys().cloned().collect();
        self
    }

    /// Whether jobs of a topic are held back.
    pub fn is_topic_paused(&self, topic: &str) -> bool {
        self.paused_topics.contains(topic)
    }

    /// Whether the workers of a pool get no jobs.
    pub fn is_pool_paused(&self, pool: &str) -> bool {
        self.paused_pools.contains(pool)
    }

    /// The pools that serve a topic, in order of preference; empty if none does.
    pub fn pools_of(&self, topic: &str) -> &[String] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// What a pool offers to jobs that require something.
    pub fn requires_of(&self, pool: &str) -> &[String] {
        self.pools.get(pool).map_or(&[], |pool| &pool.requires)
    }

    /// Every topic with its pools, by name.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.topics
            .iter()
            .map(|(topic, pools)| (topic.as_str(), pools.as_slice()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    topics: Option<BTreeMap<Topic, PoolList>>,
    pools: Option<BTreeMap<PoolName, Option<RawPool>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    requires: Option<Vec<String>>,
}

macro_rules! name {
    ($name:ident, $what:literal) => {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        struct $name(String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let name = String::deserialize(input)?;
                if name.trim().is_empty() {
                    return Err(D::Error::custom(concat!($what, " is empty")));
                }
                Ok(Self(name))
            }
        }
    };
}

name!(Topic, "the name of a topic");
name!(PoolName, "the name of a pool");

/// The name of one pool, or a list of names.
struct PoolList(Vec<String>);

impl<'de> Deserialize<'de> for PoolList {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = PoolList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a pool, or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<PoolList, E> {
                if name.trim().is_empty() {
                    return Err(E::invalid_value(Unexpected::Str(name), &self));
                }
                Ok(PoolList(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PoolList, A::Error> {
                let mut pools: Vec<String> = Vec::new();
                while let Some(PoolName(name)) = items.next_element()? {
                    if !pools.contains(&name) {
                        pools.push(name);
                    }
                }
                if pools.is_empty() {
                    return Err(A::Error::custom("no pools: the list is empty"));
                }
                Ok(PoolList(pools))
            }
        }

        input.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests;
