//! A process that is killed at any moment loses nothing that it acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use coretex_core::backend::Stores;
use coretex_core::backend::embedded::Location;
use coretex_core::jobs::{Admission, Change, JobEvent, JobState, JobStoreExt, NewJob, Outcome, Slot};
use coretex_core::protocol::agent::JobRequest;
use coretex_core::protocol::{JobId, TenantId, TraceId};
use coretex_core::time::Clock;

/// Names the folder; set only for the child.
const FOLDER: &str = "CORETEX_TEST_CRASH_FOLDER";
const KILLS: u32 = 12;

/// Says on standard output what was acknowledged.
fn say(what: char, id: &JobId) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n!{what} {id}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

async fn lives(stores: Stores) {
    loop {
        let id = JobId::random();
        let now = || Clock::system().now();
        let job = NewJob {
            id: id.clone(),
            request: std::sync::Arc::new(JobRequest {
                job_id: id.as_str().to_owned(),
                topic: "job.crash".to_owned(),
                ..JobRequest::default()
            }),
            trace_id: Some(TraceId::random()),
            payload: Some(bytes::Bytes::from_static(b"payload")),
            idempotency: Some((TenantId::fallback(), id.as_str().to_owned())),
            deadline: Some(now()),
            at: now(),
        };
        let admission = stores.jobs.create(job).await.expect("create");
        assert!(matches!(admission, Admission::Accepted(_)));
        say('P', &id);
        let tenant = TenantId::fallback();
        let dispatch = Change {
            slot: Some(Slot { tenant, limit: 0 }),
            ..Change::new(id.clone(), JobEvent::Dispatch, now())
        };
        let dispatched = stores.jobs.apply(dispatch).await.expect("dispatch");
        assert!(matches!(dispatched, Outcome::Applied(_)));
        say('R', &id);
        let finish = Change {
            dead_letter: true,
            ..Change::new(id.clone(), JobEvent::Finish(JobState::Failed), now())
        };
        let finished = stores.jobs.apply(finish).await.expect("finish");
        assert!(matches!(finished, Outcome::Applied(_)));
        say('F', &id);
    }
}

/// The child's whole life. Run by itself, there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let embedded = super::open(&Location::Disk(folder.into()));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        callers.spawn(lives(embedded.stores()));
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("a caller lives for ever");
    }
}

/// Runs a child until it has acknowledged `until` changes, kills it, and adds what it acknowledged before it died.
fn run_and_kill(folder: &Path, until: u32, acknowledged: &mut BTreeMap<String, char>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["embedded::crash::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut heard = 0;
    let mut line = String::new();
    // A line without its end was cut off.
    while lines.read_line(&mut line).expect("text") > 0 && line.ends_with('\n') {
        if let Some(("!P" | "!R" | "!F", id)) = line.trim_end().split_once(' ') {
            let what = line.chars().nth(1).expect("two characters");
            acknowledged.insert(id.to_owned(), what);
            heard += 1;
            if heard == until {
                child.kill().expect("kill");
            }
        }
        line.clear();
    }
    child.wait().expect("wait");
    assert!(heard >= until, "the child ended by itself after {heard} changes");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = BTreeMap::new();
    for _ in 0..KILLS {
        let until = 1 + rand::random::<u32>() % 400;
        run_and_kill(folder.path(), until, &mut acknowledged);
        let embedded = super::open(&Location::Disk(folder.path().to_owned()));
        let stores = embedded.stores();
        assert_eq!(embedded.check_integrity().await.expect("check"), [""; 0]);
        let ids: Vec<JobId> = acknowledged
            .keys()
            .map(|id| JobId::try_new(id).expect("an id"))
            .collect();
        let records = stores.jobs.get_many(&ids).await.expect("get");
        for (what, record) in acknowledged.values().zip(records) {
            let record = record.expect("an acknowledged job is there");
            let at_least = match what {
                'P' => JobState::Pending,
                'R' => JobState::Running,
                _ => JobState::Failed,
            };
            assert!(
                record.state >= at_least,
                "{} is {} after {what}",
                record.id,
                record.state
            );
            if *what == 'F' {
                assert!(stores.dlq.get(&record.id).await.expect("get").is_some());
            }
        }
        embedded.close().await;
    }
}
