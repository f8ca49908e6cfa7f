//! A server, our stores on it, and a connection of its own to look behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use coretex_core::backend::Stores;
use coretex_core::backend::redis::{RedisOptions, RedisStores};
use coretex_core::jobs::{Applied, Change, JobStoreExt, NewJob, Outcome};
use coretex_core::protocol::agent::{ActorType, Budget, JobMetadata, JobRequest};
use coretex_core::protocol::{JobId, TraceId};
use coretex_core::test_util::servers::RedisServer;
use coretex_core::time::Timestamp;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

pub(super) const META_TTL: i64 = 604_800;
pub(super) const DATA_TTL: i64 = 86_400;
/// 2026-11-20T10:00:00Z
pub(super) const START: i64 = 1_795_168_800_000_000;

pub(super) struct Bench {
    pub(super) server: RedisServer,
    pub(super) stores: Stores,
    raw: MultiplexedConnection,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(RedisServer::start().await, RedisOptions::default()).await
    }

    pub(super) async fn with(server: RedisServer, options: RedisOptions) -> Self {
        let stores = RedisStores::connect(&server.url(), options).await.expect("connects");
        let client = redis::Client::open(server.url()).expect("a url");
        let raw = client.get_multiplexed_async_connection().await.expect("connects");
        Self { server, stores, raw }
    }

    /// A command, as one would type it.
    pub(super) async fn raw<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(*word);
        }
        cmd.query_async(&mut self.raw.clone())
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(super) async fn hash(&self, key: &str) -> BTreeMap<String, String> {
        self.raw(&["HGETALL", key]).await
    }

    pub(super) async fn text(&self, key: &str) -> Option<String> {
        self.raw(&["GET", key]).await
    }

    pub(super) async fn list(&self, key: &str) -> Vec<String> {
        self.raw(&["LRANGE", key, "0", "-1"]).await
    }

    pub(super) async fn score(&self, key: &str, member: &str) -> Option<i64> {
        let score: Option<String> = self.raw(&["ZSCORE", key, member]).await;
        score.map(|score| score.parse().expect("a whole number"))
    }

    /// All keys, sorted.
    pub(super) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.raw(&["KEYS", "*"]).await;
        keys.sort();
        keys
    }

    pub(super) async fn assert_ttl(&self, key: &str, expected: i64) {
        let ttl: i64 = self.raw(&["TTL", key]).await;
        let fits = if expected < 0 {
            ttl == expected
        } else {
            (expected - 5..=expected).contains(&ttl)
        };
        assert!(fits, "{key} lives for {ttl} s, not {expected}");
    }

    pub(super) async fn create(&self, job: NewJob) {
        let admission = self.stores.jobs.create(job).await.expect("create");
        assert!(
            matches!(admission, coretex_core::jobs::Admission::Accepted(_)),
            "{admission:?}"
        );
    }

    pub(super) async fn apply(&self, change: Change) -> Applied {
        match self.stores.jobs.apply(change).await.expect("apply") {
            Outcome::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(START + micros)
}

pub(super) fn job(id: &str) -> JobId {
    JobId::try_new(id).expect("an id")
}

pub(super) fn request(id: &str) -> JobRequest {
    JobRequest {
        job_id: id.to_owned(),
        topic: "job.default".to_owned(),
        context_ptr: format!("redis://ctx:{id}"),
        tenant_id: "acme".to_owned(),
        principal_id: "anna".to_owned(),
        memory_id: format!("mem:{id}"),
        env: [("team_id".to_owned(), "blue".to_owned())].into(),
        labels: [
            ("region".to_owned(), "eu".to_owned()),
            ("tier".to_owned(), "1".to_owned()),
        ]
        .into(),
        budget: Some(Budget::default()),
        meta: Some(JobMetadata {
            tenant_id: "acme".to_owned(),
            actor_type: ActorType::Human.into(),
            idempotency_key: "once".to_owned(),
            capability: "summarize".to_owned(),
            risk_tags: vec!["prod".to_owned()],
            requires: vec!["docker".to_owned(), "git".to_owned()],
            pack_id: "pack".to_owned(),
            labels: [("tier".to_owned(), "2".to_owned())].into(),
            ..JobMetadata::default()
        }),
        ..JobRequest::default()
    }
}

pub(super) fn new_job(id: &str) -> NewJob {
    NewJob {
        id: job(id),
        request: Arc::new(request(id)),
        trace_id: Some(TraceId::try_new("t1").expect("an id")),
        payload: Some(bytes::Bytes::from_static(b"{}")),
        idempotency: None,
        deadline: None,
        at: at(0),
    }
}

pub(super) fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
