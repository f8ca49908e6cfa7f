//! Signatures of the base policy: Ed25519 over its bytes. See `docs/spec/policy.md` §8.3.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// A file that should hold a signature is not read further than this.
const MAX_FILE_BYTES: u64 = 4 * 1024;

/// Why a key or a signature cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// It is no encoding that is known here.
    #[error("invalid {what} encoding: neither hex nor base64")]
    Encoding {
        /// `key` or `signature`.
        what: &'static str,
    },
    /// It is well encoded, and something else.
    #[error("invalid {what} length: {found} bytes instead of {expected}")]
    Length {
        /// `key` or `signature`.
        what: &'static str,
        /// What there should be.
        expected: usize,
        /// What there is.
        found: usize,
    },
}

/// Why a policy is not taken as signed. Then it is not in force, whatever it says.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no file with a signature.
    #[error("policy signature required but not found")]
    NotFound,
    /// A policy from an address has no file beside it, and nothing else is configured.
    #[error("policy signature required but no signature provided")]
    NotProvided,
    /// The file cannot be read.
    #[error("read policy signature {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file holds no signature.
    #[error("policy signature {}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is in it.
        #[source]
        source: EncodingError,
    },
    /// The signature was made with another key, or of other bytes.
    #[error("policy signature verification failed")]
    Mismatch,
}

/// The key that policies are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

impl FromStr for PublicKey {
    type Err = EncodingError;

    fn from_str(text: &str) -> Result<Self, EncodingError> {
        decode(text, "key").map(Self)
    }
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_BYTES]);

impl FromStr for Signature {
    type Err = EncodingError;

    fn from_str(text: &str) -> Result<Self, EncodingError> {
        decode(text, "signature").map(Self)
    }
}

impl Signature {
    /// From a file: 64 raw bytes, or text.
    fn from_file(bytes: &[u8]) -> Result<Self, EncodingError> {
        if let Ok(raw) = bytes.try_into() {
            return Ok(Self(raw));
        }
        std::str::from_utf8(bytes)
            .map_err(|_| EncodingError::Length {
                what: "signature",
                expected: SIGNATURE_BYTES,
                found: bytes.len(),
            })?
            .parse()
    }
}

/// Hex or base64, with or without padding and line ends. Some text is both; then the one with the right length is meant.
fn decode<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], EncodingError> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let readings = [
        hex(&text),
        STANDARD.decode(&text).ok(),
        STANDARD_NO_PAD.decode(&text).ok(),
    ];
    let mut error = EncodingError::Encoding { what };
    for bytes in readings.into_iter().flatten().filter(|bytes| !bytes.is_empty()) {
        let found = bytes.len();
        if let Ok(exact) = bytes.try_into() {
            return Ok(exact);
        }
        if matches!(error, EncodingError::Encoding { .. }) {
            error = EncodingError::Length {
                what,
                expected: N,
                found,
            };
        }
    }
    Err(error)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Where the signature of a policy is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Value(Box<Signature>),
    File(PathBuf),
    /// In the file beside the policy whose name ends in `.sig`.
    Beside,
}

/// A policy must be signed, and by whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    key: PublicKey,
    place: Place,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").finish_non_exhaustive()
    }
}

impl Signed {
    /// With the private part of this key; the signature is in the file beside the policy.
    pub fn by(key: PublicKey) -> Self {
        Self {
            key,
            place: Place::Beside,
        }
    }

    /// The signature is this.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.place = Place::Value(Box::new(signature));
        self
    }

    /// The signature is in this file.
    #[must_use]
    pub fn with_signature_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::File(path.into());
        self
    }

    /// Whether these bytes, which are from `file` if that is given, are signed. Reads files.
    pub(super) fn verify(&self, policy: &[u8], file: Option<&Path>) -> Result<(), SignatureError> {
        let signature = match (&self.place, file) {
            (Place::Value(signature), _) => (**signature).clone(),
            (Place::File(path), _) => read(path)?,
            (Place::Beside, Some(file)) => {
                let mut name: OsString = file.into();
                name.push(".sig");
                read(Path::new(&name))?
            }
            (Place::Beside, None) => return Err(SignatureError::NotProvided),
        };
        UnparsedPublicKey::new(&ED25519, self.key.0)
            .verify(policy, &signature.0)
            .map_err(|_| SignatureError::Mismatch)
    }
}

fn read(path: &Path) -> Result<Signature, SignatureError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let outcome = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    match outcome {
        Ok(_) => Signature::from_file(&bytes).map_err(|source| SignatureError::Malformed {
            path: path.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SignatureError::NotFound),
        Err(source) => Err(SignatureError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}
