//! `coretexctl key …`

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make an API key for somebody, without asking the server
    New(NewArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key is shown once and kept nowhere. Its entry goes under `keys:` in the file that CORETEX_API_KEYS_FILE names
on the server; the server is then started again.

Examples:
  coretexctl key new alice --role secops
  coretexctl key new ci --role operator -o json")]
pub(crate) struct NewArgs {
    /// Who will hold it
    #[arg(value_name = "PRINCIPAL")]
    principal: String,
    /// In which role; repeat for several
    #[arg(long = "role", value_name = "ROLE", required = true, value_parser = ["admin", "secops", "operator", "viewer", "worker"])]
    roles: Vec<String>,
}

pub(crate) fn run(command: &Command, out: Output) -> Result<(), Failure> {
    let Command::New(args) = command;
    let secret: [u8; 32] = rand::random();
    let key = format!("cx_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = Sha256::digest(key.as_bytes())
        .iter()
        .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    // JSON is YAML: whatever the name holds, it is quoted rightly.
    let entry = json!({ "hash": hash, "principal": args.principal, "roles": args.roles });
    let answer = json!({ "key": key, "entry": entry });
    out.print(&answer, || format!("key:   {key}\nentry: - {entry}"))
}
