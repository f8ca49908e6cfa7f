//! The kernel in process: sources, their reloads, decisions. See `docs/spec/policy.md` §8.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::compile::CompiledPolicy;
use super::effective::EffectiveSafety;
use super::evaluate::{Evaluation, evaluate};
use super::input::PolicyInput;
use super::merge::{Text, Texts};
use super::problem::DocumentError;
use super::sources::{Base, Bytes, FetchError, Fragments, Known, SignatureError};
use super::status::{KernelStatus, SourceStatus, Warning};
use super::{Drafts, ExplainError, Explanation, Kernel, Unavailable, explain};
use crate::bus::{Bus, SubscribeOptions, Subscription};
use crate::error::{StoreError, chain};
use crate::jobs::{Decision, DecisionRecord};
use crate::metrics;
use crate::protocol::agent::PolicyCheckRequest;
use crate::protocol::subjects;
use crate::time::Timestamp;

/// How often the sources are looked at, unless set otherwise.
pub const DEFAULT_RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// How often, at least, while there are no decisions.
const RETRY: Duration = Duration::from_secs(1);

/// As many snapshot ids are remembered.
const MAX_SNAPSHOTS: usize = 10;

/// As many parsed configurations are remembered; then all are forgotten.
const MAX_CONFIGS: usize = 256;

/// Larger configurations are not remembered.
const MAX_CONFIG_BYTES: usize = 64 * 1024;

/// As many notices are read before one reload.
const MAX_NOTICES: usize = 1_024;

/// Why a source was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("load safety policy: {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The address did not give it.
    #[error("load safety policy: {address}")]
    Fetch {
        /// The address, without credentials.
        address: String,
        /// Why not.
        #[source]
        source: FetchError,
    },
    /// It is not signed as it has to be.
    #[error("load safety policy")]
    Signature(#[from] SignatureError),
    /// It lost all its text. To remove a policy on purpose, write `rules: []`.
    #[error("load safety policy: {name} is empty now; write `rules: []` to drop all rules")]
    Emptied {
        /// The file or address.
        name: String,
    },
    /// The document is refused.
    #[error("load safety policy: {0}")]
    Document(DocumentError),
    /// The configuration store did not give the fragments.
    #[error("load policy fragments: {document}")]
    Fragments {
        /// Their document.
        document: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The configuration store did not answer in time.
    #[error("load policy fragments: {document}: no answer in time")]
    NoAnswer {
        /// Their document.
        document: String,
    },
    /// The configuration document holds something else in their place.
    #[error("load policy fragments: {document}: `{member}` is no object")]
    NoFragments {
        /// Their document.
        document: String,
        /// Where they should be.
        member: String,
    },
    /// The thread that read it is gone.
    #[error("load safety policy: interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl From<DocumentError> for LoadError {
    /// All of it is in the text, so it is no source besides.
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

/// Judges in process, by a policy that can change while it runs.
pub struct LocalKernel {
    base: Option<Base>,
    fragments: Option<Fragments>,
    interval: Duration,
    active: ArcSwapOption<Active>,
    record: Mutex<Record>,
    configs: Mutex<HashMap<Vec<u8>, Arc<EffectiveSafety>>>,
    /// The policy with drafts that was asked for last.
    drafted: Mutex<Option<Arc<Drafted>>>,
    /// Whoever holds it reloads: one at a time, so that older text never replaces newer.
    known: tokio::sync::Mutex<Known>,
}

/// A policy, and the documents it is made of.
struct Active {
    policy: Arc<CompiledPolicy>,
    texts: Texts,
}

/// A policy with drafts in it.
struct Drafted {
    /// In the place of parts of this.
    of: Arc<Active>,
    drafts: Drafts,
    policy: Arc<CompiledPolicy>,
}

/// What status pages show of the last reload.
#[derive(Debug, Default)]
struct Record {
    snapshots: VecDeque<String>,
    status: KernelStatus,
}

impl LocalKernel {
    /// A kernel for a base policy that is not read yet: until [`reload`](Self::reload) has succeeded there are no
    /// decisions. Without a base policy, and without [fragments](Self::with_fragments), every job is allowed.
    pub fn new(base: Option<Base>, interval: Duration) -> Self {
        let kernel = Self {
            base,
            fragments: None,
            interval: interval.max(Duration::from_millis(1)),
            active: ArcSwapOption::empty(),
            record: Mutex::default(),
            configs: Mutex::default(),
            drafted: Mutex::default(),
            known: tokio::sync::Mutex::default(),
        };
        kernel.publish(&Known::default(), None);
        kernel
    }

    /// A kernel that also goes by the fragments in a configuration store. Until they have been read once there are no
    /// decisions: they may hold what forbids a job.
    #[must_use]
    pub fn with_fragments(mut self, fragments: Fragments) -> Self {
        self.fragments = Some(fragments);
        self.active.store(None);
        self.record.get_mut().snapshots.clear();
        let known = self.known.get_mut().clone();
        self.publish(&known, None);
        self
    }

    /// A kernel with the policy in the file `path`, looked at again every [`DEFAULT_RELOAD_INTERVAL`].
    ///
    /// # Errors
    /// [`LoadError`] if there is no such file, or it is no policy.
    pub async fn load(path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let kernel = Self::new(Some(Base::file(path)), DEFAULT_RELOAD_INTERVAL);
        kernel.reload().await?;
        Ok(kernel)
    }

    /// A kernel with a fixed policy; `name` is what errors call it.
    ///
    /// # Errors
    /// [`DocumentError`] if the document is refused.
    pub fn from_document(text: &str, name: &str) -> Result<Self, DocumentError> {
        let mut known = Known::default();
        known.texts.base = Some(Text::parse(text.as_bytes(), name)?);
        let mut kernel = Self::new(Some(Base::text(name, text)), DEFAULT_RELOAD_INTERVAL);
        kernel.start_with(known);
        Ok(kernel)
    }

    /// A kernel with the empty policy: every job is allowed, unless its configuration forbids it.
    pub fn allow_all() -> Self {
        let mut kernel = Self::new(None, DEFAULT_RELOAD_INTERVAL);
        kernel.start_with(Known::default());
        kernel
    }

    fn start_with(&mut self, known: Known) {
        let compiled = known.texts.compile();
        self.publish(&known, Some(compiled));
        *self.known.get_mut() = known;
    }

    /// The active policy.
    pub fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.active.load().as_ref().map(|active| Arc::clone(&active.policy))
    }

    /// How it is doing; [`Kernel::status`] for those who hold one.
    pub fn status(&self) -> KernelStatus {
        self.record.lock().status.clone()
    }

    /// Reads all sources again. True if the policy changed.
    ///
    /// # Errors
    /// [`LoadError`] about the first source that failed, all of them in [`status`](Self::status). What was good of it before
    /// stays active; the other source is loaded all the same.
    ///
    /// # Cancel safety
    /// A dropped call has either installed what it read or changed nothing.
    pub async fn reload(&self) -> Result<bool, LoadError> {
        self.refresh(Which::All).await
    }

    async fn refresh(&self, which: Which) -> Result<bool, LoadError> {
        let mut known = self.known.lock().await;
        let base = async {
            match &self.base {
                // Of a base that is not asked for now: as before.
                Some(_) if which == Which::Fragments && known.texts.base.is_some() => None,
                Some(base) => Some((base.name(), base.read(known.etag.as_deref()).await)),
                None => None,
            }
        };
        let fragments = async {
            match &self.fragments {
                Some(fragments) => Some(fragments.read().await),
                None => None,
            }
        };
        let (base, fragments) = tokio::join!(base, fragments);
        let (before, active) = (known.clone(), self.active.load_full());
        let (has_base, has_fragments) = (self.base.is_some(), self.fragments.is_some());
        // Reading and compiling a large policy takes longer than a runtime thread should be held.
        let work = move || {
            let (next, outcome) = take(before, base, fragments);
            let complete = (next.texts.base.is_some() || !has_base) && (next.fragments_read || !has_fragments);
            let changed = active.is_none_or(|active| !active.texts.same(&next.texts));
            let compiled = (complete && changed).then(|| next.texts.compile());
            (next, outcome, compiled)
        };
        let (next, outcome, compiled) = tokio::task::spawn_blocking(work)
            .await
            .map_err(LoadError::Interrupted)?;
        let changed = compiled.is_some();
        self.publish(&next, compiled);
        *known = next;
        let result = match (&outcome, changed) {
            (Err(_), _) => "failed",
            (Ok(()), true) => "changed",
            (Ok(()), false) => "unchanged",
        };
        ::metrics::counter!(metrics::POLICY_RELOADS, "result" => result).increment(1);
        outcome.map(|()| changed)
    }

    /// Reloads by interval, and at once when the fragments are changed, until `stop`. A failure is logged once, not at every
    /// attempt.
    pub async fn run(self: Arc<Self>, bus: Arc<dyn Bus>, stop: CancellationToken) {
        let mut notices = None;
        let mut due = Instant::now();
        loop {
            let wake = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => Which::All,
                batch = next_notices(&mut notices) => {
                    if batch.is_empty() {
                        notices = None;
                    }
                    if !self.are_about_fragments(&batch) {
                        continue;
                    }
                    Which::Fragments
                }
            };
            if wake == Which::All && notices.is_none() && self.fragments.is_some() {
                // Before the sources are read, so that no change falls between.
                match bus.subscribe(subjects::CONFIG_CHANGED, SubscribeOptions::tap()).await {
                    Ok(subscription) => notices = Some(subscription),
                    Err(error) => warn!(error = %chain(&error), "changes of policy are seen by interval only"),
                }
            }
            let before = self.status().last_error;
            match self.refresh(wake).await {
                Ok(_) => {}
                Err(failure) => {
                    if before != self.status().last_error {
                        error!(
                            error = chain(&failure),
                            "policy not reloaded; what was good last stays active"
                        );
                    }
                }
            }
            if wake == Which::All {
                due = Instant::now()
                    + if self.active.load().is_some() {
                        self.interval
                    } else {
                        self.interval.min(RETRY)
                    };
            }
        }
    }

    fn are_about_fragments(&self, notices: &[bytes::Bytes]) -> bool {
        self.fragments
            .as_ref()
            .is_some_and(|fragments| notices.iter().any(|notice| fragments.are_meant_by(notice)))
    }

    /// Makes known what is known, and with it the policy, if there is a new one.
    fn publish(&self, known: &Known, compiled: Option<(CompiledPolicy, Vec<Warning>)>) {
        let quarantined = known.quarantined();
        let mut record = self.record.lock();
        for fragment in &quarantined {
            if !record.status.quarantined.contains(fragment) {
                error!(
                    fragment = fragment.fragment,
                    error = fragment.error,
                    last_good = fragment.last_good,
                    "policy fragment refused; its last good text stays active, if there is one"
                );
            }
        }
        record.status.quarantined = quarantined;
        record.status.sources = self.sources(known);
        record.status.last_error = known.base_error.clone().or_else(|| known.fragments_error.clone());
        if let Some((policy, warnings)) = compiled {
            for warning in &warnings {
                warn!(%warning, "policy");
            }
            info!(
                snapshot = policy.snapshot(),
                rules = policy.rule_count(),
                "policy is active"
            );
            record.snapshots.push_front(policy.snapshot().to_owned());
            record.snapshots.truncate(MAX_SNAPSHOTS);
            record.status.warnings = warnings;
            // Under the lock, so that the first of the snapshots is always the active one.
            self.active.store(Some(Arc::new(Active {
                policy: Arc::new(policy),
                texts: known.texts.clone(),
            })));
        }
        let active = self.active.load();
        record.status.snapshot = active.as_ref().map(|active| active.policy.snapshot().to_owned());
        record.status.rules = active.as_ref().map_or(0, |active| active.policy.rule_count());
        ::metrics::gauge!(metrics::POLICY_RULES).set(as_f64(record.status.rules));
        ::metrics::gauge!(metrics::POLICY_QUARANTINED).set(as_f64(record.status.quarantined.len()));
    }

    fn sources(&self, known: &Known) -> Vec<SourceStatus> {
        let source = |name: String, good: Option<String>, error: &Option<String>| SourceStatus {
            ok: good.is_some(),
            detail: match (good, error) {
                (Some(good), None) => good,
                (Some(good), Some(error)) => format!("{good} stays in force: {error}"),
                (None, Some(error)) => error.clone(),
                (None, None) => "not read yet".to_owned(),
            },
            name,
        };
        let base = self.base.as_ref().map(|base| {
            let good = known.texts.base.as_ref().map(Text::snapshot);
            source(base.name(), good, &known.base_error)
        });
        let fragments = self.fragments.as_ref().map(|fragments| {
            let count = known.texts.fragments.len();
            let good = known.fragments_read.then(|| format!("fragments: {count}"));
            source(fragments.name(), good, &known.fragments_error)
        });
        base.into_iter().chain(fragments).collect()
    }

    fn active(&self) -> Result<Arc<Active>, Unavailable> {
        self.active.load_full().ok_or_else(|| {
            let missing: Vec<String> = self
                .record
                .lock()
                .status
                .sources
                .iter()
                .filter(|source| !source.ok)
                .map(|source| format!("{}: {}", source.name, source.detail))
                .collect();
            Unavailable {
                what: format!("no policy is loaded: {}", missing.join("; ")),
                source: None,
            }
        })
    }

    /// The policy with these drafts in the place of what is in force.
    async fn with_drafts(&self, active: Arc<Active>, drafts: &Drafts) -> Result<Arc<CompiledPolicy>, ExplainError> {
        let last = self.drafted.lock().clone();
        if let Some(last) = last
            && Arc::ptr_eq(&last.of, &active)
            && last.drafts == *drafts
        {
            return Ok(Arc::clone(&last.policy));
        }
        let (of, drafts) = (active, drafts.clone());
        let drafted = tokio::task::spawn_blocking(move || {
            let policy = Arc::new(of.texts.with(&drafts)?.compile().0);
            Ok::<_, DocumentError>(Drafted { of, drafts, policy })
        })
        .await
        .map_err(|error| Unavailable {
            what: "compiling the drafts was interrupted".to_owned(),
            source: Some(error.into()),
        })??;
        let policy = Arc::clone(&drafted.policy);
        *self.drafted.lock() = Some(Arc::new(drafted));
        Ok(policy)
    }

    fn effective(&self, json: &[u8]) -> Arc<EffectiveSafety> {
        if let Some(known) = self.configs.lock().get(json) {
            return Arc::clone(known);
        }
        let parsed = Arc::new(EffectiveSafety::parse(json));
        if json.len() <= MAX_CONFIG_BYTES {
            let mut configs = self.configs.lock();
            if configs.len() >= MAX_CONFIGS {
                configs.clear();
            }
            configs.insert(json.to_vec(), Arc::clone(&parsed));
        }
        parsed
    }

    /// Judges by one policy, and hands what was judged to `then`.
    fn judge<T>(
        &self,
        policy: &CompiledPolicy,
        request: &PolicyCheckRequest,
        now: Timestamp,
        then: impl FnOnce(&PolicyInput<'_>, &Evaluation<'_>) -> T,
    ) -> (DecisionRecord, T) {
        let effective = (!request.effective_config.is_empty()).then(|| self.effective(&request.effective_config));
        let mut input = PolicyInput::new(request);
        if let Some(effective) = &effective {
            input = input.with_effective(effective);
        }
        let evaluation = evaluate(policy, &input);
        let more = then(&input, &evaluation);
        let record = DecisionRecord {
            rule_id: evaluation.rule_id.to_owned(),
            policy_snapshot: evaluation.snapshot.to_owned(),
            constraints: evaluation.constraints.cloned(),
            approval_required: evaluation.approval_required,
            approval_ref: if evaluation.approval_required {
                request.job_id.clone()
            } else {
                String::new()
            },
            matched: evaluation.explain(policy, &input),
            reason: evaluation.reason.into_owned(),
            ..DecisionRecord::new(evaluation.decision, now)
        };
        (record, more)
    }
}

/// What is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// The fragments, and the base policy only if it was never read.
    Fragments,
}

type ReadBase = Option<(String, Result<Option<Bytes>, LoadError>)>;
type ReadFragments = Option<Result<std::collections::BTreeMap<String, String>, LoadError>>;

/// Takes what was read, each source on its own; with the first error.
fn take(mut known: Known, base: ReadBase, fragments: ReadFragments) -> (Known, Result<(), LoadError>) {
    let base = base.map_or(Ok(()), |(name, read)| known.take_base(&name, read));
    let fragments = fragments.map_or(Ok(()), |read| known.take_fragments(read));
    (known, base.and(fragments))
}

/// What is there of notices; empty once the bus is closed. Waits for ever without a subscription.
async fn next_notices(subscription: &mut Option<Subscription>) -> Vec<bytes::Bytes> {
    match subscription {
        Some(subscription) => subscription
            .next_batch(MAX_NOTICES)
            .await
            .into_iter()
            .map(|delivery| delivery.payload)
            .collect(),
        None => std::future::pending().await,
    }
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Names are literals, so that counting allocates nothing.
fn count(decision: Decision) {
    macro_rules! count {
        ($word:literal) => {
            ::metrics::counter!(metrics::POLICY_DECISIONS, "decision" => $word).increment(1)
        };
    }
    match decision {
        Decision::Allow => count!("ALLOW"),
        Decision::AllowWithConstraints => count!("ALLOW_WITH_CONSTRAINTS"),
        Decision::RequireApproval => count!("REQUIRE_APPROVAL"),
        Decision::Throttle => count!("THROTTLE"),
        Decision::Deny => count!("DENY"),
    }
}

impl fmt::Debug for LocalKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKernel")
            .field("base", &self.base)
            .field("fragments", &self.fragments)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Kernel for LocalKernel {
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable> {
        let active = self.active()?;
        let (record, ()) = self.judge(&active.policy, request, now, |_, _| ());
        count(record.decision);
        Ok(record)
    }

    async fn snapshots(&self) -> Result<Vec<String>, Unavailable> {
        Ok(self.record.lock().snapshots.iter().cloned().collect())
    }

    async fn explain(
        &self,
        request: &PolicyCheckRequest,
        drafts: &Drafts,
        now: Timestamp,
    ) -> Result<(DecisionRecord, Explanation), ExplainError> {
        let active = self.active()?;
        let policy = if drafts.is_empty() {
            Arc::clone(&active.policy)
        } else {
            self.with_drafts(active, drafts).await?
        };
        Ok(self.judge(&policy, request, now, |input, evaluation| {
            explain(&policy, input, evaluation)
        }))
    }

    async fn status(&self) -> KernelStatus {
        Self::status(self)
    }
}
