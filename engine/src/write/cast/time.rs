//! Dates and instants from one type to another, to the microsecond.

use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{Date32Type, TimeUnit};
use chrono::{DateTime, FixedOffset, Offset, Utc};

use super::Flaw;

const OUT_OF_RANGE: Flaw = "out of range";
const TOO_FINE: Flaw = "finer than a microsecond";
const TIME_OF_DAY: Flaw = "its time of day would be lost";
const NOT_A_DATE: Flaw = "not a date";
const NOT_A_TIMESTAMP: Flaw = "not a timestamp";
const OFFSET: Flaw = "its UTC offset would be lost";

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;

pub(super) fn micros(value: i64, unit: TimeUnit) -> Result<i64, Flaw> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000).ok_or(OUT_OF_RANGE),
        TimeUnit::Millisecond => value.checked_mul(1_000).ok_or(OUT_OF_RANGE),
        TimeUnit::Microsecond => Ok(value),
        TimeUnit::Nanosecond if value % 1_000 == 0 => Ok(value / 1_000),
        TimeUnit::Nanosecond => Err(TOO_FINE),
    }
}

/// Start of a day, counted from the epoch, in microseconds.
pub(super) fn midnight(day: i32) -> Result<i64, Flaw> {
    i64::from(day)
        .checked_mul(MICROS_PER_DAY)
        .ok_or(OUT_OF_RANGE)
}

/// The day of a value that has no time of day, `per_day` units making a day.
pub(super) fn day(value: i64, per_day: i64) -> Result<i32, Flaw> {
    if value % per_day != 0 {
        return Err(TIME_OF_DAY);
    }
    i32::try_from(value / per_day).map_err(|_| OUT_OF_RANGE)
}

pub(super) fn parse_day(text: &str) -> Result<i32, Flaw> {
    let text = text.trim();
    // Longer texts carry a time, which Arrow would drop; a sign begins a year beyond 9999.
    if text.len() <= 10 || text.starts_with(['+', '-']) {
        return Date32Type::parse(text).ok_or(NOT_A_DATE);
    }
    let instant = parse_local(text).map_err(|flaw| match flaw {
        NOT_A_TIMESTAMP => NOT_A_DATE,
        other => other,
    })?;
    day(instant, MICROS_PER_DAY)
}

/// A text with offset is that instant; one without is local to `zone`.
pub(super) fn parse_instant(text: &str, zone: FixedOffset) -> Result<i64, Flaw> {
    Ok(parse(text, zone)?.timestamp_micros())
}

/// A text without offset.
pub(super) fn parse_local(text: &str) -> Result<i64, Flaw> {
    let here = parse(text, utc())?;
    // The same instant read in another zone: the text itself named one.
    let east = FixedOffset::east_opt(3_600).ok_or(NOT_A_TIMESTAMP)?;
    if text.trim().len() > 10 && parse(text, east)? == here {
        return Err(OFFSET);
    }
    Ok(here.timestamp_micros())
}

/// The zone of texts that name none.
pub(super) fn utc() -> FixedOffset {
    Utc.fix()
}

fn parse(text: &str, zone: FixedOffset) -> Result<DateTime<FixedOffset>, Flaw> {
    let text = text.trim();
    let instant = string_to_datetime(&zone, text).map_err(|_| NOT_A_TIMESTAMP)?;
    // Arrow drops digits beyond the ninth, so the text itself is asked.
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    if digits.skip(6).any(|digit| digit != b'0') {
        return Err(TOO_FINE);
    }
    Ok(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_dates_keep_their_time_or_are_refused() {
        assert_eq!(parse_day("1970-01-02"), Ok(1));
        assert_eq!(parse_day(" 1970-01-02 00:00:00 "), Ok(1));
        assert_eq!(parse_day("1970-01-02T10:00:00"), Err(TIME_OF_DAY));
        assert_eq!(parse_day("1970-01-02T00:00:00Z"), Err(OFFSET));
        for bad in [
            "",
            "1970",
            "1970-13-01",
            "2023-02-29",
            "yesterday, perhaps",
            "é970-01-0é",
        ] {
            assert_eq!(parse_day(bad), Err(NOT_A_DATE), "{bad:?}");
        }
    }

    #[test]
    fn texts_of_instants_keep_zone_and_fraction_or_are_refused() {
        assert_eq!(parse_instant("1970-01-01 01:00:00+01:00", utc()), Ok(0));
        assert_eq!(
            parse_instant("1970-01-01 01:00:00", utc()),
            Ok(3_600_000_000)
        );
        assert_eq!(parse_instant("1970-01-01", utc()), Ok(0));
        assert_eq!(parse_local("1970-01-01 00:00:00.000001000"), Ok(1));
        assert_eq!(parse_local("1970-01-01 00:00:00.0000011"), Err(TOO_FINE));
        assert_eq!(parse_local("1970-01-01 00:00:00.0000010001"), Err(TOO_FINE));
        assert_eq!(
            parse_local("1970-01-01 00:00:00.0000010000001"),
            Err(TOO_FINE)
        );
        assert_eq!(parse_local("1970-01-01 00:00:00Z"), Err(OFFSET));
        assert_eq!(parse_local("1970-01-01 00:00:00 +02:00"), Err(OFFSET));
        assert_eq!(parse_local("noon"), Err(NOT_A_TIMESTAMP));
        assert_eq!(parse_local("1970-01-01 25:00:00"), Err(NOT_A_TIMESTAMP));
    }

    #[test]
    fn units_are_exact() {
        assert_eq!(micros(-1_000, TimeUnit::Nanosecond), Ok(-1));
        assert_eq!(micros(1_001, TimeUnit::Nanosecond), Err(TOO_FINE));
        assert_eq!(micros(i64::MAX, TimeUnit::Second), Err(OUT_OF_RANGE));
        assert_eq!(midnight(i32::MAX), Err(OUT_OF_RANGE));
        assert_eq!(day(-MICROS_PER_DAY, MICROS_PER_DAY), Ok(-1));
    }
}
