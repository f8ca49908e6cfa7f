//! How runs are read. See `docs/spec/storage.md` §10.

use redis::Value;

use super::super::connection::Redis;
use super::super::jobs::typed;
use super::super::keys;
use super::encode::{EFFECT, ITEMS, STEP};
use super::legacy;
use crate::backend::run_parts::{corrupt, decoded};
use crate::error::StoreError;
use crate::workflow::{Run, RunId, StepKey};

/// So many whole runs in one answer.
const BATCH: usize = 64;

fn decode(id: &RunId, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Run, StoreError> {
    let mut revision = None;
    let (mut head, mut input) = (None, None);
    for (name, value) in fields {
        match name.as_slice() {
            b"rev" => revision = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            b"head" => head = Some(decoded(id, "the head", value)?),
            b"input" => input = Some(decoded(id, "the input", value)?),
            _ => {}
        }
    }
    let missing = |part| corrupt(id, part, "it is not there");
    let head = head.ok_or_else(|| missing("the head"))?;
    let mut run = Run::new(id.clone(), head, input.ok_or_else(|| missing("the input"))?);
    run.revision = revision.ok_or_else(|| missing("the revision"))?;
    for (name, value) in fields {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if let Some(step) = name.strip_prefix(STEP) {
            run.steps.insert(StepKey::new(step), decoded(id, "a step", value)?);
        } else if let Some(step) = name.strip_prefix(ITEMS) {
            run.items.insert(StepKey::new(step), decoded(id, "the items", value)?);
        } else if let Some(number) = name.strip_prefix(EFFECT) {
            let number = number.parse().map_err(|error| corrupt(id, "an effect", error))?;
            run.outbox.insert(number, decoded(id, "an effect", value)?);
        } else if name == "context" {
            run.context = decoded(id, "the context", value)?;
        }
    }
    run.index_timers();
    Ok(run)
}

fn get(key: &str) -> redis::Cmd {
    let mut cmd = redis::cmd("GET");
    cmd.arg(key);
    cmd
}

/// The documents that the reference left of these runs.
pub(super) async fn documents(
    redis: &Redis,
    op: &'static str,
    ids: &[&RunId],
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let mut found = vec![None; ids.len()];
    let (places, cmds): (Vec<usize>, Vec<_>) = ids
        .iter()
        .enumerate()
        .filter_map(|(i, id)| Some((i, get(&keys::legacy_run(id.as_str())?))))
        .unzip();
    for (i, answer) in places.into_iter().zip(redis.fetch(op, cmds).await?) {
        found[i] = typed::<Option<Vec<u8>>>(op, answer)?;
    }
    Ok(found)
}

/// Runs, whole, in the order of their ids.
pub(super) async fn runs(
    redis: &Redis,
    op: &'static str,
    ids: &[RunId],
) -> Result<Vec<Result<Option<Run>, StoreError>>, StoreError> {
    let mut found = Vec::with_capacity(ids.len());
    for ids in ids.chunks(BATCH) {
        let cmds = ids.iter().map(|id| {
            let mut cmd = redis::cmd("HGETALL");
            cmd.arg(keys::of(keys::WF_RUN, id.as_str()));
            cmd
        });
        let first = found.len();
        let mut others = Vec::new();
        let answers: Vec<Value> = redis.fetch(op, cmds.collect()).await?;
        for (i, (id, answer)) in ids.iter().zip(answers).enumerate() {
            let fields: Vec<(Vec<u8>, Vec<u8>)> = typed(op, answer)?;
            if fields.is_empty() {
                others.push((first + i, id));
                found.push(Ok(None));
            } else {
                found.push(decode(id, &fields).map(Some));
            }
        }
        let names: Vec<&RunId> = others.iter().map(|(_, id)| *id).collect();
        let documents = documents(redis, op, &names).await?;
        for ((place, id), document) in others.into_iter().zip(documents) {
            if let Some(text) = document {
                found[place] = legacy::run(id, &text).map(Some);
            }
        }
    }
    Ok(found)
}

/// Which revision runs that ended are at; `None` for those that are gone, or have not ended though others listed them so.
pub(super) async fn ended_revisions(
    redis: &Redis,
    op: &'static str,
    ids: &[RunId],
) -> Result<Vec<Option<u64>>, StoreError> {
    let cmds = ids.iter().map(|id| {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(keys::of(keys::WF_RUN, id.as_str())).arg("rev");
        cmd
    });
    let mut found = Vec::with_capacity(ids.len());
    for answer in redis.fetch(op, cmds.collect()).await? {
        found.push(typed::<Option<u64>>(op, answer)?);
    }
    let others: Vec<usize> = (0..ids.len()).filter(|i| found[*i].is_none()).collect();
    let names: Vec<&RunId> = others.iter().map(|i| &ids[*i]).collect();
    for (i, text) in others.into_iter().zip(documents(redis, op, &names).await?) {
        found[i] = text
            .filter(|text| legacy::run(&ids[i], text).is_ok_and(|run| run.head.status.is_terminal()))
            .map(|text| legacy::revision_of(&text));
    }
    Ok(found)
}
