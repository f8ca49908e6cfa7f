//! `coretexctl status`: whether the control plane is well.

use crate::commands::Context;
use crate::doc::{Doc, scalar};
use crate::failure::Failure;
use crate::output::facts;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl status
  coretexctl status -o json | jq .workers.count")]
pub(crate) struct Args {}

pub(crate) async fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let status = context.api.get(&["status"], &[]).await?;
    context.out.print(&status, || render(Doc(&status), context.api.base()))
}

fn render(status: Doc<'_>, address: &str) -> String {
    let bus = status.get("nats");
    let store = status.get("redis");
    let bus_text = match (bus.text("status"), bus.text("url")) {
        ("", _) => String::new(),
        (state, "") => state.to_owned(),
        (state, url) => format!("{state} to {url}"),
    };
    let store_text = match (store.get("ok").0.as_bool(), store.text("error")) {
        (Some(true), _) => "ok".to_owned(),
        (Some(false), error) => format!("not ok: {error}"),
        (None, _) => String::new(),
    };
    let uptime = u64::try_from(status.int("uptime_seconds")).unwrap_or_default();
    let mut pairs = vec![
        ("server", address.to_owned()),
        ("bus", bus_text),
        ("store", store_text),
        ("workers", status.get("workers").int("count").to_string()),
        (
            "up for",
            format!("{:#}", jiff::SignedDuration::from_secs(uptime.cast_signed())),
        ),
        ("time", status.text("time").to_owned()),
    ];
    // Whatever else the server tells is shown as it comes.
    let known = ["nats", "redis", "workers", "uptime_seconds", "time"];
    let more: Vec<(&str, String)> = status
        .0
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !known.contains(&name.as_str()))
        .map(|(name, value)| {
            let text = if value.is_object() {
                status.pairs(name)
            } else {
                scalar(value)
            };
            (name.as_str(), text)
        })
        .collect();
    pairs.extend(more);
    facts(&pairs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_what_there_is() {
        let status = json!({
            "nats": {"connected": true, "status": "CONNECTED", "url": "nats://n:4222"},
            "redis": {"ok": false, "error": "refused"},
            "time": "2026-01-31T12:00:00Z", "uptime_seconds": 3725, "workers": {"count": 2},
            "jobs": {"pending": 3, "running": 1}
        });
        let text = render(Doc(&status), "http://h");
        for part in [
            "CONNECTED to nats://n:4222",
            "not ok: refused",
            "1h 2m 5s",
            "pending=3, running=1",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }
}
