//! Links and checks entries; no I/O. See `docs/spec/audit.md` §2.

use serde_json::Value;

use super::{AuditEntry, AuditRecord, Head};
use crate::protocol::canonical::{self, Numbers};

/// Where and how a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {what}")]
pub struct Broken {
    /// The first place that is not as it was written.
    pub seq: u64,
    /// What is wrong there.
    pub what: String,
}

/// The hash that an entry must have: SHA-256 of its canonical JSON without `hash`, integers with all digits.
pub fn entry_hash(entry: &AuditEntry) -> String {
    // Records are made of texts, integers and JSON: there is always a value.
    let mut value = serde_json::to_value(entry).unwrap_or(Value::Null);
    if let Value::Object(members) = &mut value {
        members.remove("hash");
    }
    canonical::hash(&value, Numbers::Exact)
}

/// The entries of these records after `head`, in their order.
pub fn link(head: &Head, records: Vec<AuditRecord>) -> Vec<AuditEntry> {
    let mut end = head.clone();
    records
        .into_iter()
        .map(|record| {
            let mut entry = AuditEntry {
                seq: end.seq.saturating_add(1),
                prev: std::mem::take(&mut end.hash),
                hash: String::new(),
                record,
            };
            entry.hash = entry_hash(&entry);
            end.seq = entry.seq;
            end.hash.clone_from(&entry.hash);
            entry
        })
        .collect()
}

/// Checks entries one after the other, from the first.
#[derive(Debug, Clone)]
pub struct Checker(Head);

impl Default for Checker {
    fn default() -> Self {
        Self(Head::empty())
    }
}

impl Checker {
    /// The end of what was checked.
    pub fn head(&self) -> &Head {
        &self.0
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`Broken`] if it cannot be what follows.
    pub fn accept(&mut self, entry: &AuditEntry) -> Result<(), Broken> {
        let seq = self.0.seq.saturating_add(1);
        let broken = |what: String| Err(Broken { seq, what });
        if entry.seq != seq {
            return broken(format!("missing or moved; entry {} stands in its place", entry.seq));
        }
        if entry.prev != self.0.hash {
            return broken("does not follow the entry before: one of them was changed, inserted or removed".to_owned());
        }
        let hash = entry_hash(entry);
        if entry.hash != hash {
            return broken(format!("was changed: its hash is {hash}, not {}", entry.hash));
        }
        self.0 = Head { seq, hash };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn records(count: i64) -> Vec<AuditRecord> {
        (1..=count)
            .map(|n| AuditRecord {
                id: format!("r{n}"),
                ..AuditRecord::new(Timestamp::from_secs(n), "ada", "secops", "config.set", "cfg:org:a")
                    .with("revision", n)
                    .with("note", "<ü>")
            })
            .collect()
    }

    fn check(entries: &[AuditEntry]) -> Result<Head, Broken> {
        let mut checker = Checker::default();
        for entry in entries {
            checker.accept(entry)?;
        }
        Ok(checker.head().clone())
    }

    #[track_caller]
    fn broken(tamper: impl FnOnce(&mut Vec<AuditEntry>), seq: u64, part: &str) {
        let mut entries = link(&Head::empty(), records(5));
        tamper(&mut entries);
        let found = check(&entries).expect_err("broken");
        assert_eq!(found.seq, seq, "{found}");
        assert!(found.what.contains(part), "{found}");
    }

    /// docs/spec/audit.md §2.
    #[test]
    fn what_is_linked_is_whole() {
        assert_eq!(check(&[]), Ok(Head::empty()));
        let entries = link(&Head::empty(), records(5));
        let last = entries.last().expect("five");
        assert_eq!(
            check(&entries),
            Ok(Head {
                seq: 5,
                hash: last.hash.clone()
            })
        );
        // In two steps it is the same chain, also after a way through JSON.
        let mut steps = link(&Head::empty(), records(5)[..2].to_vec());
        let head = check(&steps).expect("whole");
        steps.extend(link(&head, records(5)[2..].to_vec()));
        let json = serde_json::to_string(&steps).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Vec<AuditEntry>>(&json).expect("entries"),
            entries
        );
    }

    /// docs/spec/audit.md §2: anybody can compute it.
    #[test]
    fn the_hash_is_that_of_the_canonical_text() {
        let entry = &link(&Head::empty(), records(1))[0];
        let text = concat!(
            r#"{"action":"config.set","actor":"ada","at":1000000,"detail":{"note":"\u003cü\u003e","revision":1},"id":"r1","#,
            r#""prev":"0000000000000000000000000000000000000000000000000000000000000000","role":"secops","seq":1,"#,
            r#""target":"cfg:org:a"}"#
        );
        let value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(canonical::text(&value, Numbers::Exact), text);
        assert_eq!(entry.hash, canonical::hash(&value, Numbers::Exact));
    }

    /// docs/spec/audit.md §2.
    #[test]
    fn every_change_is_found_at_its_place() {
        broken(|e| e[2].record.actor = "eve".to_owned(), 3, "was changed");
        broken(|e| e[2].record.at = Timestamp::from_secs(9), 3, "was changed");
        broken(
            |e| {
                e[0].record.detail.clear();
            },
            1,
            "was changed",
        );
        broken(|e| e[4].hash = "0".repeat(64), 5, "was changed");
        broken(|e| e[3].prev = "0".repeat(64), 4, "does not follow");
        broken(
            |e| {
                e.remove(1);
            },
            2,
            "entry 3 stands in its place",
        );
        broken(|e| e.swap(1, 2), 2, "entry 3 stands in its place");
        broken(
            |e| {
                let copy = e[1].clone();
                e.insert(2, copy);
            },
            3,
            "entry 2 stands in its place",
        );
        // Changed with a new hash of its own: the next entry gives it away.
        broken(
            |e| {
                e[2].record.actor = "eve".to_owned();
                e[2].hash = entry_hash(&e[2]);
            },
            4,
            "does not follow",
        );
    }
}
