//! Where policy comes from. See `docs/configuration.md` §2 and §6.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use coretex_core::policy::{DEFAULT_RELOAD_INTERVAL, EncodingError, PublicKey, Signature, Signed};
use serde::Serialize;

use super::file::{PathsSection, PolicySection};
use super::{Flags, Layers, ServerUrl, Span};
use crate::env_vars;

/// The base policy that is read when none is named.
pub const DEFAULT_POLICY: &str = "config/safety.yaml";

/// Where policy comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicySettings {
    /// The base policy; `None` for none.
    pub base: Option<PolicyPlace>,
    /// How the base policy must be signed, if it must be.
    #[serde(serialize_with = "is_signed", rename = "signature_required")]
    pub signed: Option<Signed>,
    /// How often it is looked at.
    pub reload_interval: Span,
    /// Where fragments are; `None` if they are not used.
    pub fragments: Option<FragmentsPlace>,
}

/// Where the base policy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyPlace {
    /// In a file.
    File(PathBuf),
    /// At an `http` or `https` address.
    Url(ServerUrl),
}

/// Where the fragments of policy are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FragmentsPlace {
    /// The scope of their configuration document.
    pub scope: String,
    /// Its id.
    pub id: String,
    /// The member that holds them.
    pub key: String,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            base: Some(PolicyPlace::parse(DEFAULT_POLICY)),
            signed: None,
            reload_interval: Span(DEFAULT_RELOAD_INTERVAL),
            fragments: Some(FragmentsPlace::default()),
        }
    }
}

impl Default for FragmentsPlace {
    fn default() -> Self {
        Self {
            scope: "system".to_owned(),
            id: "policy".to_owned(),
            key: "bundles".to_owned(),
        }
    }
}

impl PolicyPlace {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Url(ServerUrl::new(text))
        } else {
            Self::File(text.into())
        }
    }
}

#[allow(clippy::ref_option, reason = "this is how serde calls it")]
fn is_signed<S: serde::Serializer>(signed: &Option<Signed>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(signed.is_some())
}

pub(super) fn resolve(
    flags: &Flags,
    layers: &mut Layers<'_>,
    paths: &PathsSection,
    file: PolicySection,
) -> PolicySettings {
    let flag = flags.policy.as_deref().map(|path| path.to_string_lossy().into_owned());
    let base = base(flag, layers, paths);
    let signed = signed(layers, &file);
    let reload_interval = layers
        .span(env_vars::SAFETY_POLICY_RELOAD_INTERVAL)
        .or(file.reload_interval)
        .unwrap_or(Span(DEFAULT_RELOAD_INTERVAL));
    let disabled = layers.env.text(env_vars::SAFETY_POLICY_CONFIG_DISABLE).is_some() || file.fragments == Some(false);
    let place = FragmentsPlace::default();
    let part = |name: &str, file: Option<String>, default: String| {
        let text = layers.env.text(name).or(file).map(|text| text.trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or(default)
    };
    let fragments = FragmentsPlace {
        scope: part(env_vars::SAFETY_POLICY_CONFIG_SCOPE, file.scope, place.scope),
        id: part(env_vars::SAFETY_POLICY_CONFIG_ID, file.id, place.id),
        key: part(env_vars::SAFETY_POLICY_CONFIG_KEY, file.key, place.key),
    };
    PolicySettings {
        base,
        signed,
        reload_interval,
        fragments: (!disabled).then_some(fragments),
    }
}

/// The flag, the address, the path, the file. A path of blanks alone says that there is no base policy.
fn base(flag: Option<String>, layers: &Layers<'_>, paths: &PathsSection) -> Option<PolicyPlace> {
    if let Some(text) = flag.or_else(|| layers.env.text(env_vars::SAFETY_POLICY_URL)) {
        return Some(PolicyPlace::parse(&text));
    }
    match (layers.env.env)(env_vars::SAFETY_POLICY_PATH) {
        Some(path) if path.is_empty() => {}
        Some(path) if path.trim().is_empty() => return None,
        Some(path) => return Some(PolicyPlace::parse(&path)),
        None => {}
    }
    let path = paths.policy.as_deref().unwrap_or(Path::new(DEFAULT_POLICY));
    Some(PolicyPlace::parse(&path.to_string_lossy()))
}

fn signed(layers: &mut Layers<'_>, file: &PolicySection) -> Option<Signed> {
    let key = layers
        .env
        .text(env_vars::SAFETY_POLICY_PUBLIC_KEY)
        .or_else(|| file.public_key.clone())?;
    let key = read::<PublicKey>(layers, env_vars::SAFETY_POLICY_PUBLIC_KEY, &key);
    let value = layers
        .env
        .text(env_vars::SAFETY_POLICY_SIGNATURE)
        .or_else(|| file.signature.clone());
    let value = match value {
        Some(text) => Some(read::<Signature>(layers, env_vars::SAFETY_POLICY_SIGNATURE, &text)?),
        None => None,
    };
    let path = layers
        .env
        .text(env_vars::SAFETY_POLICY_SIGNATURE_PATH)
        .map(|path| PathBuf::from(path.trim()))
        .or_else(|| file.signature_path.clone());
    let signed = Signed::by(key?);
    Some(match (value, path) {
        (Some(value), _) => signed.with_signature(value),
        (None, Some(path)) => signed.with_signature_file(path),
        (None, None) => signed,
    })
}

/// `None` leaves a problem behind, so that nothing starts without the check that was asked for.
fn read<T: FromStr<Err = EncodingError>>(layers: &mut Layers<'_>, name: &str, text: &str) -> Option<T> {
    text.parse()
        .map_err(|error| layers.problems.push(format!("invalid {name}: {error}")))
        .ok()
}
