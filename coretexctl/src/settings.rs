//! Where the server is and how to talk to it: flags, then the environment, then defaults.

use std::time::Duration;

use reqwest::Url;

use crate::cli::Global;
use crate::failure::Failure;

/// The variables with the server's address, first one set wins. The second is the older name.
pub(crate) const API_VARIABLES: [&str; 2] = ["CORETEX_API_BASE", "CORETEX_GATEWAY"];
/// The variables with the API key, first one set wins.
pub(crate) const KEY_VARIABLES: [&str; 3] = ["CORETEX_API_KEY", "CORETEX_SUPER_SECRET_API_TOKEN", "API_KEY"];
/// The variables with the identity that a key without one of its own lets one assert.
pub(crate) const PRINCIPAL_VARIABLE: &str = "CORETEX_PRINCIPAL_ID";
pub(crate) const ROLE_VARIABLE: &str = "CORETEX_PRINCIPAL_ROLE";
/// Where a daemon listens by default.
pub(crate) const DEFAULT_API: &str = "http://localhost:8081";

/// How to reach the server.
pub(crate) struct Settings {
    pub(crate) api: Url,
    pub(crate) key: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) timeout: Duration,
}

impl Settings {
    /// Settles flags and environment; `env` looks a variable up.
    pub(crate) fn resolve(global: &Global, env: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let first = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| env(name).map(|value| clean(&value)).filter(|value| !value.is_empty()))
        };
        let address = global
            .api
            .as_deref()
            .map(clean)
            .filter(|address| !address.is_empty())
            .or_else(|| first(&API_VARIABLES))
            .unwrap_or_else(|| DEFAULT_API.to_owned());
        let api = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Failure::usage(format!("`{address}` is no http:// or https:// address"))
                    .hint(format!("--api {DEFAULT_API}"))
            })?;
        let key = global
            .api_key
            .as_deref()
            .map(clean)
            .filter(|key| !key.is_empty())
            .or_else(|| first(&KEY_VARIABLES));
        let said = |flag: Option<&str>, variable: &str| {
            flag.map(clean)
                .filter(|text| !text.is_empty())
                .or_else(|| first(&[variable]))
        };
        Ok(Self {
            api,
            key,
            principal: said(global.as_principal.as_deref(), PRINCIPAL_VARIABLE),
            role: said(global.as_role.as_deref(), ROLE_VARIABLE),
            timeout: global.timeout,
        })
    }
}

/// Without blanks and quotes around it, as the server normalises keys (docs/spec/http.md).
fn clean(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).trim().to_owned()
}

/// Reads `500ms`, `30s`, `2m`, `1h30m`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is no duration; write 500ms, 30s, 2m or 1h"))?;
    Duration::try_from(parsed).map_err(|_| format!("`{text}` is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(api: Option<&str>, key: Option<&str>) -> Global {
        Global {
            api: api.map(str::to_owned),
            api_key: key.map(str::to_owned),
            as_principal: None,
            as_role: None,
            output: crate::output::Format::Table,
            no_color: false,
            timeout: Duration::from_secs(15),
        }
    }

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn flags_win_over_environment_over_defaults() {
        let check = |api, key, pairs: &[(&str, &str)]| {
            let settings = Settings::resolve(&global(api, key), env(pairs)).expect("valid");
            (settings.api.to_string(), settings.key)
        };
        assert_eq!(check(None, None, &[]), ("http://localhost:8081/".into(), None));
        assert_eq!(
            check(None, None, &[("CORETEX_GATEWAY", "http://a"), ("API_KEY", " 'k' ")]),
            ("http://a/".into(), Some("k".into()))
        );
        assert_eq!(
            check(
                None,
                None,
                &[
                    ("CORETEX_GATEWAY", "http://a"),
                    ("CORETEX_API_BASE", "http://b"),
                    ("CORETEX_API_KEY", ""),
                    ("CORETEX_SUPER_SECRET_API_TOKEN", "t"),
                    ("API_KEY", "k")
                ]
            ),
            ("http://b/".into(), Some("t".into()))
        );
        assert_eq!(
            check(Some("https://c/x/"), Some("flag"), &[("CORETEX_API_BASE", "http://b")]),
            ("https://c/x/".into(), Some("flag".into()))
        );
    }

    #[test]
    fn an_address_without_scheme_is_a_usage_error() {
        for bad in ["localhost:8081", "ftp://a", "http://"] {
            let Err(failure) = Settings::resolve(&global(Some(bad), None), env(&[])) else {
                panic!("{bad} was accepted");
            };
            assert_eq!(failure.kind(), crate::failure::Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1.5", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "soon", "-3s", "-1"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
