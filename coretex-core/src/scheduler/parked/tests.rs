use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn demand(topic: &str) -> Demand {
    Demand {
        topic: topic.to_owned(),
        pool: String::new(),
        worker: String::new(),
        requires: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn entry(id: &str, tenant: &str, priority: JobPriority, since: i64) -> Entry {
    Entry {
        id: JobId::try_new(id).unwrap(),
        trace_id: None,
        request: None,
        tenant: tenant.into(),
        class: Class::of(priority.into()),
        since: Timestamp::from_secs(since),
        held: None,
    }
}

/// Ids in the order in which they get room.
fn order(parked: &mut Parked) -> Vec<String> {
    parked
        .take(usize::MAX, |_| Some(()))
        .into_iter()
        .map(|(entry, ())| entry.id.as_str().to_owned())
        .collect()
}

#[test]
fn urgent_first_then_oldest() {
    let mut parked = Parked::default();
    parked.push(demand("t"), entry("batch", "a", JobPriority::Batch, 1));
    parked.push(demand("t"), entry("late", "a", JobPriority::Interactive, 3));
    parked.push(demand("t"), entry("early", "a", JobPriority::Unspecified, 2));
    parked.push(demand("t"), entry("critical", "a", JobPriority::Critical, 4));
    assert_eq!(order(&mut parked), ["critical", "early", "late", "batch"]);
    assert!(parked.is_empty());
}

#[test]
fn tenants_take_turns() {
    let mut parked = Parked::default();
    for i in 0..3 {
        parked.push(demand("t"), entry(&format!("a{i}"), "a", JobPriority::Interactive, i));
    }
    parked.push(demand("t"), entry("b0", "b", JobPriority::Interactive, 10));
    parked.push(demand("t"), entry("b1", "b", JobPriority::Interactive, 11));
    assert_eq!(order(&mut parked), ["a0", "b0", "a1", "b1", "a2"]);
}

#[test]
fn a_job_waits_once() {
    let mut parked = Parked::default();
    parked.push(demand("t"), entry("a", "x", JobPriority::Batch, 1));
    parked.push(demand("t"), entry("a", "x", JobPriority::Batch, 2));
    assert_eq!(parked.len(), 1);
    assert_eq!(order(&mut parked), ["a"]);
}

#[test]
fn a_demand_without_room_does_not_hold_up_others() {
    let mut parked = Parked::default();
    parked.push(demand("full"), entry("a", "x", JobPriority::Critical, 1));
    parked.push(demand("free"), entry("b", "x", JobPriority::Batch, 2));
    let taken = parked.take(10, |demand| (demand.topic == "free").then_some(()));
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0.id.as_str(), "b");
    assert_eq!(parked.len(), 1);
    assert!(parked.has_waiting(&demand("full")));
    assert!(!parked.has_waiting(&demand("free")));
}

#[test]
fn room_is_asked_for_once_per_job_and_once_per_full_demand() {
    let mut parked = Parked::default();
    for i in 0..1_000 {
        parked.push(demand("t"), entry(&format!("j{i}"), "x", JobPriority::Batch, i));
    }
    let mut asked = 0;
    let mut room = 3;
    let taken = parked.take(100, |_| {
        asked += 1;
        room -= 1;
        (room >= 0).then_some(())
    });
    assert_eq!((taken.len(), asked), (3, 4));
}

#[test]
fn batch_jobs_do_not_starve() {
    let mut parked = Parked::default();
    parked.push(demand("t"), entry("batch", "a", JobPriority::Batch, 0));
    let now = |minutes: i64| Timestamp::from_secs(minutes * 60);
    parked.push(demand("t"), entry("interactive", "a", JobPriority::Interactive, 4 * 60));
    parked.age(now(6));
    parked.push(demand("t"), entry("critical", "a", JobPriority::Critical, 6 * 60));
    // It counts as interactive now, and is the older of the two.
    assert_eq!(order(&mut parked), ["critical", "batch", "interactive"]);

    parked.push(demand("t"), entry("old", "a", JobPriority::Batch, 0));
    parked.push(demand("t"), entry("critical", "a", JobPriority::Critical, 6 * 60));
    parked.age(now(11));
    assert_eq!(order(&mut parked), ["old", "critical"]);
}

#[test]
fn very_many_demands_without_room_are_looked_at_a_part_at_a_time() {
    let mut parked = Parked::default();
    let demands = 3 * MAX_REFUSALS;
    for i in 0..demands {
        let since = i64::try_from(i).unwrap();
        parked.push(
            demand(&format!("d{i}")),
            entry(&format!("j{i}"), "x", JobPriority::Batch, since),
        );
    }
    // Only the very last one has room; it is found after a few calls, and none of them asks for ever.
    let last = format!("d{}", demands - 1);
    let mut calls = 0;
    let found = loop {
        let mut asked = 0;
        let taken = parked.take(128, |demand| {
            asked += 1;
            (demand.topic == last).then_some(())
        });
        assert!(asked <= MAX_REFUSALS + 1, "{asked}");
        calls += 1;
        if let Some((entry, ())) = taken.into_iter().next() {
            break entry;
        }
        assert!(calls < 10);
    };
    assert_eq!(found.id.as_str(), format!("j{}", demands - 1));
    // Something urgent does not wait for its turn.
    parked.push(demand("urgent"), entry("urgent", "x", JobPriority::Critical, 0));
    let taken = parked.take(128, |demand| (demand.topic == "urgent").then_some(()));
    assert_eq!(taken.len(), 1);
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let mut parked = Parked::default();
    for i in 0..6 {
        let tenant = format!("t{}", i % 2);
        parked.push(
            demand(&format!("d{}", i % 3)),
            entry(&format!("j{i}"), &tenant, JobPriority::Batch, i),
        );
    }
    parked.retain(|entry| entry.id.as_str() == "j3");
    assert_eq!(parked.len(), 1);
    assert!(parked.has_waiting(&demand("d0")));
    assert!(
        !parked.has_waiting(&demand("d1")),
        "an empty group would hold up new jobs"
    );
    // And it may wait again.
    parked.push(demand("d0"), entry("j0", "t0", JobPriority::Batch, 0));
    assert_eq!(order(&mut parked), ["j3", "j0"]);
}

proptest! {
    /// Whatever is put in comes out once, and never a less urgent job of a tenant before a more urgent one.
    #[test]
    fn everything_comes_out_once_in_order(jobs in prop::collection::vec((0..3_i32, 0..4_u8, 0..50_i64), 0..60)) {
        let mut parked = Parked::default();
        for (i, (class, tenant, since)) in jobs.iter().enumerate() {
            let priority = [JobPriority::Critical, JobPriority::Interactive, JobPriority::Batch]
                [usize::try_from(*class).unwrap()];
            parked.push(demand("t"), entry(&format!("j{i}"), &format!("t{tenant}"), priority, *since));
        }
        prop_assert_eq!(parked.len(), jobs.len());
        let taken: Vec<Entry> = parked.take(usize::MAX, |_| Some(())).into_iter().map(|(entry, ())| entry).collect();
        prop_assert_eq!(taken.len(), jobs.len());
        let ids: HashSet<_> = taken.iter().map(|entry| entry.id.clone()).collect();
        prop_assert_eq!(ids.len(), jobs.len());
        for pair in taken.windows(2) {
            prop_assert!(pair[0].class <= pair[1].class);
        }
        for tenant in 0..4_u8 {
            let of_tenant: Vec<_> =
                taken.iter().filter(|entry| *entry.tenant == *format!("t{tenant}")).map(|e| (e.class, e.since)).collect();
            let mut sorted = of_tenant.clone();
            sorted.sort();
            prop_assert_eq!(of_tenant, sorted);
        }
    }
}
