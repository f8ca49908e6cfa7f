//! A server with canned answers, and the binary pointed at it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use assert_cmd::Command;
use serde_json::Value;

/// A request as the stub saw it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and target, as `GET /api/v1/jobs?limit=50`.
    pub(crate) line: String,
    /// The header `x-api-key`.
    pub(crate) key: Option<String>,
    /// The body, if it is JSON.
    pub(crate) body: Value,
}

type Answer = Box<dyn FnMut(&Request) -> (u16, String) + Send>;

/// The server. It ends with the test process.
pub(crate) struct Stub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    /// Answers each request with what `answer` makes of it.
    pub(crate) fn start(answer: impl FnMut(&Request) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        let mut answer: Answer = Box::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One request per connection: the client opens the next.
                let Some(request) = read(&stream) else { continue };
                let (status, body) = answer(&request);
                requests.lock().expect("not poisoned").push(request);
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = (&stream).write_all((head + &body).as_bytes());
            }
        });
        Self { address, seen }
    }

    /// What was asked so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// The binary, pointed here and knowing nothing of the environment.
    pub(crate) fn ctl(&self, args: &[&str]) -> Command {
        let mut command = ctl(args);
        command.env("CORETEX_API_BASE", format!("http://{}", self.address));
        command
    }
}

/// The binary without any server.
pub(crate) fn ctl(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("coretexctl").expect("built");
    command.env_clear().args(args);
    command
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let (mut key, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-api-key" => key = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        line,
        key,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}
