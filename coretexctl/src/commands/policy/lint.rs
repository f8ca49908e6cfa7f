//! `coretexctl policy lint` and `schema`

use std::path::PathBuf;

use coretex_core::policy::{Document, Finding, Severity, lint};
use serde_json::json;

use super::files::{self, Fragment};
use crate::failure::Failure;
use crate::output::{self, Output, note};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Mistakes refuse a policy: they are printed with file, line, column, rule and key, and the exit code is 1.
What is merely odd is printed as a warning or a note; with --strict, warnings fail as well.

Examples:
  coretexctl policy lint config/safety.yaml
  coretexctl policy lint config/safety.yaml --fragment secops/freeze=freeze.yaml --strict
  coretexctl policy lint policy.yaml -o json | jq '.findings[].code'")]
pub(crate) struct Args {
    /// The base policy; `-` reads standard input
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// A fragment that is judged with it; repeat for several
    #[arg(long = "fragment", value_name = "ID=FILE", value_parser = files::fragment)]
    fragments: Vec<Fragment>,
    /// Fail on warnings
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl policy schema > policy.schema.json")]
pub(crate) struct SchemaArgs {}

pub(crate) fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&Document::json_schema())
        .map_err(|error| Failure::new("cannot render the schema").because(&error))?;
    output::line(&text)
}

pub(crate) fn run(args: &Args, out: Output) -> Result<(), Failure> {
    let parts = files::parts(Some(&args.policy), &args.fragments)?;
    let rules: usize = parts.iter().map(|part| part.document.rules.len()).sum();
    let findings = lint(&parts);
    let warnings = findings
        .iter()
        .filter(|finding| finding.severity >= Severity::Warning)
        .count();
    let document = json!({ "rules": rules, "warnings": warnings, "findings": findings });
    out.print(&document, || show(&findings, rules))?;
    if args.strict && warnings > 0 {
        return Err(Failure::new(format!("{warnings} warnings, and --strict was given")));
    }
    if warnings > 0 && !out.is_json() {
        note(&format!("{warnings} warnings; with --strict they fail"));
    }
    Ok(())
}

fn show(findings: &[Finding], rules: usize) -> String {
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    lines.push(format!("{rules} rules, {} findings", findings.len()));
    lines.join("\n")
}

/// `base:3:5: warning: rule `x`: … [code]`
pub(super) fn line(finding: &Finding) -> String {
    let mut place = finding.origin.clone();
    if finding.line > 0 {
        place = format!("{place}:{}:{}", finding.line, finding.column);
    }
    if !place.is_empty() {
        place.push_str(": ");
    }
    let rule = match finding.rule.as_str() {
        "" => String::new(),
        rule => format!("rule `{rule}`: "),
    };
    format!(
        "{place}{}: {rule}{} [{}]",
        finding.severity.as_str(),
        finding.message,
        finding.code
    )
}
