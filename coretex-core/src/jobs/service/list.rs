//! Listing jobs: filters apply before the limit, and no job is skipped between pages.

use serde::{Serialize, Serializer};

use super::JobService;
use crate::error::StoreError;
use crate::jobs::{Cursor, JobRecord, JobState, ListQuery, Source};
use crate::protocol::TraceId;
use crate::time::Timestamp;

/// The longest page.
pub const LIST_LIMIT_MAX: usize = 1_000;
/// How many jobs one request looks at before it answers with a short page and a cursor.
const SCAN_MAX: usize = 20_000;
const CHUNK_MIN: usize = 100;

/// Which jobs are wanted.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this topic.
    pub topic: Option<String>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only of this team.
    pub team: Option<String>,
    /// Only of this trace.
    pub trace: Option<TraceId>,
    /// Only changed at this time or later.
    pub updated_after: Option<Timestamp>,
    /// Only changed at this time or earlier.
    pub updated_before: Option<Timestamp>,
    /// Only after this place in the list.
    pub cursor: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// Where the next page begins.
///
/// An integer where that is exact, as older clients expect; a text where several jobs share the microsecond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextCursor {
    /// The inclusive upper bound of the times of the next page.
    Time(Timestamp),
    /// Right after this job.
    After(Cursor),
}

impl Serialize for NextCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Time(at) => serializer.serialize_i64(at.micros()),
            Self::After(cursor) => serializer.collect_str(cursor),
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs, newest change first.
    pub jobs: Vec<JobRecord>,
    /// Where the rest begins; `None` at the end.
    pub next: Option<NextCursor>,
}

impl JobFilter {
    fn wants(&self, job: &JobRecord) -> bool {
        let equal = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        self.state.is_none_or(|state| state == job.state)
            && equal(&self.topic, &job.topic)
            && equal(&self.tenant, &job.tenant)
            && equal(&self.team, &job.team)
            && self.updated_after.is_none_or(|after| job.revision.0 >= after)
            && self.updated_before.is_none_or(|before| job.revision.0 <= before)
    }

    /// The later of the cursor and the upper bound on time.
    fn start(&self) -> Option<Cursor> {
        let bound = self.updated_before.map(|at| Cursor { at, id: String::new() });
        match (self.cursor.clone(), bound) {
            (Some(cursor), Some(bound)) => Some(if bound.at < cursor.at { bound } else { cursor }),
            (cursor, bound) => cursor.or(bound),
        }
    }
}

impl JobService {
    /// Lists jobs, newest change first. A page is only shorter than the limit at the end of the list, or if very many
    /// jobs had to be passed over; then it has a cursor.
    ///
    /// # Errors
    /// [`StoreError`] if the store did not answer.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobPage, StoreError> {
        let limit = filter.limit.clamp(1, LIST_LIMIT_MAX);
        if let Some(trace) = &filter.trace {
            return self.list_trace(trace, filter, limit).await;
        }
        let source = filter.state.map_or(Source::Recent, Source::State);
        let mut found: Vec<JobRecord> = Vec::new();
        let mut after = filter.start();
        let mut scanned = 0;
        // One more than asked for tells whether there is a next page, and where it begins.
        while found.len() <= limit {
            let page = self
                .jobs
                .list(&ListQuery {
                    source: source.clone(),
                    after,
                    limit: (limit + 1 - found.len()).max(CHUNK_MIN),
                })
                .await?;
            scanned += page.jobs.len();
            let past_the_end = |job: &JobRecord| filter.updated_after.is_some_and(|oldest| job.revision.0 < oldest);
            let done = page.jobs.last().is_some_and(past_the_end) || page.next.is_none();
            found.extend(page.jobs.into_iter().filter(|job| filter.wants(job)));
            after = page.next;
            if done {
                after = None;
                break;
            }
            if scanned >= SCAN_MAX {
                break;
            }
        }
        Ok(cut(found, limit, after))
    }

    async fn list_trace(&self, trace: &TraceId, filter: &JobFilter, limit: usize) -> Result<JobPage, StoreError> {
        let mut jobs = self.jobs.trace(trace, SCAN_MAX).await?;
        jobs.retain(|job| filter.wants(job));
        jobs.sort_unstable_by(|a, b| (b.revision, &b.id).cmp(&(a.revision, &a.id)));
        if let Some(Cursor { at, id }) = filter.start() {
            let rest = |job: &JobRecord| {
                job.revision.0 < at || (job.revision.0 == at && (id.is_empty() || job.id.as_str() < id.as_str()))
            };
            jobs.retain(rest);
        }
        Ok(cut(jobs, limit, None))
    }
}

/// The first `limit` jobs; the cursor points behind them, or to `rest` if nothing is left over here.
fn cut(mut jobs: Vec<JobRecord>, limit: usize, rest: Option<Cursor>) -> JobPage {
    let over = jobs.get(limit).map(|job| job.revision.0);
    jobs.truncate(limit);
    let next = match (over, jobs.last()) {
        (Some(over), Some(last)) if over < last.revision.0 => {
            Some(NextCursor::Time(Timestamp::from_micros(last.revision.0.micros() - 1)))
        }
        (Some(_), Some(last)) => Some(NextCursor::After(Cursor {
            at: last.revision.0,
            id: last.id.to_string(),
        })),
        _ => rest.map(NextCursor::After),
    };
    JobPage { jobs, next }
}

/// The unit of a time that clients send, told by its size.
fn normalize(value: i64, upper: bool) -> i64 {
    const SECONDS: i64 = 1_000_000_000_000;
    const MILLIS: i64 = SECONDS * 1_000;
    const MICROS: i64 = MILLIS * 1_000;
    match value {
        ..SECONDS => value * 1_000_000 + if upper { 999_999 } else { 0 },
        SECONDS..MILLIS => value * 1_000 + if upper { 999 } else { 0 },
        MILLIS..MICROS => value,
        _ => value / 1_000,
    }
}

fn parse_time(text: &str, upper: bool) -> Option<Timestamp> {
    let value: i64 = text.trim().parse().ok()?;
    (value > 0).then(|| Timestamp::from_micros(normalize(value, upper)))
}

/// Reads a time that something must not be before: seconds, milliseconds, microseconds or nanoseconds since the epoch.
pub fn parse_lower_bound(text: &str) -> Option<Timestamp> {
    parse_time(text, false)
}

/// Reads a time that something must not be after; a whole second or millisecond counts to its end.
pub fn parse_upper_bound(text: &str) -> Option<Timestamp> {
    parse_time(text, true)
}

/// Reads a cursor: what a list returned, or a bare time.
pub fn parse_cursor(text: &str) -> Option<Cursor> {
    if text.contains('.') {
        return text.parse().ok();
    }
    parse_upper_bound(text).map(|at| Cursor { at, id: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_unit() {
        for (text, lower, upper) in [
            ("1700000000", 1_700_000_000_000_000, 1_700_000_000_999_999),
            ("1700000000123", 1_700_000_000_123_000, 1_700_000_000_123_999),
            ("1700000000123456", 1_700_000_000_123_456, 1_700_000_000_123_456),
            ("1700000000123456789", 1_700_000_000_123_456, 1_700_000_000_123_456),
        ] {
            assert_eq!(parse_lower_bound(text).unwrap().micros(), lower, "{text}");
            assert_eq!(parse_upper_bound(text).unwrap().micros(), upper, "{text}");
        }
        for text in ["", "0", "-1", "x", "1.5", "99999999999999999999"] {
            assert_eq!(parse_lower_bound(text), None, "{text}");
        }
    }

    #[test]
    fn cursors_read_back() {
        let cursor = Cursor {
            at: Timestamp::from_micros(1_700_000_000_123_456),
            id: "a.b".to_owned(),
        };
        assert_eq!(parse_cursor(&cursor.to_string()), Some(cursor));
        assert_eq!(parse_cursor("1700000000").unwrap().at.micros(), 1_700_000_000_999_999);
        assert_eq!(parse_cursor("nonsense"), None);
        assert_eq!(parse_cursor("1.***"), None);
    }
}
