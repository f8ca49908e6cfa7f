//! Random changes against a model that fits on a page.

use std::collections::BTreeMap;

use coretex_core::backend::embedded::Location;
use coretex_core::jobs::{Change, JobEvent, JobState, JobStoreExt, Outcome, Revision, Slot, StateSet};
use coretex_core::protocol::{JobId, TenantId};
use coretex_core::time::Timestamp;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Step {
    job: u8,
    event: JobEvent,
    /// Whether the change expects the present revision (0), an old one (1), or none.
    expects: u8,
    advance: i64,
    slot_limit: Option<u32>,
    attempt_limit: Option<u32>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = prop_oneof![
        3 => Just(JobEvent::Submit),
        3 => Just(JobEvent::Park),
        1 => Just(JobEvent::RequireApproval),
        1 => Just(JobEvent::Approve),
        1 => Just(JobEvent::Deny),
        8 => Just(JobEvent::Dispatch),
        4 => Just(JobEvent::Requeue),
        1 => Just(JobEvent::Fail),
        2 => Just(JobEvent::Finish(JobState::Succeeded)),
        1 => Just(JobEvent::Finish(JobState::Failed)),
        1 => Just(JobEvent::Cancel),
        1 => Just(JobEvent::Expire),
    ];
    let step = (
        0..6_u8,
        event,
        0..8_u8,
        -2..10_i64,
        prop::option::of(0..3_u32),
        prop::option::of(1..4_u32),
    )
        .prop_map(|(job, event, expects, advance, slot_limit, attempt_limit)| Step {
            job,
            event,
            expects,
            advance,
            slot_limit,
            attempt_limit,
        });
    prop::collection::vec(step, 1..80)
}

#[derive(Debug, Clone, Copy)]
struct Known {
    state: JobState,
    revision: Revision,
    attempts: u32,
    slot: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Applied,
    Conflict,
    Full,
    Exhausted,
}

fn expected(jobs: &BTreeMap<u8, Known>, step: &Step, change: &Change) -> Expected {
    let known = jobs.get(&step.job);
    let placed = jobs.values().filter(|known| known.slot).count();
    let attempts = known.map_or(0, |known| known.attempts);
    let expected = change.expected;
    if !change.guard(known.map(|known| known.state), attempts)
        || expected.is_some_and(|revision| known.map(|known| known.revision) != Some(revision))
    {
        return Expected::Conflict;
    }
    if step.event == JobEvent::Dispatch {
        if step.attempt_limit.is_some_and(|limit| attempts >= limit) {
            return Expected::Exhausted;
        }
        if step
            .slot_limit
            .is_some_and(|limit| limit > 0 && placed >= limit as usize)
        {
            return Expected::Full;
        }
    }
    Expected::Applied
}

async fn run(steps: Vec<Step>) {
    let embedded = super::open(&Location::Memory);
    let stores = embedded.stores();
    let mut jobs: BTreeMap<u8, Known> = BTreeMap::new();
    let mut now = Timestamp::from_secs(1_700_000_000);
    for step in steps {
        now = Timestamp::from_micros(now.micros() + step.advance);
        let present = jobs.get(&step.job).map(|known| known.revision);
        let change = Change {
            expected: match step.expects {
                0 => present,
                1 => Some(Revision(Timestamp::from_secs(1))),
                _ => None,
            },
            slot: step.slot_limit.map(|limit| Slot {
                tenant: TenantId::fallback(),
                limit,
            }),
            attempt_limit: step.attempt_limit,
            ..Change::new(
                JobId::try_new(&format!("job {}", step.job)).expect("an id"),
                step.event,
                now,
            )
        };
        let expected = expected(&jobs, &step, &change);
        let id = change.id.clone();
        match stores.jobs.apply(change).await.expect("apply") {
            Outcome::Applied(applied) => {
                assert_eq!(expected, Expected::Applied, "{step:?}");
                let state = step.event.target();
                let before = jobs.get(&step.job).copied();
                let stays = before.is_some_and(|before| before.state == state);
                assert_eq!(present.is_some_and(|present| present >= applied.revision), stays);
                let placed = StateSet::PLACED.contains(Some(state));
                let dispatched = step.event == JobEvent::Dispatch;
                let known = Known {
                    state,
                    revision: applied.revision,
                    attempts: before.map_or(0, |before| before.attempts) + u32::from(dispatched),
                    slot: placed && (step.slot_limit.is_some() && dispatched || before.is_some_and(|b| b.slot)),
                };
                assert_eq!(applied.attempts, known.attempts);
                jobs.insert(step.job, known);
            }
            Outcome::Conflict { state, revision } => {
                assert_eq!(expected, Expected::Conflict, "{step:?}");
                assert_eq!(state, jobs.get(&step.job).map(|known| known.state));
                assert_eq!(revision, present);
            }
            Outcome::LimitReached => assert_eq!(expected, Expected::Full, "{step:?}"),
            Outcome::AttemptsExhausted { .. } => assert_eq!(expected, Expected::Exhausted, "{step:?}"),
            Outcome::DuplicateKey { .. } => panic!("there are no keys: {step:?}"),
        }
        let record = stores.jobs.get(&id).await.expect("get");
        let seen = record.map(|record| (record.state, record.revision, record.attempts));
        let known = jobs
            .get(&step.job)
            .map(|known| (known.state, known.revision, known.attempts));
        assert_eq!(seen, known);
    }
    assert_eq!(embedded.check_integrity().await.expect("check"), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_do_what_the_model_does(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(run(steps));
    }
}
