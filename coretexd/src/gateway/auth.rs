//! Who is calling, and what they may do. See `docs/spec/http.md` §4.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::settings::{HttpSettings, KeyEntry, KeyHash, KeyRole};

/// Names the key among the subprotocols of a `WebSocket`: pages in browsers cannot send headers with one.
pub(super) const SUBPROTOCOL: &str = "coretex-api-key";

/// Checks keys in constant time: digests are compared, so that not even the length shows.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The one key that may assert any identity.
    shared: Option<KeyHash>,
    /// Keys that belong to somebody.
    own: Vec<KeyEntry>,
}

impl Keys {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        Self {
            shared: settings.api_key.as_ref().map(|key| KeyHash::of(key.expose())),
            own: settings.keys.clone(),
        }
    }

    /// Who sends these headers; `None` if a key is demanded and there is none that is known.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.shared.is_none() && self.own.is_empty() {
            return Some(Caller::asserted(headers, Credential::None));
        }
        let sent = KeyHash::of(&sent_key(headers)?);
        if self.shared.is_some_and(|shared| shared.0.ct_eq(&sent.0).into()) {
            return Some(Caller::asserted(headers, Credential::Shared));
        }
        // All of them are compared, whichever it is.
        let mut found = None;
        for (number, key) in self.own.iter().enumerate() {
            if key.hash.0.ct_eq(&sent.0).into() {
                found = Some((number, key));
            }
        }
        found.map(|(number, key)| Caller {
            id: key.principal.clone(),
            role: role_name(&key.roles),
            verified: true,
            credential: Credential::Own(number),
            roles: key.roles.clone(),
        })
    }
}

/// The key that a request carries: `X-API-Key`; where that is empty and a `WebSocket` is asked for, a subprotocol.
fn sent_key(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let header = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    if let Some(key) = header.filter(|key| !key.trim().is_empty()) {
        return Some(key.into());
    }
    let names = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
    };
    if names(CONNECTION, "upgrade") && names(UPGRADE, "websocket") {
        return key_of_subprotocols(headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?).map(Cow::Owned);
    }
    header.map(Cow::Borrowed)
}

/// The key after `coretex-api-key`, as the next item or behind a dot, in base64 of either kind or as it is.
fn key_of_subprotocols(list: &str) -> Option<String> {
    let mut items = list.split(',').map(str::trim);
    let token = loop {
        let item = items.next()?;
        if item.eq_ignore_ascii_case(SUBPROTOCOL) {
            if let Some(token) = items.next() {
                break token;
            }
        } else if let Some((name, token)) = item.split_at_checked(SUBPROTOCOL.len())
            && name.eq_ignore_ascii_case(SUBPROTOCOL)
            && let Some(token) = token.strip_prefix('.')
        {
            break token;
        }
    };
    let decoded = URL_SAFE_NO_PAD.decode(token).or_else(|_| STANDARD.decode(token));
    Some(
        decoded
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_else(|| token.to_owned()),
    )
}

/// Whether a request to this path changes nothing, whatever its method: it asks what would be said.
fn only_asks(path: &str) -> bool {
    if path == "/api/v1/workflows/validate" {
        return true;
    }
    path.strip_prefix("/api/v1/policy/").is_some_and(|rest| {
        matches!(rest, "evaluate" | "simulate" | "explain")
            || (rest.starts_with("bundles/") && rest.ends_with("/simulate"))
    })
}

/// The role that a record shows: the most powerful one.
fn role_name(roles: &[KeyRole]) -> String {
    roles.iter().min().map_or("", |role| role.as_str()).to_owned()
}

/// With what a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Credential {
    /// Nothing: no key is configured.
    None,
    /// The shared key, which may assert any identity.
    Shared,
    /// A key that belongs to somebody; its place in the file.
    Own(usize),
}

/// Who is calling.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The principal; may be empty if it is asserted.
    pub(super) id: String,
    /// The role, for records; may be empty if it is asserted.
    pub(super) role: String,
    /// Whether the key says so, and not only the caller.
    pub(super) verified: bool,
    /// With what the request came.
    pub(super) credential: Credential,
    /// The roles of the key; of no meaning if not verified.
    roles: Vec<KeyRole>,
}

impl Caller {
    /// The identity that whoever holds the shared key asserts.
    fn asserted(headers: &HeaderMap, credential: Credential) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        Self {
            id: text("x-principal-id"),
            role: text("x-principal-role"),
            verified: false,
            credential,
            roles: Vec::new(),
        }
    }

    /// Whether the caller may write policy.
    pub(super) fn is_secops(&self) -> bool {
        if self.verified {
            self.has_any(&[KeyRole::Admin, KeyRole::Secops])
        } else {
            self.role.eq_ignore_ascii_case(KeyRole::Secops.as_str())
        }
    }

    /// Demands the role of those who write policy.
    pub(super) fn require_secops(&self) -> Result<(), ApiError> {
        if self.is_secops() {
            return Ok(());
        }
        Err(
            ApiError::new(StatusCode::FORBIDDEN, "role_required", "forbidden").detail(if self.verified {
                "this needs a key with role secops or admin"
            } else {
                "this needs role secops: send `X-Principal-Role: secops`"
            }),
        )
    }

    /// Whether the caller may ask for this at all: some keys only read.
    pub(super) fn may(&self, method: &Method, path: &str) -> bool {
        !self.verified
            || matches!(*method, Method::GET | Method::HEAD)
            || only_asks(path)
            || self.has_any(&[KeyRole::Admin, KeyRole::Secops, KeyRole::Operator])
    }

    fn has_any(&self, roles: &[KeyRole]) -> bool {
        self.roles.iter().any(|role| roles.contains(role))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    /// Every request that reached a handler was identified at the edge.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<Self>()
            .cloned()
            // Nobody in particular, should a route ever be served without the edge.
            .unwrap_or_else(|| Self::asserted(&HeaderMap::new(), Credential::None)))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    }

    fn keys(shared: Option<&str>, own: &[(&str, &str, &[KeyRole])]) -> Keys {
        Keys {
            shared: shared.map(KeyHash::of),
            own: own
                .iter()
                .map(|(key, principal, roles)| KeyEntry {
                    hash: KeyHash::of(key),
                    principal: (*principal).to_owned(),
                    roles: roles.to_vec(),
                })
                .collect(),
        }
    }

    #[test]
    fn a_key_of_ones_own_is_believed_and_headers_are_not() {
        let keys = keys(
            Some("shared"),
            &[
                ("a", "alice", &[KeyRole::Viewer, KeyRole::Secops]),
                ("b", "bob", &[KeyRole::Operator]),
                ("v", "vera", &[KeyRole::Viewer]),
            ],
        );
        let asserted = [("x-principal-id", "eve"), ("x-principal-role", " SecOps ")];
        for (key, id, role, verified, secops, writes) in [
            ("shared", "eve", "SecOps", false, true, true),
            ("a", "alice", "secops", true, true, true),
            ("b", "bob", "operator", true, false, true),
            ("v", "vera", "viewer", true, false, false),
        ] {
            let sent: Vec<_> = asserted.into_iter().chain([("x-api-key", key)]).collect();
            let caller = keys.identify(&headers(&sent)).expect(key);
            assert_eq!((&*caller.id, &*caller.role, caller.verified), (id, role, verified));
            assert_eq!(caller.is_secops(), secops, "{key}");
            assert_eq!(caller.require_secops().is_ok(), secops, "{key}");
            assert_eq!(caller.may(&Method::POST, "/api/v1/jobs"), writes, "{key}");
            assert!(caller.may(&Method::GET, "/api/v1/jobs"), "{key}");
            for path in ["evaluate", "bundles/secops~a/simulate"] {
                assert!(caller.may(&Method::POST, &format!("/api/v1/policy/{path}")), "{key}");
            }
        }
        for unknown in [&[][..], &[("x-api-key", "")], &[("x-api-key", "c")]] {
            assert!(keys.identify(&headers(unknown)).is_none());
        }
    }

    #[test]
    fn a_page_sends_its_key_as_a_subprotocol() {
        for (list, key) in [
            ("coretex-api-key, c2VjcmV0", Some("secret")),
            ("other, Coretex-Api-Key,c2VjcmV0", Some("secret")),
            ("coretex-api-key.c2VjcmV0", Some("secret")),
            ("coretex-api-key, c2VjcmV0ISE=", Some("secret!!")),
            ("coretex-api-key, not/base64!", Some("not/base64!")),
            ("coretex-api-key", None),
            ("other", None),
            ("", None),
        ] {
            assert_eq!(key_of_subprotocols(list).as_deref(), key, "{list}");
        }
        let keys = keys(Some("secret"), &[]);
        let upgrade = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "coretex-api-key, c2VjcmV0"),
        ];
        assert!(keys.identify(&headers(&upgrade)).is_some());
        assert!(
            keys.identify(&headers(&upgrade[1..])).is_none(),
            "no upgrade, no subprotocols"
        );
        let wrong: Vec<_> = upgrade.into_iter().chain([("x-api-key", "wrong")]).collect();
        assert!(
            keys.identify(&headers(&wrong)).is_none(),
            "the header counts if there is one"
        );
    }

    #[test]
    fn without_keys_everybody_is_who_they_say() {
        let caller = keys(None, &[])
            .identify(&headers(&[("x-principal-id", " eve ")]))
            .expect("open");
        assert_eq!((&*caller.id, caller.verified), ("eve", false));
        assert!(!caller.is_secops() && caller.may(&Method::POST, "/api/v1/jobs"));
        // A file alone demands a key as well.
        assert!(keys(None, &[("a", "alice", &[])]).identify(&headers(&[])).is_none());
    }
}
