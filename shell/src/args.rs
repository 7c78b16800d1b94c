//! The command line: what was typed ([`Typed`], dumb) and what it means ([`Job`], checked).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::render::{Format, Shape};

const DEFAULT_LAKE: &str = "./lake";

/// What the program was asked to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Job {
    /// Run the sources in their order and end.
    Script(Options, Vec<Source>),
    /// Talk with the person at the terminal.
    Interactive(Options),
    /// Start a server.
    Serve(Serve),
}

/// What holds for every statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) lake: String,
    pub(crate) format: Format,
    pub(crate) shape: Shape,
    pub(crate) quiet: bool,
    pub(crate) timing: bool,
    pub(crate) keep_going: bool,
}

/// Where statements come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Command(String),
    File(PathBuf),
    Stdin,
}

/// What `selvedge serve` was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Serve {
    pub(crate) lake: String,
    pub(crate) flight: SocketAddr,
    pub(crate) quiet: bool,
}

/// What the standard streams are; handed in, so that the rules below can be tested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) stdin_is_terminal: bool,
    pub(crate) stdout_is_terminal: bool,
    /// Columns of the terminal behind stdout.
    pub(crate) width: Option<usize>,
}

const AFTER_HELP: &str = "\
Without -c and -f, statements are read from standard input: at a terminal by an interactive shell, else as a script.
Results go to standard output; reports of writes, timings and errors go to standard error.

Exit codes: 0 ok, 1 a statement was refused, 2 wrong command line, 3 the lake or a script cannot be opened, the object
store failed or the output was closed, 130 interrupted.";

/// SQL over a lake of versioned tables.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Typed {
    #[command(flatten)]
    lake: Lake,

    /// Run this SQL and end; may be given many times, in any order with -f
    #[arg(short = 'c', long, value_name = "SQL")]
    command: Vec<String>,

    /// Run the statements of this file and end; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// How results are written [default: box at a terminal, else table]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Rows shown of a longer result, 0 for all [default: 40 at a terminal, else all; box and table only]
    #[arg(long, value_name = "N")]
    max_rows: Option<usize>,

    /// Go on after a statement that failed; the exit code still tells of the first failure
    #[arg(long)]
    keep_going: bool,

    /// Say how long each statement took [default: only in the interactive shell]
    #[arg(long, conflicts_with = "quiet")]
    timing: bool,

    /// Write results and errors only: no reports of writes, timings or row counts
    #[arg(short, long)]
    quiet: bool,

    #[command(subcommand)]
    subcommand: Option<Command>,
}

#[derive(Debug, Args)]
struct Lake {
    /// The lake: a folder, file://, memory://, s3://, gs:// or az:// [default: ./lake]
    #[arg(value_name = "LAKE")]
    lake: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a lake over Arrow Flight SQL until ctrl-c or SIGTERM (a lake of that name: ./serve)
    Serve {
        #[command(flatten)]
        lake: Lake,

        /// Address to listen on; port 0 takes a free one
        #[arg(long, value_name = "ADDRESS:PORT")]
        flight: SocketAddr,

        /// Write errors only
        #[arg(short, long)]
        quiet: bool,
    },
}

/// Reads the command line. Help, version and mistakes come back as clap's error, which knows how to print itself.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    streams: Streams,
) -> Result<Job, clap::Error> {
    let matches = Typed::command().try_get_matches_from(arguments)?;
    let typed = Typed::from_arg_matches(&matches)?;
    check(typed, &matches, streams)
        .map_err(|message| Typed::command().error(ErrorKind::ValueValidation, message))
}

fn check(typed: Typed, matches: &ArgMatches, streams: Streams) -> Result<Job, String> {
    if let Some(Command::Serve {
        lake,
        flight,
        quiet,
    }) = typed.subcommand
    {
        // There are no users and no TLS yet, so only programs on this machine may connect.
        if !flight.ip().is_loopback() {
            return Err(format!(
                "--flight {flight}: the server has no authentication yet and listens on loopback addresses only, \
                 such as 127.0.0.1:{}",
                flight.port()
            ));
        }
        return Ok(Job::Serve(Serve {
            lake: check_lake(lake)?,
            flight,
            quiet,
        }));
    }
    let sources = in_typed_order(&typed, matches)?;
    let interactive = sources.is_empty() && streams.stdin_is_terminal;
    let format = typed.format.unwrap_or(match streams.stdout_is_terminal {
        true => Format::Box,
        false => Format::Table,
    });
    // A person looks at a screen; a pipe or a file gets every row and every character.
    let shape = match streams.stdout_is_terminal {
        true => Shape {
            max_rows: Some(40),
            max_width: streams.width,
        },
        false => Shape::default(),
    };
    let options = Options {
        lake: check_lake(typed.lake)?,
        format,
        shape: match typed.max_rows {
            None => shape,
            Some(0) => Shape {
                max_rows: None,
                ..shape
            },
            Some(rows) => Shape {
                max_rows: Some(rows),
                ..shape
            },
        },
        quiet: typed.quiet,
        timing: typed.timing || (interactive && !typed.quiet),
        keep_going: typed.keep_going,
    };
    Ok(match (interactive, sources.is_empty()) {
        (true, _) => Job::Interactive(options),
        (false, true) => Job::Script(options, vec![Source::Stdin]),
        (false, false) => Job::Script(options, sources),
    })
}

/// -c and -f as they stood on the command line; clap keeps each kind in a list of its own.
fn in_typed_order(typed: &Typed, matches: &ArgMatches) -> Result<Vec<Source>, String> {
    let indices = |name| matches.indices_of(name).into_iter().flatten();
    let commands = typed.command.iter().cloned().map(Source::Command);
    let files = typed.file.iter().map(|file| match file.as_os_str() == "-" {
        true => Source::Stdin,
        false => Source::File(file.clone()),
    });
    let mut sources: Vec<(usize, Source)> = indices("command")
        .zip(commands)
        .chain(indices("file").zip(files))
        .collect();
    sources.sort_by_key(|(index, _)| *index);
    let sources: Vec<Source> = sources.into_iter().map(|(_, source)| source).collect();
    match sources
        .iter()
        .filter(|source| **source == Source::Stdin)
        .count()
    {
        0 | 1 => Ok(sources),
        _ => Err("-f - is given twice, but standard input can be read only once".into()),
    }
}

/// SQL or a script in the place of the lake would otherwise become a folder of that name.
fn check_lake(typed: Lake) -> Result<String, String> {
    const VERBS: [&str; 12] = [
        "alter", "copy", "create", "describe", "drop", "explain", "insert", "select", "set",
        "show", "values", "with",
    ];
    let lake = typed.lake.unwrap_or_else(|| DEFAULT_LAKE.into());
    let mut words = lake.split_whitespace();
    let verb = words.next().unwrap_or_default().to_lowercase();
    if verb.is_empty() {
        return Err("the lake's name is empty".into());
    }
    if VERBS.contains(&verb.as_str()) && words.next().is_some() {
        return Err(format!(
            "'{lake}' looks like SQL, not like a lake: use -c '{lake}'"
        ));
    }
    if lake.to_lowercase().ends_with(".sql") {
        return Err(format!(
            "'{lake}' looks like a script, not like a lake: use -f {lake}"
        ));
    }
    Ok(lake)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPES: Streams = Streams {
        stdin_is_terminal: false,
        stdout_is_terminal: false,
        width: None,
    };
    const TERMINAL: Streams = Streams {
        stdin_is_terminal: true,
        stdout_is_terminal: true,
        width: Some(80),
    };

    fn parse_line(line: &[&str], streams: Streams) -> Result<Job, clap::Error> {
        let line = std::iter::once("selvedge")
            .chain(line.iter().copied())
            .map(OsString::from);
        parse(line, streams)
    }

    fn script(line: &[&str], streams: Streams) -> (Options, Vec<Source>) {
        match parse_line(line, streams).unwrap() {
            Job::Script(options, sources) => (options, sources),
            other => panic!("not a script: {other:?}"),
        }
    }

    fn refusal(line: &[&str]) -> String {
        let error = parse_line(line, PIPES).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn the_definition_is_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn commands_and_files_keep_their_order() {
        let (options, sources) = script(
            &[
                "-f",
                "a.sql",
                "-c",
                "select 1",
                "s3://b/lake",
                "-f",
                "-",
                "--command=select 2",
            ],
            TERMINAL,
        );
        assert_eq!(options.lake, "s3://b/lake");
        assert_eq!(
            sources,
            [
                Source::File("a.sql".into()),
                Source::Command("select 1".into()),
                Source::Stdin,
                Source::Command("select 2".into()),
            ]
        );
    }

    #[test]
    fn a_terminal_gets_a_shortened_box_and_a_pipe_every_row() {
        let (options, _) = script(&["-c", "select 1"], TERMINAL);
        assert_eq!(options.format, Format::Box);
        assert_eq!(
            options.shape,
            Shape {
                max_rows: Some(40),
                max_width: Some(80)
            }
        );
        let (options, _) = script(&["-c", "select 1"], PIPES);
        assert_eq!(options.format, Format::Table);
        assert_eq!(options.shape, Shape::default());
        let (options, _) = script(
            &["-c", "select 1", "--max-rows", "0", "--format", "csv"],
            TERMINAL,
        );
        assert_eq!(options.format, Format::Csv);
        assert_eq!(options.shape.max_rows, None);
    }

    #[test]
    fn without_sources_stdin_decides() {
        assert!(
            matches!(parse_line(&[], TERMINAL).unwrap(), Job::Interactive(options) if options.timing)
        );
        assert!(
            matches!(parse_line(&["-q"], TERMINAL).unwrap(), Job::Interactive(options) if !options.timing)
        );
        let (options, sources) = script(&[], PIPES);
        assert_eq!(
            (options.lake.as_str(), sources),
            (DEFAULT_LAKE, vec![Source::Stdin])
        );
    }

    #[test]
    fn serve_is_a_command_and_still_a_possible_lake() {
        let serve = parse_line(&["serve", "l", "--flight", "127.0.0.1:0"], PIPES).unwrap();
        let flight = "127.0.0.1:0".parse().unwrap();
        assert_eq!(
            serve,
            Job::Serve(Serve {
                lake: "l".into(),
                flight,
                quiet: false
            })
        );
        let (options, _) = script(&["./serve"], PIPES);
        assert_eq!(options.lake, "./serve");
    }

    #[test]
    fn mistakes_say_what_to_do() {
        assert!(refusal(&["select 1"]).contains("use -c 'select 1'"));
        assert!(refusal(&["tour.sql"]).contains("use -f tour.sql"));
        assert!(refusal(&[""]).contains("empty"));
        assert!(refusal(&["-f", "-", "-f", "-"]).contains("only once"));
        assert!(refusal(&["--format", "cvs"]).contains("csv"));
        assert!(refusal(&["serve"]).contains("--flight"));
        assert!(refusal(&["serve", "--flight", "0.0.0.0:1"]).contains("127.0.0.1:1"));
        assert!(refusal(&["-c", "select 1", "-q", "--timing"]).contains("cannot be used with"));
    }
}
