//! `coretexctl config get`

use super::{Name, pretty};
use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::{Failure, Kind};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl config get
  coretexctl config get org acme
  coretexctl config get system policy -o json | jq .data.bundles")]
pub(crate) struct Args {
    #[command(flatten)]
    name: Name,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let Name { scope, id } = args.name;
    let query = [("scope", scope), ("scope_id", id)];
    let document = context
        .api
        .get(&["config"], &query)
        .await
        .map_err(|failure| match failure.kind() {
            Kind::NotFound => failure.hint("write one with `coretexctl config set`"),
            _ => failure,
        })?;
    context.out.print(&document, || {
        let doc = Doc(&document);
        let head = format!(
            "{}:{}  revision {}  {}",
            doc.text("scope"),
            doc.text("scope_id"),
            doc.int("revision"),
            doc.text("updated_at")
        );
        let meta = doc.pairs("meta");
        let meta = if meta.is_empty() { meta } else { format!("\n{meta}") };
        format!("{head}{meta}\n{}", pretty(doc.get("data").0))
    })
}
