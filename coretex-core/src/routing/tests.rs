use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pools(text: &str) -> Result<Routing, String> {
    Routing::from_yaml("pools.yaml", text).map_err(|error| error.to_string())
}

fn timeouts(text: &str) -> Result<Timeouts, String> {
    Timeouts::from_yaml("timeouts.yaml", text).map_err(|error| error.to_string())
}

fn routing() -> Routing {
    pools("topics: {job.default: default, job.batch: [a, b]}\npools: {a: {requires: [gpu]}, b: {}, c: null}\n").unwrap()
}

#[test]
fn one_pool_or_several() {
    let routing = routing();
    assert_eq!(routing.pools_of("job.default"), ["default"]);
    assert_eq!(routing.pools_of("job.batch"), ["a", "b"]);
    assert!(routing.pools_of("job.other").is_empty());
    assert!(routing.pools_of(" job.default").is_empty());
    assert_eq!(routing.requires_of("a"), ["gpu"]);
    assert!(routing.requires_of("b").is_empty());
    assert!(routing.requires_of("nobody").is_empty());
    assert_eq!(routing.topics().count(), 2);
    assert_eq!(pools("topics: {7: [x, x, y]}").unwrap().pools_of("7"), ["x", "y"]);
    let by_hand = Routing::default()
        .with_topic("job.default", ["default"])
        .with_topic("job.batch", ["a", "b"])
        .with_pool("a", ["gpu"])
        .with_pool("b", [""; 0])
        .with_pool("c", [""; 0]);
    assert_eq!(by_hand, routing);
}

#[test]
fn mistakes_in_pools_are_found() {
    for (text, want) in [
        (
            "# routes\ntopcs:\n  job.default: default\n",
            "pools.yaml:2:1: unknown key `topcs`; did you mean `topics`?",
        ),
        (
            "topics: {t: p}\npools:\n  gpu:\n    require: [cuda]\n",
            "pools.yaml:4:5: unknown key `require`; did you mean `requires`?",
        ),
        (
            "topics: {t: p}\nxyz: 1\n",
            "pools.yaml:2:1: unknown key `xyz`; known keys: topics, pools",
        ),
        (
            "",
            "pools.yaml: no topics: `topics` maps each topic to the pools that serve it",
        ),
        (
            "# nothing\n\n",
            "pools.yaml: no topics: `topics` maps each topic to the pools that serve it",
        ),
        (
            "topics:\npools: {}\n",
            "pools.yaml: no topics: `topics` maps each topic to the pools that serve it",
        ),
        (
            "topics:\n  a: b\n  job.x: []\n",
            "pools.yaml:3:10: `job.x`: no pools: the list is empty",
        ),
        (
            "topics:\n  job.x: {a: b}\n",
            "pools.yaml:2:10: `job.x`: found map, expected the name of a pool, or a list of names",
        ),
        (
            "topics:\n  job.x: \"\"\n",
            "pools.yaml:2:3: `job.x`: found string \"\", expected the name of a pool, or a list of names",
        ),
        (
            "topics:\n  job.x:\n",
            "pools.yaml:2:3: `job.x`: found nothing, expected the name of a pool, or a list of names",
        ),
        (
            "topics:\n  job.x: [a, ' ']\n",
            "pools.yaml:2:14: `job.x`: the name of a pool is empty",
        ),
        ("topics:\n  '': a\n", "pools.yaml:2:3: the name of a topic is empty"),
    ] {
        assert_eq!(pools(text).unwrap_err(), want, "{text}");
    }
    for text in [
        "topics: {a: b",
        "topics: {a: b}\ntopics: {a: b}\n",
        "a\n---\nb",
        "[]",
        "\u{0}",
        "topics: {a: b, a: c}",
    ] {
        let error = pools(text).unwrap_err();
        assert!(error.starts_with("pools.yaml:"), "{error}");
    }
}

#[test]
fn timeouts_have_defaults() {
    let defaults = Timeouts::default();
    for text in ["", "reconciler:\n", "reconciler: {}\ntopics:\nworkflows: {}\n"] {
        assert_eq!(timeouts(text).unwrap(), defaults, "{text}");
    }
    let some = timeouts(
        "reconciler: {running_timeout_seconds: 60}\ntopics: {job.x: {timeout_seconds: 5, max_retries: 0}, job.y: }\n\
         workflows: {w: {child_timeout_seconds: 1, total_timeout_seconds: 2, max_retries: 3}}\n",
    )
    .unwrap();
    assert_eq!(some.dispatch_timeout, Duration::from_secs(300));
    assert_eq!(some.running_timeout, Duration::from_secs(60));
    assert_eq!(some.scan_interval, Duration::from_secs(30));
    assert_eq!(some.topics["job.x"].timeout, Some(Duration::from_secs(5)));
    assert_eq!(some.topics["job.y"], TopicTimeouts::default());
    assert_eq!(some.topics["job.x"].max_retries, Some(0));
    assert_eq!(some.workflows["w"].total_timeout, Some(Duration::from_secs(2)));
    assert_eq!(
        serde_json::to_value(&some).unwrap(),
        json!({
            "reconciler": {"dispatch_timeout_seconds": 300, "running_timeout_seconds": 60, "scan_interval_seconds": 30},
            "topics": {"job.x": {"timeout_seconds": 5, "max_retries": 0}, "job.y": {}},
            "workflows": {"w": {"child_timeout_seconds": 1, "total_timeout_seconds": 2, "max_retries": 3}},
        })
    );
}

#[test]
fn mistakes_in_timeouts_are_found() {
    for (text, want) in [
        (
            "reconciler:\n  scan_interval_secs: 3\n",
            "timeouts.yaml:2:3: unknown key `scan_interval_secs`; did you mean `scan_interval_seconds`?",
        ),
        (
            "reconciler:\n  scan_interval_seconds: 0\n",
            "timeouts.yaml:2:3: `scan_interval_seconds`: found integer `0`, expected a whole number of \
             seconds from 1 to 316224000",
        ),
        (
            "reconciler:\n  running_timeout_seconds: -5\n",
            "timeouts.yaml:2:3: `running_timeout_seconds`: found integer `-5`, expected a whole number of \
             seconds from 1 to 316224000",
        ),
    ] {
        assert_eq!(timeouts(text).unwrap_err(), want, "{text}");
    }
    for text in [
        "reconciler: {scan_interval_seconds: 1.5}",
        "reconciler: {scan_interval_seconds: soon}",
        "reconciler: {scan_interval_seconds: 1000000000000}",
        "topics: {t: {max_retries: -1}}",
        "workflows: {t: {timeout_seconds: 1}}",
    ] {
        assert!(timeouts(text).unwrap_err().starts_with("timeouts.yaml:1:"), "{text}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Routing::load(Path::new("/nowhere/pools.yaml")).unwrap_err();
    assert!(crate::error::chain(&error).starts_with("/nowhere/pools.yaml: cannot be read: "));
}

#[test]
fn shipped_files_are_the_defaults() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let routing = Routing::load(&config.join("pools.yaml")).unwrap();
    assert_eq!(
        routing,
        Routing::default()
            .with_topic("job.default", ["default"])
            .with_pool("default", [""; 0])
    );
    assert_eq!(
        Timeouts::load(&config.join("timeouts.yaml")).unwrap(),
        Timeouts::default()
    );
}

#[test]
fn overlays_add_and_replace() {
    let file = routing();
    let overlay = json!({
        "topics": {"job.sre": "sre", "job.batch": ["c"], "job.gone": null},
        "pools": {"sre": {"requires": ["kubectl"]}, "a": {}, "b": {"requires": ["new"]}, "x": null},
        "Topics": {"job.old": ["old"], "job.default": ["stale"]},
        "Pools": {"old": {"Requires": ["docker"]}, "a": {"Requires": ["stale"]}},
        "other": 5,
    });
    let merged = Routing::merged(&file, Some(&overlay)).unwrap();
    assert_eq!(merged.pools_of("job.default"), ["default"]);
    assert_eq!(merged.pools_of("job.batch"), ["c"]);
    assert_eq!(merged.pools_of("job.sre"), ["sre"]);
    assert_eq!(merged.pools_of("job.old"), ["old"]);
    assert!(merged.pools_of("job.gone").is_empty());
    assert_eq!(merged.requires_of("a"), ["gpu"]);
    assert_eq!(merged.requires_of("b"), ["new"]);
    assert_eq!(merged.requires_of("sre"), ["kubectl"]);
    assert_eq!(merged.requires_of("old"), ["docker"]);

    for nothing in [None, Some(&json!(null)), Some(&json!({}))] {
        assert_eq!(Routing::merged(&file, nothing).unwrap(), file);
    }
    // What we would store ourselves is an overlay that changes nothing.
    let own = serde_json::to_value(&file).unwrap();
    assert_eq!(Routing::merged(&file, Some(&own)).unwrap(), file);
}

#[test]
fn mistakes_in_overlays_are_named() {
    for (overlay, path) in [
        (json!([]), "pools"),
        (json!({"topics": []}), "pools.topics"),
        (json!({"topics": {"t": []}}), "pools.topics.t"),
        (json!({"topics": {"t": [1]}}), "pools.topics.t"),
        (json!({"topics": {"t": " "}}), "pools.topics.t"),
        (json!({"pools": {"p": []}}), "pools.pools.p"),
        (json!({"pools": {"p": {"requires": "x"}}}), "pools.pools.p.requires"),
    ] {
        assert_eq!(
            Routing::merged(&routing(), Some(&overlay)).unwrap_err().path,
            path,
            "{overlay}"
        );
    }
    for (overlay, path) in [
        (json!(1), "timeouts"),
        (
            json!({"reconciler": {"scan_interval_seconds": -1}}),
            "timeouts.reconciler.scan_interval_seconds",
        ),
        (
            json!({"topics": {"t": {"timeout_seconds": 1.5}}}),
            "timeouts.topics.t.timeout_seconds",
        ),
        (
            json!({"workflows": {"w": {"max_retries": -1}}}),
            "timeouts.workflows.w.max_retries",
        ),
    ] {
        assert_eq!(
            Timeouts::merged(&Timeouts::default(), Some(&overlay)).unwrap_err().path,
            path,
            "{overlay}"
        );
    }
}

#[test]
fn timeouts_are_layered() {
    let file = timeouts("reconciler: {running_timeout_seconds: 60}\ntopics: {a: {timeout_seconds: 5}}").unwrap();
    let overlay = json!({
        "reconciler": {"dispatch_timeout_seconds": 7, "running_timeout_seconds": 0, "scan_interval_seconds": null},
        "topics": {"b": {"timeout_seconds": 9}},
        "Reconciler": {"DispatchTimeoutSeconds": 300, "RunningTimeoutSeconds": 9000, "ScanIntervalSeconds": 30},
        "Topics": {"a": {"TimeoutSeconds": 99, "MaxRetries": 4}, "c": {"TimeoutSeconds": 1}},
        "Workflows": {"w": {"ChildTimeoutSeconds": 3, "TotalTimeoutSeconds": 0, "MaxRetries": 1}},
    });
    let merged = Timeouts::merged(&file, Some(&overlay)).unwrap();
    assert_eq!(merged.dispatch_timeout, Duration::from_secs(7));
    assert_eq!(merged.running_timeout, Duration::from_secs(60));
    assert_eq!(merged.scan_interval, Duration::from_secs(30));
    assert_eq!(merged.topics["a"].timeout, Some(Duration::from_secs(5)));
    assert_eq!(merged.topics["a"].max_retries, Some(4));
    assert_eq!(merged.topics["b"].timeout, Some(Duration::from_secs(9)));
    assert_eq!(merged.topics["c"].timeout, Some(Duration::from_secs(1)));
    assert_eq!(merged.workflows["w"].child_timeout, Some(Duration::from_secs(3)));
    assert_eq!(merged.workflows["w"].total_timeout, None);
    assert_eq!(Timeouts::merged(&file, None).unwrap(), file);
    let own = serde_json::to_value(&merged).unwrap();
    assert_eq!(Timeouts::merged(&Timeouts::default(), Some(&own)).unwrap(), merged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,80}") {
        let _ = pools(&text);
        let _ = timeouts(&text);
    }

    #[test]
    fn almost_yaml_does_not_panic(
        text in "(topics|pools|reconciler|workflows|: ?|\n|  |- |\\[|\\]|\\{|\\}|,|&a|\\*a|<<|\\||>|'|\"|#|[a-z0-9.]{1,3}){0,30}"
    ) {
        let _ = pools(&text);
        let _ = timeouts(&text);
    }
}
