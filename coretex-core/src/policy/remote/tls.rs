//! Certificates and keys, read and checked before anything depends on them. See `docs/spec/policy.md` §14.2.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tonic::transport::{Certificate, Identity};
use x509_cert::der::Decode as _;
use x509_cert::time::Time;

use crate::time::Timestamp;

/// No certificate is as long as this.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Which file it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate that the kernel shows, with those between it and the authority.
    Certificate,
    /// The key of that certificate.
    Key,
    /// The authorities that the kernel's callers trust.
    Authorities,
}

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct TlsError {
    /// Which one.
    pub file: TlsFile,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Who the kernel is: a certificate and its key, checked.
pub struct ServerIdentity(Identity);

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity(…)")
    }
}

impl ServerIdentity {
    /// Reads a certificate and its key, both PEM.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read, holds something else, is out of date at `now`, or the two do not belong
    /// together.
    pub fn load(certificate: &Path, key: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let chain_file = PemFile::read(TlsFile::Certificate, certificate)?;
        let chain = chain_file.certificates()?;
        for certificate in &chain {
            chain_file.check_dates(certificate, now)?;
        }
        let key_file = PemFile::read(TlsFile::Key, key)?;
        let private = key_file.private_key()?;
        if let Some(leaf) = chain.first() {
            rustls::server::ParsedCertificate::try_from(leaf)
                .map_err(|error| chain_file.error(format!("certificate cannot be used: {error}")))?;
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, private, &provider).map_err(|error| {
            key_file.error(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("is not the key of the certificate in {}", certificate.display())
                }
                other => format!("private key cannot be used: {other}"),
            })
        })?;
        Ok(Self(Identity::from_pem(&chain_file.bytes, &key_file.bytes)))
    }

    pub(super) fn identity(&self) -> Identity {
        self.0.clone()
    }
}

/// Whom the kernel's callers trust, checked.
#[derive(Debug, Clone)]
pub struct Authorities(Certificate);

impl Authorities {
    /// Reads certificates of authorities, PEM.
    ///
    /// # Errors
    /// [`TlsError`] if the file cannot be read, holds something else, or has no certificate that is in date at `now`.
    pub fn load(path: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let file = PemFile::read(TlsFile::Authorities, path)?;
        let mut out_of_date = None;
        let mut good = 0;
        for certificate in file.certificates()? {
            if let Err(error) = file.check_dates(&certificate, now) {
                // A bundle may hold old ones beside new ones.
                out_of_date.get_or_insert(error);
                continue;
            }
            RootCertStore::empty()
                .add(certificate)
                .map_err(|error| file.error(format!("certificate cannot be used: {error}")))?;
            good += 1;
        }
        match out_of_date {
            Some(error) if good == 0 => Err(error),
            _ => Ok(Self(Certificate::from_pem(file.bytes))),
        }
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.0.clone()
    }
}

struct PemFile {
    file: TlsFile,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl PemFile {
    fn read(file: TlsFile, path: &Path) -> Result<Self, TlsError> {
        let mut pem = Self {
            file,
            path: path.to_owned(),
            bytes: Vec::new(),
        };
        let size = std::fs::metadata(path)
            .map_err(|error| pem.error(error.to_string()))?
            .len();
        if size > MAX_FILE_BYTES {
            return Err(pem.error(format!("{size} bytes are too many for a PEM file")));
        }
        pem.bytes = std::fs::read(path).map_err(|error| pem.error(error.to_string()))?;
        Ok(pem)
    }

    fn error(&self, reason: impl Into<String>) -> TlsError {
        TlsError {
            file: self.file,
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn sections(&self) -> Result<Vec<(SectionKind, Vec<u8>)>, TlsError> {
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.error(format!("broken PEM: {error}")))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let sections = self.sections()?;
        let certificates: Vec<_> = sections
            .iter()
            .filter(|(kind, _)| *kind == SectionKind::Certificate)
            .map(|(_, der)| CertificateDer::from(der.clone()))
            .collect();
        if certificates.is_empty() {
            return Err(self.error(self.instead("certificate", sections.first())));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let sections = self.sections()?;
        let key = sections
            .iter()
            .find_map(|(kind, der)| PrivateKeyDer::from_pem(*kind, der.clone()));
        key.ok_or_else(|| self.error(self.instead("private key", sections.first())))
    }

    fn instead(&self, wanted: &str, first: Option<&(SectionKind, Vec<u8>)>) -> String {
        let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        match first.map(|(kind, _)| kind) {
            None if self.bytes.windows(encrypted.len()).any(|window| window == encrypted) => {
                format!("holds an encrypted private key; expected a {wanted} in PEM, not encrypted")
            }
            None => format!("holds no PEM; expected a {wanted} in PEM"),
            Some(SectionKind::Certificate) => format!("holds a certificate; expected a {wanted}"),
            Some(SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) => {
                format!("holds a private key; expected a {wanted}")
            }
            Some(_) => format!("holds something else; expected a {wanted}"),
        }
    }

    fn check_dates(&self, der: &CertificateDer<'_>, now: Timestamp) -> Result<(), TlsError> {
        let certificate = x509_cert::Certificate::from_der(der)
            .map_err(|error| self.error(format!("certificate cannot be read: {error}")))?;
        let validity = &certificate.tbs_certificate.validity;
        let (from, until) = (moment(validity.not_before), moment(validity.not_after));
        if now < from {
            return Err(self.error(format!("certificate is not valid before {from}, and it is {now}")));
        }
        if now > until {
            return Err(self.error(format!("certificate expired at {until}, and it is {now}")));
        }
        Ok(())
    }
}

fn moment(time: Time) -> Timestamp {
    let since_epoch: Duration = time.to_unix_duration();
    Timestamp::from_secs(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX / 1_000_000))
}
