//! Parts of JSON text as they are written, so that numbers keep every digit and nothing is copied.
//!
//! Text is checked once by [`check`]; everything else here relies on that.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// Why a text is not what it should be, as a phrase that follows its name.
pub type Flaw = String;

/// Name and value of a member of an object.
pub type Member<'a> = (Cow<'a, str>, &'a str);

/// Refuses text that is no JSON.
///
/// # Errors
/// Says where it ends to be JSON.
pub fn check(text: &str) -> Result<(), Flaw> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// Name and value of each member of an object, in order; None for any other value.
///
/// # Errors
/// When a name is no text in Unicode.
pub fn members(value: &str) -> Result<Option<Vec<Member<'_>>>, Flaw> {
    let Some(parts) = parts(value, b'{') else {
        return Ok(None);
    };
    let mut members = Vec::with_capacity(parts.len());
    for part in parts {
        let end = end_of_value(part.as_bytes(), 0);
        let name = text(slice(part, 0, end))?.ok_or("has a member without a name")?;
        let value = slice(part, end, part.len());
        let value = value.trim_start().strip_prefix(':').unwrap_or(value);
        members.push((name, value.trim()));
    }
    Ok(Some(members))
}

/// The elements of an array; None for any other value.
pub fn elements(value: &str) -> Option<Vec<&str>> {
    parts(value, b'[')
}

/// The value of a text without its quotes; None for any other value.
///
/// # Errors
/// When an escape stands for no character.
pub fn text(value: &str) -> Result<Option<Cow<'_, str>>, Flaw> {
    let value = value.trim();
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return Ok(None);
    };
    if !inner.contains('\\') {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    match serde_json::from_str::<String>(value) {
        Ok(text) => Ok(Some(Cow::Owned(text))),
        Err(error) => Err(format!("is not text in Unicode: {error}")),
    }
}

/// The value, unless it is null.
pub fn present(value: &str) -> Option<&str> {
    Some(value.trim()).filter(|value| *value != "null")
}

/// A whole number; None for null.
///
/// # Errors
/// When it is anything else.
pub fn integer(value: &str) -> Result<Option<i64>, Flaw> {
    match present(value) {
        None => Ok(None),
        Some(digits) => match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("is {}, not a whole number", kind(digits))),
        },
    }
}

/// What a value is, for people.
pub fn kind(value: &str) -> &'static str {
    match value.trim().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        Some(_) => "a number",
        None => "empty",
    }
}

/// What stands between the commas of an array or object.
fn parts(value: &str, opening: u8) -> Option<Vec<&str>> {
    let value = value.trim();
    let bytes = value.as_bytes();
    if bytes.first() != Some(&opening) {
        return None;
    }
    let inside = bytes.len().saturating_sub(1);
    let (mut parts, mut start, mut at) = (Vec::new(), 1, 1);
    while at < inside {
        match bytes.get(at) {
            Some(b',') => {
                parts.push(slice(value, start, at).trim());
                at += 1;
                start = at;
            }
            Some(b'"' | b'{' | b'[') => at = end_of_value(bytes, at),
            _ => at += 1,
        }
    }
    let last = slice(value, start, inside).trim();
    if !last.is_empty() {
        parts.push(last);
    }
    Some(parts)
}

/// Behind the text, object or array that begins at `at`.
fn end_of_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_text(bytes, at + 1),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_text(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// Cut points are quotes, brackets and commas, which are characters by themselves.
fn slice(text: &str, from: usize, to: usize) -> &str {
    text.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_stands_there() {
        let value =
            r#" { "a" : 1.50 , "b,\"}" : {"x": [1, "]"]} , "é\u00e9": "ü\n" , "n":null,"e":[] } "#;
        check(value).unwrap();
        let members = members(value).unwrap().unwrap();
        let members: Vec<(&str, &str)> = members
            .iter()
            .map(|(name, value)| (name.as_ref(), *value))
            .collect();
        assert_eq!(
            members,
            [
                ("a", "1.50"),
                ("b,\"}", r#"{"x": [1, "]"]}"#),
                ("éé", r#""ü\n""#),
                ("n", "null"),
                ("e", "[]"),
            ]
        );
        assert_eq!(text(members[2].1).unwrap().unwrap(), "ü\n");
        assert_eq!(text("12").unwrap(), None);
        assert_eq!(present(members[3].1), None);
        let list = r#"[1, {"a": [2, 3]}, "x,y", []]"#;
        let expected = vec!["1", r#"{"a": [2, 3]}"#, r#""x,y""#, "[]"];
        assert_eq!(elements(list), Some(expected));
        assert_eq!(elements("[ ]"), Some(vec![]));
        assert_eq!(super::members("{}").unwrap(), Some(vec![]));
        assert_eq!(super::members("[1]").unwrap(), None);
        assert_eq!(elements("{}"), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in ["", "{", r#"{"a" 1}"#, "{} {}", "01", "[1,]"] {
            assert!(
                check(bad).unwrap_err().starts_with("is not JSON: "),
                "{bad}"
            );
        }
        assert_eq!(integer("-12"), Ok(Some(-12)));
        assert_eq!(integer(" null"), Ok(None));
        let flaw = integer("1.5").unwrap_err();
        assert_eq!(flaw, "is a number, not a whole number");
        assert!(text(r#""\ud800""#).unwrap_err().contains("not text"));
    }
}
