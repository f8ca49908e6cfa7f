//! How runs look to people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{Cell, Color};
use jiff::Timestamp;
use serde_json::Value;

use crate::commands::workflow::graph::layout::Layout;
use crate::doc::{Doc, shorten};
use crate::output::facts;

/// How many children of a step have a line of their own.
const CHILDREN: usize = 10;

/// Whether a run or a step in this status is over.
pub(super) fn is_over(status: &str) -> bool {
    matches!(status, "succeeded" | "failed" | "cancelled" | "timed_out")
}

fn color(status: &str) -> Option<(Color, &'static str)> {
    Some(match status {
        "succeeded" => (Color::Green, "\x1b[32m"),
        "failed" | "timed_out" => (Color::Red, "\x1b[31m"),
        "waiting" => (Color::Yellow, "\x1b[33m"),
        "running" => (Color::Cyan, "\x1b[36m"),
        _ => return None,
    })
}

/// A status, in its colour.
pub(super) fn status_cell(status: &str) -> Cell {
    let cell = Cell::new(status);
    match color(status) {
        Some((color, _)) => cell.fg(color),
        None => cell,
    }
}

/// A mark for a status; the word stands beside it where it matters.
fn mark(status: &str) -> &'static str {
    match status {
        "succeeded" => "✓",
        "failed" | "timed_out" => "✗",
        "cancelled" => "⊘",
        "waiting" => "?",
        "running" => "●",
        _ => "○",
    }
}

fn time(doc: Doc<'_>, name: &str) -> Option<Timestamp> {
    doc.text(name).parse().ok()
}

/// How long a run or a step took, or takes by now; empty if it has not begun.
pub(super) fn took(doc: Doc<'_>, now: Timestamp) -> String {
    let Some(from) = time(doc, "started_at") else {
        return String::new();
    };
    let to = time(doc, "completed_at").unwrap_or(now);
    let millis = (to.as_millisecond() - from.as_millisecond()).max(0);
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", millis / 60_000, millis % 60_000 / 1_000),
        _ => format!("{}h{:02}m", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

/// A run with its facts and its steps.
pub(super) fn whole(run: &Value, layout: Option<&Layout>, now: Timestamp) -> String {
    let doc = Doc(run);
    let error = doc.get("error");
    let failure = match (error.text("step_id"), error.text("message")) {
        (_, "") => String::new(),
        ("", message) => message.to_owned(),
        (step, message) => format!("{message} (step {step})"),
    };
    let facts = facts(&[
        ("run", doc.text("id").to_owned()),
        ("workflow", doc.text("workflow_id").to_owned()),
        ("status", doc.text("status").to_owned()),
        ("error", failure),
        ("org", doc.text("org_id").to_owned()),
        ("started", doc.text("started_at").to_owned()),
        ("took", took(doc, now)),
        ("started by", doc.text("triggered_by").to_owned()),
        ("labels", doc.pairs("labels")),
        ("repeats", doc.text("rerun_of").to_owned()),
        ("input", shorten(&doc.compact("input"), 400)),
        ("output", shorten(&doc.compact("output"), 400)),
    ]);
    format!("{facts}\n\n{}", steps(run, layout, now))
}

/// The head line and the steps: what `watch` draws again and again.
pub(super) fn live(run: &Value, layout: Option<&Layout>, now: Timestamp) -> String {
    let doc = Doc(run);
    let status = doc.text("status");
    format!(
        "{} {}  {}  {}\n{}",
        colored(mark(status), status),
        doc.text("workflow_id"),
        status,
        took(doc, now),
        steps(run, layout, now)
    )
}

fn colored(text: &str, status: &str) -> String {
    match color(status) {
        Some((_, code)) => format!("{code}{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

/// A line for each step, in the order and depth of the definition; those of others follow.
fn steps(run: &Value, layout: Option<&Layout>, now: Timestamp) -> String {
    let steps = Doc(run).get("steps");
    let known: Vec<(String, usize)> = layout.map_or_else(Vec::new, |layout| {
        layout
            .walk()
            .into_iter()
            .map(|(id, depth)| (id.to_owned(), depth))
            .collect()
    });
    let mut children: BTreeMap<&str, Vec<(&str, Doc<'_>)>> = BTreeMap::new();
    let mut rest = Vec::new();
    for (id, record) in steps.0.as_object().into_iter().flatten() {
        if let Some((parent, _)) = id.split_once('[') {
            children.entry(parent).or_default().push((id, Doc(record)));
        } else if !known.iter().any(|(known, _)| known == id) {
            rest.push((id.clone(), 0));
        }
    }
    let mut lines = Vec::new();
    for (id, depth) in known.into_iter().chain(rest) {
        let indent = "  ".repeat(depth + 1);
        lines.push(format!("{indent}{}", step(&id, steps.get(&id), now)));
        let Some(children) = children.get_mut(id.as_str()) else {
            continue;
        };
        children.sort_by_key(|(id, _)| index(id));
        if children.len() > CHILDREN {
            lines.push(format!("{indent}  {}", tally(children)));
            // Of many, those that are no routine.
            children.retain(|(_, record)| matches!(record.text("status"), "failed" | "timed_out" | "waiting"));
            children.truncate(CHILDREN);
        }
        for (id, record) in children.iter() {
            lines.push(format!("{indent}  {}", step(id, *record, now)));
        }
    }
    lines.join("\n")
}

fn index(id: &str) -> usize {
    id.split_once('[')
        .and_then(|(_, rest)| rest.strip_suffix(']')?.parse().ok())
        .unwrap_or(usize::MAX)
}

/// `12 of 100 done, 4 running, 1 failed`
fn tally(children: &[(&str, Doc<'_>)]) -> String {
    let count = |wanted: &str| {
        children
            .iter()
            .filter(|(_, record)| record.text("status") == wanted)
            .count()
    };
    let mut text = format!("{} of {} done", count("succeeded"), children.len());
    for (status, word) in [
        ("running", "running"),
        ("waiting", "waiting"),
        ("pending", "pending"),
        ("failed", "failed"),
        ("timed_out", "timed out"),
        ("cancelled", "cancelled"),
    ] {
        match count(status) {
            0 => {}
            count => {
                // Writing to a String cannot fail.
                let _ = write!(text, ", {count} {word}");
            }
        }
    }
    text
}

fn step(id: &str, record: Doc<'_>, now: Timestamp) -> String {
    let status = record.text("status");
    let mut text = format!("{} {id}", colored(mark(status), status));
    let skipped = record.text("skipped");
    let mut parts = Vec::new();
    if !skipped.is_empty() || record.get("skipped").0.as_bool() == Some(true) {
        parts.push("skipped".to_owned());
    } else if matches!(status, "failed" | "timed_out" | "cancelled" | "waiting") {
        parts.push(status.replace('_', " "));
    }
    parts.push(took(record, now));
    match record.int("attempts") {
        0 | 1 => {}
        attempts => parts.push(format!("attempt {attempts}")),
    }
    if status == "pending" && !record.text("next_attempt_at").is_empty() {
        parts.push(format!("again at {}", record.text("next_attempt_at")));
    }
    if status == "waiting" {
        parts.push(shorten(record.text("prompt"), 80));
    }
    if status != "succeeded" {
        parts.push(shorten(record.get("error").text("message"), 120));
    }
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        text.push_str("  ");
        text.push_str(&part);
    }
    text
}

/// An entry of a timeline.
pub(super) fn entry(entry: Doc<'_>) -> String {
    let time = entry
        .text("time")
        .parse::<Timestamp>()
        .map_or_else(|_| entry.text("time").to_owned(), |time| format!("{time:.3}"));
    let mut text = format!("{time}  {}", entry.text("type"));
    for (name, value) in [
        ("", entry.text("step_id")),
        ("", entry.text("status")),
        ("", entry.text("message")),
        ("job ", entry.text("job_id")),
    ] {
        if !value.is_empty() {
            text.push_str("  ");
            text.push_str(name);
            text.push_str(&shorten(value, 200));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_run_is_a_list_of_its_steps() {
        let run = json!({
            "workflow_id": "w", "status": "running", "started_at": "2026-01-01T00:00:00Z", "completed_at": null,
            "steps": {
                "b": {"status": "waiting", "started_at": "2026-01-01T00:00:01Z", "prompt": "really?"},
                "a": {"status": "succeeded", "started_at": "2026-01-01T00:00:00Z",
                      "completed_at": "2026-01-01T00:00:00.250Z", "attempts": 2},
                "a[10]": {"status": "failed", "error": {"message": "no"}},
                "a[9]": {"status": "succeeded"},
            }
        });
        let now: Timestamp = "2026-01-01T00:01:05Z".parse().expect("a time");
        assert_eq!(
            plain(&live(&run, None, now)),
            "● w  running  1m05s\n  ✓ a  250ms  attempt 2\n    ✓ a[9]\n    ✗ a[10]  failed  no\n  ? b  waiting  1m04s  really?"
        );
    }

    #[test]
    fn many_children_are_counted() {
        let mut steps = serde_json::Map::new();
        steps.insert("fan".to_owned(), json!({"status": "running"}));
        for i in 0..20 {
            let status = if i == 7 { "failed" } else { "succeeded" };
            steps.insert(format!("fan[{i}]"), json!({"status": status}));
        }
        let run = json!({"workflow_id": "w", "status": "running", "steps": steps});
        assert_eq!(
            plain(&live(&run, None, Timestamp::UNIX_EPOCH)),
            "● w  running  \n  ● fan\n    19 of 20 done, 1 failed\n    ✗ fan[7]  failed"
        );
    }

    #[test]
    fn entries_are_lines() {
        let value = json!({"time": "2026-01-01T00:00:00.1234567Z", "type": "step_completed", "step_id": "a", "status": "failed",
                           "message": "no"});
        assert_eq!(
            entry(Doc(&value)),
            "2026-01-01T00:00:00.123Z  step_completed  a  failed  no"
        );
    }
}
