//! The index finds what reading rule by rule finds (docs/spec/policy.md §7).

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::jobs::Decision;
use crate::policy::model::{DecisionWord, DefaultDecision, McpLists, Pattern, Rule, TenantPolicy};
use crate::policy::{CompiledPolicy, Document, Glob, Part, PolicyInput, evaluate};
use crate::protocol::agent::{JobMetadata, PolicyCheckRequest};

const WORDS: [&str; 5] = ["acme", "ACME ", "beta", "gamma", ""];
const TOPICS: [&str; 8] = [
    "job.a",
    "job.a.b",
    "job.a.c",
    "job.b",
    "job.b.c.d",
    "job.",
    "job.x/y",
    "other",
];
const PATTERNS: [&str; 14] = [
    "job.a",
    "job.a.b",
    "job.a.*",
    "job.*",
    "*",
    "job.*.c",
    "job.b.c.?",
    "job.[ab]",
    "",
    "job.b.*.d",
    "j*",
    "job.a.[^b]",
    "job.*/y",
    "job.b.c.d",
];
const SERVERS: [&str; 4] = ["git", "GIT", "evil", ""];

fn words() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => subsequence(WORDS.to_vec(), 1..3).prop_map(|words| words.into_iter().map(str::to_owned).collect()),
    ]
}

fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
    prop_oneof![
        1 => Just(Vec::new()),
        2 => subsequence(PATTERNS.to_vec(), 1..3)
            .prop_map(|texts| texts.into_iter().map(|text| Pattern(Glob::new(text).unwrap())).collect()),
    ]
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop_oneof![
        2 => Just(BTreeMap::new()),
        1 => prop::collection::btree_map(
            select(vec!["env", "region", "mcp.server"]).prop_map(str::to_owned),
            select(vec!["prod", "eu", "", "git", "evil"]).prop_map(str::to_owned),
            1..3,
        ),
    ]
}

fn mcp() -> impl Strategy<Value = McpLists> {
    let servers = || {
        prop_oneof![
            3 => Just(Vec::new()),
            1 => subsequence(SERVERS.to_vec(), 1..3).prop_map(|s| s.into_iter().map(str::to_owned).collect::<Vec<_>>()),
        ]
    };
    (servers(), servers()).prop_map(|(allow_servers, deny_servers)| McpLists {
        allow_servers,
        deny_servers,
        ..McpLists::default()
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        (patterns(), words(), words(), words(), words()),
        (
            words(),
            words(),
            labels(),
            prop::option::weighted(0.2, any::<bool>()),
            mcp(),
        ),
        select(vec![
            Decision::Allow,
            Decision::Deny,
            Decision::RequireApproval,
            Decision::Throttle,
        ]),
    )
        .prop_map(
            |(
                (topics, tenants, capabilities, pack_ids, actor_ids),
                (risk_tags, requires, labels, secrets_present, mcp),
                decision,
            )| {
                let mut rule = Rule::default();
                rule.conditions.topics = topics;
                rule.conditions.tenants = tenants;
                rule.conditions.capabilities = capabilities;
                rule.conditions.pack_ids = pack_ids;
                rule.conditions.actor_ids = actor_ids;
                rule.conditions.risk_tags = risk_tags;
                rule.conditions.requires = requires;
                rule.conditions.labels = labels;
                rule.conditions.secrets_present = secrets_present;
                rule.conditions.mcp = mcp;
                rule.decision = DecisionWord(Some(decision));
                rule
            },
        )
}

fn document() -> impl Strategy<Value = Document> {
    let guards = prop::collection::btree_map(
        select(vec!["acme", "beta"]).prop_map(str::to_owned),
        (patterns(), patterns(), mcp()).prop_map(|(allow_topics, deny_topics, mcp)| TenantPolicy {
            allow_topics,
            deny_topics,
            mcp,
            ..TenantPolicy::default()
        }),
        0..2,
    );
    let default = select(vec![None, Some(Decision::Deny), Some(Decision::RequireApproval)]);
    (prop::collection::vec(rule(), 0..12), guards, default).prop_map(|(mut rules, tenants, default)| {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.id = format!("r{number}");
        }
        Document {
            rules,
            tenants,
            default_decision: DefaultDecision(default),
            ..Document::default()
        }
    })
}

fn request() -> impl Strategy<Value = PolicyCheckRequest> {
    let word = || select(WORDS.to_vec()).prop_map(str::to_owned);
    let list = || subsequence(vec!["acme", "beta", "Gamma", "secrets", ""], 0..3);
    (
        select(TOPICS.to_vec()),
        word(),
        word(),
        word(),
        word(),
        list(),
        list(),
        labels(),
    )
        .prop_map(
            |(topic, tenant, capability, pack_id, actor_id, risk_tags, requires, labels)| PolicyCheckRequest {
                topic: topic.to_owned(),
                tenant,
                labels,
                meta: Some(JobMetadata {
                    capability,
                    pack_id,
                    actor_id,
                    risk_tags: risk_tags.into_iter().map(str::to_owned).collect(),
                    requires: requires.into_iter().map(str::to_owned).collect(),
                    ..JobMetadata::default()
                }),
                ..PolicyCheckRequest::default()
            },
        )
}

/// Words are ASCII here.
fn same(entry: &str, value: &str) -> bool {
    !value.is_empty() && entry.trim().eq_ignore_ascii_case(value.trim())
}

fn any_of(entries: &[String], value: &str) -> bool {
    entries.is_empty() || entries.iter().any(|entry| same(entry, value))
}

fn mcp_refuses(lists: &McpLists, request: &PolicyCheckRequest) -> Option<String> {
    let server = request.labels.get("mcp.server").map_or("", |server| server.trim());
    if server.is_empty() {
        None
    } else if lists.deny_servers.iter().any(|entry| same(entry, server)) {
        Some(format!("mcp server '{server}' denied"))
    } else if any_of(&lists.allow_servers, server) {
        None
    } else {
        Some(format!("mcp server '{server}' not allowed"))
    }
}

fn holds(rule: &Rule, request: &PolicyCheckRequest, tenant: &str) -> bool {
    let wanted = &rule.conditions;
    let meta = request.meta.as_ref().unwrap();
    let secrets = meta.risk_tags.iter().any(|tag| tag == "secrets");
    let mcp_lists = wanted.mcp != McpLists::default();
    let uses_mcp = request
        .labels
        .get("mcp.server")
        .is_some_and(|server| !server.trim().is_empty());
    any_of(&wanted.tenants, tenant)
        && any_of(&wanted.capabilities, &meta.capability)
        && any_of(&wanted.pack_ids, &meta.pack_id)
        && any_of(&wanted.actor_ids, &meta.actor_id)
        && (wanted.topics.is_empty()
            || wanted
                .topics
                .iter()
                .any(|p| !p.0.as_str().is_empty() && p.0.matches(&request.topic)))
        && (wanted.risk_tags.is_empty()
            || meta
                .risk_tags
                .iter()
                .any(|tag| wanted.risk_tags.iter().any(|e| same(e, tag))))
        && wanted
            .requires
            .iter()
            .all(|entry| meta.requires.iter().any(|item| same(entry, item)))
        && (wanted.labels.is_empty() || !request.labels.is_empty())
        && wanted
            .labels
            .iter()
            .all(|(name, value)| request.labels.get(name).map_or("", String::as_str) == value)
        && wanted.secrets_present.is_none_or(|expected| expected == secrets)
        && (!mcp_lists || (uses_mcp && mcp_refuses(&wanted.mcp, request).is_none()))
}

/// Decision, rule id, reason: §4, rule by rule.
fn naive(document: &Document, request: &PolicyCheckRequest) -> (Decision, String, String) {
    if !request.topic.starts_with("job.") {
        return (Decision::Deny, String::new(), "unsupported topic".to_owned());
    }
    let tenant = match request.tenant.trim() {
        "" => "default",
        tenant => tenant,
    };
    let guard = document.tenants.iter().find(|(name, _)| same(name, tenant));
    let matched = document.rules.iter().find(|rule| holds(rule, request, tenant));
    let mut answer = match matched {
        Some(rule) => (rule.decision.0.unwrap(), rule.id.clone(), String::new()),
        None => match document.default_decision.0 {
            Some(Decision::Deny) => (
                Decision::Deny,
                String::new(),
                "no rule matches, and the default decision is deny".to_owned(),
            ),
            Some(_) => (
                Decision::RequireApproval,
                String::new(),
                "no rule matches, and the default decision is require_approval".to_owned(),
            ),
            None => (Decision::Allow, String::new(), String::new()),
        },
    };
    if let Some((name, guard)) = guard {
        let refused = mcp_refuses(&guard.mcp, request);
        let position = |patterns: &[Pattern]| {
            patterns
                .iter()
                .position(|p| !p.0.as_str().is_empty() && p.0.matches(&request.topic))
        };
        if document.rules.is_empty()
            && refused.is_none()
            && let Some(at) = position(&guard.allow_topics)
        {
            answer = (
                Decision::Allow,
                format!("legacy:{name}:allow:{}", at + 1),
                String::new(),
            );
        }
        if matched.is_none_or(|rule| rule.decision.0 != Some(Decision::Deny))
            && let Some(at) = position(&guard.deny_topics)
        {
            answer = (
                Decision::Deny,
                format!("legacy:{name}:deny:{}", at + 1),
                format!("topic '{}' denied by tenant policy", guard.deny_topics[at].0),
            );
        }
        if let Some(reason) = refused {
            answer = (Decision::Deny, answer.1, reason);
        }
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn agrees_with_rule_by_rule(document in document(), requests in prop::collection::vec(request(), 1..8)) {
        let policy = CompiledPolicy::from_parts(vec![Part::base(document.clone())], "s".to_owned()).0;
        for request in requests {
            let input = PolicyInput::new(&request);
            let evaluation = evaluate(&policy, &input);
            let found = (evaluation.decision, evaluation.rule_id.to_owned(), evaluation.reason.to_string());
            prop_assert_eq!(found, naive(&document, &request), "{:?}", request);
            prop_assert!(!evaluation.explain(&policy, &input).is_empty());
        }
    }
}
