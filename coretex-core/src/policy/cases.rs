//! Tests of a policy: requests, and what it should say to them. See `docs/spec/policy.md` §15.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::checks::Question;
use super::{CompiledPolicy, EffectiveSafety, Explanation, PolicyInput, evaluate, explain};
use crate::jobs::{Decision, DecisionRecord};
use crate::protocol::agent::PolicyCheckRequest;
use crate::protocol::constraints::constraints_snake_json;
use crate::time::Timestamp;

/// The largest file of cases that is read.
pub const MAX_CASES_BYTES: usize = 10 * 1024 * 1024;

/// A file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The cases, in order.
    pub cases: Vec<Case>,
}

/// One request, and what is expected.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, for people.
    pub name: String,
    /// What is asked.
    pub request: Request,
    /// What the policy should say.
    pub expect: Expect,
}

/// What is asked: the members of `POST /api/v1/policy/evaluate`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "docs/spec/http.md describes them")]
pub struct Request {
    pub job_id: String,
    pub topic: String,
    pub tenant: String,
    pub principal_id: String,
    pub labels: BTreeMap<String, String>,
    pub effective_config: Option<Value>,
    pub meta: Meta,
}

/// The metadata of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "docs/spec/http.md describes them")]
pub struct Meta {
    pub tenant_id: String,
    pub actor_id: String,
    pub actor_type: String,
    pub capability: String,
    pub risk_tags: Vec<String>,
    pub requires: Vec<String>,
    pub pack_id: String,
}

/// What a policy should say. Only what is given is compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The decision, in the words of documents.
    pub decision: Word,
    /// The id of the rule; empty for none.
    #[serde(default)]
    pub rule: Option<String>,
    /// The reason, exactly.
    #[serde(default)]
    pub reason: Option<String>,
    /// How many people must say yes.
    #[serde(default)]
    pub quorum: Option<u32>,
    /// Limits, as documents write them; others may be there.
    #[serde(default)]
    pub constraints: Option<Value>,
    /// The ids of the safer ways that are offered, in order.
    #[serde(default)]
    pub remediations: Option<Vec<String>>,
}

/// A decision in the words of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(pub Decision);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        super::model::decision(&word).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "unknown decision `{}`; expected {}",
                word.escape_debug(),
                super::model::WORDS
            ))
        })
    }
}

/// A text that is no suite.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}")]
pub struct SuiteError {
    /// The file.
    pub file: String,
    /// What is wrong, and where.
    pub what: String,
}

/// How a case went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the policy said.
    pub decision: DecisionRecord,
    /// Why.
    pub explanation: Explanation,
    /// What is not as expected, one line each; empty if the case passed.
    pub mismatches: Vec<String>,
}

impl Suite {
    /// Reads a YAML or JSON file; `file` is what errors call it.
    ///
    /// # Errors
    /// [`SuiteError`] names the first mistake and its place.
    pub fn parse(text: &str, file: &str) -> Result<Self, SuiteError> {
        let refuse = |what: String| SuiteError {
            file: file.to_owned(),
            what,
        };
        if text.len() > MAX_CASES_BYTES {
            return Err(refuse(format!(
                "{} bytes; a file of cases has at most {MAX_CASES_BYTES}",
                text.len()
            )));
        }
        serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))
    }
}

impl Request {
    /// Asks `policy`.
    pub fn judge(&self, policy: &CompiledPolicy, now: Timestamp) -> (DecisionRecord, Explanation) {
        let config = self.effective_config.as_ref().map(Value::to_string);
        let request = Question::from(self).into_request("", config.unwrap_or_default().into_bytes());
        judge(&request, policy, now)
    }
}

/// Asks `policy` what it says to a request, and why.
pub fn judge(request: &PolicyCheckRequest, policy: &CompiledPolicy, now: Timestamp) -> (DecisionRecord, Explanation) {
    let effective = (!request.effective_config.is_empty()).then(|| EffectiveSafety::parse(&request.effective_config));
    let mut input = PolicyInput::new(request);
    if let Some(effective) = &effective {
        input = input.with_effective(effective);
    }
    let evaluation = evaluate(policy, &input);
    let explanation = explain(policy, &input, &evaluation);
    (evaluation.into_record(policy, &input, request, now), explanation)
}

impl Case {
    /// Asks `policy`, and compares.
    pub fn run(&self, policy: &CompiledPolicy, now: Timestamp) -> Outcome {
        let (decision, explanation) = self.request.judge(policy, now);
        Outcome {
            mismatches: self.expect.mismatches(&decision),
            decision,
            explanation,
        }
    }
}

impl Expect {
    fn mismatches(&self, said: &DecisionRecord) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, expected: String, said: String| {
            if expected != said {
                lines.push(format!("{what}: expected {expected}, got {said}"));
            }
        };
        compare("decision", self.decision.0.to_string(), said.decision.to_string());
        if let Some(rule) = &self.rule {
            compare("rule", format!("`{rule}`"), format!("`{}`", said.rule_id));
        }
        if let Some(reason) = &self.reason {
            compare("reason", format!("`{reason}`"), format!("`{}`", said.reason));
        }
        if let Some(quorum) = self.quorum {
            let said = said.terms.as_ref().map_or(0, |terms| terms.quorum);
            compare("quorum", quorum.to_string(), said.to_string());
        }
        if let Some(ids) = &self.remediations {
            let said: Vec<&str> = said.remediations.iter().map(|way| way.id.as_str()).collect();
            compare("remediations", ids.join(", "), said.join(", "));
        }
        if let Some(expected) = &self.constraints {
            let said = said.constraints.as_ref().map_or(Value::Null, constraints_snake_json);
            missing("constraints", expected, &said, &mut lines);
        }
        lines
    }
}

/// What of `expected` is not in `said`.
fn missing(path: &str, expected: &Value, said: &Value, lines: &mut Vec<String>) {
    match expected {
        Value::Object(members) => {
            for (name, expected) in members {
                missing(
                    &format!("{path}.{name}"),
                    expected,
                    said.get(name).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        _ if expected == said => {}
        _ => lines.push(format!("{path}: expected {expected}, got {said}")),
    }
}

impl From<&Request> for Question {
    fn from(request: &Request) -> Self {
        Self {
            job_id: request.job_id.clone(),
            topic: request.topic.clone(),
            tenant: request.tenant.clone(),
            principal_id: request.principal_id.clone(),
            labels: request.labels.clone(),
            meta_tenant_id: request.meta.tenant_id.clone(),
            actor_id: request.meta.actor_id.clone(),
            actor_type: request.meta.actor_type.clone(),
            capability: request.meta.capability.clone(),
            risk_tags: request.meta.risk_tags.clone(),
            requires: request.meta.requires.clone(),
            pack_id: request.meta.pack_id.clone(),
            ..Self::default()
        }
    }
}
