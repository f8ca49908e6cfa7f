//! `coretexctl job submit`

use std::io::Read as _;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::follow;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Priority {
    Interactive,
    Batch,
    Critical,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActorType {
    Human,
    Service,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl job submit 'Summarise the report' --wait
  coretexctl job submit 'Index this' --topic job.index --context @input.json --label region=eu
  echo 'a long prompt' | coretexctl job submit - --priority batch --idempotency-key nightly-2026-01-31
  coretexctl job submit 'Hello' -o json | jq -r .job_id

Every label that is not reserved must be matched by a label of the worker (docs/spec/protocol.md). With --wait the command ends
with code 0 if the job SUCCEEDED, 6 if it ended otherwise, 7 if --wait-for was over first.")]
pub(crate) struct Args {
    /// What to do, in words; `-` reads it from stdin
    prompt: String,
    /// The kind of work; begins with `job.`
    #[arg(long, value_name = "TOPIC", default_value = "job.default")]
    topic: String,
    /// More input: JSON, or `@file` with JSON, or `@-` for stdin
    #[arg(long, value_name = "JSON|@FILE")]
    context: Option<String>,
    /// A label; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// How urgent it is
    #[arg(long, value_enum, value_name = "PRIORITY")]
    priority: Option<Priority>,
    /// For whom
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// As whom
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Which team
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Which project
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Who asks, if it is not the principal
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// What kind of actor that is
    #[arg(long, value_enum, value_name = "TYPE")]
    actor_type: Option<ActorType>,
    /// Submit only once under this key: a repeat answers with the first job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The capability it needs
    #[arg(long, value_name = "CAPABILITY")]
    capability: Option<String>,
    /// What makes it risky; repeat for more
    #[arg(long = "risk-tag", value_name = "TAG")]
    risk_tags: Vec<String>,
    /// What its pool must offer; repeat for more
    #[arg(long, value_name = "REQUIREMENT")]
    requires: Vec<String>,
    /// The pack it belongs to
    #[arg(long, value_name = "PACK")]
    pack: Option<String>,
    /// Which adapter the worker should use
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    /// Which memory it shares
    #[arg(long, value_name = "MEMORY")]
    memory: Option<String>,
    /// The time from now in which it must be done
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    deadline: Option<Duration>,
    /// Tokens that its input may have
    #[arg(long, value_name = "N")]
    max_input_tokens: Option<u32>,
    /// Tokens that its output may have
    #[arg(long, value_name = "N")]
    max_output_tokens: Option<u32>,
    /// Tokens in all
    #[arg(long, value_name = "N")]
    max_total_tokens: Option<u32>,
    /// Wait until it is over, and show it
    #[arg(long)]
    wait: bool,
    /// Wait at most this long; implies --wait
    #[arg(long, value_name = "DURATION", value_parser = crate::settings::parse_duration)]
    wait_for: Option<Duration>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let body = body(&args, read_stdin)?;
    let answer = context.api.post(&["jobs"], Some(&body)).await?;
    let id = Doc(&answer).text("job_id").to_owned();
    if !args.wait && args.wait_for.is_none() {
        return context
            .out
            .print(&answer, || format!("{id}\n  next: coretexctl job watch {id}"));
    }
    let bar = progress_bar(&id);
    let followed = follow::until_over(&context.api, &id, args.wait_for, |job| {
        bar.set_message(format!("{}{}", Doc(job).text("state"), follow::waiting_for(job)));
        Ok(())
    })
    .await;
    bar.finish_and_clear();
    let job = followed?;
    context.out.print(&job, || super::get::render(&job))?;
    follow::verdict(&job)
}

/// Shows on a terminal only, and there on stderr.
fn progress_bar(id: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(id.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn body(args: &Args, stdin: impl Fn() -> Result<String, Failure>) -> Result<Value, Failure> {
    let mut body = Map::new();
    let prompt = if args.prompt == "-" {
        stdin()?
    } else {
        args.prompt.clone()
    };
    if prompt.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint("coretexctl job submit 'what to do'"));
    }
    body.insert("prompt".to_owned(), prompt.into());
    body.insert("topic".to_owned(), args.topic.as_str().into());
    if let Some(text) = &args.context {
        body.insert("context".to_owned(), parse_context(text, stdin)?);
    }
    for (name, value) in [
        ("tenant_id", &args.tenant),
        ("principal_id", &args.principal),
        ("team_id", &args.team),
        ("project_id", &args.project),
        ("actor_id", &args.actor),
        ("idempotency_key", &args.idempotency_key),
        ("capability", &args.capability),
        ("pack_id", &args.pack),
        ("adapter_id", &args.adapter),
        ("memory_id", &args.memory),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.as_str().into());
        }
    }
    for (name, list) in [("risk_tags", &args.risk_tags), ("requires", &args.requires)] {
        if !list.is_empty() {
            body.insert(name.to_owned(), json!(list));
        }
    }
    for (name, number) in [
        ("max_input_tokens", args.max_input_tokens),
        ("max_output_tokens", args.max_output_tokens),
        ("max_total_tokens", args.max_total_tokens),
    ] {
        if let Some(number) = number {
            body.insert(name.to_owned(), number.into());
        }
    }
    if let Some(priority) = args.priority {
        let word = match priority {
            Priority::Interactive => "interactive",
            Priority::Batch => "batch",
            Priority::Critical => "critical",
        };
        body.insert("priority".to_owned(), word.into());
    }
    if let Some(actor_type) = args.actor_type {
        let word = match actor_type {
            ActorType::Human => "human",
            ActorType::Service => "service",
        };
        body.insert("actor_type".to_owned(), word.into());
    }
    if let Some(deadline) = args.deadline {
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).max(1);
        body.insert("deadline_ms".to_owned(), millis.into());
    }
    if !args.labels.is_empty() {
        let labels: Map<String, Value> = args
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        body.insert("labels".to_owned(), Value::Object(labels));
    }
    Ok(Value::Object(body))
}

fn parse_context(text: &str, stdin: impl Fn() -> Result<String, Failure>) -> Result<Value, Failure> {
    let (from, text) = match text.strip_prefix('@') {
        None => ("--context".to_owned(), text.to_owned()),
        Some("-") => ("stdin".to_owned(), stdin()?),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("cannot read `{path}` for --context")).because(&error))?;
            (format!("`{path}`"), text)
        }
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{from} is no JSON"))
            .because(&error)
            .hint("--context '{\"key\": \"value\"}' or --context @file.json")
    })
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::new("cannot read stdin").because(&error))?;
    Ok(text)
}

pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Args {
        Line::parse_from(["submit"].iter().chain(words)).args
    }

    #[test]
    fn only_what_was_given_is_sent() {
        let sent = body(&parse(&["do it"]), || unreachable!("no stdin")).expect("valid");
        assert_eq!(sent, json!({"prompt": "do it", "topic": "job.default"}));
    }

    #[test]
    fn everything_has_its_field() {
        let args = parse(&[
            "-",
            "--topic",
            "job.x",
            "--context",
            "{\"n\": 12345678901234567}",
            "--label",
            "a=1",
            "--label",
            "b=x=y",
            "--priority",
            "batch",
            "--tenant",
            "t",
            "--risk-tag",
            "r",
            "--requires",
            "q",
            "--deadline",
            "1.5s",
            "--actor-type",
            "service",
            "--max-input-tokens",
            "7",
        ]);
        let sent = body(&args, || Ok("from stdin\n".to_owned())).expect("valid");
        assert_eq!(
            sent,
            json!({
                "prompt": "from stdin\n", "topic": "job.x", "context": {"n": 12_345_678_901_234_567_u64},
                "labels": {"a": "1", "b": "x=y"}, "priority": "batch", "tenant_id": "t", "risk_tags": ["r"],
                "requires": ["q"], "deadline_ms": 1500, "actor_type": "service", "max_input_tokens": 7
            })
        );
    }

    #[test]
    fn bad_input_is_a_usage_error_that_names_it() {
        for (words, part) in [
            (vec!["  "], "prompt is empty"),
            (vec!["x", "--context", "{"], "--context is no JSON"),
            (vec!["x", "--context", "@/no/such/file"], "/no/such/file"),
        ] {
            let failure = body(&parse(&words), || Ok(String::new())).expect_err("bad");
            assert_eq!(failure.exit_code(), std::process::ExitCode::from(2));
            assert!(format!("{failure:?}").contains(part), "{failure:?}");
        }
        assert!(parse_pair("=x").is_err());
        assert!(parse_pair("x").is_err());
    }
}
