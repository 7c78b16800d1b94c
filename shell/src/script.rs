//! A source of SQL to its statements, one after the other. Reads no more than it needs: a statement that comes through a
//! pipe runs when its semicolon has come, and a script may be larger than memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor};

use selvedge_engine::split;

use crate::args::Source;

/// Bytes that are looked through in vain for the end of one statement before its size has to double for another look.
/// A long text with a semicolon in every line would otherwise cost quadratic time.
const PATIENCE: usize = 4 << 20;

/// One statement and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// Line in the source, from 1.
    pub(crate) line: u64,
}

/// The statements of one source.
pub(crate) struct Statements {
    /// How messages call the source; a command given on the command line needs no name.
    pub(crate) name: Option<String>,
    input: Box<dyn BufRead>,
    /// Whole lines that may hold an unfinished statement, and the number of the first.
    rest: String,
    line: u64,
    /// Size of `rest` when it was looked through last, and the sum of all such sizes for this statement.
    searched: usize,
    spent: usize,
    ready: VecDeque<Statement>,
    ended: bool,
}

impl Statements {
    /// Opens a source; nothing is read yet.
    pub(crate) fn open(source: Source) -> io::Result<Self> {
        Ok(match source {
            Source::Command(sql) => Self::new(None, Box::new(Cursor::new(sql))),
            Source::Stdin => Self::new(Some("stdin".into()), Box::new(BufReader::new(io::stdin()))),
            Source::File(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).and_then(|file| match file.metadata()?.is_dir() {
                    true => Err(io::ErrorKind::IsADirectory.into()),
                    false => Ok(file),
                });
                let file = file.map_err(|error| in_source(&name, error))?;
                Self::new(Some(name), Box::new(BufReader::new(file)))
            }
        })
    }

    fn new(name: Option<String>, input: Box<dyn BufRead>) -> Self {
        Self {
            name,
            input,
            rest: String::new(),
            line: 1,
            searched: 0,
            spent: 0,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The next statement. At the end of the source the last one needs no semicolon.
    pub(crate) fn next(&mut self) -> io::Result<Option<Statement>> {
        loop {
            if let Some(statement) = self.ready.pop_front() {
                return Ok(Some(statement));
            }
            if self.ended {
                return Ok(None);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let before = self.rest.len();
        let read = self.input.read_line(&mut self.rest);
        let read = read.map_err(|error| in_source(self.name.as_deref().unwrap_or("-c"), error))?;
        self.ended = read == 0;
        if self.line == 1 && before == 0 && self.rest.starts_with('\u{feff}') {
            // The mark that some editors put before the first character.
            self.rest.remove(0);
        }
        let due = self.spent < PATIENCE || self.rest.len() >= 2 * self.searched;
        let semicolon = self.rest[before.min(self.rest.len())..].contains(';');
        if self.ended || (due && semicolon) {
            self.cut();
        }
        Ok(())
    }

    /// Moves the finished statements out of `rest`.
    fn cut(&mut self) {
        let first = self.line;
        let mut kept = self.rest.len();
        for part in split(&self.rest) {
            let line = first + part.line - 1;
            if part.complete || self.ended {
                self.ready.push_back(Statement {
                    text: part.text.to_string(),
                    line,
                });
            } else {
                // `text` is a part of `rest`, so the distance of the two is where it begins.
                kept = part.text.as_ptr() as usize - self.rest.as_ptr() as usize;
            }
        }
        self.line += self.rest[..kept].matches('\n').count() as u64;
        self.rest.drain(..kept);
        self.searched = self.rest.len();
        self.spent = match self.ready.is_empty() {
            true => self.spent + self.searched,
            false => 0,
        };
    }
}

fn in_source(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(source: &str) -> Vec<(String, u64)> {
        let mut statements = Statements::open(Source::Command(source.into())).unwrap();
        std::iter::from_fn(|| statements.next().unwrap())
            .map(|s| (s.text, s.line))
            .collect()
    }

    #[test]
    fn statements_keep_their_lines() {
        let found =
            statements("-- a tour\nselect 1; select\n 2;\n\n/* ; */ select ';\n;';\nselect 4");
        let lines: Vec<_> = found
            .iter()
            .map(|(text, line)| (text.as_str(), *line))
            .collect();
        assert_eq!(
            lines,
            [
                ("select 1", 2),
                ("select\n 2", 2),
                ("select ';\n;'", 5),
                ("select 4", 7)
            ]
        );
    }

    #[test]
    fn nothing_but_comments_is_no_statement() {
        assert_eq!(statements(""), []);
        assert_eq!(statements("\u{feff}-- select 1;\n/* select 2; */\n"), []);
    }

    #[test]
    fn a_statement_is_ready_when_its_semicolon_has_come() {
        struct Pipe(Vec<&'static str>);
        impl io::Read for Pipe {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                assert!(!self.0.is_empty(), "read too far");
                let line = self.0.remove(0).as_bytes();
                into[..line.len()].copy_from_slice(line);
                Ok(line.len())
            }
        }
        let pipe = Pipe(vec!["select 1;\n", "select\n", "2; select\n"]);
        let mut statements = Statements::new(None, Box::new(BufReader::new(pipe)));
        assert_eq!(statements.next().unwrap().unwrap().text, "select 1");
        let second = Statement {
            text: "select\n2".into(),
            line: 2,
        };
        assert_eq!(statements.next().unwrap().unwrap(), second);
    }

    #[test]
    fn semicolons_in_a_long_text_cost_linear_time() {
        let lines = "a;\n".repeat(200_000);
        let found = statements(&format!("select '{lines}';\nselect 2;"));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], ("select 2".to_string(), 200_002));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Statements::open(Source::File("no/such.sql".into()))
            .err()
            .unwrap();
        assert!(error.to_string().starts_with("no/such.sql: "), "{error}");
        assert!(Statements::open(Source::File("/".into())).is_err());
    }
}
