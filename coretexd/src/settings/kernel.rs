//! Where decisions are made, and for whom. See `docs/configuration.md` §7.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use coretex_core::policy::remote::RemoteKernel;
use coretex_core::policy::remote::tls::{Authorities, ServerIdentity, TlsError, TlsFile};
use coretex_core::time::Clock;
use serde::Serialize;

use super::file::KernelSection;
use super::{Layers, Role};
use crate::env_vars;

/// Where the kernel role listens, unless told otherwise.
const DEFAULT_ADDR: &str = "localhost:50051";

/// The kernel's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelSettings {
    /// The kernel that is asked; `None` for the one in this process.
    pub ask: Option<RemoteSettings>,
    /// Where the kernel of this process answers others; `None` if it does not.
    pub serve: Option<ServeSettings>,
}

/// A kernel in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteSettings {
    /// Where it is.
    pub addr: String,
    /// The authorities that may vouch for it; without them, plain text is spoken.
    pub tls_ca: Option<PathBuf>,
}

/// The kernel of this process, for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServeSettings {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Who it is; without that, plain text is spoken.
    pub tls: Option<IdentityFiles>,
}

/// The files that say who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl RemoteSettings {
    /// Reads the authorities.
    ///
    /// # Errors
    /// Names variable, file and reason.
    pub fn authorities(&self) -> Result<Option<Authorities>, String> {
        self.tls_ca
            .as_deref()
            .map(|path| Authorities::load(path, Clock::system().now()))
            .transpose()
            .map_err(|error| named(&error))
    }
}

impl ServeSettings {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// Names variable, file and reason.
    pub fn identity(&self) -> Result<Option<ServerIdentity>, String> {
        self.tls
            .as_ref()
            .map(|files| ServerIdentity::load(&files.cert, &files.key, Clock::system().now()))
            .transpose()
            .map_err(|error| named(&error))
    }
}

fn named(error: &TlsError) -> String {
    let variable = match error.file {
        TlsFile::Certificate => env_vars::SAFETY_KERNEL_TLS_CERT,
        TlsFile::Key => env_vars::SAFETY_KERNEL_TLS_KEY,
        TlsFile::Authorities => env_vars::SAFETY_KERNEL_TLS_CA,
    };
    format!("{variable}: {error}")
}

/// `named` says whether the role was asked for by its name: then it serves, even if no address is given.
pub(super) fn resolve(
    layers: &mut Layers<'_>,
    roles: &BTreeSet<Role>,
    named: bool,
    file: KernelSection,
) -> KernelSettings {
    let addr = layers
        .env
        .text(env_vars::SAFETY_KERNEL_ADDR)
        .or(file.addr)
        .map(|addr| addr.trim().to_owned());
    let path = |layers: &Layers<'_>, name: &str, file: Option<PathBuf>| {
        layers.env.text(name).map(|path| PathBuf::from(path.trim())).or(file)
    };
    let cert = path(layers, env_vars::SAFETY_KERNEL_TLS_CERT, file.tls_cert);
    let key = path(layers, env_vars::SAFETY_KERNEL_TLS_KEY, file.tls_key);
    let tls_ca = path(layers, env_vars::SAFETY_KERNEL_TLS_CA, file.tls_ca);
    let here = roles.contains(&Role::SafetyKernel);
    let mut settings = KernelSettings { ask: None, serve: None };
    if here {
        let addr = addr.or_else(|| named.then(|| DEFAULT_ADDR.to_owned()));
        settings.serve = addr.and_then(|addr| serve(layers, &addr, cert, key));
    } else {
        settings.ask = addr.and_then(|addr| ask(layers, addr, tls_ca));
    }
    settings
}

fn ask(layers: &mut Layers<'_>, addr: String, tls_ca: Option<PathBuf>) -> Option<RemoteSettings> {
    if let Err(error) = RemoteKernel::check_target(&addr, tls_ca.is_some()) {
        layers
            .problems
            .push(format!("{}: {error}", env_vars::SAFETY_KERNEL_ADDR));
        return None;
    }
    let remote = RemoteSettings { addr, tls_ca };
    remote
        .authorities()
        .map_err(|problem| layers.problems.push(problem))
        .ok()?;
    Some(remote)
}

fn serve(layers: &mut Layers<'_>, addr: &str, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<ServeSettings> {
    let addr = listen_addr(addr)
        .map_err(|problem| {
            layers
                .problems
                .push(format!("{}: {problem}", env_vars::SAFETY_KERNEL_ADDR));
        })
        .ok();
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(IdentityFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            layers
                .problems
                .push(half(env_vars::SAFETY_KERNEL_TLS_KEY, env_vars::SAFETY_KERNEL_TLS_CERT));
            return None;
        }
        (None, Some(_)) => {
            layers
                .problems
                .push(half(env_vars::SAFETY_KERNEL_TLS_CERT, env_vars::SAFETY_KERNEL_TLS_KEY));
            return None;
        }
    };
    let serve = ServeSettings { addr: addr?, tls };
    serve.identity().map_err(|problem| layers.problems.push(problem)).ok()?;
    Some(serve)
}

fn half(missing: &str, set: &str) -> String {
    format!("{missing}: not set, but {set} is: set both to speak TLS, or neither to speak plain text")
}

/// A port alone means all addresses, as everywhere in the world of gRPC.
fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let bad = || {
        format!(
            "`{text}` is no address to listen at, such as localhost:50051; to ask a kernel elsewhere, leave the role out: \
             --role gateway,scheduler"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let ip = match host.trim_start_matches('[').trim_end_matches(']') {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().map_err(|_| bad())?,
    };
    Ok(SocketAddr::new(ip, port))
}
