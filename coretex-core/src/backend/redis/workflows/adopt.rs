//! What the reference left is listed our way. See `docs/spec/storage.md` §10.4.

use redis::Cmd;

use super::super::connection::Redis;
use super::super::jobs::typed;
use super::super::keys;
use super::super::scripts::Lua;
use super::encode::{millis, score};
use super::{legacy, load};
use crate::error::StoreError;
use crate::time::Clock;
use crate::workflow::{Run, RunId, RunStatus};

const OP: &str = "adopt runs";
/// So many at once.
const BATCH: usize = 500;
/// So many are looked at in one call to list ended runs by organisation.
const EXAMINED: usize = 20_000;
/// All runs were listed by organisation.
pub(super) const COMPLETE: &str = "complete";

/// The documents among these runs, as far as they can be read.
async fn left(redis: &Redis, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
    let ids: Vec<&RunId> = ids.iter().collect();
    let documents = load::documents(redis, OP, &ids).await?;
    Ok(ids
        .into_iter()
        .zip(documents)
        .filter_map(|(id, text)| legacy::run(id, &text?).ok())
        .collect())
}

fn adopt(run: &Run, at: &str, now: Option<i64>) -> Option<Cmd> {
    let mut cmd = Lua::WfAdopt.call(&keys::legacy_run(run.id.as_str())?);
    cmd.arg(run.id.as_str())
        .arg(at)
        .arg(&run.head.workflow_id)
        .arg(&run.head.org_id);
    match now {
        Some(now) => cmd.arg(now),
        None => cmd.arg(""),
    };
    Some(cmd)
}

/// Lists runs, and makes them due at `now` if it is given; how many of them were not before.
async fn adopt_all(redis: &Redis, runs: &[Run], now: Option<i64>) -> Result<u64, StoreError> {
    let cmds = runs
        .iter()
        .filter_map(|run| adopt(run, &score(run.head.updated_at), now));
    let mut count = 0;
    for answer in redis.send_all(OP, cmds.collect()).await? {
        count += typed::<u64>(OP, answer?)?;
    }
    Ok(count)
}

/// Makes open runs of the reference due.
pub(super) async fn open(redis: &Redis, limit: usize) -> Result<u64, StoreError> {
    let now = millis(Clock::system().now());
    let mut count = 0;
    for status in RunStatus::ALL.into_iter().filter(|status| !status.is_terminal()) {
        let key = keys::of(keys::WF_STATUS, status.as_str());
        let mut cursor = 0_u64;
        loop {
            let ids;
            (cursor, ids) = scan(redis, &key, cursor).await?;
            let count_left = limit.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
            if count_left == 0 {
                return Ok(count);
            }
            let mut runs = left(redis, &ids).await?;
            // Those that are due already are looked at for nothing, but not counted.
            runs.retain(|run| !run.head.status.is_terminal());
            for runs in runs.chunks(count_left) {
                count += adopt_all(redis, runs, Some(now)).await?;
                if usize::try_from(count).unwrap_or(usize::MAX) >= limit {
                    return Ok(count);
                }
            }
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(count)
}

/// Lists all runs of the reference by organisation, some with each call, once.
pub(super) async fn by_org(redis: &Redis) -> Result<(), StoreError> {
    let mut cmd = redis::cmd("GET");
    cmd.arg(keys::WF_ADOPTED);
    let place: Option<String> = typed(OP, redis.send(OP, cmd).await?)?;
    if place.as_deref() == Some(COMPLETE) {
        return Ok(());
    }
    let mut cursor = place.and_then(|place| place.parse().ok()).unwrap_or(0);
    let mut examined = 0;
    let place = loop {
        let ids;
        (cursor, ids) = scan(redis, keys::WF_ALL, cursor).await?;
        adopt_all(redis, &left(redis, &ids).await?, None).await?;
        examined += ids.len();
        if cursor == 0 {
            break COMPLETE.to_owned();
        }
        if examined >= EXAMINED {
            break cursor.to_string();
        }
    };
    let mut cmd = redis::cmd("SET");
    cmd.arg(keys::WF_ADOPTED).arg(place);
    redis.send(OP, cmd).await.map(drop)
}

/// The next members of a sorted set, in no order; those that are there throughout come for sure.
async fn scan(redis: &Redis, key: &str, cursor: u64) -> Result<(u64, Vec<RunId>), StoreError> {
    let mut cmd = redis::cmd("ZSCAN");
    cmd.arg(key).arg(cursor).arg("COUNT").arg(BATCH);
    let answer = redis.fetch(OP, vec![cmd]).await?.pop().unwrap_or(redis::Value::Nil);
    let (cursor, entries): (u64, Vec<(Vec<u8>, f64)>) = typed(OP, answer)?;
    let ids = entries
        .iter()
        .filter_map(|(member, _)| Some(RunId::new(std::str::from_utf8(member).ok()?)))
        .collect();
    Ok((cursor, ids))
}
