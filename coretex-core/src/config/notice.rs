//! Tells everybody that a document has changed. See `docs/spec/config.md` §4.

use bytes::Bytes;

use crate::bus::Message;
use crate::protocol::subjects;

/// One document was written. A hint to read it again, never more: notices may be lost or forged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The document's scope.
    pub scope: String,
    /// Its id in that scope.
    pub scope_id: String,
    /// The revision that was written.
    pub revision: u64,
}

impl Notice {
    /// Reads the payload of a notice; `None` if it is none.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (name, revision) = std::str::from_utf8(payload).ok()?.rsplit_once('\t')?;
        let (scope, scope_id) = name.split_once('\t')?;
        Some(Self {
            scope: scope.to_owned(),
            scope_id: scope_id.to_owned(),
            revision: revision.parse().ok()?,
        })
    }

    /// Whether it is about this document.
    pub fn is_about(&self, scope: &str, scope_id: &str) -> bool {
        self.scope == scope && self.scope_id == scope_id
    }

    /// As it goes over the bus.
    pub fn to_message(&self) -> Message {
        let Self {
            scope,
            scope_id,
            revision,
        } = self;
        Message {
            subject: subjects::CONFIG_CHANGED.to_owned(),
            payload: Bytes::from(format!("{scope}\t{scope_id}\t{revision}")),
            message_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/spec/config.md §4.
    #[test]
    fn notices_come_back_as_they_were() {
        for (scope, id, revision) in [
            ("system", "default", 1),
            ("org", "a:b c", u64::MAX),
            ("team", "tab\tinside", 7),
            ("", "", 0),
        ] {
            let notice = Notice {
                scope: scope.to_owned(),
                scope_id: id.to_owned(),
                revision,
            };
            let message = notice.to_message();
            assert_eq!(message.subject, "coretex.config.changed");
            assert_eq!(Notice::parse(&message.payload), Some(notice));
        }
        for payload in [&b""[..], b"system", b"system\tdefault", b"a\tb\tc", b"\xff\tb\t1"] {
            assert_eq!(Notice::parse(payload), None, "{payload:?}");
        }
    }
}
