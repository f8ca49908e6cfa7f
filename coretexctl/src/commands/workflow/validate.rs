//! `coretexctl workflow validate` and `schema`

use std::path::PathBuf;

use coretex_core::workflow::check::{Known, Problem, Severity, check};
use serde_json::json;

use super::files;
use crate::failure::Failure;
use crate::output::{self, Output, note};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
All mistakes are listed, each with its place as a JSON pointer; the exit code is 1 if there is one. What is merely odd,
such as a member that nothing reads, is a warning; with --strict, warnings fail as well.

Examples:
  coretexctl workflow validate triage.yaml
  coretexctl workflow validate workflows/*.yaml --strict
  coretexctl workflow validate triage.yaml -o json | jq '.files[].problems[].pointer'")]
pub(crate) struct Args {
    /// Files with definitions, JSON or YAML; `-` reads standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Fail on warnings
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl workflow schema > workflow.schema.json")]
pub(crate) struct SchemaArgs {}

pub(crate) fn schema() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&coretex_core::workflow::Workflow::json_schema())
        .map_err(|error| Failure::new("cannot render the schema").because(&error))?;
    output::line(&text)
}

pub(crate) fn run(args: &Args, out: Output) -> Result<(), Failure> {
    let mut checked = Vec::with_capacity(args.files.len());
    for file in &args.files {
        let problems = match files::parse(&files::read(file)?) {
            Ok(definition) => {
                let mut problems = check(&definition.workflow, &Known::default());
                problems.extend(definition.warnings);
                problems
            }
            Err(error) => error.problems(),
        };
        checked.push((file.display().to_string(), problems));
    }
    let count = |severity: Severity| {
        checked
            .iter()
            .flat_map(|(_, problems)| problems)
            .filter(|problem| problem.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let document = json!({
        "errors": errors,
        "warnings": warnings,
        "files": checked
            .iter()
            .map(|(file, problems)| json!({"file": file, "problems": problems}))
            .collect::<Vec<_>>(),
    });
    out.print(&document, || show(&checked))?;
    if errors > 0 {
        return Err(Failure::new(format!("{errors} mistakes")));
    }
    if args.strict && warnings > 0 {
        return Err(Failure::new(format!("{warnings} warnings, and --strict was given")));
    }
    if warnings > 0 && !out.is_json() {
        note(&format!("{warnings} warnings; with --strict they fail"));
    }
    Ok(())
}

fn show(checked: &[(String, Vec<Problem>)]) -> String {
    let mut lines = Vec::new();
    for (file, problems) in checked {
        for problem in problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            lines.push(format!("{file}: {severity}: {problem} [{}]", problem.code));
        }
        if problems.is_empty() {
            lines.push(format!("{file}: ok"));
        }
    }
    lines.join("\n")
}
