//! Real servers as child processes, for tests that must not fake them.
//!
//! Every server runs on a free port with its data in a temporary folder, dies with the test process even when that is
//! killed, and shows the tail of its log in every panic. A missing binary is a failure, never a skipped test.

mod daemon;

use std::net::SocketAddr;

use tempfile::TempDir;

pub use daemon::{Daemon, Probe};

/// How a [`RedisServer`] runs.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RedisOptions {
    /// Keeps data across [`RedisServer::restart`]: append-only file, synced on every write.
    pub durable: bool,
    /// Further arguments, as `--requirepass`.
    pub args: Vec<String>,
    /// The password to log in with when probing; pass the server's by `args`.
    pub password: Option<String>,
}

/// A `redis-server` of one's own.
#[derive(Debug)]
pub struct RedisServer {
    daemon: Daemon,
    address: SocketAddr,
    password: Option<String>,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    ///
    /// # Panics
    /// If the binary (`CORETEX_TEST_REDIS_SERVER`, else `redis-server` on `PATH`) is missing or does not come up.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(options: RedisOptions) -> Self {
        let binary = daemon::find_binary("CORETEX_TEST_REDIS_SERVER", "redis-server");
        let folder = daemon::folder();
        let make = |address: SocketAddr| {
            let mut daemon = Daemon::new("redis-server", &binary)
                .args(["--port", &address.port().to_string()])
                .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
                .args([folder.path()])
                .args(if options.durable {
                    ["--appendonly", "yes", "--appendfsync", "always"]
                } else {
                    ["--appendonly", "no", "--appendfsync", "no"]
                })
                .args(&options.args);
            let greeting = match &options.password {
                Some(password) => format!("AUTH {password}\r\nPING\r\n"),
                None => "PING\r\n".to_owned(),
            };
            daemon.probe(Probe::Says {
                address,
                send: greeting,
                expect: "+PONG".to_owned(),
            });
            daemon
        };
        let (daemon, address) = daemon::start_on_free_port(make).await;
        Self {
            daemon,
            address,
            password: options.password,
            _folder: folder,
        }
    }

    /// How clients reach it.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@{}", self.address),
            None => format!("redis://{}", self.address),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on the same port with the data it kept.
    pub async fn start_again(&mut self) {
        self.daemon.start().await;
    }

    /// Crashes it and starts it again.
    pub async fn restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Sends it a signal by its name without `SIG`: `STOP` makes it hang, `CONT` go on.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

/// How a [`NatsServer`] runs.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NatsOptions {
    /// With `JetStream`, its data kept across [`NatsServer::restart`].
    pub jetstream: bool,
    /// Further arguments, as `--auth`.
    pub args: Vec<String>,
}

impl NatsOptions {
    /// With `JetStream`.
    pub fn jetstream() -> Self {
        Self {
            jetstream: true,
            ..Self::default()
        }
    }
}

/// A `nats-server` of one's own.
#[derive(Debug)]
pub struct NatsServer {
    daemon: Daemon,
    address: SocketAddr,
    _folder: TempDir,
}

impl NatsServer {
    /// Starts one without `JetStream`.
    ///
    /// # Panics
    /// If the binary (`CORETEX_TEST_NATS_SERVER`, else `nats-server` on `PATH`) is missing or does not come up.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(options: NatsOptions) -> Self {
        let binary = daemon::find_binary("CORETEX_TEST_NATS_SERVER", "nats-server");
        let folder = daemon::folder();
        let make = |address: SocketAddr| {
            let mut daemon = Daemon::new("nats-server", &binary)
                .args(["-a", "127.0.0.1", "-p", &address.port().to_string()])
                .args(&options.args);
            if options.jetstream {
                daemon = daemon.args(["-js", "-sd"]).args([folder.path()]);
            }
            daemon.probe(Probe::Says {
                address,
                send: String::new(),
                expect: "INFO ".to_owned(),
            });
            daemon
        };
        let (daemon, address) = daemon::start_on_free_port(make).await;
        Self {
            daemon,
            address,
            _folder: folder,
        }
    }

    /// How clients reach it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again, on the same port with the data it kept.
    pub async fn start_again(&mut self) {
        self.daemon.start().await;
    }

    /// Crashes it and starts it again.
    pub async fn restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Sends it a signal by its name without `SIG`: `STOP` makes it hang, `CONT` go on.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

/// A free local address, outside the range from which the system takes ports for outgoing connections, so that a server
/// that is down for a moment does not lose it.
///
/// # Panics
/// If there is none.
pub fn free_address() -> SocketAddr {
    daemon::free_address()
}
