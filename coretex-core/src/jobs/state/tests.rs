use JobEvent as E;
use JobState as S;

use super::*;

const FINISHES: [JobState; 5] = [S::Succeeded, S::Failed, S::Cancelled, S::Timeout, S::Denied];

fn events() -> Vec<JobEvent> {
    let mut events = vec![
        E::Submit,
        E::Park,
        E::RequireApproval,
        E::Vote,
        E::Rejudge,
        E::Approve,
        E::Deny,
        E::Dispatch,
        E::Requeue,
        E::Fail,
        E::Cancel,
        E::Expire,
    ];
    events.extend(FINISHES.map(E::Finish));
    events
}

/// docs/spec/jobs.md §1: every legal move; all others are refused.
#[test]
fn the_table_of_moves() {
    let table: &[(Option<JobState>, &[JobEvent])] = &[
        (
            None,
            &[E::Submit, E::Park, E::RequireApproval, E::Deny, E::Dispatch, E::Fail],
        ),
        (
            Some(S::Pending),
            &[
                E::Park,
                E::RequireApproval,
                E::Deny,
                E::Dispatch,
                E::Fail,
                E::Cancel,
                E::Expire,
            ],
        ),
        (
            Some(S::ApprovalRequired),
            &[E::Vote, E::Rejudge, E::Approve, E::Deny, E::Fail, E::Cancel, E::Expire],
        ),
        (
            Some(S::Scheduled),
            &[E::Deny, E::Dispatch, E::Requeue, E::Fail, E::Cancel, E::Expire],
        ),
        (Some(S::Dispatched), &[E::Requeue, E::Cancel, E::Expire]),
        (Some(S::Running), &[E::Requeue, E::Cancel, E::Expire]),
        (Some(S::Succeeded), &[]),
        (Some(S::Failed), &[]),
        (Some(S::Cancelled), &[]),
        (Some(S::Timeout), &[]),
        (Some(S::Denied), &[]),
    ];
    for (state, legal) in table {
        for event in events() {
            // A result may come for every job that was placed; for a pending one only after a dispatch (`Change::guard`).
            let finishes = matches!(event, E::Finish(_))
                && matches!(state, Some(S::Pending | S::Scheduled | S::Dispatched | S::Running));
            let expected = legal.contains(&event) || finishes;
            assert_eq!(transition(*state, event).is_ok(), expected, "{event:?} in {state:?}");
        }
    }
}

#[test]
fn every_move_leads_where_its_path_ends() {
    let table = [
        (E::Submit, S::Pending),
        (E::Park, S::Pending),
        (E::RequireApproval, S::ApprovalRequired),
        (E::Vote, S::ApprovalRequired),
        (E::Rejudge, S::Pending),
        (E::Approve, S::Pending),
        (E::Deny, S::Denied),
        (E::Dispatch, S::Running),
        (E::Requeue, S::Pending),
        (E::Fail, S::Failed),
        (E::Cancel, S::Cancelled),
        (E::Expire, S::Timeout),
    ];
    for (event, target) in table {
        assert_eq!(event.target(), target);
    }
    for state in FINISHES {
        assert_eq!(E::Finish(state).target(), state);
    }
    assert_eq!(E::Dispatch.path(), [S::Scheduled, S::Dispatched, S::Running]);
}

#[test]
fn nothing_leaves_a_terminal_state() {
    for state in StateSet::TERMINAL.states() {
        assert!(state.is_terminal());
        for event in events() {
            assert!(transition(Some(state), event).is_err(), "{event:?} in {state}");
        }
    }
}

#[test]
fn names_read_back() {
    for state in JobState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        assert_eq!(state.as_str().to_lowercase(), state.lower());
    }
    assert!("pending".parse::<JobState>().is_err());
}
