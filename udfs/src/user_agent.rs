//! User agents: what browser, system and kind of device a client says it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringBuilder, StructArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use woothee::parser::{Parser, WootheeResult};

use crate::scalar::{Call, Parameter, Takes, Told, pure, texts_of};

const AGENT: Parameter = (
    "user_agent",
    Takes::Text,
    "the client's User-Agent header; NULL gives NULL",
);

/// Fields of [`functions`]' struct, in the order of [`Agent`]'s.
const FIELDS: [&str; 6] = [
    "browser",
    "browser_version",
    "os",
    "os_version",
    "device",
    "vendor",
];

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let text = |name, about, example, work| {
        let told = Told {
            name,
            parameters: &[AGENT],
            returns: DataType::Utf8,
            about,
            example,
        };
        pure(told, work)
    };
    vec![
        pure(
            Told {
                name: "user_agent",
                parameters: &[AGENT],
                returns: DataType::Struct(fields()),
                about: "All that a user agent tells, as a struct of browser, browser_version, os, os_version, device (pc, smartphone, mobilephone, crawler, appliance or misc) and vendor. What it does not tell is NULL.",
                example: "SELECT user_agent('Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0')['browser_version'] -- 128.0",
            },
            all,
        ),
        text(
            "user_agent_browser",
            "Name of the browser or crawler that a user agent tells; NULL when it is not known.",
            "SELECT user_agent_browser('Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)') -- Googlebot",
            |call| one(call, |agent| agent[0].clone()),
        ),
        text(
            "user_agent_os",
            "Operating system that a user agent tells; NULL when it is not known.",
            "SELECT user_agent_os('Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1') -- iPhone",
            |call| one(call, |agent| agent[2].clone()),
        ),
        text(
            "user_agent_device",
            "Kind of device that a user agent tells: pc, smartphone, mobilephone, crawler, appliance or misc; NULL when it is not known.",
            "SELECT user_agent_device('Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36') -- smartphone",
            |call| one(call, |agent| agent[4].clone()),
        ),
    ]
}

fn fields() -> Fields {
    FIELDS
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, true))
        .collect()
}

type Agent<'a> = [Option<Cow<'a, str>>; FIELDS.len()];

/// Reading an agent runs dozens of patterns, and a batch of requests repeats few agents: each is read once.
struct Agents<'a> {
    known: HashMap<&'a str, Agent<'a>>,
}

impl<'a> Agents<'a> {
    fn new() -> Self {
        Self {
            known: HashMap::new(),
        }
    }

    fn read(&mut self, text: &'a str) -> &Agent<'a> {
        self.known.entry(text).or_insert_with(|| {
            let Some(WootheeResult {
                name,
                category,
                os,
                os_version,
                browser_type: _,
                version,
                vendor,
            }) = Parser::new().parse(text)
            else {
                return Agent::default();
            };
            [
                name.into(),
                version.into(),
                os.into(),
                os_version,
                category.into(),
                vendor.into(),
            ]
            .map(|value| Some(value).filter(|value| !value.is_empty() && value != "UNKNOWN"))
        })
    }
}

fn one(
    call: &Call<'_>,
    field: impl for<'a> Fn(&Agent<'a>) -> Option<Cow<'a, str>>,
) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let mut agents = Agents::new();
    Ok(texts_of(call.rows, |row| {
        field(agents.read(texts.get(row)?))
    }))
}

fn all(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let mut agents = Agents::new();
    let mut columns: Vec<StringBuilder> = FIELDS.iter().map(|_| StringBuilder::new()).collect();
    let mut valid = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let text = texts.get(row);
        valid.push(text.is_some());
        let agent = text.map(|text| agents.read(text));
        for (index, column) in columns.iter_mut().enumerate() {
            column.append_option(agent.and_then(|agent| agent[index].as_deref()));
        }
    }
    let columns: Vec<ArrayRef> = columns
        .into_iter()
        .map(|mut column| Arc::new(column.finish()) as _)
        .collect();
    let nulls = NullBuffer::from(valid);
    Ok(Arc::new(StructArray::try_new(
        fields(),
        columns,
        Some(nulls),
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Option<String>> {
        let mut agents = Agents::new();
        let agent = agents.read(text);
        agent
            .iter()
            .map(|value| value.as_deref().map(str::to_owned))
            .collect()
    }

    #[test]
    fn agents_tell_what_they_are() {
        let some = |values: [&str; 6]| values.map(|value| Some(value.to_owned())).to_vec();
        assert_eq!(
            read(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
            ),
            some([
                "Chrome",
                "126.0.0.0",
                "Windows 10",
                "NT 10.0",
                "pc",
                "Google"
            ])
        );
    }

    #[test]
    fn what_says_nothing_is_null_and_nothing_panics() {
        for text in [
            "",
            "-",
            "curl/8.5.0",
            "\u{0}",
            "((((",
            "ÄÖÜ/ß",
            "Mozilla/5.0 (",
        ] {
            let agent = read(text);
            assert_eq!(
                agent[1].as_deref().filter(|v| *v == "UNKNOWN"),
                None,
                "{text}"
            );
        }
        assert_eq!(read("-"), vec![None; 6]);
        assert_eq!(read("no agent at all"), vec![None; 6]);
    }
}
