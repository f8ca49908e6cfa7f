//! How jobs come in.

use std::sync::Arc;

use bytes::Bytes;

use super::support::{apply, change, create, dispatch, full_request, new_job, outcome, record, request, state};
use crate::jobs::{Admission, Change, JobEvent, JobState, JobStoreExt, NewJob, Outcome, RequestWrite};
use crate::pointers::Pointer;
use crate::protocol::JobId;
use crate::protocol::agent::JobMetadata;
use crate::test_util::conformance::{Fixture, Scene};

/// With everything it came with, and nothing more.
pub async fn a_new_job_is_pending(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("new");
    let job = NewJob {
        trace_id: Some(scene.trace("trace")),
        deadline: Some(scene.secs(60)),
        ..new_job(&id, scene.at(7))
    };
    let admission = fixture.jobs.create(job).await.expect("create");
    let Admission::Accepted(revision) = admission else {
        panic!("not accepted: {admission:?}");
    };
    assert_eq!(revision.0, scene.at(7));
    let record = record(fixture, &id).await;
    assert_eq!(record.id, id);
    assert_eq!(record.state, JobState::Pending);
    assert_eq!(record.revision, revision);
    assert_eq!(record.topic, "job.tests");
    assert_eq!(record.trace_id, Some(scene.trace("trace")));
    assert_eq!(record.deadline, Some(scene.secs(60)));
    assert_eq!(record.attempts, 0);
    assert_eq!((record.decision, record.approval, record.pending), (None, None, None));
    assert_eq!((record.owner, record.worker_id, record.accepted_at), (None, None, None));
    assert_eq!(
        fixture.jobs.events(&id).await.expect("events"),
        [(scene.at(7), JobState::Pending)]
    );
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(request(&id)));
    assert!(fixture.jobs.decisions(&id, 10).await.expect("decisions").is_empty());
}

/// In the same commit, at `ctx:<id>`.
pub async fn the_payload_is_stored_with_the_job(fixture: &Fixture) {
    let scene = Scene::new();
    let (with, without) = (scene.job("with"), scene.job("without"));
    let payload = Bytes::from_static(b"{\"prompt\":\"\xc3\xbc\"}");
    let job = NewJob {
        payload: Some(payload.clone()),
        ..new_job(&with, scene.at(0))
    };
    fixture.jobs.create(job).await.expect("create");
    create(fixture, &without, scene.at(0)).await;
    let got = |id: JobId| async move { fixture.payloads.get(&Pointer::context(&id)).await.expect("get") };
    assert_eq!(got(with).await, Some(payload));
    assert_eq!(got(without).await, None);
}

/// The second is told where the first is, and changes nothing.
pub async fn an_id_is_taken_once(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("twice");
    create(fixture, &id, scene.at(0)).await;
    let again = || NewJob {
        payload: Some(Bytes::from_static(b"other")),
        request: Arc::new(full_request(&scene, &id)),
        idempotency: Some((scene.tenant("t"), scene.name("key"))),
        ..new_job(&id, scene.at(5))
    };
    let second = fixture.jobs.create(again()).await.expect("create");
    assert_eq!(second, Admission::Exists(JobState::Pending));
    apply(fixture, change(&id, JobEvent::Cancel, scene.at(9))).await;
    let third = fixture.jobs.create(again()).await.expect("create");
    assert_eq!(third, Admission::Exists(JobState::Cancelled));
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(request(&id)));
    assert_eq!(fixture.payloads.get(&Pointer::context(&id)).await.expect("get"), None);
    // Nor was the key claimed.
    let other = keyed(&scene, "other", "t", "key");
    assert!(matches!(
        fixture.jobs.create(other).await.expect("create"),
        Admission::Accepted(_)
    ));
}

fn keyed(scene: &Scene, id: &str, tenant: &str, key: &str) -> NewJob {
    let id = scene.job(id);
    NewJob {
        trace_id: Some(scene.trace(&format!("trace-{id}"))),
        idempotency: Some((scene.tenant(tenant), scene.name(key))),
        ..new_job(&id, scene.at(0))
    }
}

/// Whoever comes later gets the first job's name and trace.
pub async fn a_key_belongs_to_one_job(fixture: &Fixture) {
    let scene = Scene::new();
    let first = keyed(&scene, "first", "t", "key: a b");
    let trace = first.trace_id.clone();
    fixture.jobs.create(first).await.expect("create");
    let second = NewJob {
        payload: Some(Bytes::from_static(b"x")),
        ..keyed(&scene, "second", "t", "key: a b")
    };
    let second = fixture.jobs.create(second).await.expect("create");
    let job = scene.job("first");
    assert_eq!(second, Admission::Duplicate { job, trace });
    let id = scene.job("second");
    assert_eq!(state(fixture, &id).await, None);
    assert_eq!(fixture.payloads.get(&Pointer::context(&id)).await.expect("get"), None);
}

/// Two tenants may use the same key.
pub async fn keys_are_scoped_by_tenant(fixture: &Fixture) {
    let scene = Scene::new();
    for (id, tenant) in [("a", "one"), ("b", "two")] {
        let admission = fixture.jobs.create(keyed(&scene, id, tenant, "key")).await;
        assert!(matches!(admission, Ok(Admission::Accepted(_))), "{admission:?}");
    }
}

/// The others all learn its name.
pub async fn of_many_creates_with_one_key_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let creates = (0..32).map(|i| fixture.jobs.create(keyed(&scene, &format!("{i}"), "t", "key")));
    let mut winners = vec![];
    let mut named = vec![];
    for (i, admission) in futures::future::join_all(creates).await.into_iter().enumerate() {
        match admission.expect("create") {
            Admission::Accepted(_) => winners.push(scene.job(&i.to_string())),
            Admission::Duplicate { job, .. } => named.push(job),
            other @ Admission::Exists(_) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(named.len(), 31);
    assert!(named.iter().all(|job| *job == winners[0]));
}

/// The others see a job that exists.
pub async fn of_many_creates_of_one_id_one_wins(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("contended");
    let creates = (0..32).map(|i| fixture.jobs.create(new_job(&id, scene.at(i))));
    let mut accepted = 0;
    for admission in futures::future::join_all(creates).await {
        match admission.expect("create") {
            Admission::Accepted(_) => accepted += 1,
            other => assert_eq!(other, Admission::Exists(JobState::Pending)),
        }
    }
    assert_eq!(accepted, 1);
    assert_eq!(fixture.jobs.events(&id).await.expect("events").len(), 1);
}

/// A job that comes over the bus is held to its key as one that is created.
pub async fn a_first_change_claims_the_key(fixture: &Fixture) {
    let scene = Scene::new();
    let submitted = |name: &str, tenant: &str| {
        let id = scene.job(name);
        let mut request = request(&id);
        request.meta = Some(JobMetadata {
            tenant_id: scene.tenant(tenant).as_str().to_owned(),
            idempotency_key: scene.name("key"),
            ..JobMetadata::default()
        });
        Change {
            request: RequestWrite::IfAbsent(Arc::new(request)),
            ..Change::new(id, JobEvent::Submit, scene.at(0))
        }
    };
    apply(fixture, submitted("first", "t")).await;
    let job = scene.job("first");
    assert_eq!(
        outcome(fixture, submitted("second", "t")).await,
        Outcome::DuplicateKey { job: job.clone() }
    );
    assert_eq!(state(fixture, &scene.job("second")).await, None);
    let created = fixture.jobs.create(keyed(&scene, "third", "t", "key")).await;
    assert_eq!(created.expect("create"), Admission::Duplicate { job, trace: None });
    apply(fixture, submitted("elsewhere", "u")).await;
    // The holder itself goes on as ever.
    let next = Change {
        event: JobEvent::Dispatch,
        token: 1,
        ..submitted("first", "t")
    };
    apply(fixture, next).await;
    assert_eq!(
        record(fixture, &scene.job("first")).await.idempotency_key,
        scene.name("key")
    );
}

/// Spaces, colons, slashes, letters of other languages, and 256 bytes.
pub async fn odd_ids_work(fixture: &Fixture) {
    let scene = Scene::new();
    let base = scene.name("x");
    let long = format!("{base}{}", "l".repeat(256 - base.len()));
    let names = [
        format!("{base} with spaces"),
        format!("{base}:with:colons::"),
        format!("{base}/../with|{{braces}}*?[]>"),
        format!("{base}-größe-日本-🦀"),
        format!("{base}\"quotes'\\"),
        long,
    ];
    let ids: Vec<JobId> = names.iter().map(|name| JobId::try_new(name).expect("an id")).collect();
    for (i, id) in (0_u64..).zip(&ids) {
        create(fixture, id, scene.at(i * 10)).await;
        apply(fixture, dispatch(id, scene.at(i * 10 + 5))).await;
    }
    let records = fixture.jobs.get_many(&ids).await.expect("get");
    for (id, record) in ids.iter().zip(records) {
        let record = record.expect("the job is there");
        assert_eq!((&record.id, record.state), (id, JobState::Running));
        assert_eq!(fixture.jobs.request(id).await.expect("request"), Some(request(id)));
        assert_eq!(fixture.jobs.events(id).await.expect("events").len(), 4);
    }
}

/// 200 KB are nothing special.
pub async fn a_big_request_is_kept(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("big");
    let mut request = request(&id);
    request.env.insert("BIG".to_owned(), "ü".repeat(100_000));
    let job = NewJob {
        request: Arc::new(request.clone()),
        ..new_job(&id, scene.at(0))
    };
    fixture.jobs.create(job).await.expect("create");
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(request));
    assert_eq!(state(fixture, &id).await, Some(JobState::Pending));
}

/// A request with nothing in it is still a request.
pub async fn empty_strings_are_kept(fixture: &Fixture) {
    let scene = Scene::new();
    let id = scene.job("empty");
    let empty = crate::protocol::agent::JobRequest {
        meta: Some(JobMetadata::default()),
        env: [(String::new(), String::new())].into(),
        ..Default::default()
    };
    let job = NewJob {
        request: Arc::new(empty.clone()),
        payload: Some(Bytes::new()),
        ..new_job(&id, scene.at(0))
    };
    fixture.jobs.create(job).await.expect("create");
    assert_eq!(fixture.jobs.request(&id).await.expect("request"), Some(empty));
    assert_eq!(
        fixture.payloads.get(&Pointer::context(&id)).await.expect("get"),
        Some(Bytes::new())
    );
    let record = record(fixture, &id).await;
    assert!(record.topic.is_empty() && record.tenant.is_empty() && record.labels.is_empty());
}
