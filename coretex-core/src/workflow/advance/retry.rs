//! When an attempt is followed by another (docs/spec/workflows.md §5).

use std::time::Duration;

use super::{Place, Unit, Work};
use crate::workflow::model::{Backoff, Retry, StepKind};
use crate::workflow::run::{Failure, StepStatus};

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What kind of end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The worker failed.
    Failed,
    /// It took too long.
    Timeout,
    /// Policy or people said no.
    Denied,
    /// The same again will come to the same: only if the code is listed.
    Final,
}

impl Class {
    /// Its name in `retry.on`, and its code where the worker gave none.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Failed | Self::Final => "failed",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
        }
    }
}

impl<'a> Work<'a> {
    /// How long to wait before another attempt; `None` if there is none.
    pub(super) fn retry_after(&self, unit: &Unit<'a>, class: Class, why: &Failure) -> Option<Duration> {
        let retry = unit.spec.step.retry.as_ref()?;
        if !matches!(unit.spec.kind, StepKind::Job | StepKind::Subworkflow) || why.code == "cancelled" {
            return None;
        }
        let attempts = self.record(unit.key.as_str()).map_or(0, |record| record.attempts);
        if i64::from(attempts) > retry.max_retries || !worth_it(retry, class, &why.code) {
            return None;
        }
        let seed = format!("{}:{}@{attempts}", self.run.id, unit.key);
        Some(pause(retry, attempts.max(1), &seed))
    }

    pub(super) fn schedule_retry(&mut self, unit: &Unit<'a>, pause: Duration, why: Failure) {
        let now = self.now;
        let message = why.message.clone();
        self.put(&unit.key, |record| {
            // What failed before a job was made counts as well, or it would be tried for ever.
            record.attempts = record.attempts.max(1);
            record.status = StepStatus::Pending;
            record.next_attempt_at = Some(now.plus(pause));
            record.expires_at = None;
            record.error = Some(why);
        });
        let attempt = self.record(unit.key.as_str()).map_or(1, |record| record.attempts + 1);
        let entry = self.told_of(&unit.key, "step_retry_scheduled");
        entry.status = StepStatus::Pending.as_str().to_owned();
        entry.message = message;
        entry.data.insert(
            "delay_ms".to_owned(),
            u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).into(),
        );
        entry.data.insert("attempt".to_owned(), attempt.into());
        if let Place::Child(_) = unit.place {
            self.child_pauses(unit.top);
        }
    }
}

/// Whether another attempt may help.
fn worth_it(retry: &Retry, class: Class, code: &str) -> bool {
    let listed = |list: &[String]| {
        list.iter()
            .any(|entry| entry == code || (class != Class::Final && entry == class.word()))
    };
    if retry.max_retries <= 0 || listed(&retry.non_retryable) {
        return false;
    }
    match class {
        Class::Failed | Class::Timeout => retry.on.is_empty() || listed(&retry.on),
        Class::Denied | Class::Final => listed(&retry.on),
    }
}

/// The pause after an attempt, counted from 1.
pub(super) fn pause(retry: &Retry, attempt: u32, seed: &str) -> Duration {
    #[allow(clippy::cast_precision_loss, reason = "a pause of 2^53 ms is cut to a day")]
    let millis = |ms: i64, sec: i64| match (ms, sec) {
        (ms, _) if ms > 0 => Some(ms as f64),
        (_, sec) if sec > 0 => Some(sec as f64 * 1_000.0),
        _ => None,
    };
    let longest = LONGEST.as_secs_f64() * 1_000.0;
    let initial = millis(retry.initial_backoff_ms, retry.initial_backoff_sec).unwrap_or(1_000.0);
    let most = millis(retry.max_backoff_ms, retry.max_backoff_sec).unwrap_or(longest);
    let multiplier = if retry.multiplier > 1.0 { retry.multiplier } else { 2.0 };
    let grown = match retry.backoff {
        Backoff::Constant => initial,
        Backoff::Exponential => initial * multiplier.powf(f64::from(attempt.saturating_sub(1))),
    };
    let mut pause = grown.min(most).min(longest);
    if retry.initial_backoff_ms <= 0 && retry.max_backoff_ms <= 0 {
        pause = (pause / 1_000.0).floor() * 1_000.0;
    }
    if retry.jitter > 0.0 {
        pause -= pause * retry.jitter.min(1.0) * fraction(seed);
    }
    Duration::from_secs_f64((pause / 1_000.0).max(0.0))
}

/// A number from 0 to below 1 that looks random and is always the same for the same text.
#[allow(clippy::cast_precision_loss, reason = "53 bits are kept")]
fn fraction(text: &str) -> f64 {
    // FNV-1a, then mixed: neighbouring attempts differ in their last digit only.
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
