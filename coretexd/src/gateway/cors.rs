//! Which pages in browsers may call. See `docs/spec/http.md` §4.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Uri};

use crate::settings::Origins;

const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";
const HEADERS: &str = "Content-Type, X-API-Key, X-Principal-Id, X-Principal-Role, X-Actor-ID, Idempotency-Key, \
                       X-Idempotency-Key, X-Max-Artifact-Bytes, X-Request-Id, If-Match, If-None-Match";
const EXPOSED: &str = "X-Request-Id, Retry-After, ETag, Idempotent-Replayed, X-Next-Cursor";

/// The origin is not one that may call.
#[derive(Debug)]
pub(super) struct Refused;

/// The origin to answer to, if the request comes from a page.
///
/// # Errors
/// [`Refused`] if the page is not one that may call.
pub(super) fn check(origins: &Origins, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refused> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().map_err(|_| Refused)?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = match origins {
        Origins::Any => true,
        Origins::List(list) => host_of(text).is_some() && list.iter().any(|entry| entry == text),
        Origins::SameHost => host_of(text).is_some_and(|host| {
            let own = headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .map(|host| strip_port(host).to_ascii_lowercase());
            ["localhost", "127.0.0.1", "::1"].contains(&host.as_str()) || own.as_deref() == Some(host.as_str())
        }),
    };
    if allowed {
        Ok(Some(origin.clone()))
    } else {
        Err(Refused)
    }
}

/// The host of an origin such as `https://app.example:8443`, in lower case.
fn host_of(origin: &str) -> Option<String> {
    let uri: Uri = origin.parse().ok()?;
    uri.scheme()?;
    let host = strip_port(uri.authority()?.as_str().rsplit('@').next()?).to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

fn strip_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Sets the headers that every response carries.
pub(super) fn apply(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &str, host: &str, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        headers.insert(ORIGIN, origin.parse().unwrap());
        check(&Origins::parse(origins), &headers).is_ok()
    }

    /// docs/spec/http.md §4.
    #[test]
    fn origins_follow_the_rule() {
        for (origins, host, origin, expected) in [
            ("", "api.example:8081", "http://localhost:3000", true),
            ("", "api.example:8081", "https://127.0.0.1", true),
            ("", "api.example:8081", "http://[::1]:8082", true),
            ("", "api.example:8081", "https://API.example:8443", true),
            ("", "api.example", "https://other.example", false),
            ("", "api.example", "null", false),
            ("", "api.example", "api.example", false),
            ("", "api.example", "", true),
            (" , ", "api.example", "http://localhost", true),
            ("*", "api.example", "https://other.example", true),
            ("*", "api.example", "null", true),
            ("*,https://a", "api.example", "https://other.example", false),
            ("https://a, https://b", "api.example", "https://b", true),
            ("https://a, https://b", "api.example", "https://B", false),
            ("https://a", "api.example", "http://localhost", false),
        ] {
            assert_eq!(allowed(origins, host, origin), expected, "{origins:?} {host} {origin}");
        }
    }
}
