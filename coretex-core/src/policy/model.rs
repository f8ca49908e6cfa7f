//! The policy document. See `docs/spec/policy.md` §1.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde_saphyr::Spanned;

use super::glob::Glob;
use super::problem::{DocumentError, Problem};
use super::read::{Cursor, Place, Read, Seed, fields};
use super::terms::check_unique;
pub use super::terms::{Approval, ExpiryWord, Period, Quorum, Remediation};
use crate::jobs::Decision;

/// Larger documents are refused.
pub const MAX_DOCUMENT_BYTES: usize = 10 * 1024 * 1024;

/// A policy as it is written.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Document {
    /// A name for this state of the policy; part of the snapshot id.
    pub version: String,
    /// The tenant of jobs that name none.
    pub default_tenant: String,
    /// What happens to jobs that no rule matches; `None` is allow, with a warning.
    pub default_decision: DefaultDecision,
    /// On which terms people say yes, unless a rule says more.
    pub approval: Approval,
    /// The rules. The first that matches decides.
    pub rules: Vec<Rule>,
    /// What is enforced per tenant, whatever the rules say.
    pub tenants: BTreeMap<String, TenantPolicy>,
    /// Keys that nobody knows.
    #[schemars(skip)]
    pub(super) unknown: Vec<Problem>,
}

/// One rule.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Rule {
    /// Its name; unique if not empty.
    pub id: String,
    /// Which jobs it is for.
    #[schemars(rename = "match")]
    pub conditions: Match,
    /// What happens to them.
    pub decision: DecisionWord,
    /// Why, for people.
    pub reason: String,
    /// Within which limits.
    pub constraints: Constraints,
    /// On which terms people say yes.
    pub approval: Option<Approval>,
    /// Safer ways to ask for the same thing.
    pub remediations: Vec<Remediation>,
    #[schemars(skip)]
    place: Place,
}

/// The conditions of a rule: all must hold. An empty one holds.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Match {
    /// Any of these tenants.
    pub tenants: Vec<String>,
    /// Any of these patterns.
    pub topics: Vec<Pattern>,
    /// Any of these capabilities.
    pub capabilities: Vec<String>,
    /// At least one of these tags.
    pub risk_tags: Vec<String>,
    /// All of these requirements.
    pub requires: Vec<String>,
    /// Any of these packs.
    pub pack_ids: Vec<String>,
    /// Any of these actors.
    pub actor_ids: Vec<String>,
    /// `human`, `service`.
    pub actor_types: Vec<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the job carries secrets.
    pub secrets_present: Option<bool>,
    /// The job uses MCP, within these lists.
    pub mcp: McpLists,
}

/// What may be used over the Model Context Protocol. A deny list wins; an empty allow list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct McpLists {
    pub allow_servers: Vec<String>,
    pub deny_servers: Vec<String>,
    pub allow_tools: Vec<String>,
    pub deny_tools: Vec<String>,
    pub allow_resources: Vec<String>,
    pub deny_resources: Vec<String>,
    pub allow_actions: Vec<String>,
    pub deny_actions: Vec<String>,
}

/// What is enforced for one tenant.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct TenantPolicy {
    /// Topics that name a rule for the record; only of use when there are no rules.
    pub allow_topics: Vec<Pattern>,
    /// Topics that this tenant may never use.
    pub deny_topics: Vec<Pattern>,
    /// Read, not enforced.
    pub allowed_repo_hosts: Vec<String>,
    /// Read, not enforced.
    pub denied_repo_hosts: Vec<String>,
    /// Read, not enforced.
    pub max_concurrent_jobs: i64,
    /// What this tenant may use over MCP.
    pub mcp: McpLists,
}

/// Limits for the jobs that a rule lets through.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the protocol describes them (proto/coretex/agent/v1/safety.proto)"
)]
pub struct Constraints {
    pub budgets: Budgets,
    pub sandbox: Sandbox,
    pub toolchain: Toolchain,
    pub diff: Diff,
    pub redaction_level: String,
}

/// Limits on time, attempts, output and parallelism. Zero is no limit.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the protocol describes them (proto/coretex/agent/v1/safety.proto)"
)]
pub struct Budgets {
    pub max_runtime_ms: i64,
    pub max_retries: i32,
    pub max_artifact_bytes: i64,
    pub max_concurrent_jobs: i32,
}

/// What the worker may reach.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the protocol describes them (proto/coretex/agent/v1/safety.proto)"
)]
pub struct Sandbox {
    pub isolated: bool,
    pub network_allowlist: Vec<String>,
    pub fs_read_only: Vec<String>,
    pub fs_read_write: Vec<String>,
}

/// What the worker may run.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the protocol describes them (proto/coretex/agent/v1/safety.proto)"
)]
pub struct Toolchain {
    pub allowed_tools: Vec<String>,
    pub allowed_commands: Vec<String>,
}

/// What the worker may change.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the protocol describes them (proto/coretex/agent/v1/safety.proto)"
)]
pub struct Diff {
    pub max_files: i32,
    pub max_lines: i32,
    pub deny_path_globs: Vec<String>,
}

/// A topic pattern that is well formed. Blank, it matches no topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(pub Glob);

/// The decision of a rule; `None` only while the document is being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionWord(pub Option<Decision>);

/// The decision for jobs that no rule matches, if the document names one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultDecision(pub Option<Decision>);

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`*` any run of characters but `/`, `?` one, `[a-z]` a class, `\\x` the character x",
            "type": "string",
        })
    }
}

impl JsonSchema for DecisionWord {
    fn schema_name() -> Cow<'static, str> {
        "Decision".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "enum": ["allow", "deny", "require_approval", "allow_with_constraints", "throttle"],
        })
    }
}

impl JsonSchema for DefaultDecision {
    fn schema_name() -> Cow<'static, str> {
        "DefaultDecision".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["allow", "deny", "require_approval"] })
    }
}

fields!(Document {
    "version" => version,
    "default_tenant" => default_tenant,
    "default_decision" => default_decision,
    "approval" => approval,
    "rules" => rules,
    "tenants" => tenants,
});
fields!(Rule {
    "id" => id,
    "match" => conditions,
    "decision" => decision,
    "reason" => reason,
    "constraints" => constraints,
    "approval" => approval,
    "remediations" => remediations,
} done check_rule);
fields!(Match {
    "tenants" => tenants,
    "topics" => topics,
    "capabilities" => capabilities,
    "risk_tags" => risk_tags,
    "requires" => requires,
    "pack_ids" => pack_ids,
    "actor_ids" => actor_ids,
    "actor_types" => actor_types,
    "labels" => labels,
    "secrets_present" => secrets_present,
    "mcp" => mcp,
});
fields!(McpLists {
    "allow_servers" => allow_servers,
    "deny_servers" => deny_servers,
    "allow_tools" => allow_tools,
    "deny_tools" => deny_tools,
    "allow_resources" => allow_resources,
    "deny_resources" => deny_resources,
    "allow_actions" => allow_actions,
    "deny_actions" => deny_actions,
});
fields!(TenantPolicy {
    "allow_topics" => allow_topics,
    "deny_topics" => deny_topics,
    "allowed_repo_hosts" => allowed_repo_hosts,
    "denied_repo_hosts" => denied_repo_hosts,
    "max_concurrent_jobs" => max_concurrent_jobs,
    "mcp" => mcp,
});
fields!(Constraints {
    "budgets" => budgets,
    "sandbox" => sandbox,
    "toolchain" => toolchain,
    "diff" => diff,
    "redaction_level" => redaction_level,
});
fields!(Budgets {
    "max_runtime_ms" => max_runtime_ms,
    "max_retries" => max_retries,
    "max_artifact_bytes" => max_artifact_bytes,
    "max_concurrent_jobs" => max_concurrent_jobs,
});
fields!(Sandbox {
    "isolated" => isolated,
    "network_allowlist" => network_allowlist,
    "fs_read_only" => fs_read_only,
    "fs_read_write" => fs_read_write,
});
fields!(Toolchain {
    "allowed_tools" => allowed_tools,
    "allowed_commands" => allowed_commands,
});
fields!(Diff {
    "max_files" => max_files,
    "max_lines" => max_lines,
    "deny_path_globs" => deny_path_globs,
});

pub(super) const WORDS: &str = "allow, deny, require_approval, allow_with_constraints or throttle";
const DEFAULT_WORDS: &str = "allow, deny or require_approval";

impl Rule {
    /// Where it starts.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// What a rule must have.
fn check_rule(rule: &mut Rule, place: Place, mark: (usize, usize), at: &Cursor) {
    if rule.decision.0.is_none() {
        at.problem(place, format!("decision: missing or empty; expected {WORDS}"));
    }
    rule.place = place;
    check_unique(&rule.remediations, at);
    at.in_rule(mark, &rule.id);
}

pub(super) fn decision(word: &str) -> Option<Decision> {
    Some(match word.trim().to_lowercase().as_str() {
        "allow" | "permit" => Decision::Allow,
        "deny" | "block" => Decision::Deny,
        "require_approval" | "require-approval" | "require_human" => Decision::RequireApproval,
        "allow_with_constraints" | "allow-with-constraints" => Decision::AllowWithConstraints,
        "throttle" => Decision::Throttle,
        _ => return None,
    })
}

type Word = Spanned<Option<String>>;

impl Read for DecisionWord {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let word: Word = serde::Deserialize::deserialize(de)?;
        let place = Place::from(&word);
        let text = word.value.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let decision = decision(&text).unwrap_or_else(|| {
            at.problem(
                place,
                format!("unknown decision `{}`; expected {WORDS}", text.escape_debug()),
            );
            // Never used: the document is refused.
            Decision::Deny
        });
        Ok(Self(Some(decision)))
    }
}

impl Read for DefaultDecision {
    fn null(at: &Cursor) -> Self {
        at.problem(Place::default(), format!("empty; expected {DEFAULT_WORDS}"));
        Self(None)
    }

    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let word: Word = serde::Deserialize::deserialize(de)?;
        let place = Place::from(&word);
        let text = word.value.unwrap_or_default();
        let decision =
            decision(&text).filter(|d| matches!(d, Decision::Allow | Decision::Deny | Decision::RequireApproval));
        if decision.is_none() {
            at.problem(
                place,
                format!("unknown decision `{}`; expected {DEFAULT_WORDS}", text.escape_debug()),
            );
        }
        Ok(Self(decision))
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self(Glob::never())
    }
}

impl Read for Pattern {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let word: Word = serde::Deserialize::deserialize(de)?;
        let place = Place::from(&word);
        let text = word.value.unwrap_or_default();
        match Glob::new(&text) {
            Ok(glob) => Ok(Self(glob)),
            Err(error) => {
                at.problem(place, format!("malformed pattern `{}`: {error}", text.escape_debug()));
                Ok(Self::default())
            }
        }
    }
}

/// A document, and what is odd about it.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The document.
    pub document: Document,
    /// Oddities that do not stop it: unknown keys, terms of approval where none is asked for.
    pub warnings: Vec<Problem>,
}

impl Document {
    /// The JSON Schema of a document as it should be written, for editors. The reader tolerates more (§1.2, §1.4).
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Document).to_value()
    }

    /// Reads the first document of a YAML text; `name` is what errors call it.
    ///
    /// # Errors
    /// [`DocumentError`] names every mistake with its place, unless the text is no YAML at all.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Parsed, DocumentError> {
        let refuse = |problems| DocumentError {
            document: name.to_owned(),
            problems,
        };
        let whole = |what: String| {
            vec![Problem {
                what,
                ..Problem::default()
            }]
        };
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let what = format!("{} bytes; a policy has at most {MAX_DOCUMENT_BYTES}", bytes.len());
            return Err(refuse(whole(what)));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| refuse(whole(format!("not UTF-8: {error}"))))?;

        let at = Cursor::default();
        let mut document = None;
        let outcome = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| {
            document = Some(serde::de::DeserializeSeed::deserialize(Seed::<Document>::new(&at), de)?);
            Ok(())
        });
        let document = match (document, outcome) {
            (Some(document), Ok(())) => document,
            // What follows the first document is not ours to read.
            (Some(document), Err(error)) if is_second_document(&error) => document,
            (None, _) if is_blank(text) => Document::default(),
            (_, Err(error)) => {
                let place = error.location().map_or_else(Place::default, |location| Place {
                    line: location.line(),
                    column: location.column(),
                });
                return Err(refuse(vec![Problem {
                    line: place.line,
                    column: place.column,
                    key: at.path(),
                    what: message(&error),
                    ..Problem::default()
                }]));
            }
            (None, Ok(())) => Document::default(),
        };

        let (mut problems, unknown) = at.finish();
        problems.extend(duplicate_ids(&document));
        if !problems.is_empty() {
            problems.sort_by_key(|problem| (problem.line, problem.column));
            return Err(refuse(problems));
        }
        let mut warnings = unknown.clone();
        warnings.extend(unused_terms(&document));
        warnings.sort_by_key(|warning| (warning.line, warning.column));
        Ok(Parsed {
            document: Document { unknown, ..document },
            warnings,
        })
    }
}

/// Reads the first document of a YAML text as it is written, for what shows policies.
///
/// # Errors
/// The parser's own.
pub(super) fn parse_value(text: &str) -> Result<serde_json::Value, serde_saphyr::Error> {
    let mut value = serde_json::Value::Null;
    let outcome = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| {
        value = serde::Deserialize::deserialize(de)?;
        Ok(())
    });
    match outcome {
        Err(error) if !is_second_document(&error) && !is_blank(text) => Err(error),
        _ => Ok(value),
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Enough for every document within the size limit; what aliases add is limited on its own.
        budget: serde_saphyr::budget! {
            max_events: 6_000_000,
            max_nodes: 4_000_000,
            max_depth: 32,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
        },
        strict_booleans: true,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn is_blank(text: &str) -> bool {
    text.lines()
        .map(|line| line.trim_start_matches('\u{feff}').trim())
        .all(|line| line.is_empty() || line.starts_with('#'))
}

fn is_second_document(error: &serde_saphyr::Error) -> bool {
    matches!(error.without_snippet(), serde_saphyr::Error::MultipleDocuments { .. })
}

/// The first line of what the parser says, without the place, which is told apart.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    match line.find(" at line ") {
        Some(end) => line[..end].to_owned(),
        None => line.to_owned(),
    }
}

/// Terms of approval in rules that ask for none.
pub(super) fn unused_terms(document: &Document) -> Vec<Problem> {
    let rules = document.rules.iter().enumerate();
    rules
        .filter(|(_, rule)| rule.approval.is_some() && rule.decision.0 != Some(Decision::RequireApproval))
        .map(|(index, rule)| Problem {
            line: rule.place.line,
            column: rule.place.column,
            rule: Some(rule.id.clone()).filter(|id| !id.is_empty()),
            key: format!("rules[{index}].approval"),
            what: "only for rules that require approval; ignored".to_owned(),
        })
        .collect()
}

fn duplicate_ids(document: &Document) -> Vec<Problem> {
    let mut seen: HashMap<&str, u64> = HashMap::with_capacity(document.rules.len());
    let mut problems = Vec::new();
    for (index, rule) in document.rules.iter().enumerate() {
        if rule.id.is_empty() {
            continue;
        }
        if let Some(first) = seen.get(rule.id.as_str()) {
            problems.push(Problem {
                line: rule.place.line,
                column: rule.place.column,
                rule: Some(rule.id.clone()),
                key: format!("rules[{index}].id"),
                what: format!("used before, on line {first}; ids are unique"),
            });
        } else {
            seen.insert(&rule.id, rule.place.line);
        }
    }
    problems
}
