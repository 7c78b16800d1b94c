//! Numbers from one type to another without changing their value.
//!
//! A float without fraction is that integer. One with a fraction stands for the shortest decimal text
//! that names it, as it is written and printed: so `1.1` as DOUBLE fits DECIMAL(2,1) and REAL,
//! although no binary float is exactly one tenth.

use super::Flaw;

/// A number as its source type holds it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number<'a> {
    /// `digits / 10^scale`: integers and decimals.
    Exact(i128, i32),
    Single(f32),
    Double(f64),
    Text(&'a str),
}

const OUT_OF_RANGE: Flaw = "out of range";
const LOST_DIGITS: Flaw = "digits after the point would be lost";
const ROUNDED: Flaw = "would be rounded";
const NOT_A_NUMBER: Flaw = "not a number";

/// Every integer of this magnitude or less, over any power of ten a double holds exactly, survives a
/// trip through a double: fifteen digits always do.
const SAFE_DIGITS: u128 = 1_000_000_000_000_000;
/// The largest power of ten that is exactly a double.
const EXACT_POWER: i32 = 22;

pub(super) fn integer<T: TryFrom<i128>>(number: Number<'_>) -> Result<T, Flaw> {
    let whole = match number {
        Number::Exact(digits, scale) => rescale(digits, scale, 0)?,
        Number::Single(value) => whole(f64::from(value))?,
        Number::Double(value) => whole(value)?,
        Number::Text(text) => {
            let (digits, scale) = parse(text)?;
            rescale(digits, scale, 0)?
        }
    };
    T::try_from(whole).map_err(|_| OUT_OF_RANGE)
}

pub(super) fn decimal(number: Number<'_>, precision: u8, scale: i8) -> Result<i128, Flaw> {
    let to = i32::from(scale);
    let digits = match number {
        Number::Exact(digits, scale) => rescale(digits, scale, to)?,
        Number::Single(value) => spelled(f64::from(value), value, to)?,
        Number::Double(value) => match scaled(value, to) {
            Some(digits) => digits?,
            None => spelled(value, value, to)?,
        },
        Number::Text(text) => {
            let (digits, scale) = parse(text)?;
            rescale(digits, scale, to)?
        }
    };
    match power(i32::from(precision)) {
        Some(limit) if digits.unsigned_abs() < limit.unsigned_abs() => Ok(digits),
        _ => Err(OUT_OF_RANGE),
    }
}

pub(super) fn double(number: Number<'_>) -> Result<f64, Flaw> {
    match number {
        Number::Exact(digits, 0) => {
            let value = digits as f64;
            (value as i128 == digits).then_some(value).ok_or(ROUNDED)
        }
        Number::Exact(digits, scale)
            if digits.unsigned_abs() < SAFE_DIGITS && (1..=EXACT_POWER).contains(&scale) =>
        {
            // One division of two exact doubles is correctly rounded.
            Ok(digits as f64 / power(scale).unwrap_or(1) as f64)
        }
        Number::Exact(digits, scale) => {
            let value: f64 = nearest(digits, scale)?;
            let back = spelled(value, value, scale);
            (back == Ok(digits)).then_some(value).ok_or(ROUNDED)
        }
        Number::Single(value) => Ok(f64::from(value)),
        Number::Double(value) => Ok(value),
        Number::Text(text) => match plain_integer(text) {
            Some(digits) => double(Number::Exact(digits, 0)),
            None => float_text(text, f64::is_infinite),
        },
    }
}

pub(super) fn single(number: Number<'_>) -> Result<f32, Flaw> {
    match number {
        Number::Exact(digits, 0) => {
            let value = digits as f32;
            (value as i128 == digits).then_some(value).ok_or(ROUNDED)
        }
        Number::Exact(digits, scale) => {
            let value: f32 = nearest(digits, scale)?;
            let back = spelled(f64::from(value), value, scale);
            (back == Ok(digits)).then_some(value).ok_or(ROUNDED)
        }
        Number::Single(value) => Ok(value),
        Number::Double(value) => {
            let near = value as f32;
            if f64::from(near) == value || value.is_nan() {
                return Ok(near);
            }
            if near.is_infinite() {
                return Err(OUT_OF_RANGE);
            }
            let same_text = value.fract() != 0.0 && near.to_string().parse() == Ok(value);
            same_text.then_some(near).ok_or(ROUNDED)
        }
        Number::Text(text) => match plain_integer(text) {
            Some(digits) => single(Number::Exact(digits, 0)),
            None => float_text(text, f32::is_infinite),
        },
    }
}

/// The value of a decimal of any width as 128 bits at `scale`, if it has no more digits than that.
pub(super) fn narrow(digits: arrow::datatypes::i256, scale: i32) -> Result<(i128, i32), Flaw> {
    let ten = arrow::datatypes::i256::from(10);
    let (mut digits, mut scale) = (digits, scale);
    loop {
        if let Some(small) = digits.to_i128() {
            return Ok((small, scale));
        }
        if digits.checked_rem(ten) != Some(arrow::datatypes::i256::ZERO) {
            return Err(OUT_OF_RANGE);
        }
        digits = digits.checked_div(ten).ok_or(OUT_OF_RANGE)?;
        scale -= 1;
    }
}

/// `10^exponent`, for exponents that 128 bits hold.
fn power(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

fn rescale(digits: i128, from: i32, to: i32) -> Result<i128, Flaw> {
    if from == to || digits == 0 {
        return Ok(digits);
    }
    if to > from {
        let factor = power(to.saturating_sub(from)).ok_or(OUT_OF_RANGE)?;
        return digits.checked_mul(factor).ok_or(OUT_OF_RANGE);
    }
    match power(from.saturating_sub(to)) {
        Some(factor) if digits % factor == 0 => Ok(digits / factor),
        _ => Err(LOST_DIGITS),
    }
}

/// A float without fraction. Beyond 128 bits it saturates, which every target's range check refuses.
fn whole(value: f64) -> Result<i128, Flaw> {
    if !value.is_finite() {
        return Err(OUT_OF_RANGE);
    }
    if value.fract() != 0.0 {
        return Err(LOST_DIGITS);
    }
    Ok(value as i128)
}

/// `value * 10^scale` where plain arithmetic decides it: with few enough digits the rounded product
/// is the only candidate, and dividing it back rounds correctly.
fn scaled(value: f64, scale: i32) -> Option<Result<i128, Flaw>> {
    if !(0..=EXACT_POWER).contains(&scale) {
        return None;
    }
    let factor = power(scale)? as f64;
    let digits = (value * factor).round();
    // NaN fails this test too and goes the slow way.
    (digits.abs() < SAFE_DIGITS as f64).then(|| {
        if digits / factor == value {
            Ok(digits as i128)
        } else {
            Err(LOST_DIGITS)
        }
    })
}

/// The digits at `scale` of a float, widened to `value` and printed by `text`.
fn spelled(value: f64, text: impl ToString, scale: i32) -> Result<i128, Flaw> {
    if !value.is_finite() || value.fract() == 0.0 {
        return rescale(whole(value)?, 0, scale);
    }
    let (digits, from) = parse(&text.to_string())?;
    rescale(digits, from, scale)
}

fn nearest<F: std::str::FromStr>(digits: i128, scale: i32) -> Result<F, Flaw> {
    format!("{digits}e{}", -scale)
        .parse()
        .map_err(|_| OUT_OF_RANGE)
}

fn plain_integer(text: &str) -> Option<i128> {
    text.trim().parse().ok()
}

fn float_text<F: std::str::FromStr + Copy>(
    text: &str,
    infinite: impl Fn(F) -> bool,
) -> Result<F, Flaw> {
    let text = text.trim();
    let value = text.parse().map_err(|_| NOT_A_NUMBER)?;
    if infinite(value) && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(OUT_OF_RANGE);
    }
    Ok(value)
}

/// `[+-] digits [. digits] [e [+-] digits]`, blanks around it allowed, as digits and scale.
fn parse(text: &str) -> Result<(i128, i32), Flaw> {
    let text = text.trim();
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if before.len() + after.len() == 0 || !digits_only(before) || !digits_only(after) {
        return Err(NOT_A_NUMBER);
    }
    let exponent: i32 = match exponent {
        None => 0,
        Some(exponent) => {
            if !digits_only(exponent.trim_start_matches(['+', '-'])) {
                return Err(NOT_A_NUMBER);
            }
            exponent
                .parse()
                .map_err(|error: std::num::ParseIntError| match error.kind() {
                    std::num::IntErrorKind::PosOverflow => OUT_OF_RANGE,
                    std::num::IntErrorKind::NegOverflow => LOST_DIGITS,
                    _ => NOT_A_NUMBER,
                })?
        }
    };
    let after = after.trim_end_matches('0');
    let add = |digits: i128, byte: u8| {
        let digit = i128::from(byte - b'0');
        digits
            .checked_mul(10)?
            .checked_add(if negative { -digit } else { digit })
    };
    let digits = before.bytes().try_fold(0, add).ok_or(OUT_OF_RANGE)?;
    let digits = after.bytes().try_fold(digits, add).ok_or(LOST_DIGITS)?;
    let places = i32::try_from(after.len()).map_err(|_| LOST_DIGITS)?;
    Ok((digits, places.saturating_sub(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_exactly() {
        assert_eq!(parse("1.50"), Ok((15, 1)));
        assert_eq!(parse(" -0.0010 "), Ok((-1, 3)));
        assert_eq!(parse("12e2"), Ok((12, -2)));
        assert_eq!(parse("1.5E-3"), Ok((15, 4)));
        for bad in [
            "", " ", ".", "-", "1.2.3", "1e", "e1", "1e+-2", "0x10", "1_0", "١",
        ] {
            assert_eq!(parse(bad), Err(NOT_A_NUMBER), "{bad:?}");
        }
        assert_eq!(parse(&"9".repeat(40)), Err(OUT_OF_RANGE));
        assert_eq!(parse(&format!("1.{}", "0".repeat(60))), Ok((1, 0)));
        assert_eq!(parse("1e99999999999"), Err(OUT_OF_RANGE));
        assert_eq!(decimal(Number::Text("0e999999"), 5, 2), Ok(0));
    }

    #[test]
    fn every_double_with_few_digits_is_its_decimal() {
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let digits = (seed >> 16) as i64 % 1_000_000_000_000_000;
            let scale = (seed % 12) as i8;
            let value = double(Number::Exact(digits.into(), scale.into())).unwrap();
            assert_eq!(
                decimal(Number::Double(value), 38, scale),
                Ok(digits.into()),
                "{digits} / 10^{scale}"
            );
            // The arithmetic short cut agrees with the definition by text.
            assert_eq!(
                spelled(value, value, scale.into()),
                Ok(digits.into()),
                "{value}"
            );
        }
    }

    #[test]
    fn the_short_cut_refuses_what_the_text_refuses() {
        let mut seed = 11_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let value = f64::from_bits((seed & 0x000f_ffff_ffff_ffff) | (1010 + seed % 40) << 52);
            let scale = (seed >> 60) as i32;
            if let Some(short_cut) = scaled(value, scale) {
                assert_eq!(short_cut.ok(), spelled(value, value, scale).ok(), "{value}");
            }
        }
    }

    #[test]
    fn integers_that_floats_cannot_hold_are_refused() {
        assert_eq!(double(Number::Exact(1 << 53, 0)), Ok(9007199254740992.0));
        assert_eq!(double(Number::Exact((1 << 53) + 1, 0)), Err(ROUNDED));
        assert_eq!(double(Number::Exact(i64::MAX.into(), 0)), Err(ROUNDED));
        assert_eq!(single(Number::Exact(16_777_217, 0)), Err(ROUNDED));
        assert_eq!(double(Number::Text("9007199254740993")), Err(ROUNDED));
        assert_eq!(double(Number::Text("1e400")), Err(OUT_OF_RANGE));
        assert_eq!(double(Number::Text("-Infinity")), Ok(f64::NEG_INFINITY));
    }

    #[test]
    fn floats_stand_for_their_shortest_text() {
        assert_eq!(single(Number::Double(1.1)), Ok(1.1));
        assert_eq!(single(Number::Double(0.123456789012)), Err(ROUNDED));
        assert_eq!(single(Number::Double(199_468_140.0)), Err(ROUNDED));
        assert_eq!(single(Number::Double(1e300)), Err(OUT_OF_RANGE));
        assert_eq!(decimal(Number::Single(1.1), 2, 1), Ok(11));
        // Printed as 57965070, the shortest text that names it, but it is not that integer.
        assert_eq!(decimal(Number::Single(57_965_072.0), 9, 0), Ok(57_965_072));
        assert_eq!(single(Number::Exact(579_650_720, 1)), Ok(57_965_072.0));
        assert_eq!(decimal(Number::Double(1.005), 12, 2), Err(LOST_DIGITS));
        assert_eq!(decimal(Number::Double(f64::NAN), 12, 2), Err(OUT_OF_RANGE));
        assert_eq!(
            double(Number::Exact(100_000_000_000_000_001, 18)),
            Err(ROUNDED)
        );
        assert_eq!(integer::<i32>(Number::Double(-0.0)), Ok(0));
        assert_eq!(integer::<i64>(Number::Double(1e300)), Err(OUT_OF_RANGE));
    }
}
