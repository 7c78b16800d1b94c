//! Numbers as people read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `1,234 rows`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

/// A size in units of a thousand, as disks and object stores are sold: `35.1 KB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return count(number, "byte");
    }
    let mut size = number as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0.
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `12 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 999, 1000, 1234567, u64::MAX].map(thousands);
        assert_eq!(
            grouped,
            [
                "0",
                "999",
                "1,000",
                "1,234,567",
                "18,446,744,073,709,551,615"
            ]
        );
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(0, "row"), "0 rows");
    }

    #[test]
    fn sizes_have_one_unit() {
        let sizes = [1, 999, 1000, 35_140, 999_999, 1_500_000_000, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            [
                "1 byte",
                "999 bytes",
                "1.0 KB",
                "35.1 KB",
                "1.0 MB",
                "1.5 GB",
                "18.4 EB"
            ]
        );
    }

    #[test]
    fn times_have_two_digits_or_so() {
        let times = [12, 3400, 125_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(times, ["12 ms", "3.4 s", "2 min 5 s"]);
    }
}
