//! How long a table keeps what only its past needs: removed files, commits, quarantined rows.

use super::snapshot::Snapshot;
use crate::error::{Error, Result};

/// Table property: how long removed files stay readable.
pub(crate) const DELETED_FILES: &str = "delta.deletedFileRetentionDuration";
/// Table property: how long commits stay in the log.
pub(crate) const LOG: &str = "delta.logRetentionDuration";
/// Table property: whether older commits are deleted at all.
pub(crate) const LOG_CLEANUP: &str = "delta.enableExpiredLogCleanup";
/// Table property: how long quarantined rows stay readable, and what is told of refused writes.
pub(crate) const QUARANTINE: &str = "selvedge.quarantineRetention";

pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Removed files stay this long where the table does not say: longer than any query runs.
pub(crate) const DELETED_FILES_DEFAULT_MS: i64 = 7 * DAY_MS;
const LOG_DEFAULT_MS: i64 = 30 * DAY_MS;
const QUARANTINE_DEFAULT_MS: i64 = 90 * DAY_MS;

/// Milliseconds for which removed files must stay.
pub(crate) fn deleted_files_ms(snapshot: &Snapshot) -> Result<i64> {
    duration(snapshot, DELETED_FILES, DELETED_FILES_DEFAULT_MS)
}

/// Milliseconds for which commits must stay; `None` where all do.
pub(crate) fn log_ms(snapshot: &Snapshot) -> Result<Option<i64>> {
    match snapshot.property(LOG_CLEANUP) {
        Some(off) if !off.eq_ignore_ascii_case("true") => Ok(None),
        _ => duration(snapshot, LOG, LOG_DEFAULT_MS).map(Some),
    }
}

/// What was quarantined, or refused, until then is past its retention at `now_ms`.
pub(crate) fn quarantine_past_ms(snapshot: &Snapshot, now_ms: i64) -> Result<i64> {
    let keep_ms = duration(snapshot, QUARANTINE, QUARANTINE_DEFAULT_MS)?;
    Ok(now_ms.saturating_sub(keep_ms))
}

fn duration(snapshot: &Snapshot, key: &str, default_ms: i64) -> Result<i64> {
    let Some(text) = snapshot.property(key) else {
        return Ok(default_ms);
    };
    parse(text).ok_or_else(|| {
        Error::invalid(format!("table property {key} = '{text}' is not a duration"))
            .with_hint("write it like 'interval 7 days'")
    })
}

/// Milliseconds of an interval such as `interval 7 days` or `interval 1 week 12 hours`, as other
/// engines write it. Months have no fixed length and are no duration.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase().replace('\'', " ");
    let mut words = text.split_ascii_whitespace().peekable();
    words.next_if_eq(&"interval");
    words.peek()?;
    let mut total: i64 = 0;
    while let Some(number) = words.next() {
        let number = number.parse::<i64>().ok().filter(|number| *number >= 0)?;
        let unit = match words.next()?.trim_end_matches('s') {
            "week" => 7 * DAY_MS,
            "day" => DAY_MS,
            "hour" => HOUR_MS,
            "minute" => 60 * 1000,
            "second" => 1000,
            "millisecond" => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_other_engines_write_them() {
        for (text, hours) in [
            ("interval 7 days", 168),
            ("INTERVAL 1 WEEK", 168),
            ("7 days", 168),
            ("interval '1' day", 24),
            ("interval 1 week 2 days 3 hours", 219),
            ("interval 120 minutes", 2),
            ("interval 0 seconds", 0),
        ] {
            assert_eq!(parse(text), Some(hours * HOUR_MS), "{text}");
        }
        assert_eq!(parse("interval 1500 milliseconds"), Some(1500));
    }

    #[test]
    fn what_is_no_duration_is_told_apart() {
        for text in [
            "",
            "interval",
            "7",
            "interval 7",
            "interval days",
            "interval -1 days",
            "interval 1 month",
            "interval 1.5 days",
            "interval 7 days ago",
            "interval 99999999999999999 weeks",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
