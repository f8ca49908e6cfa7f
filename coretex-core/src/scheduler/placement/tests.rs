use std::sync::Arc;

use super::*;
use crate::protocol::agent::{Heartbeat, JobMetadata};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_000);

fn routing() -> Routing {
    Routing::default()
        .with_topic("job.default", ["default"])
        .with_topic("job.two", ["big", "small"])
        .with_pool("big", ["GPU ", "docker"])
        .with_pool("small", ["docker"])
}

fn worker(id: &str, pool: &str, active: i32, max: i32) -> Heartbeat {
    Heartbeat {
        worker_id: id.to_owned(),
        pool: pool.to_owned(),
        active_jobs: active,
        max_parallel_jobs: max,
        ..Heartbeat::default()
    }
}

fn fleet(heartbeats: impl IntoIterator<Item = Heartbeat>) -> Fleet {
    let mut fleet = Fleet::default();
    for heartbeat in heartbeats {
        fleet.observe(Arc::new(heartbeat), NOW);
    }
    fleet
}

fn job(topic: &str, labels: &[(&str, &str)], requires: &[&str]) -> Demand {
    Demand::of(&JobRequest {
        topic: topic.to_owned(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        meta: Some(JobMetadata {
            requires: requires.iter().map(|r| (*r).to_owned()).collect(),
            ..Default::default()
        }),
        ..JobRequest::default()
    })
}

/// The outcome in few words: the worker's id, `wait: …` or `never: …`.
fn outcome(demand: &Demand, fleet: &Fleet) -> String {
    match place(demand, &routing(), fleet) {
        Placement::On { worker, .. } => worker.map_or_else(|| "(topic)".to_owned(), |id| id.as_str().to_owned()),
        Placement::Wait { reason, why } => format!("wait: {}: {why}", reason.as_str()),
        Placement::Impossible { why } => format!("never: {why}"),
    }
}

/// docs/spec/config.md §5.
#[test]
fn what_is_paused_waits() {
    let pauses = |topics: &[&str], pools: &[&str]| {
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), crate::config::Pause::default()))
                .collect()
        };
        crate::config::Pauses {
            topics: named(topics),
            pools: named(pools),
            ..Default::default()
        }
    };
    let fleet = fleet([worker("big-1", "big", 0, 4), worker("small-1", "small", 3, 4)]);
    let demand = job("job.two", &[], &[]);
    for (topics, pools, expected) in [
        (&[][..], &[][..], "big-1"),
        (&["job.other"], &["other"], "big-1"),
        (&[], &["big"], "small-1"),
        (
            &[],
            &["big", "small"],
            "wait: paused: not placed because: pool big,small is paused",
        ),
        (
            &["job.two"],
            &[],
            "wait: paused: not placed because: topic job.two is paused",
        ),
    ] {
        let routing = routing().with_pauses(&pauses(topics, pools));
        let found = match place(&demand, &routing, &fleet) {
            Placement::On { worker, .. } => worker.map_or_else(String::new, |id| id.as_str().to_owned()),
            Placement::Wait { reason, why } => format!("wait: {}: {why}", reason.as_str()),
            Placement::Impossible { why } => format!("never: {why}"),
        };
        assert_eq!(found, expected, "{topics:?} {pools:?}");
    }
}

/// docs/spec/scheduler.md §3, row by row.
#[test]
fn placements() {
    let labelled = |id: &str, pool: &str, key: &str, value: &str| Heartbeat {
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..worker(id, pool, 0, 8)
    };
    let busy_cpu = |id: &str, cpu: f32| Heartbeat {
        cpu_load: cpu,
        ..worker(id, "default", 0, 8)
    };
    let rows: Vec<(&str, Demand, Vec<Heartbeat>, &str)> = vec![
        (
            "unmapped topic",
            job("job.x", &[], &[]),
            vec![],
            "never: no_pool_mapping: topic \"job.x\"",
        ),
        (
            "topic is not trimmed or folded",
            job("job.Default", &[], &[]),
            vec![worker("w", "default", 0, 8)],
            "never: no_pool_mapping: topic \"job.Default\"",
        ),
        (
            "preferred pool must be mapped",
            job("job.default", &[("preferred_pool", "big")], &[]),
            vec![],
            "never: no_pool_mapping: preferred pool \"big\" not mapped for topic \"job.default\"",
        ),
        (
            "preferred pool restricts",
            job("job.two", &[("preferred_pool", "small")], &[]),
            vec![worker("b", "big", 0, 8), worker("s", "small", 5, 8)],
            "s",
        ),
        (
            "requires, folded and trimmed",
            job("job.two", &[], &[" gpu", ""]),
            vec![worker("b", "big", 5, 8), worker("s", "small", 0, 8)],
            "b",
        ),
        (
            "requires that no pool offers",
            job("job.two", &[], &["fpga"]),
            vec![worker("b", "big", 0, 8)],
            "never: no_pool_mapping: no pool satisfies requires",
        ),
        (
            "a pool without requires offers nothing",
            job("job.default", &[], &["docker"]),
            vec![worker("w", "default", 0, 8)],
            "never: no_pool_mapping: no pool satisfies requires",
        ),
        (
            "least loaded wins",
            job("job.default", &[], &[]),
            vec![
                worker("a", "default", 3, 8),
                worker("b", "default", 1, 8),
                worker("c", "default", 2, 8),
            ],
            "b",
        ),
        (
            "cpu breaks ties",
            job("job.default", &[], &[]),
            vec![busy_cpu("a", 80.0), busy_cpu("b", 10.0)],
            "b",
        ),
        (
            "nine tenths are full",
            job("job.default", &[], &[]),
            vec![worker("a", "default", 9, 10)],
            "wait: pool_overloaded: not placed because: pool default full (1 worker)",
        ),
        (
            "below nine tenths is room",
            job("job.default", &[], &[]),
            vec![worker("a", "default", 8, 10)],
            "a",
        ),
        (
            "no limit is never full",
            job("job.default", &[], &[]),
            vec![worker("a", "default", 900, 0)],
            "a",
        ),
        (
            "a busy cpu is full",
            job("job.default", &[], &[]),
            vec![busy_cpu("a", 90.0)],
            "wait: pool_overloaded: not placed because: pool default full (1 worker)",
        ),
        (
            "nobody there",
            job("job.default", &[], &[]),
            vec![worker("a", "other", 0, 8)],
            "wait: no_workers: not placed because: no live worker in pool default",
        ),
        (
            "labels are conditions",
            job("job.default", &[("region", "eu")], &[]),
            vec![worker("a", "default", 0, 8), labelled("b", "default", "region", "eu")],
            "b",
        ),
        (
            "a missing label is named",
            job("job.default", &[("region", "eu")], &[]),
            vec![labelled("a", "default", "region", "us"), worker("b", "default", 0, 8)],
            "wait: no_workers: not placed because: label region=eu missing on 2",
        ),
        (
            "full and mismatched are both named",
            job("job.default", &[("region", "eu")], &[]),
            vec![
                worker("a", "default", 0, 8),
                Heartbeat {
                    active_jobs: 8,
                    ..labelled("b", "default", "region", "eu")
                },
            ],
            "wait: pool_overloaded: not placed because: pool default full (1 worker), label region=eu missing on 1",
        ),
        (
            "reserved labels are no conditions",
            job(
                "job.default",
                &[
                    ("approval_note", "x"),
                    ("retry", "true"),
                    ("run_id", "r"),
                    ("coretex.bus_msg_id", "1"),
                    ("mcp.tool", "x"),
                ],
                &[],
            ),
            vec![worker("a", "default", 0, 8)],
            "a",
        ),
        (
            "an empty label matches a missing one on a worker that has labels",
            job("job.default", &[("zone", "")], &[]),
            vec![labelled("a", "default", "region", "us")],
            "a",
        ),
        (
            "a worker without labels matches no condition",
            job("job.default", &[("zone", "")], &[]),
            vec![worker("a", "default", 0, 8)],
            "wait: no_workers: not placed because: label zone= missing on 1",
        ),
        (
            "preferred worker first",
            job("job.default", &[("preferred_worker_id", "c")], &[]),
            vec![worker("a", "default", 0, 8), worker("c", "default", 5, 8)],
            "c",
        ),
        (
            "a full preferred worker is only a wish",
            job("job.default", &[("preferred_worker_id", "c")], &[]),
            vec![worker("a", "default", 0, 8), worker("c", "default", 8, 8)],
            "a",
        ),
        (
            "a preferred worker of another pool does not count",
            job("job.default", &[("preferred_worker_id", "c")], &[]),
            vec![worker("a", "default", 0, 8), worker("c", "big", 0, 8)],
            "a",
        ),
        (
            "workers without an id share the topic",
            job("job.default", &[], &[]),
            vec![worker("", "default", 0, 8)],
            "(topic)",
        ),
        (
            "an id that is no token goes by topic",
            job("job.default", &[], &[]),
            vec![worker("a.b", "default", 0, 8)],
            "(topic)",
        ),
        (
            "a draining worker gets nothing",
            job("job.default", &[], &[]),
            vec![labelled("a", "default", super::super::fleet::LABEL_DRAINING, "1")],
            "wait: pool_overloaded: not placed because: pool default full (1 worker)",
        ),
    ];
    for (what, demand, heartbeats, expected) in rows {
        assert_eq!(outcome(&demand, &fleet(heartbeats)), expected, "{what}");
    }
}

#[test]
fn own_dispatches_count_until_they_end() {
    let mut fleet = fleet([worker("a", "default", 0, 2), worker("b", "default", 0, 2)]);
    let demand = job("job.default", &[], &[]);
    let mut placed = Vec::new();
    while let Placement::On { worker, .. } = place(&demand, &routing(), &fleet) {
        fleet.reserve(worker.as_ref());
        placed.push(worker.unwrap());
    }
    placed.sort();
    assert_eq!(
        placed.iter().map(WorkerId::as_str).collect::<Vec<_>>(),
        ["a", "a", "b", "b"]
    );

    // A heartbeat that has not heard of them yet makes no room.
    fleet.observe(Arc::new(worker("a", "default", 0, 2)), NOW);
    assert!(outcome(&demand, &fleet).starts_with("wait: pool_overloaded"));
    // The end of one does.
    assert_eq!(fleet.release(Some(&placed[0])).as_deref(), Some("default"));
    assert_eq!(outcome(&demand, &fleet), "a");
}

#[test]
fn jobs_of_others_count_as_well() {
    let mut fleet = fleet([worker("a", "default", 4, 8)]);
    let a = WorkerId::try_new("a").unwrap();
    fleet.reserve(Some(&a));
    assert_eq!(fleet.get("a").unwrap().load(), 5);
    // Ours is in the number that the worker reports now.
    fleet.observe(Arc::new(worker("a", "default", 5, 8)), NOW);
    assert_eq!(fleet.get("a").unwrap().load(), 5);
}

#[test]
fn silent_workers_are_gone() {
    let mut fleet = fleet([worker("a", "default", 0, 8)]);
    fleet.purge(NOW.plus(std::time::Duration::from_secs(29)));
    assert_eq!(outcome(&job("job.default", &[], &[]), &fleet), "a");
    fleet.purge(NOW.plus(std::time::Duration::from_secs(30)));
    assert!(outcome(&job("job.default", &[], &[]), &fleet).starts_with("wait: no_workers"));
}

#[test]
fn a_worker_that_nobody_could_reach_waits_for_its_next_heartbeat() {
    let mut fleet = fleet([worker("a", "default", 0, 8)]);
    let a = WorkerId::try_new("a").unwrap();
    fleet.suspend(&a);
    assert!(outcome(&job("job.default", &[], &[]), &fleet).starts_with("wait: pool_overloaded"));
    assert!(
        fleet.observe(Arc::new(worker("a", "default", 0, 8)), NOW),
        "it has room again"
    );
    assert_eq!(outcome(&job("job.default", &[], &[]), &fleet), "a");
}
