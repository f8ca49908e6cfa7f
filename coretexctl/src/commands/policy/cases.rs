//! `coretexctl policy test`

use std::path::{Path, PathBuf};

use coretex_core::policy::cases::{Case, Outcome, Suite};
use coretex_core::time::Clock;
use serde_json::{Value, json};

use super::files::{self, Fragment};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file of cases:
  cases:
    - name: a deletion in production waits for two people
      request: {topic: job.sre.cleanup, labels: {env: prod}, meta: {risk_tags: [delete]}}
      expect: {decision: require_approval, rule: production-writes, quorum: 2}

`request` has the members of POST /api/v1/policy/evaluate; of `expect` only `decision` must be given. The exit code is 1 if
a case fails.

Examples:
  coretexctl policy test examples/policies/02-production-needs-two-people.yaml
  coretexctl policy test config/safety.yaml tests/*.cases.yaml
  coretexctl policy test config/safety.yaml cases.yaml --fragment secops/freeze=freeze.yaml -o json")]
pub(crate) struct Args {
    /// The base policy
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// Files of cases; without any, the one beside the policy: policy.yaml is tested by policy.cases.yaml
    #[arg(value_name = "CASES")]
    cases: Vec<PathBuf>,
    /// A fragment that is judged with the policy; repeat for several
    #[arg(long = "fragment", value_name = "ID=FILE", value_parser = files::fragment)]
    fragments: Vec<Fragment>,
}

struct Tried {
    file: String,
    case: Case,
    outcome: Outcome,
}

pub(crate) fn run(args: &Args, out: Output) -> Result<(), Failure> {
    let policy = files::compile(files::parts(Some(&args.policy), &args.fragments)?);
    let now = Clock::system().now();
    let beside = [beside(&args.policy)];
    let paths = if args.cases.is_empty() {
        &beside[..]
    } else {
        &args.cases
    };
    let mut tried = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        let suite = Suite::parse(&files::text(path)?, &file).map_err(|error| Failure::new(error.to_string()))?;
        tried.extend(suite.cases.into_iter().map(|case| Tried {
            file: file.clone(),
            outcome: case.run(&policy, now),
            case,
        }));
    }
    if tried.is_empty() {
        return Err(Failure::new("there are no cases: nothing was tested"));
    }
    let failed = tried.iter().filter(|tried| !tried.passed()).count();
    let document = json!({
        "passed": tried.len() - failed,
        "failed": failed,
        "cases": tried.iter().map(Tried::document).collect::<Vec<_>>(),
    });
    out.print(&document, || {
        let mut lines: Vec<String> = tried.iter().flat_map(Tried::lines).collect();
        lines.push(format!("{} passed, {failed} failed", tried.len() - failed));
        lines.join("\n")
    })?;
    if failed > 0 {
        return Err(Failure::new(format!("{failed} of {} cases failed", tried.len())));
    }
    Ok(())
}

fn beside(policy: &Path) -> PathBuf {
    policy.with_extension("cases.yaml")
}

impl Tried {
    fn passed(&self) -> bool {
        self.outcome.mismatches.is_empty()
    }

    fn document(&self) -> Value {
        json!({
            "file": self.file,
            "name": self.case.name,
            "passed": self.passed(),
            "mismatches": self.outcome.mismatches,
            "decision": self.outcome.decision.decision.as_str(),
            "rule": self.outcome.decision.rule_id,
            "reason": self.outcome.decision.reason,
            "explanation": self.outcome.explanation,
        })
    }

    fn lines(&self) -> Vec<String> {
        if self.passed() {
            return vec![format!("ok    {}", self.case.name)];
        }
        let mut lines = vec![format!("FAIL  {} ({})", self.case.name, self.file)];
        lines.extend(self.outcome.mismatches.iter().map(|line| format!("      {line}")));
        lines.extend(
            self.outcome
                .explanation
                .near_misses
                .iter()
                .take(3)
                .map(|near| format!("      almost: rule `{}`, but {}", near.rule.id, near.failed.detail)),
        );
        lines
    }
}
