//! A refused draft as a gRPC status, and back. See `docs/spec/policy.md` §14.1.

use serde::{Deserialize, Serialize};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::policy::{DocumentError, Problem};

/// The trailer with the problems as JSON, for programs; the message has them for people.
const TRAILER: &str = "coretex-problems-bin";

/// HTTP/2 peers refuse large headers: as much JSON fits, the rest is counted.
const MAX_BYTES: usize = 4 * 1024;

/// The message as well, which is percent-encoded on top.
const MAX_MESSAGE_CHARS: usize = 1_500;

#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    document: String,
    problems: Vec<Problem>,
}

/// `INVALID_ARGUMENT` with what is wrong.
pub(super) fn status(error: &DocumentError) -> Status {
    let mut message: String = error.to_string().chars().take(MAX_MESSAGE_CHARS + 1).collect();
    if message.chars().count() > MAX_MESSAGE_CHARS {
        message.pop();
        message.push('…');
    }
    let mut trailers = MetadataMap::new();
    if let Ok(json) = serde_json::to_vec(&shortened(error)) {
        trailers.insert_bin(TRAILER, MetadataValue::from_bytes(&json));
    }
    Status::with_metadata(Code::InvalidArgument, message, trailers)
}

fn shortened(error: &DocumentError) -> Refusal {
    let mut room = MAX_BYTES;
    let mut problems: Vec<Problem> = error
        .problems
        .iter()
        .take_while(|problem| {
            let size = serde_json::to_string(problem).map_or(usize::MAX, |json| json.len());
            room = room.saturating_sub(size);
            room > 0
        })
        .cloned()
        .collect();
    let left = error.problems.len() - problems.len();
    if left > 0 {
        problems.push(Problem {
            line: 0,
            column: 0,
            rule: None,
            key: String::new(),
            what: format!("{left} more problems"),
        });
    }
    Refusal {
        document: error.document.chars().take(200).collect(),
        problems,
    }
}

/// What was wrong, if the status says that something was wrong with the question.
pub(super) fn refused(status: &Status) -> Option<DocumentError> {
    if status.code() != Code::InvalidArgument {
        return None;
    }
    let told = status
        .metadata()
        .get_bin(TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|json| serde_json::from_slice::<Refusal>(&json).ok());
    Some(match told {
        Some(refusal) => DocumentError {
            document: refusal.document,
            problems: refusal.problems,
        },
        None => DocumentError {
            document: "drafts".to_owned(),
            problems: vec![Problem {
                line: 0,
                column: 0,
                rule: None,
                key: String::new(),
                what: status.message().to_owned(),
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(what: &str) -> Problem {
        Problem {
            line: 3,
            column: 5,
            rule: Some("r1".to_owned()),
            key: "rules[0].decision".to_owned(),
            what: what.to_owned(),
        }
    }

    #[test]
    fn problems_survive_the_way_there_and_back() {
        let error = DocumentError {
            document: "secops/a".to_owned(),
            problems: vec![problem("unknown word `alow`"), problem("ünïcode\nin two lines")],
        };
        let status = status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("unknown word `alow`"), "{status}");
        assert_eq!(refused(&status), Some(error));
    }

    #[test]
    fn a_thousand_problems_are_counted_not_sent() {
        let error = DocumentError {
            document: "base".to_owned(),
            problems: vec![problem("wrong"); 1_000],
        };
        let status = status(&error);
        assert!(status.message().chars().count() <= MAX_MESSAGE_CHARS + 1);
        let back = refused(&status).expect("refused");
        assert!(back.problems.len() < 100);
        let last = &back.problems[back.problems.len() - 1].what;
        assert_eq!(*last, format!("{} more problems", 1_001 - back.problems.len()));
    }

    #[test]
    fn other_kernels_refuse_in_words() {
        let back = refused(&Status::invalid_argument("no such topic")).expect("refused");
        assert_eq!(back.to_string(), "drafts: no such topic");
        assert_eq!(refused(&Status::unavailable("later")), None);
    }
}
