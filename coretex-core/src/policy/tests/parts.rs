//! Policies of several documents, terms, remediations, explanations, lint and diff: docs/spec/policy.md §§1.6, 1.7, 4.7, 9–11.

use crate::jobs::{ApprovalTerms, OnExpiry};
use crate::policy::{
    BASE, CompiledPolicy, Document, Explanation, Part, PartKind, PolicyInput, diff, evaluate, explain, lint,
};
use crate::protocol::agent::PolicyCheckRequest;
use crate::time::Timestamp;

/// `base`, `secops/a`, `pack/x`: from their names, in this order.
fn parts(documents: &[(&str, &str)]) -> Vec<Part> {
    documents
        .iter()
        .map(|(origin, text)| Part {
            origin: (*origin).to_owned(),
            kind: if *origin == BASE {
                PartKind::Base
            } else {
                PartKind::of_fragment(origin)
            },
            document: Document::parse(text.as_bytes(), origin).unwrap().document,
        })
        .collect()
}

fn request(topic: &str, tenant: &str, server: &str) -> PolicyCheckRequest {
    let mut request = PolicyCheckRequest {
        job_id: "j1".to_owned(),
        topic: topic.to_owned(),
        tenant: tenant.to_owned(),
        ..PolicyCheckRequest::default()
    };
    if !server.is_empty() {
        request.labels.insert("mcp.server".to_owned(), server.to_owned());
    }
    request
}

fn verdict(policy: &CompiledPolicy, request: &PolicyCheckRequest) -> String {
    let evaluation = evaluate(policy, &PolicyInput::new(request));
    let flag = if evaluation.approval_required { "!" } else { "" };
    format!(
        "{}({}){flag} {}",
        evaluation.decision, evaluation.rule_id, evaluation.reason
    )
    .trim_end()
    .to_owned()
}

#[test]
fn packs_only_tighten() {
    // §4.7: (what, documents, topic, server, verdict)
    let deny = (
        BASE,
        "default_decision: deny\nrules: [{id: b, decision: allow, match: {topics: [job.b]}}]",
    );
    let ask = (BASE, "default_decision: require_approval");
    let open = (BASE, "default_decision: allow");
    let allow = ("p/x", "rules: [{id: p, decision: allow}]");
    for (what, documents, topic, server, expected) in [
        ("the base comes first", vec![deny, allow], "job.b", "", "ALLOW(b)"),
        (
            "an allow does not loosen deny",
            vec![deny, allow],
            "job.x",
            "",
            "DENY(p) the default decision is deny, and a pack cannot loosen it",
        ),
        (
            "nor approval",
            vec![ask, allow],
            "job.x",
            "",
            "REQUIRE_APPROVAL(p)! the default decision is require_approval, and a pack cannot loosen it",
        ),
        (
            "an open default has nothing to loosen",
            vec![open, allow],
            "job.x",
            "",
            "ALLOW(p)",
        ),
        (
            "nor one that is not set",
            vec![(BASE, ""), allow],
            "job.x",
            "",
            "ALLOW(p)",
        ),
        (
            "a pack may deny",
            vec![open, ("p/x", "rules: [{id: p, decision: deny, reason: no}]")],
            "job.x",
            "",
            "DENY(p) no",
        ),
        (
            "and deny where approval is asked for",
            vec![ask, ("p/x", "rules: [{id: p, decision: deny, reason: no}]")],
            "job.x",
            "",
            "DENY(p) no",
        ),
        (
            "and throttle",
            vec![ask, ("p/x", "rules: [{id: p, decision: throttle, reason: later}]")],
            "job.x",
            "",
            "THROTTLE(p) later",
        ),
        (
            "secops is trusted",
            vec![deny, ("secops/a", "rules: [{id: s, decision: allow}]")],
            "job.x",
            "",
            "ALLOW(s)",
        ),
        (
            "the strictest default wins",
            vec![
                open,
                ("secops/a", "default_decision: require_approval"),
                ("secops/b", "default_decision: deny"),
            ],
            "job.x",
            "",
            "DENY() no rule matches, and the default decision is deny",
        ),
        (
            "packs set no default",
            vec![(BASE, ""), ("p/x", "default_decision: deny")],
            "job.x",
            "",
            "ALLOW()",
        ),
        (
            "allow_topics of a pack do not loosen",
            vec![
                (BASE, "default_decision: deny"),
                ("p/x", "tenants: {t: {allow_topics: ['job.*']}}"),
            ],
            "job.x",
            "",
            "DENY() no rule matches, and the default decision is deny",
        ),
        (
            "those of others do",
            vec![
                (BASE, "default_decision: deny"),
                ("secops/a", "tenants: {t: {allow_topics: ['job.*']}}"),
            ],
            "job.x",
            "",
            "ALLOW(legacy:t:allow:1)",
        ),
        (
            "deny lists are concatenated and numbered through",
            vec![
                (BASE, "tenants: {t: {deny_topics: [job.a, '']}}"),
                ("p/x", "tenants: {T: {deny_topics: [job.q]}, t: {deny_topics: [job.x]}}"),
            ],
            "job.x",
            "",
            "DENY(legacy:t:deny:3) topic 'job.x' denied by tenant policy",
        ),
        (
            "an MCP allow list of a pack does not widen another",
            vec![
                (BASE, "tenants: {t: {mcp: {allow_servers: [git]}}}"),
                ("p/x", "tenants: {t: {mcp: {allow_servers: [evil]}}}"),
            ],
            "job.x",
            "evil",
            "DENY() mcp server 'evil' not allowed",
        ),
        (
            "secops widens",
            vec![
                (BASE, "tenants: {t: {mcp: {allow_servers: [git]}}}"),
                ("secops/a", "tenants: {t: {mcp: {allow_servers: [k8s]}}}"),
            ],
            "job.x",
            "k8s",
            "ALLOW()",
        ),
        (
            "packs among themselves do",
            vec![
                ("p/x", "tenants: {t: {mcp: {allow_servers: [git]}}}"),
                ("p/y", "tenants: {t: {mcp: {allow_servers: [k8s]}}}"),
            ],
            "job.x",
            "k8s",
            "ALLOW()",
        ),
        (
            "a pack may deny servers",
            vec![(BASE, ""), ("p/x", "tenants: {t: {mcp: {deny_servers: [evil]}}}")],
            "job.x",
            "evil",
            "DENY() mcp server 'evil' denied",
        ),
        ("no part at all", vec![], "job.x", "", "ALLOW()"),
    ] {
        let (policy, _) = CompiledPolicy::from_parts(parts(&documents), "s".to_owned());
        assert_eq!(verdict(&policy, &request(topic, "t", server)), expected, "{what}");
    }
}

#[test]
fn terms_of_approval() {
    // §1.6: (documents, quorum, seconds, what then)
    let rule = |terms: &str| format!("rules: [{{id: r, decision: require_approval{terms}}}]");
    let own = rule(", approval: {quorum: 2, expires_after: 30m, on_expiry: allow}");
    let bare = rule("");
    let partly = format!(
        "approval: {{quorum: 3, expires_after: 1h}}\n{}",
        rule(", approval: {quorum: 2}")
    );
    let default = "default_decision: require_approval\napproval: {quorum: 2, expires_after: 1h}";
    let lax = rule(", approval: {quorum: 1, expires_after: 2h, on_expiry: allow}");
    for (documents, quorum, seconds, on_expiry) in [
        (vec![(BASE, &*own)], 2, Some(1_800), OnExpiry::Allow),
        (vec![(BASE, &*bare)], 1, None, OnExpiry::Deny),
        (vec![(BASE, &*partly)], 2, Some(3_600), OnExpiry::Deny),
        (vec![(BASE, default)], 2, Some(3_600), OnExpiry::Deny),
        (
            vec![(BASE, default), ("secops/a", &*bare)],
            2,
            Some(3_600),
            OnExpiry::Deny,
        ),
        (
            vec![(BASE, default), ("secops/a", &*lax)],
            1,
            Some(7_200),
            OnExpiry::Allow,
        ),
        // A pack loosens no terms, but sets its own where it alone asks.
        (vec![(BASE, default), ("p/x", &*lax)], 2, Some(3_600), OnExpiry::Deny),
        (
            vec![(BASE, "approval: {quorum: 5}"), ("p/x", &*lax)],
            1,
            Some(7_200),
            OnExpiry::Allow,
        ),
    ] {
        let (policy, _) = CompiledPolicy::from_parts(parts(&documents), "s".to_owned());
        let request = request("job.x", "t", "");
        let input = PolicyInput::new(&request);
        let record = evaluate(&policy, &input).into_record(&policy, &input, &request, Timestamp::ZERO);
        let terms = ApprovalTerms {
            quorum,
            expires_after: seconds.map(std::time::Duration::from_secs),
            on_expiry,
        };
        assert_eq!(record.terms, Some(terms), "{documents:?}");
        assert_eq!(record.approval_ref, "j1");
    }
    let (policy, _) = CompiledPolicy::from_parts(parts(&[(BASE, "rules: [{decision: deny}]")]), "s".to_owned());
    let request = request("job.x", "t", "");
    let input = PolicyInput::new(&request);
    let record = evaluate(&policy, &input).into_record(&policy, &input, &request, Timestamp::ZERO);
    assert_eq!((record.terms, record.approval_required), (None, false));
}

#[test]
fn remediations_come_with_what_is_not_allowed() {
    // §1.7
    let text = |decision: &str| {
        format!(
            "rules: [{{id: r, decision: {decision}, remediations: [{{id: read, title: Read, replacement_topic: ' job.read ', \
             add_labels: {{env: test}}, remove_labels: [prod]}}]}}]"
        )
    };
    for (decision, count) in [("deny", 1), ("require_approval", 1), ("throttle", 1), ("allow", 0)] {
        let (policy, _) = CompiledPolicy::from_parts(parts(&[(BASE, &text(decision))]), "s".to_owned());
        let request = request("job.x", "t", "");
        let input = PolicyInput::new(&request);
        let record = evaluate(&policy, &input).into_record(&policy, &input, &request, Timestamp::ZERO);
        assert_eq!(record.remediations.len(), count, "{decision}");
        if let Some(found) = record.remediations.first() {
            assert_eq!((&*found.id, &*found.replacement_topic), ("read", "job.read"));
            assert_eq!(found.add_labels["env"], "test");
            assert_eq!(found.remove_labels, ["prod"]);
        }
    }
}

fn explained(documents: &[(&str, &str)], request: &PolicyCheckRequest) -> Explanation {
    let (policy, _) = CompiledPolicy::from_parts(parts(documents), "s".to_owned());
    let input = PolicyInput::new(request);
    explain(&policy, &input, &evaluate(&policy, &input))
}

#[test]
fn explanations() {
    // §9
    let base = "
default_decision: deny
rules:
  - {id: other-tenant, decision: deny, match: {tenants: [u], topics: ['job.*']}}
  - {id: far, decision: deny, match: {tenants: [u], topics: [job.q]}}
  - {id: labelled, decision: require_approval, match: {topics: [job.x], labels: {env: prod}}}
";
    let pack = "
rules:
  - id: p
    decision: allow
    match: {tenants: [t], topics: [job.x]}
    constraints: {budgets: {max_retries: 3}, sandbox: {isolated: true}, redaction_level: strict}
  - {id: after, decision: deny, match: {tenants: [u]}}
";
    let told = explained(&[(BASE, base), ("p/x", pack)], &request("job.x", "t", ""));
    let rule = told.rule.clone().unwrap();
    assert_eq!((&*rule.id, &*rule.origin, rule.number), ("p", "p/x", 4));
    let details: Vec<&str> = told.conditions.iter().map(|check| &*check.detail).collect();
    assert_eq!(details, ["tenants: t is t", "topics: job.x matches job.x"]);
    assert_eq!(
        told.overrides,
        ["default_decision: deny, and the rule of a pack cannot loosen it"]
    );
    let near: Vec<(&str, &str, &str)> = told
        .near_misses
        .iter()
        .map(|miss| (&*miss.rule.id, &*miss.decision, &*miss.failed.detail))
        .collect();
    assert_eq!(
        near,
        [
            ("other-tenant", "deny", "tenants: t is none of u"),
            ("labelled", "require_approval", "labels: the job has no labels"),
        ]
    );
    let limits: Vec<(&str, String)> = told
        .constraints
        .iter()
        .map(|limit| (&*limit.field, limit.value.to_string()))
        .collect();
    assert_eq!(
        limits,
        [
            ("budgets.max_retries", "3".to_owned()),
            ("sandbox.isolated", "true".to_owned()),
            ("redaction_level", "\"strict\"".to_owned()),
        ]
    );
    assert!(told.constraints.iter().all(|limit| limit.rule == rule));

    // No rule: all are near or far.
    let told = explained(&[(BASE, base), ("p/x", pack)], &request("job.y", "t", ""));
    assert_eq!(told.rule, None);
    assert_eq!(told.overrides, ["default_decision: deny, no rule matches"]);
    let near: Vec<&str> = told.near_misses.iter().map(|miss| &*miss.rule.id).collect();
    assert_eq!(near, ["other-tenant", "p", "after"]);

    // A tenant's list decides over a rule.
    let guard = "rules: [{id: r, decision: allow}]\ntenants: {t: {deny_topics: [job.x]}}";
    let told = explained(&[("secops/a", guard)], &request("job.x", "t", ""));
    assert_eq!(told.rule, None);
    assert_eq!(told.overrides, ["secops/a: tenants.t.deny_topics: job.x matches job.x"]);
    let told = explained(&[(BASE, base)], &request("nothing", "t", ""));
    assert_eq!((told.overrides.len(), told.near_misses.len()), (1, 0));

    // The list ends.
    let many: String = std::iter::once("rules:\n".to_owned())
        .chain((0..50).map(|n| format!("- {{id: r{n}, decision: deny, match: {{topics: [job.n{n}]}}}}\n")))
        .collect();
    let told = explained(&[(BASE, &many)], &request("job.x", "t", ""));
    assert_eq!(told.near_misses.len(), 10);
    let json = serde_json::to_string(&told).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), told);
}

#[test]
fn what_fails_is_told() {
    // §9: (condition, detail) of a rule that fails on it alone, for a job without anything
    for (written, detail) in [
        ("{topics: [job.a]}", "topics: job.a does not match job.x"),
        ("{topics: [job.a, job.b]}", "topics: none of job.a, job.b matches job.x"),
        ("{capabilities: [c]}", "capabilities: the job has none; wanted one of c"),
        (
            "{tenants: [a, b, c, d, e, f, g]}",
            "tenants: t is none of a, b, c, d, e and 2 more",
        ),
        (
            "{risk_tags: [prod]}",
            "risk_tags: the job has no tags; wanted one of prod",
        ),
        ("{requires: [git, k8s]}", "requires: the job does not require git, k8s"),
        ("{pack_ids: [p]}", "pack_ids: the job has none; wanted one of p"),
        ("{actor_ids: [a]}", "actor_ids: the job has none; wanted one of a"),
        (
            "{actor_types: [human]}",
            "actor_types: the job has none; wanted one of human",
        ),
        ("{labels: {env: prod}}", "labels: env is missing, not prod"),
        ("{labels: {mcp.server: git}}", "labels: mcp.server is evil, not git"),
        ("{secrets_present: true}", "secrets_present: false, not true"),
        ("{mcp: {deny_servers: [evil]}}", "mcp: deny_servers refuses server evil"),
    ] {
        let text = format!("rules: [{{id: r, decision: deny, match: {written}}}]");
        let told = explained(&[(BASE, &text)], &request("job.x", "t", "evil"));
        let details: Vec<&str> = told.near_misses.iter().map(|miss| &*miss.failed.detail).collect();
        assert_eq!(details, [detail]);
    }
}

#[test]
fn findings() {
    // §10: (documents, `severity code origin rule line`)
    for (documents, expected) in [
        (
            vec![(BASE, "default_decision: deny\nrules: [{id: a, decision: allow}]")],
            vec![],
        ),
        (vec![(BASE, "rules: []")], vec!["warning no_default_decision base  0"]),
        (
            vec![(BASE, "default_decision: deny\nruels: []\n")],
            vec!["warning unknown_key base  2"],
        ),
        (
            vec![(BASE, "default_decision: deny\nrules:\n- decision: deny\n")],
            vec!["note no_id base  3"],
        ),
        (
            vec![(
                BASE,
                "default_decision: deny\nrules:\n- {id: a, decision: require_approval}\n",
            )],
            vec!["warning no_reason base a 3"],
        ),
        (
            vec![(
                BASE,
                "default_decision: deny\nrules:\n- {id: a, decision: deny, approval: {quorum: 2}}\n",
            )],
            vec!["warning unused_approval base a 3"],
        ),
        (
            vec![(
                BASE,
                "default_decision: deny\nrules:\n- {id: a, decision: deny}\n- {id: b, decision: allow}\n",
            )],
            vec!["warning unreachable base b 4"],
        ),
        (
            vec![
                (
                    BASE,
                    "default_decision: allow\nrules:\n- {id: a, decision: deny, match: {topics: ['job.*']}}\n",
                ),
                (
                    "p/x",
                    "rules:\n- {id: b, decision: deny, match: {topics: [job.x], tenants: [t]}}\n",
                ),
            ],
            vec!["note shadowed p/x b 2"],
        ),
        (
            vec![
                (
                    BASE,
                    "default_decision: deny\nrules:\n- {id: a, decision: deny, match: {topics: [job.a]}}\n",
                ),
                (
                    "secops/x",
                    "rules:\n- {id: a, decision: deny, match: {topics: [job.b]}}\n",
                ),
            ],
            vec!["warning duplicate_id secops/x a 2"],
        ),
        (
            vec![
                (BASE, "default_decision: deny"),
                ("p/x", "default_decision: allow\ndefault_tenant: q\n"),
            ],
            vec!["warning ignored_default p/x  0", "warning ignored_default p/x  0"],
        ),
        (
            vec![
                (BASE, "default_decision: deny"),
                ("p/x", "rules:\n- {id: a, decision: allow}\n"),
            ],
            vec!["note tightened p/x a 2"],
        ),
        (
            vec![(
                BASE,
                "default_decision: deny\nrules: [{id: a, decision: deny}]\ntenants: {t: {allow_topics: [job.x]}}",
            )],
            vec!["warning unused_allow_topics base  0"],
        ),
    ] {
        let found: Vec<String> = lint(&parts(&documents))
            .iter()
            .map(|f| format!("{} {} {} {} {}", f.severity.as_str(), f.code, f.origin, f.rule, f.line))
            .collect();
        assert_eq!(found, expected, "{documents:?}");
    }
}

#[test]
fn what_covers_what() {
    // §10.1: (first rule, second rule, the second never decides)
    for (wide, narrow, covered) in [
        ("{}", "{topics: [job.x]}", true),
        ("{topics: ['job.*']}", "{}", false),
        ("{topics: ['job.*']}", "{topics: ['job.a.*', job.b]}", true),
        ("{topics: ['job.*']}", "{topics: ['job.a/*']}", false),
        ("{topics: ['job.*']}", "{topics: ['job.a/b']}", false),
        ("{topics: ['job.*']}", "{topics: ['job.[^a]']}", false),
        ("{topics: ['job.*']}", "{topics: ['job.?.x']}", true),
        ("{topics: [job.a, job.b]}", "{topics: [job.b]}", true),
        ("{topics: [job.b]}", "{topics: [job.a, job.b]}", false),
        ("{topics: ['job.*.b']}", "{topics: [job.a.b]}", true),
        ("{tenants: [A, b]}", "{tenants: [a]}", true),
        ("{tenants: [a]}", "{tenants: [a, b]}", false),
        ("{requires: [git]}", "{requires: [k8s, git]}", true),
        ("{requires: [git, k8s]}", "{requires: [git]}", false),
        ("{labels: {a: '1'}}", "{labels: {a: '1', b: '2'}}", true),
        ("{labels: {a: '1'}}", "{labels: {a: '2'}}", false),
        ("{secrets_present: true}", "{secrets_present: true, tenants: [a]}", true),
        ("{secrets_present: true}", "{tenants: [a]}", false),
        (
            "{mcp: {deny_servers: [x]}}",
            "{mcp: {deny_servers: [X]}, tenants: [a]}",
            true,
        ),
        ("{mcp: {deny_servers: [x]}}", "{}", false),
        ("{risk_tags: [a, b]}", "{risk_tags: [b]}", true),
        ("{risk_tags: [a]}", "{risk_tags: [a, b]}", false),
    ] {
        let text = format!(
            "default_decision: deny\nrules: [{{id: w, decision: deny, match: {wide}}}, {{id: n, decision: deny, match: {narrow}}}]"
        );
        let found = lint(&parts(&[(BASE, &text)]));
        assert_eq!(
            found.iter().any(|f| f.code == "unreachable"),
            covered,
            "{wide} {narrow}"
        );
    }
}

#[test]
fn differences() {
    // §11
    let old = "
default_decision: allow
rules:
  - {id: a, decision: allow, match: {topics: [job.a]}}
  - {id: b, decision: allow, match: {topics: [job.b]}}
  - {id: c, decision: allow, match: {topics: [job.c]}}
  - {decision: deny, match: {topics: [job.d]}}
  - {id: gone, decision: deny, match: {topics: [job.e]}}
tenants: {t: {deny_topics: [job.z]}, u: {deny_topics: [job.z]}}
";
    let new = "
default_decision: deny
rules:
  - {id: c, decision: allow, match: {topics: [job.c]}}
  - {id: a, decision: deny, reason: now, match: {topics: ['job.*']}}
  - {id: b, decision: allow, match: {topics: [job.b]}}
  - {decision: deny, match: {topics: [job.d]}}
  - {id: new, decision: deny, match: {topics: [sys]}}
tenants: {t: {deny_topics: [job.y]}, u: {deny_topics: [job.z]}}
";
    let found = diff(&parts(&[(BASE, old)]), &parts(&[(BASE, new)]));
    let ids = |rules: &[crate::policy::RuleRef]| -> Vec<String> { rules.iter().map(|rule| rule.id.clone()).collect() };
    assert_eq!(ids(&found.added), ["new"]);
    assert_eq!(ids(&found.removed), ["gone"]);
    assert_eq!(ids(&found.moved), ["c"]);
    assert_eq!(found.changed.len(), 1);
    assert_eq!(found.changed[0].rule.id, "a");
    assert_eq!(found.changed[0].keys, ["match", "decision", "reason"]);
    let covered: Vec<&str> = found.covered.iter().map(|finding| &*finding.rule).collect();
    assert_eq!(covered, ["b", ""]);
    assert_eq!(found.default_decision, Some(("allow".to_owned(), "deny".to_owned())));
    assert_eq!(found.tenants, ["t"]);
    assert!(diff(&parts(&[(BASE, old)]), &parts(&[(BASE, old)])).is_empty());

    // From one fragment to another.
    let found = diff(&parts(&[("secops/a", old)]), &parts(&[("secops/b", old)]));
    assert!(found.added.is_empty() && found.removed.is_empty());
    assert!(found.changed.iter().all(|change| change.keys == ["origin"]));
}

#[test]
fn oddities_between_parts_are_warnings() {
    // §4.7
    let (_, warnings) = CompiledPolicy::from_parts(
        parts(&[
            (BASE, "rules: [{id: r, decision: deny}]"),
            (
                "p/x",
                "default_decision: deny\ndefault_tenant: q\nrules:\n- {id: r, decision: deny}\n",
            ),
        ]),
        "s".to_owned(),
    );
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "base: default_decision: not set: jobs that no rule matches are allowed",
            "p/x: default_decision: ignored: only the base policy and `secops/` fragments set it",
            "p/x: default_tenant: ignored: only the base policy and `secops/` fragments set it",
            "p/x:4:4: rule `r`: rules[0].id: also the id of a rule of `base`: decisions do not tell them apart",
        ]
    );
}
