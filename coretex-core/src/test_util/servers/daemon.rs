//! One child process, watched.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a child may take to come up or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const LOG_TAIL_BYTES: u64 = 8 * 1024;
const PORT_TRIES: usize = 20;

/// Becomes the child by `exec`, so that its process id is the child's, and leaves a watchdog behind: when our end of its
/// standard input closes without a word, we are gone, and the child follows.
const WATCHDOG: &str =
    r#"exec 3<&0; me=$$; ( read -r word <&3 || kill -9 "$me" ) >/dev/null 2>&1 & exec 3<&- </dev/null; exec "$@""#;

/// How a child shows that it is ready.
#[derive(Debug, Clone)]
pub enum Probe {
    /// As soon as it runs.
    Running,
    /// This text appears in its log.
    Line(String),
    /// It accepts a connection and answers `send` with something that holds `expect`.
    Says {
        /// Where it listens.
        address: SocketAddr,
        /// What to say first.
        send: String,
        /// What the answer holds.
        expect: String,
    },
    /// `GET path` is answered with this status.
    Http {
        /// Where it listens.
        address: SocketAddr,
        /// What to get.
        path: String,
        /// The status that means ready.
        status: u16,
    },
}

/// A child process with captured output. It is killed when this is dropped, and dies with the test process.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    clear_env: bool,
    folder: Option<PathBuf>,
    probe: Probe,
    logs: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// A program that does not run yet.
    ///
    /// # Panics
    /// If there is no room for its log.
    pub fn new(name: &str, program: impl AsRef<Path>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            clear_env: false,
            folder: None,
            probe: Probe::Running,
            logs: folder(),
            child: None,
        }
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts with no variables but `PATH` and those of [`env`](Self::env).
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Runs in this folder.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Says how it shows that it is ready.
    pub fn probe(&mut self, probe: Probe) {
        self.probe = probe;
    }

    /// Says how it shows that it is ready.
    #[must_use]
    pub fn ready(mut self, probe: Probe) -> Self {
        self.probe = probe;
        self
    }

    /// Starts it, with the same arguments as before, and waits until it is ready.
    ///
    /// # Panics
    /// If it runs already, cannot be started, ends, or is not ready in time; with the tail of its log.
    pub async fn start(&mut self) {
        if let Err(problem) = self.try_start().await {
            panic!("{problem}");
        }
    }

    async fn try_start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(|error| format!("cannot open the log of {}: {error}", self.name))?;
        // Where this run's output begins, so that a line of an earlier run does not count as ready.
        let begin = log.metadata().map_or(0, |meta| meta.len());
        let errors = log
            .try_clone()
            .map_err(|error| format!("cannot share the log of {}: {error}", self.name))?;
        let mut command = Command::new("/bin/sh");
        if self.clear_env {
            command.env_clear();
            if let Some(path) = std::env::var_os("PATH") {
                command.env("PATH", path);
            }
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&self.program)
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors);
        self.child = Some(
            command
                .spawn()
                .map_err(|error| format!("cannot start {}: {error}", self.name))?,
        );
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = self.is_ready(begin).await;
            // In this order: an answer counts only if the child was alive after giving it.
            if let Some(status) = self.ended() {
                let problem = self.problem(&format!("ended with {status} before it was ready"));
                self.kill();
                return Err(problem);
            }
            if ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                let problem = self.problem("was not ready in time");
                self.kill();
                return Err(problem);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_ready(&self, begin: u64) -> bool {
        match &self.probe {
            Probe::Running => true,
            Probe::Line(line) => self.log_from(begin).contains(line.as_str()),
            Probe::Says { address, send, expect } => ask(*address, send, expect).await,
            Probe::Http { address, path, status } => {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                ask(*address, &request, &format!("HTTP/1.1 {status} ")).await
            }
        }
    }

    /// Ends it at once, as a crash would. Fine if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors mean that it has ended by itself.
            let _ = child.kill();
            Self::bury(&mut child);
        }
    }

    /// Sends `SIGTERM`.
    ///
    /// # Panics
    /// If it does not run.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name without `SIG`, as `STOP` or `CONT`.
    ///
    /// # Panics
    /// If it does not run, or the signal cannot be sent.
    pub fn signal(&self, name: &str) {
        let Some(pid) = self.pid() else {
            panic!("{}", self.problem("does not run"));
        };
        let sent = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .is_ok_and(|status| status.success());
        assert!(sent, "{}", self.problem("could not be signalled"));
    }

    /// Sends `SIGTERM` and waits for the end.
    ///
    /// # Panics
    /// If it does not run or does not end in time.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait().await
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not run or does not end in time.
    pub async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        assert!(self.child.is_some(), "{}", self.problem("does not run"));
        loop {
            if let Some(status) = self.ended() {
                self.kill();
                return status;
            }
            assert!(Instant::now() < deadline, "{}", self.problem("did not end in time"));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Closes our end of the watchdog's pipe, which is all that the child sees of the death of this process.
    pub fn abandon(&mut self) {
        if let Some(child) = &mut self.child {
            child.stdin = None;
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// All it has printed.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    /// The last lines it has printed.
    pub fn log_tail(&self) -> String {
        let length = std::fs::metadata(self.log_path()).map_or(0, |meta| meta.len());
        self.log_from(length.saturating_sub(LOG_TAIL_BYTES))
    }

    fn log_from(&self, begin: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.log_path())
            && file.seek(SeekFrom::Start(begin)).is_ok()
        {
            // What could be read is what there is to show.
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.logs.path().join("log")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    fn problem(&self, what: &str) -> String {
        format!(
            "{} ({}) {what}; its log ends:\n{}",
            self.name,
            self.program.display(),
            self.log_tail()
        )
    }

    /// Dismisses the watchdog, so that it never kills a process that got the same id later, and waits.
    fn bury(child: &mut Child) {
        if let Some(stdin) = &mut child.stdin {
            // The watchdog is gone already if this fails.
            let _ = stdin.write_all(b"done\n");
        }
        let _ = child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn ask(address: SocketAddr, send: &str, expect: &str) -> bool {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(send.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        while answer.len() < 64 * 1024 {
            let n = stream.read_buf(&mut answer).await.ok()?;
            if String::from_utf8_lossy(&answer).contains(expect) {
                return Some(());
            }
            if n == 0 {
                break;
            }
        }
        None
    };
    tokio::time::timeout(Duration::from_secs(5), talk)
        .await
        .ok()
        .flatten()
        .is_some()
}

/// Starts what `make` makes for a free port; with another port if it loses that one to somebody else.
pub(super) async fn start_on_free_port(make: impl Fn(SocketAddr) -> Daemon) -> (Daemon, SocketAddr) {
    let mut tries = 0;
    loop {
        let address = free_address();
        let mut daemon = make(address);
        match daemon.try_start().await {
            Ok(()) => return (daemon, address),
            Err(problem) => {
                tries += 1;
                let taken = ["in use", "already in use", "EADDRINUSE"]
                    .iter()
                    .any(|word| problem.contains(word));
                assert!(taken && tries < PORT_TRIES, "{problem}");
            }
        }
    }
}

pub(super) fn free_address() -> SocketAddr {
    for _ in 0..1000 {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(12_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on 127.0.0.1");
}

pub(super) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("coretex-test-")
        .tempdir()
        .expect("a temporary folder can be made")
}

/// The binary that the variable names, or the first of that name on `PATH` or in a system folder.
pub(super) fn find_binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
        return path;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is needed by this test: install it, or name it in {variable}"))
}
