//! `coretexctl policy explain`

use std::path::PathBuf;

use coretex_core::policy::Explanation;
use coretex_core::policy::cases::{Meta, Request};
use coretex_core::time::Clock;
use serde_json::{Map, Value, json};

use super::files::{self, Fragment};
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::facts;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --policy the server is asked, by the policy in force. Drafts stand for fragments in force (`base` for the base
policy): what would happen if they were published?

Examples:
  coretexctl policy explain job.sre.cleanup --label env=prod --risk-tag delete
  coretexctl policy explain job.sre.cleanup --tenant acme --draft secops/freeze=freeze.yaml
  coretexctl policy explain job.sre.cleanup --policy config/safety.yaml -o json")]
pub(crate) struct Args {
    /// The topic of the job
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Its tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// One of its labels; repeat for several
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// What it needs
    #[arg(long, value_name = "WORD")]
    capability: Option<String>,
    /// What is risky about it; repeat for several
    #[arg(long = "risk-tag", value_name = "WORD")]
    risk_tags: Vec<String>,
    /// What its worker must offer; repeat for several
    #[arg(long = "requires", value_name = "WORD")]
    requires: Vec<String>,
    /// Who acts
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// `human` or `service`
    #[arg(long, value_name = "TYPE", value_parser = ["human", "service"])]
    actor_type: Option<String>,
    /// The pack it belongs to
    #[arg(long, value_name = "PACK")]
    pack: Option<String>,
    /// Judge by this file, without a server
    #[arg(long, value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Judge with this text in the place of a fragment; repeat for several
    #[arg(long = "draft", value_name = "ID=FILE", value_parser = files::fragment)]
    drafts: Vec<Fragment>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not NAME=VALUE"))
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let document = if args.policy.is_some() {
        by_files(&args)?
    } else {
        by_server(&args, context).await?
    };
    context.out.print(&document, || show(&document))
}

async fn by_server(args: &Args, context: &Context) -> Result<Value, Failure> {
    let mut drafts = Map::new();
    for draft in &args.drafts {
        drafts.insert(draft.id().to_owned(), files::text(draft.file())?.into());
    }
    let body = json!({
        "topic": args.topic,
        "tenant": args.tenant.clone().unwrap_or_default(),
        "labels": args.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "meta": {
            "capability": args.capability.clone().unwrap_or_default(),
            "risk_tags": args.risk_tags,
            "requires": args.requires,
            "actor_id": args.actor.clone().unwrap_or_default(),
            "actor_type": args.actor_type.clone().unwrap_or_default(),
            "pack_id": args.pack.clone().unwrap_or_default(),
        },
        "drafts": drafts,
    });
    context.api.post(&["policy", "explain"], Some(&body)).await
}

/// The same answer, made here.
fn by_files(args: &Args) -> Result<Value, Failure> {
    let policy = files::compile(files::parts(args.policy.as_deref(), &args.drafts)?);
    let request = Request {
        topic: args.topic.clone(),
        tenant: args.tenant.clone().unwrap_or_default(),
        labels: args.labels.iter().cloned().collect(),
        meta: Meta {
            actor_id: args.actor.clone().unwrap_or_default(),
            actor_type: args.actor_type.clone().unwrap_or_default(),
            capability: args.capability.clone().unwrap_or_default(),
            risk_tags: args.risk_tags.clone(),
            requires: args.requires.clone(),
            pack_id: args.pack.clone().unwrap_or_default(),
            ..Meta::default()
        },
        ..Request::default()
    };
    let (said, explanation) = request.judge(&policy, Clock::system().now());
    Ok(json!({
        "decision": said.decision.to_proto().as_str_name(),
        "reason": said.reason,
        "ruleId": said.rule_id,
        "policySnapshot": said.policy_snapshot,
        "approvalRequired": said.approval_required,
        "matched": said.matched,
        "explanation": explanation,
    }))
}

fn show(document: &Value) -> String {
    let doc = Doc(document);
    let decision = doc.text("decision");
    let mut lines = vec![facts(&[
        (
            "decision",
            decision.strip_prefix("DECISION_TYPE_").unwrap_or(decision).to_owned(),
        ),
        ("reason", doc.text("reason").to_owned()),
        ("policy", doc.text("policySnapshot").to_owned()),
    ])];
    let explanation: Explanation = serde_json::from_value(document["explanation"].clone()).unwrap_or_default();
    if let Some(rule) = &explanation.rule {
        lines.push(format!(
            "rule `{}` (number {} of the policy, in {})",
            rule.id, rule.number, rule.origin
        ));
    }
    lines.extend(
        explanation
            .conditions
            .iter()
            .map(|check| format!("  holds: {}", check.detail)),
    );
    lines.extend(explanation.overrides.iter().map(|line| format!("  {line}")));
    for limit in &explanation.constraints {
        lines.push(format!(
            "  limit {} = {}, from rule `{}`",
            limit.field, limit.value, limit.rule.id
        ));
    }
    if !explanation.near_misses.is_empty() {
        lines.push("almost:".to_owned());
        for near in &explanation.near_misses {
            lines.push(format!(
                "  rule `{}` in {} would say {}, but {}",
                near.rule.id, near.rule.origin, near.decision, near.failed.detail
            ));
        }
    }
    lines.join("\n")
}
