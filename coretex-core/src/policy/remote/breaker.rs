//! Stops asking a kernel that does not answer. See `docs/spec/policy.md` §14.3.
//!
//! Time is an argument, so that the rules can be tried without waiting.

use std::time::Duration;

use tokio::time::Instant;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// This many failures in a row open it.
    pub(super) threshold: u32,
    /// How long it stays open the first time; each time after that, twice as long.
    pub(super) first: Duration,
    /// But never longer.
    pub(super) longest: Duration,
    /// A probe that said nothing for so long is given up, and another may go.
    pub(super) probe: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One call is on its way, to see.
    HalfOpen {
        until: Instant,
        pause: Duration,
    },
}

/// The right to make one call. What comes of it counts only if the state is still the one it was given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permit(u64);

/// What became of a call's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing changed.
    Same,
    /// It does not ask any more.
    Opened,
    /// It asks again.
    Closed,
}

/// Closed: calls go. Open: none does, until the pause is over. Half open: one does, and decides.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: Rules,
    state: State,
    /// Counts the changes of state.
    epoch: u64,
}

impl Breaker {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Closed { failures: 0 },
            epoch: 0,
        }
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Permit, Duration> {
        match self.state {
            State::Closed { .. } => Ok(Permit(self.epoch)),
            State::Open { until, pause } | State::HalfOpen { until, pause } if now >= until => {
                self.enter(State::HalfOpen {
                    until: now + self.rules.probe,
                    pause,
                });
                Ok(Permit(self.epoch))
            }
            State::Open { until, .. } | State::HalfOpen { until, .. } => Err(until - now),
        }
    }

    /// The kernel answered.
    pub(super) fn succeeded(&mut self, permit: Permit) -> Turn {
        if permit.0 != self.epoch {
            return Turn::Same;
        }
        match self.state {
            State::Closed { failures: 0 } | State::Open { .. } => Turn::Same,
            State::Closed { .. } => {
                self.state = State::Closed { failures: 0 };
                Turn::Same
            }
            State::HalfOpen { .. } => {
                self.enter(State::Closed { failures: 0 });
                Turn::Closed
            }
        }
    }

    /// The kernel did not answer. `chance`, from 0 to 1, shortens the pause by up to a half, so that replicas do not probe in
    /// step.
    pub(super) fn failed(&mut self, permit: Permit, now: Instant, chance: f64) -> Turn {
        if permit.0 != self.epoch {
            return Turn::Same;
        }
        let pause = match self.state {
            State::Closed { failures } if failures + 1 < self.rules.threshold => {
                self.state = State::Closed { failures: failures + 1 };
                return Turn::Same;
            }
            State::Closed { .. } => self.rules.first,
            State::HalfOpen { pause, .. } => (pause * 2).min(self.rules.longest),
            State::Open { .. } => return Turn::Same,
        };
        self.enter(State::Open {
            until: now + pause.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0),
            pause,
        });
        Turn::Opened
    }

    /// Whether calls go.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        threshold: 3,
        first: Duration::from_millis(500),
        longest: Duration::from_secs(5),
        probe: Duration::from_secs(2),
    };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(RULES);
        for last in [Turn::Same, Turn::Same, Turn::Opened] {
            let permit = breaker.admit(now).expect("closed");
            assert_eq!(breaker.failed(permit, now, 0.0), last);
        }
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert_eq!(breaker.admit(now), Err(ms(500)));
        assert_eq!(breaker.admit(now + ms(499)), Err(ms(1)));
        assert!(!breaker.is_closed());
    }

    #[test]
    fn an_answer_between_failures_starts_the_count_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES);
        for _ in 0..10 {
            for _ in 0..2 {
                let permit = breaker.admit(now).expect("closed");
                assert_eq!(breaker.failed(permit, now, 0.0), Turn::Same);
            }
            let permit = breaker.admit(now).expect("closed");
            assert_eq!(breaker.succeeded(permit), Turn::Same);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn one_probe_goes_and_its_answer_closes_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + ms(500);
        let probe = breaker.admit(later).expect("the pause is over");
        assert_eq!(breaker.admit(later), Err(ms(2_000)), "only one");
        assert_eq!(breaker.succeeded(probe), Turn::Closed);
        assert!(breaker.is_closed());
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let pause = breaker.admit(now).expect_err("open");
            pauses.push(pause.as_millis());
            now += pause;
            let probe = breaker.admit(now).expect("the pause is over");
            assert_eq!(breaker.failed(probe, now, 0.0), Turn::Opened);
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    }

    #[test]
    fn after_an_answer_the_first_pause_is_short_again() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + ms(500);
        let probe = breaker.admit(later).expect("the pause is over");
        assert_eq!(breaker.failed(probe, later, 0.0), Turn::Opened);
        let probe = breaker.admit(later + ms(1_000)).expect("the pause is over");
        assert_eq!(breaker.succeeded(probe), Turn::Closed);
        for _ in 0..3 {
            let permit = breaker.admit(later).expect("closed");
            breaker.failed(permit, later, 0.0);
        }
        assert_eq!(breaker.admit(later), Err(ms(500)));
    }

    #[test]
    fn a_probe_that_was_dropped_does_not_keep_it_open_for_ever() {
        let now = Instant::now();
        let mut breaker = open(now);
        let lost = breaker.admit(now + ms(500)).expect("the pause is over");
        let next = breaker.admit(now + ms(2_500)).expect("the probe is given up");
        assert_eq!(breaker.succeeded(lost), Turn::Same, "too late");
        assert_eq!(breaker.succeeded(next), Turn::Closed);
    }

    #[test]
    fn news_of_calls_made_before_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::new(RULES);
        let old: Vec<_> = (0..10).map(|_| breaker.admit(now).expect("closed")).collect();
        for permit in &old[..3] {
            breaker.failed(*permit, now, 0.0);
        }
        let probe = breaker.admit(now + ms(500)).expect("the pause is over");
        assert_eq!(breaker.succeeded(probe), Turn::Closed);
        for permit in &old[3..] {
            assert_eq!(breaker.failed(*permit, now + ms(600), 0.0), Turn::Same);
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn chance_shortens_the_pause_by_at_most_a_half() {
        for (chance, pause) in [(0.0, 500), (0.5, 375), (1.0, 250), (7.0, 250), (-1.0, 500)] {
            let now = Instant::now();
            let mut breaker = Breaker::new(RULES);
            for _ in 0..3 {
                let permit = breaker.admit(now).expect("closed");
                breaker.failed(permit, now, chance);
            }
            assert_eq!(breaker.admit(now), Err(ms(pause)));
        }
    }

    proptest! {
        /// Whatever happens, somebody may ask again after the longest pause, and two answers later it is closed.
        #[test]
        fn it_never_stays_open(steps in proptest::collection::vec((0_u8..3, 0_u64..3_000), 0..60)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(RULES);
            let mut permits = Vec::new();
            for (what, millis) in steps {
                now += ms(millis);
                match what {
                    0 => permits.extend(breaker.admit(now).ok()),
                    1 => { permits.pop().map(|permit| breaker.succeeded(permit)); }
                    _ => { permits.pop().map(|permit| breaker.failed(permit, now, 0.0)); }
                }
            }
            now += RULES.longest;
            let probe = breaker.admit(now);
            prop_assert!(probe.is_ok());
            if let Ok(probe) = probe {
                breaker.succeeded(probe);
            }
            prop_assert!(breaker.is_closed());
        }
    }
}
