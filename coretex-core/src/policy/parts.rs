//! The documents that a policy is made of. See `docs/spec/policy.md` §4.7.

use super::explanation::BASE;
use super::model::Document;
use crate::jobs::Decision;

/// One document of a policy. The order of parts is the order of their rules.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is called: the id of its fragment, or [`BASE`].
    pub origin: String,
    /// How far it is trusted.
    pub kind: PartKind,
    /// What it says.
    pub document: Document,
}

impl Part {
    /// The base policy.
    pub fn base(document: Document) -> Self {
        Self {
            origin: BASE.to_owned(),
            kind: PartKind::Base,
            document,
        }
    }
}

/// How far a part is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// The base policy.
    Base,
    /// A fragment of those who are responsible for security.
    Secops,
    /// A fragment that came with a pack: it can forbid what others allow, never allow what others forbid.
    Pack,
}

impl PartKind {
    /// The kind of the fragment `id`: all are packs' but those under `secops/`.
    pub fn of_fragment(id: &str) -> Self {
        if id.starts_with("secops/") {
            Self::Secops
        } else {
            Self::Pack
        }
    }

    /// Whether it can only forbid.
    pub fn only_tightens(self) -> bool {
        self == Self::Pack
    }
}

/// The one that lets less happen. A throttled job never runs; one that waits for people may.
pub(super) fn strictest(a: Decision, b: Decision) -> Decision {
    let rank = |decision| match decision {
        Decision::Allow => 0,
        Decision::AllowWithConstraints => 1,
        Decision::RequireApproval => 2,
        Decision::Throttle => 3,
        Decision::Deny => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}
