//! Fragments of policy in the configuration store. See `docs/spec/policy.md` §8.4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::{ConfigStore, Notice, document_name};
use crate::policy::bundles;
use crate::policy::kernel::LoadError;

/// As long may reading them take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the fragments are: in one member of one configuration document.
#[derive(Debug, Clone)]
pub struct Fragments {
    store: Arc<dyn ConfigStore>,
    scope: String,
    id: String,
    member: String,
}

impl Fragments {
    /// Where the gateway and packs write them: `cfg:system:policy`, `bundles`.
    pub fn new(store: Arc<dyn ConfigStore>) -> Self {
        Self::at(store, crate::config::SYSTEM, bundles::DOCUMENT, bundles::MEMBER)
    }

    /// In the document `cfg:<scope>:<id>`, under `member`.
    pub fn at(store: Arc<dyn ConfigStore>, scope: &str, id: &str, member: &str) -> Self {
        Self {
            store,
            scope: scope.to_owned(),
            id: id.to_owned(),
            member: member.to_owned(),
        }
    }

    /// What they are called.
    pub fn name(&self) -> String {
        document_name(&self.scope, &self.id)
    }

    /// Whether a notice, if it is one, may be about them.
    pub(in crate::policy) fn are_meant_by(&self, payload: &[u8]) -> bool {
        Notice::parse(payload).is_none_or(|notice| notice.is_about(&self.scope, &self.id))
    }

    /// The texts in force, by id.
    pub(in crate::policy) async fn read(&self) -> Result<BTreeMap<String, String>, LoadError> {
        let names = [(self.scope.clone(), self.id.clone())];
        let document = tokio::time::timeout(TIMEOUT, self.store.get_many(&names))
            .await
            .map_err(|_| LoadError::NoAnswer { document: self.name() })?
            .map_err(|source| LoadError::Fragments {
                document: self.name(),
                source,
            })?
            .into_iter()
            .next()
            .flatten();
        match document.as_ref().and_then(|document| document.data.get(&self.member)) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(Value::Object(fragments)) => Ok(bundles::in_force(fragments)
                .map(|(id, text)| (id.to_owned(), text.to_owned()))
                .collect()),
            // To take this for "no fragments" would drop what they forbid.
            Some(_) => Err(LoadError::NoFragments {
                document: self.name(),
                member: self.member.clone(),
            }),
        }
    }
}
