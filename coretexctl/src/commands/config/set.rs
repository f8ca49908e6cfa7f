//! `coretexctl config set`

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Map, Value, json};

use super::Name;
use crate::commands::Context;
use crate::failure::{Failure, Kind};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The members given replace all members of the document. With --if-revision nothing is written if somebody else has
changed it since; 0 means that there must be none yet.

Examples:
  coretexctl config set --file default.json
  coretexctl config set org acme --file acme.json --if-revision 3
  echo '{\"limits\": {\"max_concurrent_runs\": 5}}' | coretexctl config set org acme --file -
  coretexctl config get org acme -o json | jq '.data | .limits.x = 1' | coretexctl config set org acme --file -")]
pub(crate) struct Args {
    #[command(flatten)]
    name: Name,
    /// JSON with the members of the document; `-` for stdin
    #[arg(long, short, value_name = "FILE")]
    file: String,
    /// Write only if this is the present revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// A remark kept with the document; repeat for more
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = crate::commands::job::parse_pair)]
    meta: Vec<(String, String)>,
}

fn read(file: &str) -> Result<Map<String, Value>, Failure> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new("cannot read stdin").because(&error))?;
        text
    } else {
        std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("cannot read {file}")).because(&error))?
    };
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{file} holds no JSON object")).because(&error))
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let Name { scope, id } = args.name;
    let meta: BTreeMap<String, String> = args.meta.into_iter().collect();
    let mut body = json!({"scope": scope, "scope_id": id, "data": read(&args.file)?});
    if !meta.is_empty() {
        body["meta"] = json!(meta);
    }
    let revision = args.if_revision.map(|revision| ("if-match", format!("\"{revision}\"")));
    context
        .api
        .post_if(&["config"], &body, revision)
        .await
        .map_err(|failure| match failure.kind() {
            Kind::Refused if args.if_revision.is_some() => {
                failure.hint(format!("coretexctl config get {scope} {id}").trim_end().to_owned())
            }
            _ => failure,
        })?;
    let done = json!({"scope": scope, "scope_id": id});
    context
        .out
        .print(&done, || format!("written {scope} {id}").trim_end().to_owned())
}
