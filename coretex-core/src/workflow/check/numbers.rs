//! Numbers and times in their range.

use super::Checker;
use crate::workflow::model::{Backoff, Retry};

/// Longer times than about a century are mistakes.
const MAX_SECONDS: i64 = 100 * 366 * 24 * 3_600;
/// Pauses between attempts are never longer.
const MAX_PAUSE_SECONDS: i64 = 24 * 3_600;
/// More attempts than this are mistakes.
const MAX_RETRIES: i64 = 10_000;

impl Checker<'_> {
    pub(super) fn seconds(&mut self, member: &str, value: i64) {
        self.range(member, value, MAX_SECONDS, "seconds");
    }

    pub(super) fn millis(&mut self, member: &str, value: i64) {
        self.range(member, value, MAX_SECONDS * 1_000, "milliseconds");
    }

    pub(super) fn count(&mut self, member: &str, value: i64, limit: i64) {
        self.range(member, value, limit, "at most");
    }

    fn range(&mut self, member: &str, value: i64, limit: i64, unit: &str) {
        if (0..=limit).contains(&value) {
            return;
        }
        let allowed = match unit {
            "at most" => format!("0 to {limit}"),
            unit => format!("0 to {limit} {unit}"),
        };
        self.error_at(
            member,
            "range",
            format!("{value} is out of range: {allowed} are allowed"),
        );
    }

    /// Two ways to say the same.
    pub(super) fn both(&mut self, wins: &str, value: i64, loses: &str, other: i64) {
        if value != 0 && other != 0 {
            self.warn_at(loses, "no_effect", format!("`{wins}` is set as well, and wins"));
        }
    }

    pub(super) fn retry(&mut self, retry: &Retry) {
        self.count("max_retries", retry.max_retries, MAX_RETRIES);
        self.seconds("initial_backoff_sec", retry.initial_backoff_sec);
        self.seconds("max_backoff_sec", retry.max_backoff_sec);
        self.millis("initial_backoff_ms", retry.initial_backoff_ms);
        self.millis("max_backoff_ms", retry.max_backoff_ms);
        let (initial, max) = (retry.initial_backoff_ms, retry.max_backoff_ms);
        self.both(
            "initial_backoff_ms",
            initial,
            "initial_backoff_sec",
            retry.initial_backoff_sec,
        );
        self.both("max_backoff_ms", max, "max_backoff_sec", retry.max_backoff_sec);

        let or_seconds = |millis: i64, seconds: i64| {
            if millis == 0 {
                seconds.saturating_mul(1_000)
            } else {
                millis
            }
        };
        let initial = or_seconds(initial, retry.initial_backoff_sec);
        let max = or_seconds(max, retry.max_backoff_sec);
        if max > 0 && initial > max {
            let message = format!("the first pause ({initial} ms) is longer than the longest ({max} ms)");
            self.error("retry", message);
        }
        if initial > MAX_PAUSE_SECONDS * 1_000 {
            self.warn_at(
                "initial_backoff_sec",
                "retry",
                "pauses are never longer than 24 hours".to_owned(),
            );
        }
        if !retry.multiplier.is_finite() || retry.multiplier < 0.0 {
            let message = format!("{} is no number that pauses can grow by", retry.multiplier);
            self.error_at("multiplier", "range", message);
        } else if retry.multiplier > 0.0 && retry.multiplier <= 1.0 {
            let message = "1 and less count as 2: use `backoff: constant` for pauses that do not grow".to_owned();
            self.warn_at("multiplier", "retry", message);
        }
        if retry.backoff == Backoff::Constant && retry.multiplier > 0.0 {
            self.error_at(
                "multiplier",
                "retry",
                "pauses do not grow with `backoff: constant`".to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&retry.jitter) {
            self.error_at(
                "jitter",
                "range",
                format!("{} is out of range: 0 to 1 are allowed", retry.jitter),
            );
        }
        for (member, codes) in [("on", &retry.on), ("non_retryable", &retry.non_retryable)] {
            if codes.iter().any(|code| code.trim().is_empty()) {
                self.error_at(member, "retry", "an error code is empty".to_owned());
            }
        }
        if let Some(code) = retry.on.iter().find(|code| retry.non_retryable.contains(code)) {
            let message = format!("`{}` is in `on` as well", code.escape_debug());
            self.error_at("non_retryable", "retry", message);
        }
        if retry.max_retries == 0 {
            self.warn_at(
                "max_retries",
                "no_effect",
                "nothing is tried again without `max_retries`".to_owned(),
            );
        }
    }
}
