//! Decimals as `decimal.handling.mode = precise` writes them: the digits as a whole number in bytes, and how many of
//! them stand behind the point. Numbers of any length are read, digit by digit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_udfs::debezium::json;

use super::cells::Kind;
use super::schema::Hint;
use crate::error::{Error, Result};

/// No database keeps more digits behind the point, or leaves out more before it.
const MAX_SCALE: u32 = 1 << 17;
/// No database keeps longer numbers, and the time that one takes grows with the square of its length.
const MAX_BYTES: usize = 1 << 16;
/// Digits that fit a limb.
const LIMB_DIGITS: usize = 9;
const LIMB: u64 = 1_000_000_000;

/// The bytes of a decimal and its scale, if the value is one in bytes: the schema says so, or the value tells its scale
/// itself.
pub(super) fn in_bytes(
    kind: &Kind,
    hint: Option<Hint>,
    value: &str,
) -> Result<Option<(Vec<u8>, i32)>> {
    let (text, scale) = match hint {
        // The converter may write numbers all the same.
        Some(Hint::Decimal(scale)) if value.starts_with('"') => (value, scale),
        Some(Hint::ScaledDecimal) | None
            if value.starts_with('{') && (hint.is_some() || matches!(kind, Kind::Number)) =>
        {
            match scaled(value)? {
                Some(scaled) => scaled,
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let text = json::text(text).map_err(Error::rejected)?;
    let bytes = text.and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    let bytes = bytes
        .ok_or_else(|| Error::rejected("is a decimal whose bytes are not written in base64"))?;
    Ok(Some((bytes, scale)))
}

/// The value and the scale of an object that has just these.
fn scaled(object: &str) -> Result<Option<(&str, i32)>> {
    let members = json::members(object).map_err(Error::rejected)?;
    let (mut value, mut scale) = (None, None);
    for (name, part) in members.unwrap_or_default() {
        let given = match name.as_ref() {
            "value" => value.replace(part),
            "scale" => scale.replace(part),
            _ => return Ok(None),
        };
        if given.is_some() {
            return Ok(None);
        }
    }
    let scale = scale.and_then(|scale| scale.parse().ok());
    Ok(value.zip(scale))
}

/// The number that these bytes, a whole number with the greatest byte first and a sign, stand for at this scale.
pub(super) fn spelled(bytes: &[u8], scale: i32) -> Result<String> {
    if bytes.is_empty() {
        return Err(Error::rejected("is a decimal without a byte"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(Error::rejected(format!(
            "is a decimal of {} bytes, and the longest is {MAX_BYTES}",
            bytes.len()
        )));
    }
    if scale.unsigned_abs() > MAX_SCALE {
        return Err(Error::rejected(format!(
            "is a decimal with the scale {scale}, and the greatest is {MAX_SCALE}"
        )));
    }
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut digits = match negative {
        true => digits(&negated(bytes)),
        false => digits(bytes),
    };
    let behind = scale.unsigned_abs() as usize;
    if scale < 0 && digits != "0" {
        digits.push_str(&"0".repeat(behind));
    }
    if scale > 0 {
        let missing = (behind + 1).saturating_sub(digits.len());
        digits.insert_str(0, &"0".repeat(missing));
        digits.insert(digits.len() - behind, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    Ok(digits)
}

/// The size of a number below zero.
fn negated(bytes: &[u8]) -> Vec<u8> {
    let mut carry = true;
    let mut size: Vec<u8> = bytes
        .iter()
        .rev()
        .map(|byte| {
            let (byte, over) = (!byte).overflowing_add(u8::from(carry));
            carry = over;
            byte
        })
        .collect();
    size.reverse();
    size
}

/// The decimal digits of a number without a sign.
fn digits(bytes: &[u8]) -> String {
    // Limbs of nine digits, the least first: each byte makes the number 256 times as great.
    let mut limbs: Vec<u64> = Vec::new();
    for byte in bytes {
        let mut carry = u64::from(*byte);
        for limb in &mut limbs {
            let now = *limb * 256 + carry;
            (*limb, carry) = (now % LIMB, now / LIMB);
        }
        if carry > 0 {
            limbs.push(carry);
        }
    }
    let mut limbs = limbs.iter().rev();
    let mut digits = limbs.next().map_or("0".to_owned(), u64::to_string);
    for limb in limbs {
        digits.push_str(&format!("{limb:0LIMB_DIGITS$}"));
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for (bytes, scale, expected) in [
            (&[0x01, 0x96][..], 2, "4.06"),
            (&[0x00], 2, "0.00"),
            (&[0x00], -3, "0"),
            (&[0x07], 0, "7"),
            (&[0x07], -3, "7000"),
            (&[0x07], 3, "0.007"),
            (&[0xff], 1, "-0.1"),
            (&[0x80], 0, "-128"),
            (&[0x00, 0x80], 0, "128"),
            (&[0x80, 0x00], 2, "-327.68"),
            // Ten to the power of 18, and one more than i64 holds.
            (
                &[0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0x00, 0x00],
                0,
                "1000000000000000000",
            ),
            (
                &[0x00, 0x80, 0, 0, 0, 0, 0, 0, 0],
                4,
                "922337203685477.5808",
            ),
        ] {
            assert_eq!(spelled(bytes, scale).unwrap(), expected, "{bytes:?}");
        }
        // 256 to the power of 20.
        let mut long = vec![0_u8; 21];
        long[0] = 1;
        assert_eq!(
            spelled(&long, 0).unwrap(),
            "1461501637330902918203684832716283019655932542976"
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert!(spelled(&[], 0).is_err());
        let error = spelled(&[1], i32::MIN).unwrap_err();
        assert!(error.message().contains("scale -2147483648"), "{error}");
        let error = spelled(&[1_u8].repeat(MAX_BYTES + 1), 0).unwrap_err();
        assert!(error.message().contains("of 65537 bytes"), "{error}");
    }
}
