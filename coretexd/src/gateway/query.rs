//! Query strings: what is not understood counts as absent. See `docs/spec/http.md` §3.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The members of a query string.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let pairs = axum::extract::Query::try_from_uri(&parts.uri);
        Ok(Self(pairs.map(|axum::extract::Query(pairs)| pairs).unwrap_or_default()))
    }
}

impl Query {
    /// The first value of a name; `None` if it is absent or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// An owned copy of a value.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// All values of a name that are not empty.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Whether a value says yes: `1 true yes y on`, in any case.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| {
            ["1", "true", "yes", "y", "on"]
                .iter()
                .any(|yes| text.trim().eq_ignore_ascii_case(yes))
        })
    }

    /// `limit`: a whole number from 1 on, else the default.
    pub(super) fn limit(&self, default: usize) -> usize {
        self.text("limit")
            .and_then(|text| text.parse().ok())
            .filter(|limit| *limit > 0)
            .unwrap_or(default)
    }
}
