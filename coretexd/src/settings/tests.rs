use std::collections::HashMap;
use std::io::Write as _;

use clap::Parser as _;

use super::*;

/// Settings from a command line, `NAME=value` pairs and a file.
fn settle(args: &[&str], env: &[(&str, &str)], yaml: &str) -> Result<Settings, Invalid> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    let mut cli = Cli::parse_from(std::iter::once("coretexd").chain(args.iter().copied()));
    cli.flags.config = Some(file.path().to_owned());
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    load(&cli.flags, &|name| env.get(name).map(|value| (*value).to_owned()))
}

fn problems(args: &[&str], env: &[(&str, &str)], yaml: &str) -> String {
    settle(args, env, yaml).unwrap_err().to_string()
}

#[test]
fn nothing_set_means_embedded_on_loopback() {
    let settings = settle(&[], &[], "").unwrap();
    assert_eq!(settings.http.addr.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.http.metrics_addr.to_string(), "127.0.0.1:9092");
    assert_eq!(
        settings.roles,
        BTreeSet::from([Role::Gateway, Role::Scheduler, Role::SafetyKernel, Role::WorkflowEngine])
    );
    assert_eq!(settings.http.rate_limit, Some(RateLimit { rps: 50, burst: 100 }));
    assert!(
        matches!(&settings.backend, Backend::Embedded { data_dir: DataDir::Folder(path) } if path.ends_with("coretex-data"))
    );
}

#[test]
fn flags_before_environment_before_file() {
    let yaml = "http: {addr: ':1'}\nconnect_timeout: 1s\ntenant: file\n";
    let env = [
        ("GATEWAY_HTTP_ADDR", ":2"),
        ("CORETEX_CONNECT_TIMEOUT", "2s"),
        ("API_KEY", "k"),
    ];
    let settings = settle(&["--http-addr", ":3"], &env, yaml).unwrap();
    assert_eq!(settings.http.addr.port(), 3);
    assert_eq!(settings.connect_timeout, Span(Duration::from_secs(2)));
    assert_eq!(settings.tenant, "file");
    assert_eq!(settle(&[], &[], yaml).unwrap().http.addr.port(), 1);
}

#[test]
fn a_typo_in_the_file_is_named_with_line_and_key() {
    for (yaml, expected) in [
        ("http:\n  adr: ':1'\n", vec![".yaml:2:", "adr"]),
        ("nats:\n  url: x\n  jet_stream: true\n", vec![".yaml:3:", "jet_stream"]),
        ("conect_timeout: 3s\n", vec![".yaml:1:", "conect_timeout"]),
        ("connect_timeout: 3\n", vec![".yaml:1:", "3"]),
        ("http: {rate_limit_rps: -1}\n", vec![".yaml:1:"]),
        ("log: {format: xml}\n", vec![".yaml:1:", "xml"]),
        ("a: [", vec![".yaml:"]),
        ("tenant: a\ntenant: b\n", vec![".yaml:2:", "tenant"]),
    ] {
        let text = problems(&[], &[], yaml);
        for part in expected {
            assert!(text.contains(part), "{yaml:?}: {text}");
        }
    }
    assert!(settle(&[], &[], "# nothing but a comment\n").is_ok());
}

#[test]
fn a_bad_variable_is_named_and_all_are_reported() {
    let text = problems(
        &[],
        &[
            ("NATS_JS_ACK_WAIT", "3"),
            ("API_RATE_LIMIT_RPS", "many"),
            ("JOB_META_TTL_SECONDS", "-1"),
            ("CORETEX_LOG_FORMAT", "xml"),
            ("CORETEX_ROLES", "gateway,typo"),
            ("GATEWAY_HTTP_ADDR", "8081"),
            ("NATS_URL", "nats://x"),
            ("TENANT_ID", "a\u{7}b"),
        ],
        "",
    );
    for name in [
        "NATS_JS_ACK_WAIT: `3` has no unit",
        "API_RATE_LIMIT_RPS: `many`",
        "JOB_META_TTL_SECONDS: `-1`",
        "CORETEX_LOG_FORMAT: `xml` is none of text, json",
        "CORETEX_ROLES: `typo`",
        "GATEWAY_HTTP_ADDR: `8081`",
        "NATS_URL is set but REDIS_URL is not",
        "TENANT_ID",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(problems(&[], &[("REDIS_URL", "redis://x")], "").contains("REDIS_URL is set but NATS_URL is not"));
    assert!(problems(&["--role", "gateway"], &[], "").contains("--role"));
}

#[test]
fn without_a_key_only_the_local_machine_is_served() {
    for (addr, key, args, expected) in [
        (":8081", "", &[][..], Some("127.0.0.1:8081")),
        ("0.0.0.0:8081", "", &[], Some("127.0.0.1:8081")),
        ("[::]:8081", "", &[], Some("127.0.0.1:8081")),
        ("[::1]:8081", "", &[], Some("[::1]:8081")),
        ("10.0.0.1:8081", "", &[], None),
        ("10.0.0.1:8081", "k", &[], Some("10.0.0.1:8081")),
        (":8081", "k", &[], Some("0.0.0.0:8081")),
        (":8081", "", &["--insecure-open"], Some("0.0.0.0:8081")),
    ] {
        let env = [("GATEWAY_HTTP_ADDR", addr), ("CORETEX_API_KEY", key)];
        let found = settle(args, &env, "")
            .ok()
            .map(|settings| settings.http.addr.to_string());
        assert_eq!(found.as_deref(), expected, "{addr} {key:?} {args:?}");
    }
}

#[test]
fn variables_of_older_deployments_still_rule() {
    let env = [
        ("NATS_URL", "nats://u:p@n:4222"),
        ("REDIS_URL", "redis://:pw@r:6379"),
        ("NATS_USE_JETSTREAM", " YES "),
        ("JOB_META_TTL_SECONDS", "60"),
        ("JOB_META_TTL", "2m"),
        ("REDIS_DATA_TTL_SECONDS", "90"),
        ("CORETEX_SUPER_SECRET_API_TOKEN", "''"),
        ("CORETEX_API_KEY", " \"one\" "),
        ("API_KEY", "two"),
        ("API_RATE_LIMIT_RPS", "0"),
        ("CORETEX_ALLOWED_ORIGINS", "  "),
        ("CORETEX_CORS_ALLOW_ORIGINS", "https://a, https://b"),
        ("CORS_ALLOW_ORIGINS", "*"),
    ];
    let settings = settle(&[], &env, "").unwrap();
    assert!(settings.jetstream);
    assert_eq!(settings.job_meta_ttl, Span(Duration::from_secs(120)));
    assert_eq!(settings.data_ttl, Span(Duration::from_secs(90)));
    assert_eq!(settings.http.api_key.as_ref().unwrap().expose(), "one");
    assert_eq!(settings.http.rate_limit, None);
    assert_eq!(
        settings.http.origins,
        Origins::List(vec!["https://a".to_owned(), "https://b".to_owned()])
    );
    let printed = serde_json::to_string(&settings).unwrap();
    for secret in ["one", "u:p", "pw"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(printed.contains("nats://***@n:4222"), "{printed}");
}

#[test]
fn every_variable_is_documented() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    for (name, _) in env_vars::ALL {
        assert!(
            manual.contains(&format!("`{name}`")),
            "{name} is missing in docs/configuration.md"
        );
    }
}

#[test]
fn where_policy_comes_from() {
    use coretex_core::policy::{PublicKey, Signature, Signed};
    let read = |pairs: &[(&str, &str)]| settle(&[], pairs, "").map(|settings| settings.scheduler.policy);
    let file = |path: &str| Some(PolicyPlace::File(path.into()));
    let default = PolicySettings::default();
    for (pairs, base) in [
        (vec![], file("config/safety.yaml")),
        (vec![("SAFETY_POLICY_PATH", "")], file("config/safety.yaml")),
        (vec![("SAFETY_POLICY_PATH", " ")], None),
        (vec![("SAFETY_POLICY_PATH", "a.yaml")], file("a.yaml")),
        (
            vec![("SAFETY_POLICY_PATH", "a.yaml"), ("SAFETY_POLICY_URL", "b.yaml")],
            file("b.yaml"),
        ),
        (
            vec![("SAFETY_POLICY_URL", "https://p.example/x")],
            Some(PolicyPlace::Url(ServerUrl::new("https://p.example/x"))),
        ),
    ] {
        let expected = PolicySettings {
            base,
            ..default.clone()
        };
        assert_eq!(read(&pairs).unwrap(), expected, "{pairs:?}");
    }
    for value in ["1", "0", "false"] {
        let policy = read(&[("SAFETY_POLICY_CONFIG_DISABLE", value)]).unwrap();
        assert_eq!(policy.fragments, None);
    }
    let policy = read(&[
        ("SAFETY_POLICY_CONFIG_SCOPE", "org"),
        ("SAFETY_POLICY_CONFIG_ID", "acme"),
        ("SAFETY_POLICY_CONFIG_KEY", "rules"),
        ("SAFETY_POLICY_RELOAD_INTERVAL", "5s"),
    ])
    .unwrap();
    assert_eq!(policy.reload_interval, Span(Duration::from_secs(5)));
    let place = policy.fragments.unwrap();
    assert_eq!((&*place.scope, &*place.id, &*place.key), ("org", "acme", "rules"));

    let (key, signature) = ("07".repeat(32), "08".repeat(64));
    let signed = Signed::by(key.parse::<PublicKey>().unwrap());
    for (name, value, expected) in [
        ("SAFETY_POLICY_URL", "x", signed.clone()),
        (
            "SAFETY_POLICY_SIGNATURE",
            &*signature,
            signed.clone().with_signature(signature.parse::<Signature>().unwrap()),
        ),
        (
            "SAFETY_POLICY_SIGNATURE_PATH",
            "x.sig",
            signed.with_signature_file("x.sig"),
        ),
    ] {
        let policy = read(&[("SAFETY_POLICY_PUBLIC_KEY", &key), (name, value)]).unwrap();
        assert_eq!(policy.signed, Some(expected), "{name}");
    }
    let Invalid(problems) = read(&[
        ("SAFETY_POLICY_PUBLIC_KEY", &key[2..]),
        ("SAFETY_POLICY_SIGNATURE", "?"),
        ("SAFETY_POLICY_RELOAD_INTERVAL", "0s"),
    ])
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "invalid SAFETY_POLICY_PUBLIC_KEY: invalid key length: 31 bytes instead of 32",
            "invalid SAFETY_POLICY_SIGNATURE: invalid signature encoding: neither hex nor base64",
            "SAFETY_POLICY_RELOAD_INTERVAL: must be more than zero",
        ]
    );
}
