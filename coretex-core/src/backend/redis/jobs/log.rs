//! The decisions of all jobs, by their time. See `docs/spec/storage.md` §4.

use super::decode::{self, typed};
use super::lists::{Entry, Order, Walk};
use super::{BATCH, Jobs, command};
use crate::backend::redis::keys;
use crate::error::StoreError;
use crate::jobs::{Cursor, DecisionPage, DecisionQuery, LoggedDecision};
use crate::time::Timestamp;

/// Entries looked at by one call, at most.
const MAX_LOOKED_AT: usize = 2_000;

impl Jobs {
    pub(super) async fn logged_decisions(&self, query: &DecisionQuery) -> Result<DecisionPage, StoreError> {
        const OP: &str = "decision log";
        if query.limit == 0 {
            return Ok(DecisionPage::default());
        }
        let mut walk = Walk::new(keys::DECISION_LOG.to_owned(), Order::NewestFirst, query.after.clone());
        walk.from = query.from;
        walk.until = query
            .until
            .map(|until| Timestamp::from_micros(until.micros().saturating_sub(1)));
        let mut found: Vec<LoggedDecision> = Vec::new();
        let mut looked_at = 0;
        // One more than asked for, to know whether there is one.
        while found.len() <= query.limit && looked_at < MAX_LOOKED_AT {
            let count = query.limit + 1 - found.len();
            let entries = walk.next(OP, self, count.min(BATCH)).await?;
            if entries.is_empty() {
                break;
            }
            looked_at += entries.len();
            found.extend(self.decided(OP, entries).await?);
        }
        let rest = if found.len() > query.limit {
            found.truncate(query.limit);
            found.last().map(|logged| logged.cursor.clone())
        } else {
            walk.after.filter(|_| !walk.ended)
        };
        Ok(DecisionPage {
            next: rest,
            items: found,
        })
    }

    /// The decisions of these entries that are there. The others go with the next sweep that finds them old.
    async fn decided(&self, op: &'static str, entries: Vec<Entry>) -> Result<Vec<LoggedDecision>, StoreError> {
        let mut cmds = Vec::with_capacity(entries.len());
        let mut cursors = Vec::with_capacity(entries.len());
        for Entry { member, at } in entries {
            let Some((id, place)) = keys::logged_decision(&member) else {
                continue;
            };
            let Some(job_id) = decode::job_id(id) else {
                continue;
            };
            let mut cmd = command("LINDEX", &keys::of(keys::DECISIONS, id));
            cmd.arg(place - 1);
            cmds.push(cmd);
            cursors.push((Cursor { at, id: member }, job_id));
        }
        let mut found = Vec::with_capacity(cursors.len());
        for ((cursor, job_id), answer) in cursors.into_iter().zip(self.redis.fetch(op, cmds).await?) {
            let text: Option<Vec<u8>> = typed(op, answer)?;
            let decision = text.and_then(|text| decode::decision_entry(&String::from_utf8_lossy(&text)));
            // Of another time is the entry of a later job of the same id.
            if let Some(decision) = decision.filter(|decision| decision.checked_at == cursor.at) {
                found.push(LoggedDecision {
                    job_id,
                    decision,
                    cursor,
                });
            }
        }
        Ok(found)
    }
}
