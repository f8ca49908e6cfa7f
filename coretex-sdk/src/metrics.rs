//! What a worker counts, through the `metrics` facade: install any recorder to see it.

use std::time::Duration;

use coretex_core::protocol::agent::JobStatus;
use metrics::{counter, histogram};

/// Finished jobs, by status.
const JOBS: &str = "coretex_worker_jobs_total";
/// How long handlers took.
const JOB_SECONDS: &str = "coretex_worker_job_seconds";
/// Messages that were no usable packet.
const BAD_PACKETS: &str = "coretex_worker_bad_packets_total";
/// Messages about jobs that the worker knew already.
const REPEATS: &str = "coretex_worker_repeated_jobs_total";

pub(crate) fn finished(status: JobStatus, took: Duration) {
    counter!(JOBS, "status" => status.as_str_name()).increment(1);
    histogram!(JOB_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn bad_packet() {
    counter!(BAD_PACKETS).increment(1);
}

pub(crate) fn repeated() {
    counter!(REPEATS).increment(1);
}
