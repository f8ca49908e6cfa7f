//! What jobs leave behind: which pointers are followed, and what is kept of what is there. See `docs/spec/workflows.md` §4.4.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::advance::MAX_OUTPUT;
use super::event::Fetched;
use crate::pointers::Pointer;
use crate::protocol::JobId;

/// How much of an output is read to be validated.
const MAX_VALIDATED: usize = 16 * 1024 * 1024;

/// What is to be done about a result pointer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// It is known already.
    Known(Fetched),
    /// The payload has to be read.
    Read(Pointer),
}

/// Judges a result pointer: only the job's own payloads are followed.
pub(super) fn source(job: &JobId, result_ptr: &str) -> Source {
    if result_ptr.is_empty() {
        return Source::Known(Fetched::Nothing);
    }
    let Some(key) = result_ptr.strip_prefix(Pointer::SCHEME) else {
        return Source::Known(Fetched::Elsewhere);
    };
    let own = key.strip_prefix("res:").is_some_and(|rest| rest == job.as_str())
        || key
            .strip_prefix("art:")
            .and_then(|rest| rest.strip_prefix(job.as_str()))
            // `a@1` is no beginning of `a@10`.
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    match Pointer::from_key(key) {
        Ok(pointer) if own => Source::Read(pointer),
        _ => Source::Known(Fetched::Foreign(format!(
            "result pointer `{result_ptr}` is not one of job {job}"
        ))),
    }
}

/// What is kept of a payload. `needed` says whether a schema has to see it, however large it is.
pub(super) fn read(payload: Option<Bytes>, needed: bool) -> Fetched {
    let Some(payload) = payload else {
        return Fetched::Missing;
    };
    if payload.len() <= MAX_OUTPUT {
        return Fetched::Value(Arc::new(value(&payload)));
    }
    let value = (needed && payload.len() <= MAX_VALIDATED).then(|| Arc::new(value(&payload)));
    Fetched::TooLarge {
        bytes: payload.len(),
        value,
    }
}

fn value(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).into_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(pointer: &str, followed: bool) {
        let job = JobId::try_new("run:step@1").expect("an id");
        match source(&job, pointer) {
            Source::Read(found) => assert!(followed, "{found}"),
            Source::Known(known) => assert!(!followed, "{known:?}"),
        }
    }

    /// docs/spec/workflows.md §4.4.
    #[test]
    fn only_own_payloads_are_followed() {
        check("redis://res:run:step@1", true);
        check("redis://art:run:step@1", true);
        check("redis://art:run:step@1/report.pdf", true);
        check("redis://art:run:step@1:2", true);
        check("redis://res:run:step@10", false);
        check("redis://art:run:step@10", false);
        check("redis://res:run:step@1x", false);
        check("redis://ctx:run:step@1", false);
        check("redis://cfg:system:default", false);
        check("redis://", false);
        check("s3://bucket/key", false);
        check("", false);
        let job = JobId::try_new("run:step@1").expect("an id");
        assert_eq!(source(&job, ""), Source::Known(Fetched::Nothing));
        assert_eq!(source(&job, "s3://bucket/key"), Source::Known(Fetched::Elsewhere));
        assert!(matches!(
            source(&job, "redis://res:other"),
            Source::Known(Fetched::Foreign(_))
        ));
    }

    /// docs/spec/workflows.md §4.4.
    #[test]
    fn what_is_kept_is_json_or_text_and_not_too_large() {
        let value = |value: Value| Fetched::Value(Arc::new(value));
        assert_eq!(read(None, true), Fetched::Missing);
        assert_eq!(
            read(Some(Bytes::from_static(b"{\"a\":1}")), false),
            value(json!({"a": 1}))
        );
        assert_eq!(
            read(Some(Bytes::from_static(b"plain text")), false),
            value(json!("plain text"))
        );
        let large = Bytes::from(vec![b'1'; MAX_OUTPUT + 1]);
        let bytes = large.len();
        assert_eq!(
            read(Some(large.clone()), false),
            Fetched::TooLarge { bytes, value: None }
        );
        assert!(matches!(
            read(Some(large), true),
            Fetched::TooLarge { value: Some(_), .. }
        ));
    }
}
