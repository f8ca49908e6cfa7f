//! Data on stdout, everything else on stderr.

use std::io::Write as _;
use std::io::{IsTerminal as _, stdout};

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the server's own JSON.
    Json,
}

/// Prints data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `document` as it is with `--output json`, otherwise what `table` makes of it.
    pub(crate) fn print(self, document: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.is_json() {
            let text = serde_json::to_string_pretty(document)
                .map_err(|error| Failure::new("cannot render the answer as JSON").because(&error))?;
            line(&text)
        } else {
            line(&table())
        }
    }
}

/// Writes one or more lines to stdout. Colours are dropped where nobody sees them.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Writes a line to stderr. If even that fails there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Writes an error to stderr.
pub(crate) fn complain(text: &str) {
    // Bold red; dropped by the stream where colours are not wanted.
    note(&format!("\x1b[1;31merror:\x1b[0m {text}"));
}

/// A plain table: columns under a header, no lines.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    }
    if stdout().is_terminal() {
        // What nobody wants to see is stripped on the way out, by one rule for everything.
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

/// The text of a table, without blanks at line ends.
pub(crate) fn render(table: &Table) -> String {
    let text = table.trim_fmt();
    // The left padding of the first column would only indent everything by one.
    text.lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A table of names and values; pairs without a value are left out.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let mut table = table(&[]);
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let cell = if *name == "state" || *name == "decision" {
            verdict(value)
        } else {
            Cell::new(value)
        };
        table.add_row(vec![Cell::new(name), cell]);
    }
    render(&table)
}

/// A job state or a decision, in its colour.
pub(crate) fn verdict(word: &str) -> Cell {
    let cell = Cell::new(word);
    match word.split(' ').next().unwrap_or_default() {
        "SUCCEEDED" | "ALLOW" => cell.fg(Color::Green),
        "FAILED" | "DENIED" | "TIMEOUT" | "DENY" => cell.fg(Color::Red),
        "PENDING" | "APPROVAL_REQUIRED" | "REQUIRE_APPROVAL" | "THROTTLE" => cell.fg(Color::Yellow),
        "SCHEDULED" | "DISPATCHED" | "RUNNING" | "ALLOW_WITH_CONSTRAINTS" => cell.fg(Color::Cyan),
        _ => cell,
    }
}
