//! `coretexctl audit verify`

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use coretex_core::audit::{AuditEntry, Broken, Checker};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::{Failure, Kind};

/// How many entries are fetched at once.
const PAGE: usize = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every entry is fetched and checked here, so that the server need not be believed. Ends with code 0 if the log is whole, 1 if
it is not; the first broken entry is named. That entries are missing at the end can only be seen by who knows an earlier end:
keep the one that is printed, and pass it as --known.

Examples:
  coretexctl audit verify
  coretexctl audit verify --known 120:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  coretexctl audit verify --file audit.jsonl")]
pub(crate) struct Args {
    /// Check an exported log instead: one JSON entry per line, as `coretexctl audit tail --all -o json` writes it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// An end of the log as it was printed before; it has to be in the log
    #[arg(long, value_name = "SEQ:HASH", value_parser = parse_known)]
    known: Option<Known>,
}

/// A place and its hash.
#[derive(Debug, Clone)]
struct Known {
    seq: u64,
    hash: String,
}

fn parse_known(text: &str) -> Result<Known, String> {
    let (seq, hash) = text.split_once(':').ok_or("expected SEQ:HASH")?;
    let seq = seq.parse().map_err(|_| "SEQ is no whole number".to_owned())?;
    if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("HASH is not 64 hexadecimal digits".to_owned());
    }
    let hash = hash.to_ascii_lowercase();
    Ok(Known { seq, hash })
}

/// A check under way.
struct Check {
    checker: Checker,
    known: Option<Known>,
}

impl Check {
    fn accept(&mut self, entry: &Value) -> Result<(), Broken> {
        let next = self.checker.head().seq.saturating_add(1);
        let entry: AuditEntry = serde_json::from_value(entry.clone()).map_err(|error| Broken {
            seq: next,
            what: format!("is no entry: {error}"),
        })?;
        self.checker.accept(&entry)?;
        match &self.known {
            Some(known) if known.seq == entry.seq && known.hash != entry.hash => Err(Broken {
                seq: entry.seq,
                what: format!("was changed, and all after it: its hash was {}", known.hash),
            }),
            _ => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), Broken> {
        let head = self.checker.head();
        match &self.known {
            Some(known) if known.seq > head.seq => Err(Broken {
                seq: head.seq.saturating_add(1),
                what: format!("missing, with all after it: the log had {} entries", known.seq),
            }),
            _ => Ok(()),
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let mut check = Check {
        checker: Checker::default(),
        known: args.known,
    };
    let found = match &args.file {
        Some(path) => of_file(&mut check, path)?,
        None => of_server(&mut check, context).await?,
    };
    let found = found.and_then(|()| check.finish());
    let head = check.checker.head();
    match found {
        Ok(()) => {
            let report = json!({"ok": true, "entries": head.seq, "head": {"seq": head.seq, "hash": head.hash}});
            context.out.print(&report, || {
                format!("whole: {} entries\nend: {}:{}", head.seq, head.seq, head.hash)
            })
        }
        Err(broken) => {
            if context.out.is_json() {
                let report =
                    json!({"ok": false, "entries": head.seq, "broken": {"seq": broken.seq, "what": broken.what}});
                context.out.print(&report, String::new)?;
            }
            Err(Failure::new(format!("the audit log is broken: {broken}")))
        }
    }
}

/// The outer result is about reading, the inner one about what was read.
fn of_file(check: &mut Check, path: &Path) -> Result<Result<(), Broken>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}", path.display())).because(&error);
    let file = BufReader::new(File::open(path).map_err(cannot)?);
    for (number, line) in file.lines().enumerate() {
        let line = line.map_err(cannot)?;
        if line.trim().is_empty() {
            continue;
        }
        let entry: Value = serde_json::from_str(&line).map_err(|error| {
            Failure::new(format!("{}:{}: no JSON", path.display(), number.saturating_add(1))).because(&error)
        })?;
        if let Err(broken) = check.accept(&entry) {
            return Ok(Err(broken));
        }
    }
    Ok(Ok(()))
}

async fn of_server(check: &mut Check, context: &Context) -> Result<Result<(), Broken>, Failure> {
    let style = ProgressStyle::with_template("{pos}/{len} entries {wide_bar} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    loop {
        let from = check.checker.head().seq.saturating_add(1);
        let query = [("from", from.to_string()), ("limit", PAGE.to_string())];
        let page = match context.api.get(&["audit"], &query).await {
            Ok(page) => page,
            // An entry that the server itself cannot read: it can say which.
            Err(failure) if failure.kind() == Kind::Failed => {
                let report = context.api.get(&["audit", "verify"], &[]).await.map_err(|_| failure)?;
                let broken = Doc(&report).get("broken");
                return Ok(Err(Broken {
                    seq: u64::try_from(broken.int("seq")).unwrap_or_default(),
                    what: broken.text("what").to_owned(),
                }));
            }
            Err(failure) => return Err(failure),
        };
        let doc = Doc(&page);
        let before = check.checker.head().seq;
        for entry in doc.get("items").items() {
            if let Err(broken) = check.accept(entry.0) {
                return Ok(Err(broken));
            }
        }
        let done = check.checker.head().seq;
        if done == before {
            return Ok(Ok(()));
        }
        bar.set_length(u64::try_from(doc.get("head").int("seq")).unwrap_or_default());
        bar.set_position(done);
    }
}
