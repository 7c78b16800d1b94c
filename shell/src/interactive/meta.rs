//! The shell's own commands, named as in psql.

use clap::ValueEnum;

use crate::render::Format;

/// One command, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Meta {
    Quit,
    Help,
    Tables,
    Describe(String),
    Timing(Option<bool>),
    Format(Option<Format>),
}

pub(super) const HELP: &str = "\
\\d            list tables and views
\\d TABLE      describe a table or view
\\dt           list tables and views
\\format NAME  write results as table, box, csv, tsv, json, jsonl or markdown
\\timing       switch timing on or off
\\?            this help
\\q            leave; so do exit, quit and ctrl-d
ctrl-c cancels the running statement, tab completes keywords and names";

/// The names, for completion and for suggestions.
pub(super) const NAMES: [&str; 6] = ["?", "d", "dt", "format", "q", "timing"];

/// Whether a line without a backslash asks to leave.
pub(super) fn leaves(line: &str) -> bool {
    let word = line.trim().trim_end_matches(';');
    word.eq_ignore_ascii_case("exit") || word.eq_ignore_ascii_case("quit")
}

/// A format's name on the command line.
pub(super) fn name(format: Format) -> String {
    format
        .to_possible_value()
        .map(|value| value.get_name().to_string())
        .unwrap_or_default()
}

impl Meta {
    /// Reads a command, without its backslash.
    pub(super) fn parse(command: &str) -> Result<Self, String> {
        let command = command.trim().trim_end_matches(';').trim_end();
        let (name, argument) = match command.split_once(char::is_whitespace) {
            Some((name, argument)) => (name, argument.trim()),
            None => (command, ""),
        };
        match (name, argument) {
            ("q", "") => Ok(Self::Quit),
            ("?", "") => Ok(Self::Help),
            ("d" | "dt", "") => Ok(Self::Tables),
            ("d", table) => Ok(Self::Describe(table.into())),
            ("timing", "") => Ok(Self::Timing(None)),
            ("timing", "on") => Ok(Self::Timing(Some(true))),
            ("timing", "off") => Ok(Self::Timing(Some(false))),
            ("timing", other) => Err(format!("\\timing takes on or off, not '{other}'")),
            ("format", "") => Ok(Self::Format(None)),
            ("format", format) => match Format::from_str(format, true) {
                Ok(format) => Ok(Self::Format(Some(format))),
                Err(_) => Err(format!(
                    "no format '{format}'{}",
                    nearest(format, formats().iter().map(String::as_str))
                )),
            },
            (name, surplus) if NAMES.contains(&name) => {
                Err(format!("\\{name} takes no '{surplus}'"))
            }
            (name, _) => {
                let near = nearest(name, NAMES.into_iter()).replace("mean ", "mean \\");
                Err(format!("no command \\{name}{near} (\\? lists them)"))
            }
        }
    }
}

fn formats() -> Vec<String> {
    Format::value_variants().iter().copied().map(name).collect()
}

fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names.map(|name| (strsim::damerau_levenshtein(typed, name), name));
    match near
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min()
    {
        Some((_, name)) => format!("; did you mean {name}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood() {
        assert_eq!(Meta::parse("q"), Ok(Meta::Quit));
        assert_eq!(Meta::parse("d"), Ok(Meta::Tables));
        assert_eq!(
            Meta::parse("d  shop.\"Orders\" ;"),
            Ok(Meta::Describe("shop.\"Orders\"".into()))
        );
        assert_eq!(Meta::parse("timing off"), Ok(Meta::Timing(Some(false))));
        assert_eq!(
            Meta::parse("format CSV"),
            Ok(Meta::Format(Some(Format::Csv)))
        );
        assert!(leaves(" EXIT; ") && leaves("quit") && !leaves("select 1"));
    }

    #[test]
    fn mistakes_name_the_nearest() {
        assert_eq!(
            Meta::parse("timng"),
            Err("no command \\timng; did you mean \\timing? (\\? lists them)".into())
        );
        assert_eq!(
            Meta::parse("xyzzy"),
            Err("no command \\xyzzy (\\? lists them)".into())
        );
        assert_eq!(
            Meta::parse("format jsnl"),
            Err("no format 'jsnl'; did you mean jsonl?".into())
        );
        assert_eq!(
            Meta::parse("timing maybe"),
            Err("\\timing takes on or off, not 'maybe'".into())
        );
        assert_eq!(Meta::parse("q now"), Err("\\q takes no 'now'".into()));
    }
}
