//! The HTTP API. See `docs/spec/http.md`.

use reqwest::{Client, Method, StatusCode, Url, header};
use serde_json::Value;

use crate::doc::{Doc, shorten};
use crate::failure::{Failure, Kind};
use crate::settings::Settings;

/// One request, beyond what the short forms below can say.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a [&'a str],
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) body: Option<&'a Value>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            headers: Vec::new(),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The JSON; null if there was none.
    pub(crate) body: Value,
    headers: header::HeaderMap,
}

impl Answer {
    /// A header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: Client,
    base: Url,
}

impl Api {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let mut headers = header::HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            header::HeaderValue::from_static("application/json, application/problem+json"),
        );
        if let Some(key) = &settings.key {
            let mut value = header::HeaderValue::from_str(key)
                .map_err(|_| Failure::usage("the API key holds characters that no HTTP header may hold"))?;
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
        for (name, what, value) in [
            ("x-principal-id", "the principal", &settings.principal),
            ("x-principal-role", "the role", &settings.role),
        ] {
            if let Some(value) = value {
                let value = header::HeaderValue::from_str(value)
                    .map_err(|_| Failure::usage(format!("{what} holds characters that no HTTP header may hold")))?;
                headers.insert(name, value);
            }
        }
        let http = Client::builder()
            .user_agent(concat!("coretexctl/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(settings.timeout)
            .build()
            .map_err(|error| Failure::new("cannot build an HTTP client").because(&error))?;
        Ok(Self {
            http,
            base: settings.api.clone(),
        })
    }

    /// The server's address, for messages.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET /api/v1/<path…>`
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        self.send(Method::GET, path, query, None, None).await
    }

    /// `POST /api/v1/<path…>`
    pub(crate) async fn post(&self, path: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.send(Method::POST, path, &[], body, None).await
    }

    /// `POST /api/v1/<path…>`, with one more header if there is one.
    pub(crate) async fn post_if(
        &self,
        path: &[&str],
        body: &Value,
        header: Option<(&'static str, String)>,
    ) -> Result<Value, Failure> {
        self.send(Method::POST, path, &[], Some(body), header).await
    }

    /// `PUT /api/v1/<path…>`
    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.send(Method::PUT, path, &[], Some(body), None).await
    }

    /// `DELETE /api/v1/<path…>`
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        self.send(Method::DELETE, path, query, None, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
        header: Option<(&'static str, String)>,
    ) -> Result<Value, Failure> {
        let call = Call {
            query: query.to_vec(),
            body,
            headers: header.into_iter().collect(),
            ..Call::new(method, path)
        };
        Ok(self.call(call).await?.body)
    }

    /// Any request.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let url = self.url(call.path, &call.query)?;
        let mut request = self.http.request(call.method, url);
        if let Some(body) = call.body {
            request = request.json(body);
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| self.no_answer(error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.map_err(|error| self.no_answer(error))?;
        if !status.is_success() {
            return Err(refusal(status, &String::from_utf8_lossy(&bytes), call.path));
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(format!("{} answered something that is no JSON", self.base()))
                    .because(&error)
                    .hint("is that the address of a coretexOS gateway?")
            })?
        };
        Ok(Answer { body, headers })
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::usage(format!("`{}` cannot hold a path", self.base)))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn no_answer(&self, error: reqwest::Error) -> Failure {
        let what = if error.is_timeout() {
            "no answer in time from"
        } else {
            "cannot reach"
        };
        // The address is said once, without what may hide in a query.
        Failure::of(Kind::Unreachable, format!("{what} {}", self.base()))
            .because(&error.without_url())
            .hint("start a daemon with `coretexd`, or name another one with --api or CORETEX_API_BASE")
    }
}

/// A failure from a status and a body: problem details, or plain text.
fn refusal(status: StatusCode, body: &str, path: &[&str]) -> Failure {
    let problem: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let doc = Doc(&problem);
    let mut text = match (doc.text("detail"), doc.text("title")) {
        ("", "") => shorten(body, 500),
        ("", title) => title.to_owned(),
        (detail, _) => detail.to_owned(),
    };
    if text.is_empty() {
        status
            .canonical_reason()
            .unwrap_or("no reason given")
            .clone_into(&mut text);
    }
    let problems: Vec<String> = doc
        .get("problems")
        .items()
        .map(|problem| match problem.text("pointer") {
            "" => format!("\n  {}", problem.text("message")),
            pointer => format!("\n  {pointer}: {}", problem.text("message")),
        })
        .collect();
    if !problems.is_empty() {
        // The detail is the same on fewer lines.
        text = format!("{} problems:{}", problems.len(), problems.concat());
    }
    let field = doc.text("field");
    if !field.is_empty() && !text.contains(field) {
        text = format!("{field}: {text}");
    }
    let (kind, hint) = match status {
        StatusCode::UNAUTHORIZED => (Kind::Refused, Some("pass --api-key or set CORETEX_API_KEY")),
        StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => (Kind::Refused, None),
        StatusCode::NOT_FOUND => (
            Kind::NotFound,
            match path.first() {
                Some(&"workflows") => Some("`coretexctl workflow list` shows what there is"),
                Some(&"workflow-runs") => Some("`coretexctl run list` shows what there is"),
                Some(&"workflow-schedules") => Some("`coretexctl workflow schedule list` shows what there is"),
                _ => Some("`coretexctl job list` shows what there is"),
            },
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            Kind::Failed,
            Some("wait a moment, or raise API_RATE_LIMIT_RPS on the daemon (0 means no limit)"),
        ),
        StatusCode::SERVICE_UNAVAILABLE => (Kind::Failed, Some("`coretexctl status` shows what is missing")),
        _ => (Kind::Failed, None),
    };
    let failure = Failure::of(kind, format!("{text} (status {})", status.as_u16()));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
