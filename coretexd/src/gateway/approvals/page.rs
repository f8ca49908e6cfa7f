//! One list out of two: steps, the oldest first, then jobs, the newest first. See `docs/spec/http.md` §8.
//!
//! A cursor of the jobs alone is what it always was, and says that the steps have been seen.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coretex_core::jobs::Cursor;
use coretex_core::jobs::service::{NextCursor, parse_cursor};
use coretex_core::time::Timestamp;
use coretex_core::workflow::store::Waiting;
use coretex_core::workflow::{RunId, StepKey};
use serde::{Serialize, Serializer};

/// Where among the jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobsAt {
    /// Before the first.
    Start,
    /// There.
    At(NextCursor),
    /// After the last.
    End,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// After this step; `None` on a first page.
    pub(super) step: Option<Waiting>,
    /// Whether steps are wanted at all.
    pub(super) steps: bool,
    pub(super) jobs: JobsAt,
}

const MARK: &str = "steps.";

impl Place {
    /// Where the request wants to go on: `kind` is `job`, `step` or anything else for both.
    pub(super) fn of(cursor: Option<&str>, kind: Option<&str>) -> Self {
        let mut place = match cursor.and_then(|text| parse(text).or_else(|| of_jobs(text))) {
            Some(place) => place,
            None => Self {
                step: None,
                steps: true,
                jobs: JobsAt::Start,
            },
        };
        match kind {
            Some("job") => place.steps = false,
            Some("step") => place.jobs = JobsAt::End,
            _ => {}
        }
        place
    }

    /// The cursor for the store of jobs.
    pub(super) fn jobs_cursor(&self) -> Option<Cursor> {
        match &self.jobs {
            JobsAt::Start | JobsAt::End => None,
            JobsAt::At(NextCursor::Time(at)) => Some(Cursor {
                at: *at,
                id: String::new(),
            }),
            JobsAt::At(NextCursor::After(cursor)) => Some(cursor.clone()),
        }
    }
}

fn of_jobs(text: &str) -> Option<Place> {
    let cursor = parse_cursor(text)?;
    Some(Place {
        step: None,
        steps: false,
        jobs: JobsAt::At(if cursor.id.is_empty() {
            NextCursor::Time(cursor.at)
        } else {
            NextCursor::After(cursor)
        }),
    })
}

fn parse(text: &str) -> Option<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(MARK)?).ok()?;
    let (since, run, step, jobs): (i64, String, String, String) = serde_json::from_slice(&bytes).ok()?;
    Some(Place {
        step: Some(Waiting {
            since: Timestamp::from_micros(since),
            run: RunId::new(&run),
            step: StepKey::new(&step),
        }),
        steps: true,
        jobs: match jobs.as_str() {
            "" => JobsAt::Start,
            "end" => JobsAt::End,
            cursor => of_jobs(cursor)?.jobs,
        },
    })
}

/// How many steps and jobs a page shows of those there are: neither gets more than half if both have more.
pub(super) fn shares(limit: usize, steps: usize, jobs: usize) -> (usize, usize) {
    let half = limit - limit / 2;
    let of_steps = steps.min(half.max(limit.saturating_sub(jobs)));
    (of_steps, jobs.min(limit - of_steps))
}

/// The cursor of the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Steps { step: Waiting, jobs: JobsAt },
    Jobs(NextCursor),
}

impl Next {
    /// After a page that ended with this step, if it showed any by now, and there among the jobs.
    pub(super) fn after(step: Option<Waiting>, steps_left: bool, jobs: JobsAt) -> Option<Self> {
        match (steps_left, jobs) {
            (false, JobsAt::End) => None,
            (false, JobsAt::At(cursor)) => Some(Self::Jobs(cursor)),
            (_, jobs) => step.map(|step| Self::Steps { step, jobs }),
        }
    }
}

impl Serialize for Next {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (step, jobs) = match self {
            Self::Jobs(cursor) => return cursor.serialize(serializer),
            Self::Steps { step, jobs } => (step, jobs),
        };
        let jobs = match jobs {
            JobsAt::Start => String::new(),
            JobsAt::End => "end".to_owned(),
            JobsAt::At(NextCursor::Time(at)) => at.micros().to_string(),
            JobsAt::At(NextCursor::After(cursor)) => cursor.to_string(),
        };
        let text = serde_json::json!([step.since.micros(), step.run.as_str(), step.step.as_str(), jobs]);
        serializer.collect_str(&format_args!("{MARK}{}", URL_SAFE_NO_PAD.encode(text.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Waiting {
        Waiting {
            since: Timestamp::from_micros(7),
            run: RunId::new("r:1"),
            step: StepKey::new("fan[0]"),
        }
    }

    #[test]
    fn cursors_are_read_back() {
        let time = NextCursor::Time(Timestamp::from_micros(1_700_000_000_000_000));
        let after = NextCursor::After("8.ag".parse().unwrap());
        for jobs in [JobsAt::Start, JobsAt::End, JobsAt::At(time.clone()), JobsAt::At(after)] {
            let next = Next::after(Some(step()), true, jobs.clone()).unwrap();
            let text = serde_json::to_value(&next).unwrap();
            let place = Place::of(text.as_str(), None);
            assert_eq!((place.step, place.steps, place.jobs), (Some(step()), true, jobs));
        }
        // What older clients know.
        let next = Next::after(Some(step()), false, JobsAt::At(time)).unwrap();
        assert_eq!(serde_json::to_string(&next).unwrap(), "1700000000000000");
        let place = Place::of(Some("1700000000000000"), None);
        assert!(!place.steps && place.jobs_cursor().is_some());
        assert_eq!(Next::after(Some(step()), false, JobsAt::End), None);
        for unknown in [None, Some("steps."), Some("steps.e30"), Some("x")] {
            let place = Place::of(unknown, None);
            assert_eq!(
                (place.step, place.steps, place.jobs),
                (None, true, JobsAt::Start),
                "{unknown:?}"
            );
        }
        assert!(!Place::of(None, Some("job")).steps);
        assert_eq!(Place::of(None, Some("step")).jobs, JobsAt::End);
    }

    #[test]
    fn both_have_room() {
        for (limit, steps, jobs, expected) in [
            (10, 0, 10, (0, 10)),
            (10, 3, 10, (3, 7)),
            (10, 11, 10, (5, 5)),
            (10, 11, 2, (8, 2)),
            (10, 11, 0, (10, 0)),
            (1, 2, 1, (1, 0)),
            (1, 0, 1, (0, 1)),
        ] {
            assert_eq!(shares(limit, steps, jobs), expected, "{limit} {steps} {jobs}");
        }
    }
}
