//! `coretexctl workflow create`, also called `apply`

use std::path::PathBuf;

use reqwest::Method;

use super::files;
use crate::api::Call;
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{line, note};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints the id. Members that a file does not have keep their stored value. With --if-match nothing is written if somebody
else has changed the definition (code 4); `coretexctl workflow versions` shows the hashes.

Examples:
  coretexctl workflow create --file triage.yaml
  coretexctl workflow apply triage.yaml deploy.json
  coretexctl workflow get triage -o json | jq '.timeout_sec = 60' | coretexctl workflow apply -
  coretexctl workflow apply triage.yaml --if-match 4f1c…")]
pub(crate) struct Args {
    /// Files with definitions, JSON or YAML; `-` reads standard input
    #[arg(value_name = "FILE", required_unless_present = "file")]
    files: Vec<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Only over this revision
    #[arg(long, value_name = "HASH")]
    if_match: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let files: Vec<&PathBuf> = args.file.iter().chain(&args.files).collect();
    if args.if_match.is_some() && files.len() > 1 {
        return Err(Failure::usage("--if-match is about one file"));
    }
    // All are read before the first is written.
    let mut bodies = Vec::with_capacity(files.len());
    for file in files {
        bodies.push(files::body(&files::definition(file)?)?);
    }
    for body in &bodies {
        let mut call = Call::new(Method::POST, &["workflows"]);
        call.body = Some(body);
        if let Some(hash) = &args.if_match {
            call.headers
                .push(("if-match", format!("\"{}\"", hash.trim_matches('"'))));
        }
        let answer = context.api.call(call).await?.body;
        let doc = Doc(&answer);
        if context.out.is_json() {
            context.out.print(&answer, String::new)?;
            continue;
        }
        line(doc.text("id"))?;
        let verb = match doc.get("created").0.as_bool() {
            Some(true) => "created",
            Some(false) => "saved",
            // A server that does not say.
            None => continue,
        };
        note(&format!("{verb} {}, revision {}", doc.text("id"), doc.text("hash")));
    }
    Ok(())
}
