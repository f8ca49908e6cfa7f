//! `coretexctl worker list`

use serde_json::Value;

use crate::commands::Context;
use crate::doc::Doc;
use crate::failure::Failure;
use crate::output::{note, render, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  coretexctl worker list
  coretexctl worker list --pool gpu
  coretexctl worker list -o json | jq '.[] | select(.active_jobs > 0)'")]
pub(crate) struct Args {
    /// Only workers of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let mut workers = context.api.get(&["workers"], &[]).await?;
    if let Some(list) = workers.as_array_mut() {
        if let Some(pool) = &args.pool {
            list.retain(|worker| Doc(worker).text("pool") == pool);
        }
        // The server gives them in no order.
        list.sort_by(|a, b| Doc(a).text("worker_id").cmp(Doc(b).text("worker_id")));
    }
    if !context.out.is_json() && Doc(&workers).items().next().is_none() {
        note("no workers; a worker shows up with its first heartbeat");
        return Ok(());
    }
    context.out.print(&workers, || show(&workers))
}

fn show(workers: &Value) -> String {
    let mut table = table(&[
        "worker",
        "pool",
        "jobs",
        "cpu",
        "gpu",
        "region",
        "capabilities",
        "labels",
    ]);
    for worker in Doc(workers).items() {
        let most = match worker.int("max_parallel_jobs") {
            0 => "∞".to_owned(),
            most => most.to_string(),
        };
        table.add_row(vec![
            worker.text("worker_id").to_owned(),
            worker.text("pool").to_owned(),
            format!("{}/{most}", worker.int("active_jobs")),
            percent(worker, "cpu_load"),
            percent(worker, "gpu_utilization"),
            worker.text("region").to_owned(),
            worker.joined("capabilities"),
            worker.pairs("labels"),
        ]);
    }
    render(&table)
}

fn percent(worker: Doc<'_>, key: &str) -> String {
    worker
        .get(key)
        .0
        .as_f64()
        .map(|load| format!("{load:.0}%"))
        .unwrap_or_default()
}
