//! Connections: a few that all tasks share for short commands, and a pool for long answers.
//!
//! The driver's own reconnecting connection keeps one that stopped answering, and does not tell a command that was never
//! sent from one whose answer was lost. Both matter here, so this is a small one of our own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_redis::{Pool, PoolConfig, Runtime, Timeouts};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::Instant;

use crate::error::{BoxError, StoreError};

pub(super) const BACKEND: &str = "redis";

/// How long to wait for what.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) links: usize,
    pub(super) pool: usize,
    /// Loaded into the server with every new connection.
    pub(super) scripts: Vec<&'static str>,
}

/// All connections of one process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Redis(Arc<Inner>);

struct Inner {
    links: Vec<Link>,
    next: AtomicUsize,
    pool: Pool,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("links", &self.0.links.len())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Reads the URL; connects when first used.
    pub(super) fn open(url: &str, limits: &Limits) -> Result<Self, StoreError> {
        // The driver's message may repeat the URL, so it is not passed on.
        let client = Client::open(url).map_err(|error| refused("connect", error.category().to_owned().into()))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limits.connect_timeout))
            .set_response_timeout(Some(limits.response_timeout));
        let manager = deadpool_redis::Manager::new_with_config(client.get_connection_info().clone(), config.clone())
            .map_err(|error| refused("connect", error.category().to_owned().into()))?;
        let wait = Some(limits.connect_timeout + limits.response_timeout);
        let pool_config = PoolConfig {
            timeouts: Timeouts {
                wait,
                create: wait,
                recycle: wait,
            },
            ..PoolConfig::new(limits.pool.max(1))
        };
        let pool = Pool::builder(manager)
            .config(pool_config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| refused("connect", error.into()))?;
        let outage = Arc::new(Outage::default());
        let links = (0..limits.links.max(1))
            .map(|_| Link {
                client: client.clone(),
                config: config.clone(),
                scripts: limits.scripts.clone(),
                current: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
                outage: Arc::clone(&outage),
            })
            .collect();
        Ok(Self(Arc::new(Inner {
            links,
            next: AtomicUsize::new(0),
            pool,
        })))
    }

    fn link(&self) -> &Link {
        let n = self.0.next.fetch_add(1, Ordering::Relaxed);
        &self.0.links[n % self.0.links.len()]
    }

    /// Sends one short command.
    pub(super) async fn send(&self, op: &'static str, cmd: Cmd) -> Result<Value, StoreError> {
        let mut answers = self.send_all(op, vec![cmd]).await?;
        answers.pop().unwrap_or_else(|| Err(no_answer(op)))
    }

    /// Sends commands at the price of one wait; one result for each, in order. Scripts that the server forgot are loaded
    /// again.
    ///
    /// # Errors
    /// If there is no connection, or it was lost: then nobody knows which of the commands were carried out.
    pub(super) async fn send_all(
        &self,
        op: &'static str,
        cmds: Vec<Cmd>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        if cmds.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.link();
        let cmds = pipeline(cmds);
        let mut answers = link.send(op, &cmds).await?;
        let forgotten: Vec<usize> = (0..answers.len())
            .filter(|&i| matches!(&answers[i], Err(error) if is_no_script(error)))
            .collect();
        if !forgotten.is_empty() {
            // A script that was not there did nothing: all of its calls are repeated, in their order.
            link.load_scripts(op).await?;
            let again = pipeline(forgotten.iter().filter_map(|&i| cmds.cmd_iter().nth(i)).cloned());
            for (i, answer) in forgotten.into_iter().zip(link.send(op, &again).await?) {
                answers[i] = answer;
            }
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(|error| answered(op, error)))
            .collect())
    }

    /// Sends commands whose answers may be long, apart from the short ones. All of them must succeed.
    pub(super) async fn fetch(&self, op: &'static str, cmds: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        if cmds.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.0.pool.get().await.map_err(|error| StoreError::Unavailable {
            backend: BACKEND,
            op,
            sent: false,
            source: error.into(),
        })?;
        match pipeline(cmds)
            .query_async::<Vec<RedisResult<Value>>>(&mut connection)
            .await
        {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(|error| answered(op, error)))
                .collect(),
            Err(error) => {
                // Whatever comes on it next might be the answer to this.
                drop(deadpool_redis::Connection::take(connection));
                Err(lost(op, error))
            }
        }
    }
}

/// One shared connection, made again whenever it fails.
struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    scripts: Vec<&'static str>,
    current: Mutex<Current>,
    connecting: tokio::sync::Mutex<()>,
    outage: Arc<Outage>,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Tells connections apart, so that a late failure of an old one does not close the new one.
    generation: u64,
}

/// What all links know of a server that cannot be reached: as soon as one of them connects, none has to wait.
#[derive(Default)]
struct Outage(Mutex<Attempts>);

#[derive(Default)]
struct Attempts {
    /// How many succeeded, ever.
    connected: u64,
    /// How many failed since.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Outage {
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Begins an attempt, unless it is too soon after one that failed.
    fn begin(&self) -> Option<u64> {
        let attempts = self.0.lock();
        let too_soon = attempts.retry_at.is_some_and(|at| Instant::now() < at);
        (!too_soon).then_some(attempts.connected)
    }

    fn connected(&self) {
        let mut attempts = self.0.lock();
        attempts.connected += 1;
        attempts.failures = 0;
        attempts.retry_at = None;
    }

    fn failed(&self, begun: u64) {
        let mut attempts = self.0.lock();
        if attempts.connected != begun {
            // Another link has got through in the meantime: this is old news.
            return;
        }
        let pause = (Self::FIRST_PAUSE * 2_u32.saturating_pow(attempts.failures.min(10))).min(Self::LONGEST_PAUSE);
        attempts.failures += 1;
        attempts.retry_at = Some(Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0)));
    }
}

impl Link {
    async fn send(&self, op: &'static str, cmds: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let (generation, mut connection) = self.connection(op).await?;
        let answers = cmds.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        match answers {
            Ok(answers) => {
                if answers
                    .iter()
                    .any(|answer| matches!(answer, Err(error) if error.code() == Some("READONLY")))
                {
                    // Fail-over: the primary is elsewhere now.
                    self.discard(generation);
                }
                Ok(answers)
            }
            Err(error) => {
                // Also after a timeout: answers come in order, so all later ones would be late as well.
                self.discard(generation);
                Err(lost(op, error))
            }
        }
    }

    async fn load_scripts(&self, op: &'static str) -> Result<(), StoreError> {
        let (generation, mut connection) = self.connection(op).await?;
        load(&mut connection, &self.scripts).await.map_err(|error| {
            self.discard(generation);
            unsent(op, error)
        })
    }

    fn ready(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.current.lock();
        current
            .connection
            .as_ref()
            .map(|connection| (current.generation, connection.clone()))
    }

    fn discard(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.connection = None;
        }
    }

    /// The connection, made if there is none. One caller tries at a time, and for a moment after a failure none does:
    /// all that wait get the news at once.
    async fn connection(&self, op: &'static str) -> Result<(u64, MultiplexedConnection), StoreError> {
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let _turn = self.connecting.lock().await;
        if let Some(ready) = self.ready() {
            return Ok(ready);
        }
        let Some(begun) = self.outage.begin() else {
            return Err(StoreError::Unavailable {
                backend: BACKEND,
                op,
                sent: false,
                source: "not connected; the last attempt has just failed".into(),
            });
        };
        match self.connect().await {
            Ok(connection) => {
                self.outage.connected();
                let mut current = self.current.lock();
                current.generation += 1;
                current.connection = Some(connection.clone());
                Ok((current.generation, connection))
            }
            Err(error) => {
                self.outage.failed(begun);
                Err(unsent(op, error))
            }
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        load(&mut connection, &self.scripts).await?;
        Ok(connection)
    }
}

async fn load(connection: &mut MultiplexedConnection, scripts: &[&str]) -> RedisResult<()> {
    if scripts.is_empty() {
        return Ok(());
    }
    let load = |source: &&str| {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(*source);
        cmd
    };
    pipeline(scripts.iter().map(load))
        .query_async::<Vec<RedisResult<Value>>>(connection)
        .await?
        .into_iter()
        .try_for_each(|answer| answer.map(|_| ()))
}

fn pipeline(cmds: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for cmd in cmds {
        pipeline.add_command(cmd);
    }
    pipeline.ignore_errors();
    pipeline
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The connection failed while the command was on its way.
fn lost(op: &'static str, error: RedisError) -> StoreError {
    StoreError::Unavailable {
        backend: BACKEND,
        op,
        sent: true,
        source: error.into(),
    }
}

/// The command never left.
fn unsent(op: &'static str, error: RedisError) -> StoreError {
    StoreError::Unavailable {
        backend: BACKEND,
        op,
        sent: false,
        source: error.into(),
    }
}

/// The server answered with an error. Some say: not now, and nothing was done.
fn answered(op: &'static str, error: RedisError) -> StoreError {
    const NOT_NOW: [&str; 10] = [
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "BUSY",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "NOSCRIPT",
    ];
    if error.code().is_some_and(|code| NOT_NOW.contains(&code)) {
        unsent(op, error)
    } else {
        refused(op, error.into())
    }
}

pub(super) fn refused(op: &'static str, source: BoxError) -> StoreError {
    StoreError::Refused {
        backend: BACKEND,
        op,
        source,
    }
}

/// An answer of the wrong shape.
pub(super) fn no_answer(op: &'static str) -> StoreError {
    refused(op, "an answer of an unexpected shape".into())
}

/// The URL without what is secret in it.
pub fn redacted(url: &str) -> String {
    const SECRET: [&str; 5] = ["pass", "password", "user", "username", "token"];
    let Some((scheme, rest)) = url.split_once("://") else {
        return "(not a url)".to_owned();
    };
    // From the last @: a password that should have been escaped may hold anything.
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => format!("***@{rest}"),
        None => rest.to_owned(),
    };
    let Some((place, query)) = rest.split_once('?') else {
        return format!("{scheme}://{rest}");
    };
    let query: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if SECRET.iter().any(|secret| secret.eq_ignore_ascii_case(name)) => format!("{name}=***"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{scheme}://{place}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_connects_ends_the_pause_of_all() {
        let outage = Outage::default();
        let (one, two) = (
            outage.begin().expect("free to try"),
            outage.begin().expect("free to try"),
        );
        outage.failed(one);
        assert_eq!(outage.begin(), None);
        outage.connected();
        assert!(outage.begin().is_some());
        outage.failed(two);
        assert!(outage.begin().is_some());
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/2", "redis://127.0.0.1:6379/2"),
            ("redis://me:secret@host/0", "redis://***@host/0"),
            ("rediss://:se@cr/et?@host", "rediss://***@host"),
            (
                "unix:///run/redis.sock?db=1&pass=secret&user=me",
                "unix:///run/redis.sock?db=1&pass=***&user=***",
            ),
            ("secret", "(not a url)"),
        ] {
            assert_eq!(redacted(url), shown);
            assert!(!redacted(url).contains("secret"));
        }
    }
}
