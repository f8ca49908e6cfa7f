//! The kernel in process: a policy file, its reloads, its decisions. See `docs/spec/policy.md` §8.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::compile::CompiledPolicy;
use super::effective::EffectiveSafety;
use super::evaluate::{Evaluation, evaluate};
use super::input::PolicyInput;
use super::model::MAX_DOCUMENT_BYTES;
use super::problem::{DocumentError, Problem};
use super::status::{KernelStatus, SourceStatus, Warning};
use super::{BASE, ConditionCheck, Drafts, ExplainError, Explanation, Kernel, RuleRef, Unavailable};
use crate::error::chain;
use crate::jobs::DecisionRecord;
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

/// How often the file is looked at, unless set otherwise.
pub const DEFAULT_RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// As many snapshot ids are remembered.
const MAX_SNAPSHOTS: usize = 10;

/// As many parsed configurations are remembered; then all are forgotten.
const MAX_CONFIGS: usize = 256;

/// Larger configurations are not remembered.
const MAX_CONFIG_BYTES: usize = 64 * 1024;

/// Why a policy was not loaded.
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
    /// The file lost all its text. To remove a policy on purpose, write `rules: []`.
    #[error("load safety policy: {} is empty now; write `rules: []` to drop all rules", .path.display())]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// The document is refused.
    #[error("load safety policy: {0}")]
    Document(#[from] DocumentError),
    /// The thread that read it is gone.
    #[error("load safety policy: interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Judges in process, by a policy that can change while it runs.
pub struct LocalKernel {
    path: Option<PathBuf>,
    interval: Duration,
    active: ArcSwapOption<CompiledPolicy>,
    record: Mutex<Record>,
    configs: Mutex<HashMap<Vec<u8>, Arc<EffectiveSafety>>>,
    /// One reload at a time, so that an older file never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Record {
    snapshots: VecDeque<String>,
    warnings: Vec<Problem>,
    last_error: Option<String>,
}

impl LocalKernel {
    /// A kernel for the policy in `path`, which is not read yet: until [`reload`](Self::reload) has succeeded there are no
    /// decisions.
    pub fn new(path: impl Into<PathBuf>, interval: Duration) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::bare(interval)
        }
    }

    fn bare(interval: Duration) -> Self {
        Self {
            path: None,
            interval,
            active: ArcSwapOption::empty(),
            record: Mutex::default(),
            configs: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
        }
    }

    /// A kernel with the policy in `path`, looked at again every [`DEFAULT_RELOAD_INTERVAL`].
    ///
    /// # Errors
    /// [`LoadError`] if there is no such file, or it is no policy.
    pub async fn load(path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let kernel = Self::new(path, DEFAULT_RELOAD_INTERVAL);
        kernel.reload().await?;
        Ok(kernel)
    }

    /// A kernel with a fixed policy; `name` is what errors call it.
    ///
    /// # Errors
    /// [`DocumentError`] if the document is refused.
    pub fn from_document(text: &str, name: &str) -> Result<Self, DocumentError> {
        let (policy, warnings) = CompiledPolicy::from_bytes(text.as_bytes(), name)?;
        let kernel = Self::bare(DEFAULT_RELOAD_INTERVAL);
        kernel.install(policy, warnings);
        Ok(kernel)
    }

    /// A kernel with the empty policy: every job is allowed, unless its configuration forbids it.
    pub fn allow_all() -> Self {
        let kernel = Self::bare(DEFAULT_RELOAD_INTERVAL);
        kernel.install(CompiledPolicy::empty(), Vec::new());
        kernel
    }

    /// The active policy.
    pub fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.active.load_full()
    }

    /// How it is doing; [`Kernel::status`] for those who hold one.
    pub fn status(&self) -> KernelStatus {
        let active = self.active.load();
        let record = self.record.lock();
        KernelStatus {
            snapshot: active.as_ref().map(|policy| policy.snapshot().to_owned()),
            rules: active.as_ref().map_or(0, |policy| policy.rule_count()),
            warnings: record
                .warnings
                .iter()
                .map(|problem| Warning {
                    document: self.name(),
                    problem: problem.clone(),
                })
                .collect(),
            sources: vec![SourceStatus {
                name: self.name(),
                ok: active.is_some(),
                detail: record.last_error.clone().unwrap_or_default(),
            }],
            quarantined: Vec::new(),
            last_error: record.last_error.clone(),
        }
    }

    /// Reads the file again. True if the policy changed.
    ///
    /// # Errors
    /// [`LoadError`], also kept in [`status`](Self::status); the policy before stays active.
    ///
    /// # Cancel safety
    /// A dropped call has either installed the new policy or changed nothing.
    pub async fn reload(&self) -> Result<bool, LoadError> {
        let Some(path) = self.path.clone() else {
            return Ok(false);
        };
        let _turn = self.reloading.lock().await;
        let active = self.active.load_full();
        // Reading and compiling a large policy takes longer than a runtime thread should be held.
        let loaded = tokio::task::spawn_blocking(move || read_policy(&path, active.as_deref()))
            .await
            .unwrap_or_else(|error| Err(LoadError::Interrupted(error)));
        match loaded {
            Ok(Some((policy, warnings))) => {
                self.install(policy, warnings);
                Ok(true)
            }
            Ok(None) => {
                self.record.lock().last_error = None;
                Ok(false)
            }
            Err(error) => {
                self.record.lock().last_error = Some(chain(&error));
                Err(error)
            }
        }
    }

    /// Reloads by interval until `stop`. A failure is logged once, not at every attempt.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if self.path.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(self.interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let before = self.record.lock().last_error.clone();
            match self.reload().await {
                Ok(false) => {}
                Ok(true) => info!(snapshot = self.status().snapshot, "policy reloaded"),
                Err(failure) => {
                    let failure = chain(&failure);
                    if before.as_ref() != Some(&failure) {
                        error!(error = failure, "policy not reloaded; the last good one stays active");
                    }
                }
            }
        }
    }

    fn install(&self, policy: CompiledPolicy, warnings: Vec<Problem>) {
        for warning in &warnings {
            warn!(%warning, "policy");
        }
        let snapshot = policy.snapshot().to_owned();
        let mut record = self.record.lock();
        record.snapshots.push_front(snapshot);
        record.snapshots.truncate(MAX_SNAPSHOTS);
        record.warnings = warnings;
        record.last_error = None;
        // Under the lock, so that the first of the snapshots is always the active one.
        self.active.store(Some(Arc::new(policy)));
    }

    fn name(&self) -> String {
        self.path
            .as_ref()
            .map_or_else(|| "built-in".to_owned(), |path| path.display().to_string())
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
}

impl fmt::Debug for LocalKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKernel")
            .field("path", &self.path)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

type Loaded = (CompiledPolicy, Vec<Problem>);

/// `None` if the file still holds the active policy.
fn read_policy(path: &Path, active: Option<&CompiledPolicy>) -> Result<Option<Loaded>, LoadError> {
    let unreadable = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(unreadable)?
        // One byte more than allowed, so that the reader of the document sees that there is more.
        .take(MAX_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    // An editor that empties a file before it writes must not open the gates meanwhile.
    if bytes.is_empty() && active.is_some_and(|policy| !policy.is_empty()) {
        return Err(LoadError::Emptied { path: path.to_owned() });
    }
    if active.is_some_and(|policy| policy.is_made_from(&bytes)) {
        return Ok(None);
    }
    let loaded = CompiledPolicy::from_bytes(&bytes, &path.display().to_string())?;
    Ok(Some(loaded))
}

impl LocalKernel {
    fn active(&self) -> Result<Arc<CompiledPolicy>, Unavailable> {
        self.active.load_full().ok_or_else(|| {
            let why = self.record.lock().last_error.clone();
            Unavailable {
                what: why.unwrap_or_else(|| "no policy is loaded yet".to_owned()),
                source: None,
            }
        })
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

#[async_trait]
impl Kernel for LocalKernel {
    async fn check(&self, request: &PolicyCheckRequest, now: Timestamp) -> Result<DecisionRecord, Unavailable> {
        let policy = self.active()?;
        Ok(self.judge(&policy, request, now, |_, _| ()).0)
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
        let policy = self.active()?;
        let policy = match drafts.get(BASE) {
            Some(text) => Arc::new(CompiledPolicy::from_bytes(text.as_bytes(), BASE)?.0),
            None => policy,
        };
        if let Some(fragment) = drafts.keys().find(|id| *id != BASE) {
            return Err(ExplainError::Draft(DocumentError {
                document: fragment.clone(),
                problems: vec![Problem {
                    line: 0,
                    column: 0,
                    rule: None,
                    key: String::new(),
                    what: "this kernel reads no fragments".to_owned(),
                }],
            }));
        }
        Ok(self.judge(&policy, request, now, |input, evaluation| Explanation {
            tenant: input.tenant.to_owned(),
            rule: (!evaluation.rule_id.is_empty()).then(|| RuleRef {
                id: evaluation.rule_id.to_owned(),
                origin: BASE.to_owned(),
                number: policy.rule_number(evaluation.rule_id).unwrap_or_default(),
            }),
            conditions: evaluation
                .explain(&policy, input)
                .into_iter()
                .map(|line| ConditionCheck {
                    condition: line.split(':').next().unwrap_or_default().to_owned(),
                    holds: true,
                    detail: line,
                })
                .collect(),
            ..Explanation::default()
        }))
    }

    async fn status(&self) -> KernelStatus {
        Self::status(self)
    }
}
