//! docs/spec/policy.md §§2–6, one line per case.

use crate::jobs::Decision;
use crate::policy::{CompiledPolicy, EffectiveSafety, PolicyInput, evaluate};
use crate::protocol::agent::{ActorType, JobMetadata, PolicyCheckRequest};

/// `topic=job.x tenant=acme risk=prod,secrets label:env=prod`: fields separated by spaces, `_` within values for a space.
fn request(text: &str) -> PolicyCheckRequest {
    let mut request = PolicyCheckRequest {
        job_id: "j1".to_owned(),
        ..PolicyCheckRequest::default()
    };
    let mut meta = JobMetadata::default();
    let mut has_meta = false;
    for field in text.split_whitespace() {
        let (name, value) = field.split_once('=').unwrap();
        let value = value.replace('_', " ");
        let list = || value.split(',').map(str::to_owned).collect();
        has_meta |= !matches!(name, "topic" | "tenant" | "principal") && !name.starts_with("label:");
        match name {
            "topic" => request.topic = value,
            "tenant" => request.tenant = value,
            "principal" => request.principal_id = value,
            "meta.tenant" => meta.tenant_id = value,
            "actor" => meta.actor_id = value,
            "type" => {
                meta.set_actor_type(if value == "human" {
                    ActorType::Human
                } else {
                    ActorType::Service
                });
            }
            "cap" => meta.capability = value,
            "pack" => meta.pack_id = value,
            "risk" => meta.risk_tags = list(),
            "requires" => meta.requires = list(),
            "meta.label" => {
                meta.labels.insert(value, "1".to_owned());
            }
            _ => {
                let label = name.strip_prefix("label:").unwrap();
                // Underscores are part of label names.
                request.labels.insert(label.to_owned(), value);
            }
        }
    }
    request.meta = has_meta.then_some(meta);
    request
}

/// `DENY(rule)! reason`: the verdict, the rule, `!` if approval is required, the reason.
fn verdict(policy: &str, text: &str, config: &str) -> String {
    let (policy, _) = CompiledPolicy::from_bytes(policy.as_bytes(), "p").unwrap();
    let request = request(text);
    let effective = EffectiveSafety::parse(config.as_bytes());
    let input = PolicyInput::new(&request).with_effective(&effective);
    let evaluation = evaluate(&policy, &input);
    assert_eq!(evaluation.snapshot, policy.snapshot());
    let flag = if evaluation.approval_required { "!" } else { "" };
    format!(
        "{}({}){flag} {}",
        evaluation.decision, evaluation.rule_id, evaluation.reason
    )
    .trim_end()
    .to_owned()
}

/// The rule `r` denies what `conditions` hold for.
fn matches(conditions: &str, text: &str) -> bool {
    let policy = format!("rules: [{{id: r, decision: deny, match: {conditions}}}]");
    match &*verdict(&policy, text, "") {
        "DENY(r)" => true,
        "ALLOW()" => false,
        other => panic!("{conditions} on {text}: {other}"),
    }
}

#[test]
fn normalisation() {
    // (section, conditions, request, holds)
    for (section, conditions, request, holds) in [
        ("2 topic is trimmed", "{topics: [job.x]}", "topic=_job.x_", true),
        (
            "2 tenant first",
            "{tenants: [a]}",
            "topic=job.x tenant=a meta.tenant=b",
            true,
        ),
        (
            "2 tenant then meta",
            "{tenants: [b]}",
            "topic=job.x tenant=_ meta.tenant=_b",
            true,
        ),
        ("2 tenant default", "{tenants: [default]}", "topic=job.x", true),
        (
            "2 actor",
            "{actor_ids: [bot]}",
            "topic=job.x actor=bot principal=p",
            true,
        ),
        (
            "2 actor before principal",
            "{actor_ids: [p]}",
            "topic=job.x actor=bot principal=p",
            false,
        ),
        ("2 principal", "{actor_ids: [p]}", "topic=job.x cap=c principal=p", true),
        (
            "2 principal, no meta",
            "{actor_ids: [p]}",
            "topic=job.x principal=p",
            true,
        ),
        ("2 human", "{actor_types: [human]}", "topic=job.x type=human", true),
        (
            "2 service",
            "{actor_types: [Service]}",
            "topic=job.x type=service",
            true,
        ),
        ("2 no type", "{actor_types: [human, service]}", "topic=job.x", false),
        (
            "2 labels of meta don't count",
            "{labels: {a: '1'}}",
            "topic=job.x meta.label=a",
            false,
        ),
        (
            "2.1 secrets by tag",
            "{secrets_present: true}",
            "topic=job.x risk=Secrets",
            true,
        ),
        (
            "2.1 secrets by label",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=true",
            true,
        ),
        (
            "2.1 any case",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=_TRUE",
            true,
        ),
        (
            "2.1 one",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=1",
            true,
        ),
        (
            "2.1 yes",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=Yes",
            true,
        ),
        (
            "2.1 no",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=no",
            false,
        ),
        (
            "2.1 blank",
            "{secrets_present: true}",
            "topic=job.x label:secrets_present=_",
            false,
        ),
        ("2.1 none", "{secrets_present: false}", "topic=job.x risk=prod", true),
        (
            "2.1 a label does not take a tag back",
            "{secrets_present: true}",
            "topic=job.x risk=secrets label:secrets_present=false",
            true,
        ),
        (
            "2.2 dot",
            "{mcp: {deny_tools: [a]}}",
            "topic=job.x label:mcp.tool=b",
            true,
        ),
        (
            "2.2 underscore",
            "{mcp: {allow_tools: [b]}}",
            "topic=job.x label:mcp_tool=b",
            true,
        ),
        (
            "2.2 camel",
            "{mcp: {allow_tools: [b]}}",
            "topic=job.x label:mcpTool=b",
            true,
        ),
        (
            "2.2 blank falls through",
            "{mcp: {allow_tools: [b]}}",
            "topic=job.x label:mcp.tool=_ label:mcp_tool=_b_",
            true,
        ),
        (
            "2.2 the dot wins",
            "{mcp: {allow_tools: [b]}}",
            "topic=job.x label:mcp.tool=a label:mcpTool=b",
            false,
        ),
    ] {
        assert_eq!(matches(conditions, request), holds, "§{section}");
    }
}

#[test]
fn conditions() {
    // (section, conditions, request, holds)
    for (section, conditions, request, holds) in [
        ("3 empty match", "{}", "topic=job.x", true),
        ("3 null match", "null", "topic=job.x", true),
        (
            "3 empty lists",
            "{tenants: [], topics: [], labels: {}, mcp: {}}",
            "topic=job.x",
            true,
        ),
        (
            "3 all must hold",
            "{topics: [job.x], tenants: [a]}",
            "topic=job.x tenant=b",
            false,
        ),
        (
            "3.1 fold",
            "{capabilities: [' Repo.Write ']}",
            "topic=job.x cap=repo.write",
            true,
        ),
        ("3.1 any entry", "{capabilities: [a, b]}", "topic=job.x cap=b", true),
        (
            "3.1 no glob",
            "{capabilities: [repo.*]}",
            "topic=job.x cap=repo.write",
            false,
        ),
        ("3.1 empty value", "{capabilities: ['']}", "topic=job.x", false),
        (
            "3.1 blank value is blank entry",
            "{capabilities: ['']}",
            "topic=job.x cap=_",
            true,
        ),
        ("3.1 packs", "{pack_ids: [sre]}", "topic=job.x pack=SRE", true),
        ("3.1 packs", "{pack_ids: [sre]}", "topic=job.x", false),
        ("3.2 glob", "{topics: [job.sre.*]}", "topic=job.sre.a.b", true),
        ("3.2 glob", "{topics: [job.sre.*]}", "topic=job.sre", false),
        ("3.2 any pattern", "{topics: [job.a, job.?]}", "topic=job.x", true),
        ("3.2 case", "{topics: [JOB.X]}", "topic=job.x", false),
        ("3.2 patterns are trimmed", "{topics: [' job.x ']}", "topic=job.x", true),
        ("3.2 blank pattern", "{topics: ['', ' ']}", "topic=job.x", false),
        ("3.2 class", "{topics: ['job.[a-c]x']}", "topic=job.bx", true),
        ("3.2 slash", "{topics: ['job.*']}", "topic=job.a/b", false),
        (
            "3.4 risk tags, any",
            "{risk_tags: [prod, pii]}",
            "topic=job.x risk=a,PII",
            true,
        ),
        (
            "3.4 risk tags, none",
            "{risk_tags: [prod]}",
            "topic=job.x risk=a",
            false,
        ),
        (
            "3.4 requires, all",
            "{requires: [git, k8s]}",
            "topic=job.x requires=K8S,git,more",
            true,
        ),
        (
            "3.4 requires, one missing",
            "{requires: [git, k8s]}",
            "topic=job.x requires=git",
            false,
        ),
        (
            "3.4 requires, blank",
            "{requires: ['']}",
            "topic=job.x requires=_",
            true,
        ),
        (
            "3.4 requires, empty",
            "{requires: ['']}",
            "topic=job.x requires=git,",
            false,
        ),
        (
            "3.5 labels",
            "{labels: {env: prod}}",
            "topic=job.x label:env=prod label:a=b",
            true,
        ),
        (
            "3.5 labels are exact",
            "{labels: {env: prod}}",
            "topic=job.x label:env=Prod",
            false,
        ),
        (
            "3.5 labels, all",
            "{labels: {env: prod, r: eu}}",
            "topic=job.x label:env=prod",
            false,
        ),
        (
            "3.5 a missing label is empty",
            "{labels: {env: ''}}",
            "topic=job.x label:a=b",
            true,
        ),
        (
            "3.5 but not without labels",
            "{labels: {env: ''}}",
            "topic=job.x",
            false,
        ),
        (
            "3.3 mcp needs use",
            "{mcp: {deny_servers: [evil]}}",
            "topic=job.x",
            false,
        ),
        (
            "3.3 mcp in the lists",
            "{mcp: {allow_servers: [git]}}",
            "topic=job.x label:mcp.server=GIT",
            true,
        ),
        (
            "3.3 mcp denied",
            "{mcp: {deny_servers: [evil]}}",
            "topic=job.x label:mcp.server=evil",
            false,
        ),
        (
            "3.3 mcp not allowed",
            "{mcp: {allow_servers: [git]}}",
            "topic=job.x label:mcp.server=other",
            false,
        ),
        (
            "3.3 an empty field is in no list",
            "{mcp: {allow_servers: [git], allow_tools: ['']}}",
            "topic=job.x label:mcp.server=git",
            false,
        ),
        (
            "3.3 deny wins",
            "{mcp: {allow_servers: [git], deny_servers: [git]}}",
            "topic=job.x label:mcp.server=git",
            false,
        ),
    ] {
        assert_eq!(
            matches(conditions, request),
            holds,
            "§{section}: {conditions} on {request}"
        );
    }
}

const RULES: &str = "
default_tenant: acme
rules:
  - {id: ask, decision: require_approval, reason: prod write, match: {topics: [job.ask]}}
  - {id: later, decision: throttle, reason: busy, match: {topics: [job.later]}}
  - {id: limits, decision: allow, reason: dropped, match: {topics: [job.limits]}, constraints: {redaction_level: strict}}
  - {id: bare, decision: allow_with_constraints, reason: dropped, match: {topics: [job.bare]}}
  - {id: no, decision: deny, reason: never, match: {topics: [job.no]}, constraints: {budgets: {max_retries: 1}}}
  - {id: yes, decision: allow, reason: dropped, match: {topics: [job.yes, job.danger.x, job.ask]}}
  - {decision: deny, reason: nameless, match: {topics: [job.nameless]}}
tenants:
  acme:
    allow_topics: ['job.*']
    deny_topics: [job.danger.*, job.no, job.later2]
    mcp: {deny_servers: [evil], allow_actions: [read]}
";

const TENANTS: &str = "
tenants:
  Acme: {allow_topics: ['', 'job.a.*'], deny_topics: ['job.a.no', 'job.a.n*'], mcp: {deny_servers: [evil]}}
  beta: {allow_topics: [job.b]}
";

#[test]
fn verdicts() {
    // (section, policy, request, verdict)
    for (section, policy, request, expected) in [
        ("4.1 no topic", RULES, "tenant=a", "DENY() missing topic"),
        ("4.1 blank topic", RULES, "topic=_", "DENY() missing topic"),
        ("4.1 other topic", RULES, "topic=sys.x", "DENY() unsupported topic"),
        ("4.1 case", RULES, "topic=Job.x", "DENY() unsupported topic"),
        ("4.1 even without rules", "", "topic=job", "DENY() unsupported topic"),
        (
            "4.2 first rule wins",
            RULES,
            "topic=job.ask",
            "REQUIRE_APPROVAL(ask)! prod write",
        ),
        ("4.2 throttle", RULES, "topic=job.later", "THROTTLE(later) busy"),
        (
            "4.2 limits",
            RULES,
            "topic=job.limits",
            "ALLOW_WITH_CONSTRAINTS(limits)",
        ),
        (
            "4.2 limits without any",
            RULES,
            "topic=job.bare",
            "ALLOW_WITH_CONSTRAINTS(bare)",
        ),
        ("4.2 allowed has no reason", RULES, "topic=job.yes", "ALLOW(yes)"),
        ("4.2 no id", RULES, "topic=job.nameless", "DENY() nameless"),
        ("4.3 no rule", RULES, "topic=job.other", "ALLOW()"),
        (
            "4.3 default deny",
            "default_decision: deny",
            "topic=job.x",
            "DENY() no rule matches, and the default decision is deny",
        ),
        (
            "4.3 default require_approval",
            "default_decision: require_human",
            "topic=job.x",
            "REQUIRE_APPROVAL()! no rule matches, and the default decision is require_approval",
        ),
        (
            "4.3 default allow",
            "default_decision: permit",
            "topic=job.x",
            "ALLOW()",
        ),
        (
            "4.3 a rule before the default",
            "{default_decision: deny, rules: [{decision: allow}]}",
            "topic=job.x",
            "ALLOW()",
        ),
        (
            "4.3 allow_topics before the default",
            "{default_decision: deny, tenants: {a: {allow_topics: ['job.*']}}}",
            "topic=job.x tenant=a",
            "ALLOW(legacy:a:allow:1)",
        ),
        (
            "4.4 forbidden topics beat allowing rules",
            RULES,
            "topic=job.danger.x",
            "DENY(legacy:acme:deny:1) topic 'job.danger.*' denied by tenant policy",
        ),
        ("4.4 but not denying ones", RULES, "topic=job.no", "DENY(no) never"),
        (
            "4.4 nor need a rule",
            RULES,
            "topic=job.later2",
            "DENY(legacy:acme:deny:3) topic 'job.later2' denied by tenant policy",
        ),
        (
            "4.4 of this tenant",
            RULES,
            "topic=job.danger.x tenant=other",
            "ALLOW(yes)",
        ),
        (
            "4.4 tenants are words",
            RULES,
            "topic=job.danger.y tenant=_ACME",
            "DENY(legacy:acme:deny:1) topic 'job.danger.*' denied by tenant policy",
        ),
        (
            "4.4 allow_topics only without rules",
            RULES,
            "topic=job.other tenant=acme",
            "ALLOW()",
        ),
        (
            "4.4 derived allow",
            TENANTS,
            "topic=job.a.x tenant=acme",
            "ALLOW(legacy:Acme:allow:2)",
        ),
        (
            "4.4 derived deny",
            TENANTS,
            "topic=job.a.no tenant=acme",
            "DENY(legacy:Acme:deny:1) topic 'job.a.no' denied by tenant policy",
        ),
        (
            "4.4 derived deny, in order",
            TENANTS,
            "topic=job.a.nx tenant=acme",
            "DENY(legacy:Acme:deny:2) topic 'job.a.n*' denied by tenant policy",
        ),
        (
            "4.4 allow_topics forbid nothing",
            TENANTS,
            "topic=job.z tenant=beta",
            "ALLOW()",
        ),
        (
            "4.4 derived allow and mcp",
            TENANTS,
            "topic=job.a.x tenant=acme label:mcp.server=evil",
            "DENY() mcp server 'evil' denied",
        ),
        (
            "4.5 mcp",
            RULES,
            "topic=job.yes label:mcp.server=Evil label:mcp.action=read",
            "DENY(yes) mcp server 'Evil' denied",
        ),
        (
            "4.5 mcp allow list",
            RULES,
            "topic=job.yes label:mcp.server=git label:mcp.action=DELETE",
            "DENY(yes) mcp action 'delete' not allowed",
        ),
        (
            "4.5 mcp empty field",
            RULES,
            "topic=job.yes label:mcp.server=git",
            "DENY(yes) mcp action '' not allowed",
        ),
        (
            "4.5 mcp fine",
            RULES,
            "topic=job.yes label:mcp.action=READ",
            "ALLOW(yes)",
        ),
        (
            "4.5 the flag stays",
            RULES,
            "topic=job.ask label:mcp.server=evil",
            "DENY(ask)! mcp server 'evil' denied",
        ),
        (
            "4.5 the reason is replaced",
            RULES,
            "topic=job.no label:mcp.server=evil",
            "DENY(no) mcp server 'evil' denied",
        ),
        ("4.5 no policy", "", "topic=job.x label:mcp.server=evil", "ALLOW()"),
    ] {
        assert_eq!(verdict(policy, request, ""), expected, "§{section}");
    }
}

#[test]
fn effective_config() {
    // §5: (effective config, request, verdict) under RULES
    for (config, request, expected) in [
        ("", "topic=job.yes", "ALLOW(yes)"),
        ("{}", "topic=job.yes", "ALLOW(yes)"),
        ("null", "topic=job.yes", "ALLOW(yes)"),
        (r#"{"safety":null}"#, "topic=job.yes", "ALLOW(yes)"),
        (r#"{"safety":{}}"#, "topic=job.yes", "ALLOW(yes)"),
        (
            r#"{"safety":{"denied_topics":["job.y*"]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' denied by effective config",
        ),
        (
            r#"{"safety":{"Denied_Topics":["job.y*"]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' denied by effective config",
        ),
        (
            r#"{"data":{"safety":{"denied_topics":["job.y*"]}}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' denied by effective config",
        ),
        (
            r#"{"safety":null,"data":{"safety":{"denied_topics":["job.y*"]}}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        (
            r#"{"Safety":{"denied_topics":["job.y*"]}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        (
            r#"{"safety":{"denied_topics":["job.z"]}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        (
            r#"{"safety":{"allowed_topics":["job.z"]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' not allowed by effective config",
        ),
        (
            r#"{"safety":{"allowed_topics":["job.z",null]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' not allowed by effective config",
        ),
        (
            r#"{"safety":{"allowed_topics":[null]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' not allowed by effective config",
        ),
        (
            r#"{"safety":{"allowed_topics":["job.*"]}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        (
            r#"{"safety":{"denied_topics":["job.yes"],"allowed_topics":["job.z"]}}"#,
            "topic=job.yes",
            "DENY(yes) topic 'job.yes' not allowed by effective config",
        ),
        (
            r#"{"safety":{"denied_topics":["job.yes"],"mcp":{"DENY_TOOLS":["rm"]}}}"#,
            "topic=job.yes label:mcp.tool=rm label:mcp.action=read",
            "DENY(yes) mcp tool 'rm' denied",
        ),
        (
            r#"{"safety":{"mcp":{"allow_tools":["ls"]}}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        // It never loosens, keeps the rule, and wins over other reasons.
        (
            r#"{"safety":{"allowed_topics":["job.no"]}}"#,
            "topic=job.no",
            "DENY(no) never",
        ),
        (
            r#"{"safety":{"denied_topics":["job.no"]}}"#,
            "topic=job.no",
            "DENY(no) topic 'job.no' denied by effective config",
        ),
        (
            r#"{"safety":{"denied_topics":["job.ask"]}}"#,
            "topic=job.ask",
            "DENY(ask)! topic 'job.ask' denied by effective config",
        ),
        // What cannot be read forbids; what is not ours is not read.
        (
            r#"{"safety":{"pii_types":7,"denied_topics":[]}}"#,
            "topic=job.yes",
            "ALLOW(yes)",
        ),
        (
            r#"{"safety":{"denied_topics":"job.x"}}"#,
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: safety.denied_topics: not a list of strings",
        ),
        (
            r#"{"safety":{"denied_topics":[1]}}"#,
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: safety.denied_topics: not a list of strings",
        ),
        (
            r#"{"safety":{"denied_topics":["job.["]}}"#,
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: safety.denied_topics: malformed pattern `job.[`: `[` without `]`",
        ),
        (
            r#"{"safety":{"mcp":[]}}"#,
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: safety.mcp: not an object",
        ),
        (
            r#"{"safety":7}"#,
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: safety: not an object",
        ),
        (
            "[]",
            "topic=job.yes",
            "DENY(yes) effective config cannot be read: not an object",
        ),
    ] {
        assert_eq!(verdict(RULES, request, config), expected, "{config}");
    }
    assert!(verdict(RULES, "topic=job.yes", "{").starts_with("DENY(yes) effective config cannot be read: not JSON"));
}

#[test]
fn limits_come_with_every_verdict() {
    // §4.6
    let (policy, _) = CompiledPolicy::from_bytes(RULES.as_bytes(), "p").unwrap();
    let of = |topic: &str| {
        let request = request(topic);
        evaluate(&policy, &PolicyInput::new(&request)).constraints.cloned()
    };
    let limits = of("topic=job.no").unwrap();
    assert_eq!(limits.budgets.unwrap().max_retries, 1);
    assert!(limits.sandbox.is_some() && limits.toolchain.is_some() && limits.diff.is_some());
    assert_eq!(of("topic=job.limits").unwrap().redaction_level, "strict");
    assert_eq!(of("topic=job.bare"), None);
    for (written, some) in [
        ("{}", false),
        ("{redaction_level: ' '}", false),
        (
            "{sandbox: {isolated: false, fs_read_only: []}, budgets: {max_retries: 0}}",
            false,
        ),
        ("{redaction_level: ' x '}", true),
        ("{sandbox: {isolated: yes}}", true),
        ("{diff: {max_files: -1}}", true),
        ("{toolchain: {allowed_tools: [git]}}", true),
    ] {
        let text = format!("rules: [{{decision: allow, constraints: {written}}}]");
        let (policy, _) = CompiledPolicy::from_bytes(text.as_bytes(), "p").unwrap();
        let request = request("topic=job.x");
        let evaluation = evaluate(&policy, &PolicyInput::new(&request));
        assert_eq!(evaluation.constraints.is_some(), some, "{written}");
        let expected = if some {
            Decision::AllowWithConstraints
        } else {
            Decision::Allow
        };
        assert_eq!(evaluation.decision, expected, "{written}");
    }
}

#[test]
fn explanations() {
    // §6
    let policy = "
rules:
  - id: all
    decision: deny
    match:
      tenants: [Acme]
      topics: [job.other, job.sre.*]
      capabilities: [repo.write]
      risk_tags: [prod]
      requires: [git, k8s]
      pack_ids: [sre]
      actor_ids: [bot]
      actor_types: [service]
      labels: {env: prod}
      secrets_present: false
      mcp: {allow_servers: [git]}
  - {id: any, decision: allow, match: {topics: [job.any]}}
  - {id: everything, decision: allow}
tenants:
  acme: {deny_topics: [job.no*], mcp: {deny_servers: [evil]}}
";
    let (policy, _) = CompiledPolicy::from_bytes(policy.as_bytes(), "p").unwrap();
    for (text, config, lines) in [
        (
            "topic=job.sre.x tenant=acme cap=repo.write risk=a,PROD requires=git,K8s pack=sre actor=bot type=service \
             label:env=prod label:mcp.server=git",
            "",
            vec![
                "tenants: Acme is acme",
                "topics: job.sre.* matches job.sre.x",
                "capabilities: repo.write is repo.write",
                "risk_tags: PROD",
                "requires: git, k8s",
                "pack_ids: sre is sre",
                "actor_ids: bot is bot",
                "actor_types: service is service",
                "labels: env=prod",
                "secrets_present: false",
                "mcp: server git is within the lists",
            ],
        ),
        ("topic=job.x", "", vec!["match: empty, holds for every job"]),
        (
            "topic=job.no1 tenant=acme",
            "",
            vec!["tenants.acme.deny_topics: job.no* matches job.no1"],
        ),
        (
            "topic=job.any tenant=acme label:mcp.server=evil label:mcp.tool=t",
            r#"{"safety":{"denied_topics":["job.a*"]}}"#,
            vec![
                "topics: job.any matches job.any",
                "tenants.acme.mcp.deny_servers refuses server evil, tool t",
                "effective config: safety.denied_topics: job.a* matches job.any",
            ],
        ),
        ("topic=x", "", vec!["topic: unsupported topic"]),
    ] {
        let request = request(text);
        let effective = EffectiveSafety::parse(config.as_bytes());
        let input = PolicyInput::new(&request).with_effective(&effective);
        assert_eq!(evaluate(&policy, &input).explain(&policy, &input), lines);
    }
}

#[test]
fn the_policy_that_comes_with_the_product() {
    let text = include_str!("../../../../config/safety.yaml");
    let (_, warnings) = CompiledPolicy::from_bytes(text.as_bytes(), "config/safety.yaml").unwrap();
    assert_eq!(warnings, []);
    for (request, expected) in [
        ("topic=job.demo.digest", "ALLOW(demo-digest)"),
        (
            "topic=job.demo.delete",
            "DENY(demo-no-deletes) the demo only reads; nothing may be deleted",
        ),
        (
            "topic=job.demo.publish",
            "REQUIRE_APPROVAL(demo-publish-needs-approval)! publishing is visible to others, so a person has a look first",
        ),
        (
            "topic=job.x risk=prod,secrets",
            "REQUIRE_APPROVAL(production-with-secrets)! carries secrets into production",
        ),
        ("topic=job.anything", "ALLOW()"),
    ] {
        assert_eq!(verdict(text, request, ""), expected);
    }
}
