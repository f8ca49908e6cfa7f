//! The index finds what reading rule by rule finds (docs/spec/policy.md §7).

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::jobs::Decision;
use crate::policy::model::{DecisionWord, DefaultDecision, McpLists, Pattern, Rule, TenantPolicy};
use crate::policy::{CompiledPolicy, Document, Glob, Part, PartKind, PolicyInput, evaluate, explain, lint};
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

/// The keys of the conditions that fail.
fn failing(rule: &Rule, request: &PolicyCheckRequest, tenant: &str) -> Vec<&'static str> {
    let wanted = &rule.conditions;
    let meta = request.meta.as_ref().unwrap();
    let secrets = meta.risk_tags.iter().any(|tag| tag == "secrets");
    let mcp_lists = wanted.mcp != McpLists::default();
    let uses_mcp = request
        .labels
        .get("mcp.server")
        .is_some_and(|server| !server.trim().is_empty());
    [
        ("tenants", any_of(&wanted.tenants, tenant)),
        (
            "topics",
            wanted.topics.is_empty()
                || wanted
                    .topics
                    .iter()
                    .any(|p| !p.0.as_str().is_empty() && p.0.matches(&request.topic)),
        ),
        ("capabilities", any_of(&wanted.capabilities, &meta.capability)),
        (
            "risk_tags",
            wanted.risk_tags.is_empty()
                || meta
                    .risk_tags
                    .iter()
                    .any(|tag| wanted.risk_tags.iter().any(|e| same(e, tag))),
        ),
        (
            "requires",
            wanted
                .requires
                .iter()
                .all(|entry| meta.requires.iter().any(|item| same(entry, item))),
        ),
        ("pack_ids", any_of(&wanted.pack_ids, &meta.pack_id)),
        ("actor_ids", any_of(&wanted.actor_ids, &meta.actor_id)),
        (
            "labels",
            (wanted.labels.is_empty() || !request.labels.is_empty())
                && wanted
                    .labels
                    .iter()
                    .all(|(name, value)| request.labels.get(name).map_or("", String::as_str) == value),
        ),
        (
            "secrets_present",
            wanted.secrets_present.is_none_or(|expected| expected == secrets),
        ),
        (
            "mcp",
            !mcp_lists || (uses_mcp && mcp_refuses(&wanted.mcp, request).is_none()),
        ),
    ]
    .into_iter()
    .filter(|(_, holds)| !holds)
    .map(|(key, _)| key)
    .collect()
}

fn tenant_of(request: &PolicyCheckRequest) -> &str {
    match request.tenant.trim() {
        "" => "default",
        tenant => tenant,
    }
}

fn rank(decision: Decision) -> usize {
    [
        Decision::Allow,
        Decision::AllowWithConstraints,
        Decision::RequireApproval,
        Decision::Throttle,
        Decision::Deny,
    ]
    .iter()
    .position(|one| *one == decision)
    .unwrap()
}

/// Decision, rule id, reason: §4, rule by rule.
fn naive(parts: &[Part], request: &PolicyCheckRequest) -> (Decision, String, String) {
    if !request.topic.starts_with("job.") {
        return (Decision::Deny, String::new(), "unsupported topic".to_owned());
    }
    let tenant = tenant_of(request);
    let default = parts
        .iter()
        .filter(|part| part.kind != PartKind::Pack)
        .filter_map(|part| part.document.default_decision.0)
        .max_by_key(|decision| rank(*decision))
        .unwrap_or(Decision::Allow);
    let word = if default == Decision::Deny {
        "deny"
    } else {
        "require_approval"
    };
    let rules = || {
        parts
            .iter()
            .flat_map(|part| part.document.rules.iter().map(|rule| (part.kind, rule)))
    };
    let matched = rules().find(|(_, rule)| failing(rule, request, tenant).is_empty());
    let mut answer = match matched {
        Some((PartKind::Pack, rule)) if rank(rule.decision.0.unwrap()) < rank(default) => (
            default,
            rule.id.clone(),
            format!("the default decision is {word}, and a pack cannot loosen it"),
        ),
        Some((_, rule)) => (rule.decision.0.unwrap(), rule.id.clone(), String::new()),
        None if default == Decision::Allow => (default, String::new(), String::new()),
        None => (
            default,
            String::new(),
            format!("no rule matches, and the default decision is {word}"),
        ),
    };

    // The lists of all parts, one after the other.
    let mut deny = Vec::new();
    let mut allow = Vec::new();
    let mut mcp = [McpLists::default(), McpLists::default()];
    let mut canonical = String::new();
    for part in parts {
        for (name, policy) in part.document.tenants.iter().filter(|(name, _)| same(name, tenant)) {
            canonical.clone_from(name);
            deny.extend(policy.deny_topics.iter().map(|pattern| (part.kind, pattern)));
            allow.extend(policy.allow_topics.iter().map(|pattern| (part.kind, pattern)));
            let lists = &mut mcp[usize::from(part.kind == PartKind::Pack)];
            lists.allow_servers.extend(policy.mcp.allow_servers.clone());
            lists.deny_servers.extend(policy.mcp.deny_servers.clone());
        }
    }
    let refused = mcp_refuses(&mcp[0], request).or_else(|| mcp_refuses(&mcp[1], request));
    let hit = |pattern: &Pattern| !pattern.0.as_str().is_empty() && pattern.0.matches(&request.topic);
    if rules().next().is_none()
        && refused.is_none()
        && let Some(at) = allow
            .iter()
            .position(|(kind, pattern)| hit(pattern) && (*kind != PartKind::Pack || default == Decision::Allow))
    {
        answer = (
            Decision::Allow,
            format!("legacy:{canonical}:allow:{}", at + 1),
            String::new(),
        );
    }
    if matched.is_none_or(|(_, rule)| rule.decision.0 != Some(Decision::Deny))
        && let Some(at) = deny.iter().position(|(_, pattern)| hit(pattern))
    {
        answer = (
            Decision::Deny,
            format!("legacy:{canonical}:deny:{}", at + 1),
            format!("topic '{}' denied by tenant policy", deny[at].1.0),
        );
    }
    if let Some(reason) = refused {
        answer = (Decision::Deny, answer.1, reason);
    }
    answer
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let kinds = select(vec![
        vec![PartKind::Base],
        vec![PartKind::Base, PartKind::Pack],
        vec![PartKind::Secops, PartKind::Pack, PartKind::Pack],
        vec![PartKind::Base, PartKind::Secops, PartKind::Pack],
        vec![PartKind::Pack],
    ]);
    kinds.prop_flat_map(|kinds| {
        let count = kinds.len();
        prop::collection::vec(document(), count).prop_map(move |documents| {
            kinds
                .iter()
                .zip(documents)
                .enumerate()
                .map(|(number, (kind, mut document))| {
                    for rule in &mut document.rules {
                        rule.id = format!("p{number}-{}", rule.id);
                    }
                    Part {
                        origin: format!("part-{number}"),
                        kind: *kind,
                        document,
                    }
                })
                .collect()
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn agrees_with_rule_by_rule(parts in parts(), requests in prop::collection::vec(request(), 1..8)) {
        let (policy, _) = CompiledPolicy::from_parts(parts.clone(), "s".to_owned());
        for request in requests {
            let input = PolicyInput::new(&request);
            let evaluation = evaluate(&policy, &input);
            let found = (evaluation.decision, evaluation.rule_id.to_owned(), evaluation.reason.to_string());
            prop_assert_eq!(found, naive(&parts, &request), "{:?}", request);
            prop_assert!(!evaluation.explain(&policy, &input).is_empty());
        }
    }

    #[test]
    fn explanations_are_true(parts in parts(), requests in prop::collection::vec(request(), 1..5)) {
        let (policy, _) = CompiledPolicy::from_parts(parts.clone(), "s".to_owned());
        let rules: Vec<&Rule> = parts.iter().flat_map(|part| &part.document.rules).collect();
        for request in requests.iter().filter(|request| request.topic.starts_with("job.")) {
            let input = PolicyInput::new(request);
            let evaluation = evaluate(&policy, &input);
            let told = explain(&policy, &input, &evaluation);
            let tenant = tenant_of(request);
            prop_assert_eq!(&*told.tenant, tenant);
            let failing: Vec<_> = rules.iter().map(|rule| failing(rule, request, tenant)).collect();
            let matched = failing.iter().position(Vec::is_empty);
            if let Some(rule) = &told.rule {
                prop_assert_eq!(Some(rule.number - 1), matched);
                prop_assert_eq!(&*rule.id, evaluation.rule_id);
                prop_assert!(rule.id.starts_with(&rule.origin.replace("part-", "p")));
                prop_assert!(told.conditions.iter().all(|check| check.holds));
            } else {
                prop_assert!(!told.overrides.is_empty());
            }
            // Neither one too few nor one too many.
            let expected: Vec<(usize, &str)> = failing[..matched.unwrap_or(failing.len())]
                .iter()
                .enumerate()
                .filter_map(|(at, failing)| match **failing { [only] => Some((at + 1, only)), _ => None })
                .take(10)
                .collect();
            let near: Vec<(usize, &str)> = told
                .near_misses
                .iter()
                .map(|miss| (miss.rule.number, &*miss.failed.condition))
                .collect();
            prop_assert_eq!(near, expected);
            prop_assert!(told.near_misses.iter().all(|miss| !miss.failed.holds));
        }
    }

    /// A rule that is said never to decide never does.
    #[test]
    fn covered_rules_never_decide(parts in parts(), requests in prop::collection::vec(request(), 1..8)) {
        let covered: Vec<String> = lint(&parts)
            .into_iter()
            .filter(|finding| matches!(&*finding.code, "unreachable" | "shadowed"))
            .map(|finding| finding.rule)
            .collect();
        let (policy, _) = CompiledPolicy::from_parts(parts, "s".to_owned());
        for request in requests {
            let rule = evaluate(&policy, &PolicyInput::new(&request)).rule_id.to_owned();
            prop_assert!(!covered.contains(&rule), "{} on {:?}", rule, request);
        }
    }
}
