//! How to reach NATS, and what to ask of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;

use crate::error::BoxError;

/// How a [`NatsBus`](super::NatsBus) connects.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// One address or several, separated by commas: `nats://` or `tls://`, host, port (4222). User and password, or a
    /// token in place of both, may stand before the host; the first ones found count for every server.
    pub url: String,
    /// What the server calls this connection.
    pub name: String,
    /// How long to try to connect, the first time, before giving up. Later, there is no giving up.
    pub connect_timeout: Duration,
    /// Keeps durable messages in streams until they are handled.
    pub jetstream: Option<JetStreamOptions>,
    /// A file of certificates to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate and its key, as files.
    pub tls_client: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// Core NATS at `url`.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            name: "coretex-bus".to_owned(),
            connect_timeout: Duration::from_secs(30),
            jetstream: None,
            tls_ca: None,
            tls_client: None,
        }
    }

    /// With `JetStream`.
    #[must_use]
    pub fn with_jetstream(mut self, options: JetStreamOptions) -> Self {
        self.jetstream = Some(options);
        self
    }

    /// Gives up connecting after `timeout`.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = Servers::parse(&self.url).map(|servers| servers.to_string());
        f.debug_struct("Options")
            .field("url", &servers.as_deref().unwrap_or("invalid"))
            .field("name", &self.name)
            .field("connect_timeout", &self.connect_timeout)
            .field("jetstream", &self.jetstream)
            .field("tls_ca", &self.tls_ca)
            .field(
                "tls_client",
                &self.tls_client.as_ref().map(|(certificate, _)| certificate),
            )
            .finish()
    }
}

/// What the streams and their consumers are like (docs/spec/bus.md §4).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JetStreamOptions {
    /// When a message that nobody settled is delivered again.
    pub ack_wait: Duration,
    /// How long messages stay in the streams.
    pub max_age: Duration,
    /// How many messages of one subject stay in the streams; without it, a stream keeps what is there.
    pub max_messages_per_subject: Option<u32>,
}

impl Default for JetStreamOptions {
    fn default() -> Self {
        Self {
            ack_wait: Duration::from_secs(2),
            max_age: Duration::from_secs(168 * 3_600),
            max_messages_per_subject: None,
        }
    }
}

/// Who connects.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Token(String),
    User { name: String, password: String },
}

/// The servers of a URL, apart from its secrets: the client logs addresses, so they must not hold any.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) credentials: Credentials,
}

impl Servers {
    /// Reads a list of addresses. Errors do not quote it.
    pub(super) fn parse(list: &str) -> Result<Self, BoxError> {
        let mut addresses = Vec::new();
        let mut credentials = Credentials::None;
        for address in list.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            let (scheme, rest) = address.split_once("://").unwrap_or(("nats", address));
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            if let (Some(user), Credentials::None) = (user, &credentials) {
                credentials = match user.split_once(':') {
                    Some((name, password)) => Credentials::User {
                        name: percent_decoded(name)?,
                        password: percent_decoded(password)?,
                    },
                    None => Credentials::Token(percent_decoded(user)?),
                };
            }
            let address: ServerAddr = format!("{scheme}://{host}{path}").parse()?;
            if address.host().is_empty() {
                return Err("a NATS address has no host".into());
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err("there is no NATS address".into());
        }
        Ok(Self { addresses, credentials })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (scheme, host, port) = (address.scheme(), address.host(), address.port());
            if host.contains(':') {
                write!(f, "{comma}{scheme}://[{host}]:{port}")?;
            } else {
                write!(f, "{comma}{scheme}://{host}:{port}")?;
            }
        }
        Ok(())
    }
}

fn percent_decoded(text: &str) -> Result<String, BoxError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low)?),
            _ => return Err("the user or password of a NATS address has a bad percent escape".into()),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the user or password of a NATS address is not text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_credentials() {
        let user = |name: &str, password: &str| Credentials::User {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        for (list, shown, credentials) in [
            ("nats://localhost:4222", "nats://localhost:4222", Credentials::None),
            ("localhost", "nats://localhost:4222", Credentials::None),
            ("10.0.0.1:1, b:2", "nats://10.0.0.1:1,nats://b:2", Credentials::None),
            ("nats://[::1]:1", "nats://[::1]:1", Credentials::None),
            ("tls://u:p%40ss@h:1", "tls://h:1", user("u", "p@ss")),
            (
                "nats://u:a@b@h:1,nats://x:y@i:2",
                "nats://h:1,nats://i:2",
                user("u", "a@b"),
            ),
            ("s3cret@h", "nats://h:4222", Credentials::Token("s3cret".to_owned())),
        ] {
            let servers = Servers::parse(list).expect(list);
            assert_eq!(servers.to_string(), shown);
            assert!(servers.credentials == credentials, "{list}");
        }
    }

    #[test]
    fn errors_quote_no_secret() {
        for list in [
            "",
            " , ",
            "http://u:s3cret@h",
            "nats://u:s3cret@h:port",
            "nats://u:s3cret%zz@h",
            "nats://u:s3cret@",
        ] {
            let error = Servers::parse(list).err().expect(list).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let options = Options::new("nats://u:s3cret@h:1");
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
