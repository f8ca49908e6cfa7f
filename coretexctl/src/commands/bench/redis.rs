//! The store, looked at directly: how many jobs have ended, and what that cost. See `docs/spec/storage.md` for the keys.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coretex_core::time::Timestamp;
use futures::StreamExt as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, InfoDict, Pipeline, RedisError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::observer::Final;
use crate::failure::{Failure, Kind};

/// The indices of ended jobs.
const ENDED: [&str; 5] = [
    "job:index:succeeded",
    "job:index:failed",
    "job:index:cancelled",
    "job:index:timeout",
    "job:index:denied",
];
/// How many jobs are looked at in one pipeline.
const CHUNK: usize = 1_000;
/// How long one answer may take; listing many jobs takes the server a while.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One Redis.
pub(super) struct Store {
    client: Client,
    connection: MultiplexedConnection,
    /// How often we asked how many jobs had ended: not part of what the jobs cost.
    asked: u64,
    /// How many jobs we looked at: not part of it either.
    looked: u64,
}

/// What the server has done so far, without what we made it do.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    /// Calls by command, those inside scripts included.
    pub(super) calls: BTreeMap<String, u64>,
    /// How often it read from a socket: about once per round trip, where clients do not pipeline.
    pub(super) reads: u64,
}

impl Store {
    pub(super) async fn connect(url: &str) -> Result<Self, Failure> {
        let client = Client::open(url).map_err(|error| {
            // The error may quote the address, which may hold a password.
            Failure::usage(format!("--redis is no Redis address: {}", error.category()))
                .hint("--redis redis://localhost:6379")
        })?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(Self {
            client,
            connection,
            asked: 0,
            looked: 0,
        })
    }

    /// How many jobs have ended, ever.
    pub(super) async fn ended(&mut self) -> Result<u64, Failure> {
        self.asked += 1;
        let mut pipe = Pipeline::new();
        for index in ENDED {
            pipe.zcard(index);
        }
        let counts: Vec<u64> = pipe
            .query_async(&mut self.connection)
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(counts.iter().sum())
    }

    /// In which state these jobs are, and since when.
    pub(super) async fn finals(&mut self, ids: &[String]) -> Result<HashMap<String, Final>, Failure> {
        let mut finals = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            self.looked += chunk.len() as u64;
            let mut pipe = Pipeline::new();
            for id in chunk {
                pipe.cmd("HMGET")
                    .arg(format!("job:meta:{id}"))
                    .arg("state")
                    .arg("updated_at");
            }
            let found: Vec<(Option<String>, Option<i64>)> = pipe
                .query_async(&mut self.connection)
                .await
                .map_err(|error| unreachable(&error))?;
            finals.extend(chunk.iter().cloned().zip(found).map(|(id, (state, at))| {
                let job = Final {
                    state: state.unwrap_or_else(|| "UNKNOWN".to_owned()),
                    at: Timestamp::from_micros(at.unwrap_or_default()),
                };
                (id, job)
            }));
        }
        Ok(finals)
    }

    /// What the server has done so far.
    pub(super) async fn counters(&mut self) -> Result<Counters, Failure> {
        let mut pipe = Pipeline::new();
        pipe.cmd("INFO").arg("commandstats").cmd("INFO").arg("stats");
        let (commands, stats): (String, InfoDict) = pipe
            .query_async(&mut self.connection)
            .await
            .map_err(|error| unreachable(&error))?;
        let mut calls = parse_commandstats(&commands);
        for (command, ours) in [("zcard", self.asked * ENDED.len() as u64), ("hmget", self.looked)] {
            if let Some(count) = calls.get_mut(command) {
                *count = count.saturating_sub(ours);
            }
        }
        calls.remove("info");
        Ok(Counters {
            calls,
            reads: stats
                .get::<u64>("total_reads_processed")
                .unwrap_or_default()
                .saturating_sub(self.asked),
        })
    }

    /// Has the server report every command from now on. That slows it down a lot, so no time is taken meanwhile.
    pub(super) async fn monitor(&self) -> Result<Monitor, Failure> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("CLIENT")
            .arg("INFO")
            .query_async(&mut connection)
            .await
            .map_err(|error| unreachable(&error))?;
        let ours = info
            .split_whitespace()
            .find_map(|field| field.strip_prefix("addr="))
            .unwrap_or_default()
            .to_owned();
        let monitor = self
            .client
            .get_async_monitor()
            .await
            .map_err(|error| unreachable(&error))?;
        let (stop, mut stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = monitor.into_on_message::<String>();
            let mut seen = Seen::default();
            loop {
                tokio::select! {
                    line = lines.next() => match line {
                        Some(line) => seen.count(&line, &ours),
                        None => return seen,
                    },
                    _ = &mut stopped => break,
                }
            }
            // What was reported already is still counted.
            while let Some(Some(line)) = futures::FutureExt::now_or_never(lines.next()) {
                seen.count(&line, &ours);
            }
            seen
        });
        Ok(Monitor { tasks, stop })
    }
}

/// A server that reports.
pub(super) struct Monitor {
    tasks: JoinSet<Seen>,
    stop: oneshot::Sender<()>,
}

impl Monitor {
    /// What it reported.
    pub(super) async fn stop(mut self) -> Seen {
        // The receiver is gone only if the connection was lost; then there is what came before.
        let _ = self.stop.send(());
        match self.tasks.join_next().await {
            Some(Ok(seen)) => seen,
            Some(Err(_)) | None => Seen::default(),
        }
    }
}

/// What a server reported.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Commands that clients sent, by name.
    pub(super) sent: BTreeMap<String, u64>,
    /// Commands that scripts called.
    pub(super) in_scripts: u64,
}

impl Seen {
    /// Counts one line: `1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`, or `[0 lua]` for calls of scripts.
    fn count(&mut self, line: &str, ours: &str) {
        let Some((_, rest)) = line.split_once(" [") else { return };
        let Some((client, call)) = rest.split_once("] ") else {
            return;
        };
        let address = client.split_once(' ').map_or(client, |(_, address)| address);
        if address == "lua" {
            self.in_scripts += 1;
        } else if address != ours {
            let name = call.split('"').nth(1).unwrap_or_default().to_lowercase();
            *self.sent.entry(name).or_default() += 1;
        }
    }
}

/// Reads lines such as `cmdstat_get:calls=12,usec=3,…`; subcommands (`cmdstat_client|info`) count for their command.
fn parse_commandstats(text: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let Some((name, values)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':')) else {
            continue;
        };
        let name = name.split('|').next().unwrap_or(name).to_lowercase();
        let count: u64 = values
            .split(',')
            .find_map(|value| value.strip_prefix("calls="))
            .and_then(|count| count.parse().ok())
            .unwrap_or_default();
        *calls.entry(name).or_default() += count;
    }
    calls
}

fn unreachable(error: &RedisError) -> Failure {
    Failure::of(Kind::Unreachable, "cannot use the store")
        .because(error)
        .hint("is that the address of a Redis server? --redis redis://localhost:6379")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_statistics_are_summed_by_command() {
        let calls = parse_commandstats(
            "# Commandstats\r\ncmdstat_get:calls=3,usec=4\r\ncmdstat_client|info:calls=1,usec=1\r\n\
             cmdstat_client|setname:calls=2,usec=1\r\nnonsense\r\n",
        );
        assert_eq!(calls, BTreeMap::from([("get".to_owned(), 3), ("client".to_owned(), 3)]));
    }

    #[test]
    fn what_clients_send_is_told_from_what_scripts_call() {
        let mut seen = Seen::default();
        for line in [
            r#"1.5 [0 127.0.0.1:1] "EVALSHA" "abc" "1" "k] x""#,
            r#"1.5 [0 lua] "hset" "k" "v""#,
            r#"1.5 [0 lua] "zadd" "k" "1" "v""#,
            r#"1.5 [0 127.0.0.1:2] "get" "k""#,
            r#"1.5 [0 127.0.0.1:9] "zcard" "k""#,
            "OK",
        ] {
            seen.count(line, "127.0.0.1:9");
        }
        let sent = BTreeMap::from([("evalsha".to_owned(), 1), ("get".to_owned(), 1)]);
        assert_eq!(seen, Seen { sent, in_scripts: 2 });
    }
}
