//! Reads and changes bundles. See `docs/spec/policy.md` §12.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::error::Error;
use super::history::{AuditEntry, Snapshot, SnapshotHead, audit_id, keep_entry, keep_snapshot};
use super::rules::{self, RuleList};
use super::stored::{SECOPS, in_force};
use super::summary::{Bundle, Summary};
use super::{DOCUMENT, MEMBER};
use crate::audit::{Actor, AuditRecord};
use crate::config::{ConfigService, Document, SYSTEM};
use crate::error::chain;
use crate::policy::model;
use crate::policy::problem::Problem;
use crate::protocol::hash::hex;
use crate::time::{Clock, Timestamp};

const SNAPSHOTS: &str = "policy_snapshots";
const SNAPSHOTS_MEMBER: &str = "snapshots";
const AUDIT: &str = "policy_audit";
const AUDIT_MEMBER: &str = "entries";

/// How often a change is tried that others get in the way of.
const TRIES: u32 = 20;
/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 256;

/// All bundles.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// As they are stored, by id.
    pub bundles: Map<String, Value>,
    /// What they are, by id; `None` if there are none.
    pub items: Option<Vec<Summary>>,
    /// When any of them was last changed, in whole seconds; empty if never.
    pub updated_at: String,
    /// Counts the changes, to send back with one.
    pub revision: u64,
}

/// A bundle as somebody wants it to be.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// Its id.
    pub id: String,
    /// Its text.
    pub content: String,
    /// Whether it is to be in force; `None` leaves that as it is, which is yes for a new one.
    pub enabled: Option<bool>,
    /// Who wrote it; empty leaves that as it is.
    pub author: String,
    /// What there is to say; empty leaves that as it is.
    pub message: String,
    /// The revision that the writer knows; `None` if it does not matter.
    pub expected: Option<u64>,
}

/// What a put came to.
#[derive(Debug, Clone, Serialize)]
pub struct PutDone {
    /// The bundle.
    pub id: String,
    /// When.
    pub updated_at: String,
    /// The new revision of all bundles.
    pub revision: u64,
    /// What is odd about the text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Bundles that are to be in force.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// Which ones; none named means all that may be published.
    pub bundle_ids: Vec<String>,
    /// Who wrote them; empty leaves that as it is.
    pub author: String,
    /// Why; also kept with each bundle.
    pub message: String,
    /// A note for the snapshots.
    pub note: String,
    /// The revision that the writer knows; `None` if it does not matter.
    pub expected: Option<u64>,
}

/// What was published.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// The bundles, by id.
    pub published: Vec<String>,
    /// The snapshot of what is now; empty if it could not be kept.
    pub snapshot_after: String,
    /// The snapshot of what was before.
    pub snapshot_before: String,
    /// The new revision of all bundles.
    pub revision: u64,
    /// Named, but no bundles that may be published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// A way back.
#[derive(Debug, Clone, Default)]
pub struct Rollback {
    /// To which snapshot.
    pub snapshot_id: String,
    /// Also bundles of packs and of the core; else only those that are edited here.
    pub all: bool,
    /// Why.
    pub message: String,
    /// A note for the snapshots.
    pub note: String,
    /// The revision that the writer knows; `None` if it does not matter.
    pub expected: Option<u64>,
}

/// What a rollback came to.
#[derive(Debug, Clone, Serialize)]
pub struct RolledBack {
    /// The snapshot that was gone back to.
    pub rollback_to: String,
    /// The snapshot of what is now; empty if there is nothing, or if it could not be kept.
    pub snapshot_after: String,
    /// The snapshot of what was before; empty if there was nothing.
    pub snapshot_before: String,
    /// The new revision of all bundles.
    pub revision: u64,
}

/// Policy bundles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bundles {
    config: ConfigService,
    clock: Clock,
}

/// The bundles at one moment.
#[derive(Debug)]
struct State {
    bundles: Map<String, Value>,
    revision: u64,
    updated_at: String,
}

/// A change of all bundles that is known to be good.
struct Change {
    bundles: Map<String, Value>,
    action: &'static str,
    bundle_ids: Vec<String>,
    target: String,
    message: String,
    note: String,
    at: Timestamp,
}

/// What became of a [`Change`].
struct Changed {
    before: String,
    after: String,
    revision: u64,
}

impl Bundles {
    /// Bundles kept as configuration.
    pub fn new(config: ConfigService, clock: Clock) -> Self {
        Self { config, clock }
    }

    /// All bundles.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list(&self) -> Result<Listing, Error> {
        let state = self.state().await?;
        let items: Vec<Summary> = state
            .bundles
            .iter()
            .map(|(id, bundle)| Summary::new(id, bundle))
            .collect();
        Ok(Listing {
            items: (!items.is_empty()).then_some(items),
            bundles: state.bundles,
            updated_at: whole_seconds(&state.updated_at),
            revision: state.revision,
        })
    }

    /// One bundle.
    ///
    /// # Errors
    /// [`Error::IdRequired`], [`Error::NotFound`], [`Error::NotABundle`], [`Error::Store`].
    pub async fn get(&self, id: &str) -> Result<Bundle, Error> {
        let id = required(id)?;
        let state = self.state().await?;
        let stored = state.bundles.get(id).ok_or(Error::NotFound)?;
        Bundle::new(id, stored, state.revision).ok_or(Error::NotABundle)
    }

    /// The rules of all bundles.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Interrupted`].
    pub async fn rules(&self, include_disabled: bool) -> Result<RuleList, Error> {
        let state = self.state().await?;
        Ok(tokio::task::spawn_blocking(move || rules::list(&state.bundles, include_disabled)).await?)
    }

    /// Writes one bundle, which is in force at once unless it is disabled.
    ///
    /// # Errors
    /// [`Error`] says what is wrong; the text is read before anything is written.
    ///
    /// # Cancel safety
    /// Dropped half-way, the bundle may have been written.
    pub async fn put(&self, put: Put, by: &Actor) -> Result<PutDone, Error> {
        let id = editable(&put.id)?.to_owned();
        let content = put.content.trim().to_owned();
        if content.is_empty() {
            return Err(Error::ContentRequired);
        }
        if content.len() > model::MAX_DOCUMENT_BYTES {
            return Err(Error::ContentTooLarge {
                size: content.len(),
                limit: model::MAX_DOCUMENT_BYTES,
            });
        }
        let (name, text) = (id.clone(), content.clone());
        let warnings = tokio::task::spawn_blocking(move || model::Document::parse(text.as_bytes(), &name))
            .await?
            .map_err(Error::Content)?
            .warnings;
        let at = self.clock.now();
        let updated_at = at.rfc3339_secs();
        let edit = |document: &mut Document| {
            known(document, put.expected)?;
            let mut bundles = take_bundles(document);
            let bundle = members(bundles.remove(&id), &updated_at);
            let bundle = written(bundle, &put, &content, &updated_at);
            bundles.insert(id.clone(), Value::Object(bundle));
            document.data.insert(MEMBER.to_owned(), Value::Object(bundles));
            Ok::<(), Error>(())
        };
        let hash = hex(&Sha256::digest(&content));
        let mut record = AuditRecord::by(at, by, "bundle.put", &id).with("content_sha256", hash);
        if let Some(enabled) = put.enabled {
            record = record.with("enabled", enabled);
        }
        if !put.message.trim().is_empty() {
            record = record.with("message", put.message.trim());
        }
        let done = self
            .config
            .update(SYSTEM, DOCUMENT, edit, |()| Some(record.clone()))
            .await?;
        Ok(PutDone {
            id,
            updated_at,
            revision: done.document.revision,
            warnings: warnings.iter().map(Problem::to_string).collect(),
        })
    }

    /// Puts bundles in force.
    ///
    /// # Errors
    /// [`Error`] says what is wrong; all bundles that would be in force are read before anything is written.
    ///
    /// # Cancel safety
    /// Dropped half-way, the bundles may have been published.
    pub async fn publish(&self, publish: &Publish, by: &Actor) -> Result<Published, Error> {
        for attempt in 0..TRIES {
            let state = self.expected(publish.expected).await?;
            if state.bundles.is_empty() {
                return Err(Error::NoBundles);
            }
            let (targets, unknown) = targets(&state.bundles, &publish.bundle_ids);
            if targets.is_empty() {
                return Err(Error::NothingToPublish);
            }
            let at = self.clock.now();
            let updated_at = at.rfc3339_secs();
            let mut bundles = state.bundles.clone();
            for id in &targets {
                let mut bundle = members(bundles.remove(id), &updated_at);
                bundle.insert("enabled".to_owned(), true.into());
                bundle.insert("updated_at".to_owned(), updated_at.clone().into());
                remark(&mut bundle, &publish.author, &publish.message);
                bundle.entry("created_at").or_insert_with(|| updated_at.clone().into());
                bundles.insert(id.clone(), Value::Object(bundle));
            }
            let bundles = validated(bundles, |_| true).await?;
            let change = Change {
                bundles,
                action: "publish",
                target: targets.join(","),
                bundle_ids: targets,
                message: publish.message.trim().to_owned(),
                note: publish.note.trim().to_owned(),
                at,
            };
            if let Some(done) = self.change(&state, &change, by).await? {
                return Ok(Published {
                    published: change.bundle_ids,
                    snapshot_after: done.after,
                    snapshot_before: done.before,
                    revision: done.revision,
                    unknown,
                });
            }
            pause(attempt).await;
        }
        Err(Error::Contended)
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// [`Error`] says what is wrong; all bundles that would come back into force are read before anything is written.
    ///
    /// # Cancel safety
    /// Dropped half-way, the rollback may have been done.
    pub async fn rollback(&self, rollback: &Rollback, by: &Actor) -> Result<RolledBack, Error> {
        // First of all, because the snapshot of what is now may push out the oldest.
        let target = self.snapshot(&rollback.snapshot_id).await?;
        let ours = |id: &str| rollback.all || id.starts_with(SECOPS);
        for attempt in 0..TRIES {
            let state = self.expected(rollback.expected).await?;
            let mut bundles = state.bundles.clone();
            bundles.retain(|id, _| !ours(id));
            bundles.extend(target.bundles.clone().into_iter().filter(|(id, _)| ours(id)));
            // What is not touched is as it was: a bundle of a pack that is out of force anyway does not stop the way back.
            let all = rollback.all;
            let bundles = validated(bundles, move |id| all || id.starts_with(SECOPS)).await?;
            let change = Change {
                bundles,
                action: "rollback",
                bundle_ids: Vec::new(),
                target: target.id.clone(),
                message: rollback.message.trim().to_owned(),
                note: rollback.note.trim().to_owned(),
                at: self.clock.now(),
            };
            if let Some(done) = self.change(&state, &change, by).await? {
                return Ok(RolledBack {
                    rollback_to: target.id,
                    snapshot_after: done.after,
                    snapshot_before: done.before,
                    revision: done.revision,
                });
            }
            pause(attempt).await;
        }
        Err(Error::Contended)
    }

    /// The snapshots, newest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn snapshots(&self) -> Result<Vec<SnapshotHead>, Error> {
        self.items(SNAPSHOTS, SNAPSHOTS_MEMBER).await
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`Error::SnapshotIdRequired`], [`Error::SnapshotNotFound`], [`Error::Store`].
    pub async fn snapshot(&self, id: &str) -> Result<Snapshot, Error> {
        let id = id.trim();
        if id.is_empty() {
            return Err(Error::SnapshotIdRequired);
        }
        let snapshots: Vec<Snapshot> = self.items(SNAPSHOTS, SNAPSHOTS_MEMBER).await?;
        snapshots
            .into_iter()
            .find(|snapshot| snapshot.id == id)
            .ok_or(Error::SnapshotNotFound)
    }

    /// Takes a snapshot of what is now.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::TooLarge`], [`Error::Contended`].
    ///
    /// # Cancel safety
    /// Dropped half-way, the snapshot may have been taken.
    pub async fn capture(&self, note: &str, by: &Actor) -> Result<Snapshot, Error> {
        let bundles = self.state().await?.bundles;
        let at = self.clock.now();
        self.keep(&bundles, note.trim(), at, |snapshot| {
            Some(AuditRecord::by(at, by, "bundle.capture", &snapshot.id))
        })
        .await
    }

    /// What was published and rolled back, newest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, Error> {
        let mut entries: Vec<AuditEntry> = self.items(AUDIT, AUDIT_MEMBER).await?;
        entries.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(entries)
    }

    async fn state(&self) -> Result<State, Error> {
        let mut document = self.config.get(SYSTEM, DOCUMENT).await?.unwrap_or_default();
        Ok(State {
            bundles: take_bundles(&mut document),
            revision: document.revision,
            updated_at: document.updated_at,
        })
    }

    async fn expected(&self, expected: Option<u64>) -> Result<State, Error> {
        let state = self.state().await?;
        matches_revision(state.revision, expected)?;
        Ok(state)
    }

    /// The items of a list that can be read; others may write there, too.
    async fn items<T: serde::de::DeserializeOwned>(&self, id: &str, member: &str) -> Result<Vec<T>, Error> {
        let document = self.config.get(SYSTEM, id).await?.unwrap_or_default();
        Ok(document
            .data
            .get(member)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|item| T::deserialize(item).ok())
            .collect())
    }

    /// Makes a change of what `state` says, with snapshots before and after it. `None` if the bundles have changed since.
    async fn change(&self, state: &State, change: &Change, by: &Actor) -> Result<Option<Changed>, Error> {
        let created_at = change.at.rfc3339_secs();
        // The way back comes first, so that there is no moment without it.
        let before = if state.bundles.is_empty() {
            String::new()
        } else {
            self.keep(&state.bundles, &change.note, change.at, |_| None).await?.id
        };
        let edit = |document: &mut Document| {
            known(document, Some(state.revision))?;
            document
                .data
                .insert(MEMBER.to_owned(), Value::Object(change.bundles.clone()));
            Ok::<(), Error>(())
        };
        let mut record = AuditRecord::by(change.at, by, &format!("policy.{}", change.action), &change.target)
            .with("snapshot_before", before.clone());
        if !change.bundle_ids.is_empty() {
            record = record.with("bundle_ids", change.bundle_ids.clone());
        }
        if !change.message.is_empty() {
            record = record.with("message", change.message.clone());
        }
        let written = self
            .config
            .update(SYSTEM, DOCUMENT, edit, |()| Some(record.clone()))
            .await;
        let revision = match written.map_err(Error::from) {
            Ok(updated) => updated.document.revision,
            Err(error) => {
                let may_have_happened = matches!(error, Error::Store(_));
                if !may_have_happened && !before.is_empty() {
                    self.forget(&before).await;
                }
                return match error {
                    Error::Conflict { .. } => Ok(None),
                    error => Err(error),
                };
            }
        };
        // From here on it has happened; what is missing below is missing from the books of old, not from the audit log.
        let after = if change.bundles.is_empty() {
            String::new()
        } else {
            match self.keep(&change.bundles, &change.note, change.at, |_| None).await {
                Ok(snapshot) => snapshot.id,
                Err(error) => {
                    warn!(error = %chain(&error), "no snapshot of the new policy bundles");
                    String::new()
                }
            }
        };
        let entry = AuditEntry {
            id: audit_id(change.action, &change.bundle_ids, &created_at),
            action: change.action.to_owned(),
            actor_id: by.id.clone(),
            role: by.role.clone(),
            bundle_ids: change.bundle_ids.clone(),
            message: change.message.clone(),
            snapshot_before: before.clone(),
            snapshot_after: after.clone(),
            created_at,
        };
        let edit = |document: &mut Document| {
            edit_list(document, AUDIT_MEMBER, |list| keep_entry(list, entry.clone()));
            Ok::<(), Error>(())
        };
        if let Err(error) = self.config.update(SYSTEM, AUDIT, edit, |()| None).await {
            warn!(error = %chain(&error), "change of policy bundles not listed");
        }
        Ok(Some(Changed {
            before,
            after,
            revision,
        }))
    }

    async fn keep(
        &self,
        bundles: &Map<String, Value>,
        note: &str,
        at: Timestamp,
        audit: impl Fn(&Snapshot) -> Option<AuditRecord>,
    ) -> Result<Snapshot, Error> {
        let created_at = at.rfc3339_secs();
        let edit = |document: &mut Document| {
            Ok::<Snapshot, Error>(edit_list(document, SNAPSHOTS_MEMBER, |list| {
                keep_snapshot(list, &created_at, note, bundles)
            }))
        };
        Ok(self.config.update(SYSTEM, SNAPSHOTS, edit, audit).await?.value)
    }

    /// Drops the snapshot of a change that did not take place. Best effort: it is true all the same.
    async fn forget(&self, id: &str) {
        let edit = |document: &mut Document| {
            edit_list(document, SNAPSHOTS_MEMBER, |list| {
                list.retain(|snapshot| snapshot.get("id").and_then(Value::as_str) != Some(id));
            });
            Ok::<(), Error>(())
        };
        if let Err(error) = self.config.update(SYSTEM, SNAPSHOTS, edit, |()| None).await {
            warn!(error = %chain(&error), "needless snapshot of policy bundles not dropped");
        }
    }
}

/// An id that is not blank.
fn required(id: &str) -> Result<&str, Error> {
    let id = id.trim();
    if id.is_empty() { Err(Error::IdRequired) } else { Ok(id) }
}

/// Whether a bundle of this id is edited here; what [`Bundles::put`] looks at first.
///
/// # Errors
/// [`Error::IdRequired`], [`Error::NotSecops`], [`Error::InvalidId`].
pub fn check_editable(id: &str) -> Result<(), Error> {
    editable(id).map(|_| ())
}

/// An id of a bundle that is edited here.
fn editable(id: &str) -> Result<&str, Error> {
    let id = required(id)?;
    if !id.starts_with(SECOPS) {
        return Err(Error::NotSecops);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(Error::InvalidId("too long, the limit is 256 bytes"));
    }
    if id.chars().any(char::is_control) {
        return Err(Error::InvalidId("malformed, it holds a control character"));
    }
    Ok(id)
}

fn known(document: &Document, expected: Option<u64>) -> Result<(), Error> {
    matches_revision(document.revision, expected)
}

fn matches_revision(found: u64, expected: Option<u64>) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => Err(Error::Conflict { expected, found }),
        _ => Ok(()),
    }
}

/// The bundles of a document; what is not an object holds none.
fn take_bundles(document: &mut Document) -> Map<String, Value> {
    match document.data.get_mut(MEMBER).map(Value::take) {
        Some(Value::Object(bundles)) => bundles,
        _ => Map::new(),
    }
}

/// Edits the list under `member`, which is made if there is none.
fn edit_list<T>(document: &mut Document, member: &str, edit: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    let mut list = match document.data.remove(member) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let value = edit(&mut list);
    document.data.insert(member.to_owned(), Value::Array(list));
    value
}

/// The members of a stored bundle. A text becomes the `content` of an object; what is new is made now.
fn members(stored: Option<Value>, now: &str) -> Map<String, Value> {
    match stored {
        Some(Value::Object(members)) => members,
        other => {
            let mut members = Map::new();
            members.insert("created_at".to_owned(), now.into());
            if let Some(Value::String(text)) = other {
                members.insert("content".to_owned(), text.into());
            }
            members
        }
    }
}

fn written(mut bundle: Map<String, Value>, put: &Put, content: &str, now: &str) -> Map<String, Value> {
    bundle.insert("content".to_owned(), content.into());
    bundle.insert("updated_at".to_owned(), now.into());
    // That of the text before.
    bundle.remove("sha256");
    if let Some(enabled) = put.enabled {
        bundle.insert("enabled".to_owned(), enabled.into());
    }
    remark(&mut bundle, &put.author, &put.message);
    bundle
}

fn remark(bundle: &mut Map<String, Value>, author: &str, message: &str) {
    for (name, text) in [("author", author.trim()), ("message", message.trim())] {
        if !text.is_empty() {
            bundle.insert(name.to_owned(), text.into());
        }
    }
}

/// What is to be published, by id, and what was named but cannot be. If nothing that was named can be, nothing is.
fn targets(bundles: &Map<String, Value>, named: &[String]) -> (Vec<String>, Vec<String>) {
    let can_be = |id: &str| id.starts_with(SECOPS) && bundles.contains_key(id);
    let named: BTreeSet<&str> = named.iter().map(|id| id.trim()).filter(|id| !id.is_empty()).collect();
    if named.is_empty() {
        return (bundles.keys().filter(|id| can_be(id)).cloned().collect(), Vec::new());
    }
    let (targets, unknown): (Vec<&str>, Vec<&str>) = named.into_iter().partition(|id| can_be(id));
    let owned = |ids: Vec<&str>| ids.into_iter().map(str::to_owned).collect();
    (owned(targets), owned(unknown))
}

/// Reads every bundle that would be in force and that `which` names, on a thread of its own.
async fn validated(
    bundles: Map<String, Value>,
    which: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Map<String, Value>, Error> {
    tokio::task::spawn_blocking(move || {
        for (id, text) in in_force(&bundles).filter(|(id, _)| which(id)) {
            model::Document::parse(text.as_bytes(), id).map_err(|error| Error::Bundle {
                id: id.to_owned(),
                error,
            })?;
        }
        Ok(bundles)
    })
    .await?
}

fn whole_seconds(time: &str) -> String {
    time.parse::<jiff::Timestamp>()
        .map(|time| Timestamp::from_secs(time.as_second()).rfc3339())
        .unwrap_or_default()
}

/// Parts those that keep running into each other.
async fn pause(attempt: u32) {
    let millis = rand::rng().random_range(0..=u64::from(attempt) * 5);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
