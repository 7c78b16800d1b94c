//! Parts of URLs, by the names Trino gives them.
//!
//! A URL is split as RFC 3986 splits it and its parts are given as they are written. The `url` crate
//! would first make it a browser's address: a default port that was written is gone, a path is encoded
//! again, a reference without scheme (`/cart?id=7`, all an access log has) is an error, and each row
//! costs an allocation.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::scalar::{Call, Parameter, Takes, Told, pure, texts_of};

const URL: Parameter = (
    "url",
    Takes::Text,
    "the URL; NULL, and text that is no URL, give NULL",
);

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let text = |name, about, example, work| {
        let told = Told {
            name,
            parameters: &[URL],
            returns: DataType::Utf8,
            about,
            example,
        };
        pure(told, work)
    };
    vec![
        text(
            "url_extract_protocol",
            "Scheme of a URL in lower case; NULL when it has none.",
            "SELECT url_extract_protocol('HTTPS://example.com/a') -- https",
            |call| part(call, |url| Some(lower(url.scheme?))),
        ),
        text(
            "url_extract_host",
            "Host of a URL in lower case, an IPv6 address without its brackets; NULL when it has none.",
            "SELECT url_extract_host('https://me@Shop.Example.com:8443/a') -- shop.example.com",
            |call| part(call, |url| Some(lower(url.host?))),
        ),
        pure(
            Told {
                name: "url_extract_port",
                parameters: &[URL],
                returns: DataType::Int64,
                about: "Port that is written in a URL; NULL when none is.",
                example: "SELECT url_extract_port('https://example.com:8443/a') -- 8443",
            },
            |call| {
                let urls = call.texts(0)?;
                let ports = (0..call.rows)
                    .map(|row| urls.get(row).and_then(split)?.port.map(i64::from))
                    .collect::<Int64Array>();
                Ok(Arc::new(ports))
            },
        ),
        text(
            "url_extract_path",
            "Path of a URL as it is written; empty when it has none.",
            "SELECT url_extract_path('https://example.com/shop/cart?id=7') -- /shop/cart",
            |call| part(call, |url| Some(url.path.into())),
        ),
        text(
            "url_extract_query",
            "Query of a URL as it is written, without its question mark; NULL when it has none.",
            "SELECT url_extract_query('https://example.com/cart?id=7&size=m') -- id=7&size=m",
            |call| part(call, |url| url.query.map(Cow::from)),
        ),
        text(
            "url_extract_fragment",
            "Fragment of a URL as it is written, without its hash sign; NULL when it has none.",
            "SELECT url_extract_fragment('https://example.com/help#returns') -- returns",
            |call| part(call, |url| url.fragment.map(Cow::from)),
        ),
        pure(
            Told {
                name: "url_extract_parameter",
                parameters: &[
                    URL,
                    ("name", Takes::Text, "the parameter's name, after decoding"),
                ],
                returns: DataType::Utf8,
                about: "Value of the first parameter of that name in a URL's query, decoded; NULL when there is none.",
                example: "SELECT url_extract_parameter('/find?q=warp%20%26+weft&page=2', 'q') -- warp & weft",
            },
            |call| {
                let (urls, names) = (call.texts(0)?, call.texts(1)?);
                Ok(texts_of(call.rows, |row| {
                    let (url, name) = (urls.get(row)?, names.get(row)?);
                    parameter(split(url)?.query?, name)
                }))
            },
        ),
    ]
}

fn part(
    call: &Call<'_>,
    part: impl for<'a> Fn(Url<'a>) -> Option<Cow<'a, str>>,
) -> Result<ArrayRef> {
    let urls = call.texts(0)?;
    Ok(texts_of(call.rows, |row| {
        part(urls.get(row).and_then(split)?)
    }))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}

/// The parts of one URL, as they are written.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<u16>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

/// RFC 3986, appendix B; None for what no URL can be.
fn split(text: &str) -> Option<Url<'_>> {
    // A break or a blank in the middle means that something else was taken for a URL.
    if text
        .bytes()
        .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    {
        return None;
    }
    let (rest, fragment) = cut(text, '#');
    let (rest, query) = cut(rest, '?');
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, after)) if !scheme.contains('/') => match is_scheme(scheme) {
            true => (Some(scheme), after),
            false => return None,
        },
        _ => (None, rest),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            (Some(&after[..end]), &after[end..])
        }
        None => (None, rest),
    };
    let (host, port) = match authority {
        Some(authority) => place(authority)?,
        None => (None, None),
    };
    Some(Url {
        scheme,
        host,
        port,
        path,
        query,
        fragment,
    })
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Host and port of `user@host:port`.
fn place(authority: &str) -> Option<(Option<&str>, Option<u16>)> {
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return None,
            }
        }
        None => place.rsplit_once(':').unwrap_or((place, "")),
    };
    if host.contains(':') && !place.starts_with('[') {
        return None;
    }
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some(((!host.is_empty()).then_some(host), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scheme, host, port and path.
    type Parts<'a> = (Option<&'a str>, Option<&'a str>, Option<u16>, &'a str);

    fn parts(text: &str) -> Option<Parts<'_>> {
        split(text).map(|url| (url.scheme, url.host, url.port, url.path))
    }

    #[test]
    fn urls_are_split_as_written() {
        let all = split("https://me:pw@Example.com:443/a/b;c?x=1&y#z?#").unwrap();
        assert_eq!(
            all,
            Url {
                scheme: Some("https"),
                host: Some("Example.com"),
                port: Some(443),
                path: "/a/b;c",
                query: Some("x=1&y"),
                fragment: Some("z?#"),
            }
        );
        let of = |text| parts(text).unwrap();
        assert_eq!(
            of("http://[::1]:80/"),
            (Some("http"), Some("::1"), Some(80), "/")
        );
        assert_eq!(of("http://[::1]"), (Some("http"), Some("::1"), None, ""));
        assert_eq!(
            of("//cdn.example/x"),
            (None, Some("cdn.example"), None, "/x")
        );
        assert_eq!(of("/cart"), (None, None, None, "/cart"));
        assert_eq!(of("mailto:a@b.c"), (Some("mailto"), None, None, "a@b.c"));
        assert_eq!(of("file:///etc/x"), (Some("file"), None, None, "/etc/x"));
        assert_eq!(of("http://h:"), (Some("http"), Some("h"), None, ""));
        assert_eq!(of("a/b:c"), (None, None, None, "a/b:c"));
        assert_eq!(of("?q"), (None, None, None, ""));
        assert_eq!(of(""), (None, None, None, ""));
        assert_eq!(
            of("https://bücher.example/ü"),
            (Some("https"), Some("bücher.example"), None, "/ü")
        );
    }

    #[test]
    fn what_is_no_url_has_no_parts() {
        for text in [
            "http://a b/",
            "http://a\n/",
            "1http://a",
            ":x",
            "http://h:99999",
            "http://h:8o",
            "http://h:-1",
            "http://[::1",
            "http://[nope]/",
            "http://[::1]x/",
            "http://a:b:1/",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("a=1&b=%C3%A4+x&b=2", "b").as_deref(), Some("ä x"));
        assert_eq!(parameter("flag&x", "flag").as_deref(), Some(""));
        assert_eq!(parameter("a%20b=1", "a b").as_deref(), Some("1"));
        assert_eq!(parameter("a=1", "A"), None);
        assert_eq!(parameter("", "a"), None);
    }
}
