//! Runs statements: the answer's rows to the output, everything else to standard error.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Instant;

use futures::StreamExt;
use selvedge_engine::{Answer, Error, ErrorKind, Session, WriteReport};

use crate::args::Options;
use crate::exit::Exit;
use crate::figures;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::render::{Format, LeftOut, RenderError, Shape};
use crate::report;
use crate::script::{Statement, Statements};

/// Why a statement did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was refused.
    Refused(Error),
    /// The output is closed or full.
    Output(io::Error),
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Refused(error) => match error.kind() {
                ErrorKind::Storage => Exit::Io,
                ErrorKind::Denied | ErrorKind::Exhausted if error.of_storage() => Exit::Io,
                ErrorKind::Cancelled => Exit::Interrupted,
                _ => Exit::Sql,
            },
            Self::Output(_) => Exit::Io,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

/// A session with its output.
pub(crate) struct Runner {
    pub(crate) session: Session,
    pub(crate) format: Format,
    pub(crate) timing: bool,
    shape: Shape,
    quiet: bool,
    interrupt: Interrupt,
    progress: progress::Line,
    out: Box<dyn Write>,
    /// Whether the next result is parted from one before it.
    pub(crate) parted: bool,
}

impl Runner {
    pub(crate) fn new(session: Session, options: &Options, interrupt: Interrupt) -> Self {
        Self {
            progress: progress::Line::of(&session, options.quiet),
            session,
            format: options.format,
            timing: options.timing,
            shape: options.shape,
            quiet: options.quiet,
            interrupt,
            out: Box::new(BufWriter::with_capacity(64 << 10, io::stdout())),
            parted: false,
        }
    }

    /// Runs all statements in their order, up to the first failure unless it is to keep going. The first failure
    /// decides how the program ends.
    pub(crate) async fn scripts(&mut self, sources: Vec<Statements>, keep_going: bool) -> Exit {
        let mut exit = Exit::Ok;
        for mut source in sources {
            loop {
                let statement = match source.next() {
                    Ok(Some(statement)) => statement,
                    Ok(None) => break,
                    Err(error) => {
                        note(&format!("error: {error}"));
                        return Exit::Io;
                    }
                };
                let Err(failure) = self.statement(&statement.text).await else {
                    continue;
                };
                tell(&failure, &statement, source.name.as_deref());
                if exit == Exit::Ok {
                    exit = failure.exit();
                }
                // Without an output, or after Ctrl-C, nobody wants the rest.
                if !keep_going || !matches!(failure, Failure::Refused(_)) {
                    return exit;
                }
            }
        }
        exit
    }

    /// Runs one statement until its answer is written out, it fails, or Ctrl-C drops it.
    pub(crate) async fn statement(&mut self, sql: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let interrupt = self.interrupt.clone();
        self.progress.begin();
        let done = interrupt.guard(self.answer(sql)).await;
        self.progress.end();
        // What was written before a failure is part of the answer too.
        let flushed = self.out.flush().map_err(Failure::Output);
        done.unwrap_or(Err(Failure::Interrupted))?;
        flushed?;
        if self.timing {
            note(&format!("time: {}", figures::duration(started.elapsed())));
        }
        Ok(())
    }

    async fn answer(&mut self, sql: &str) -> Result<(), Failure> {
        let answer = self.session.execute(sql).await;
        // Before the answer takes its place.
        self.progress.end();
        match answer.map_err(Failure::Refused)? {
            Answer::Rows(mut rows) => {
                let shape = if explains(sql) {
                    Shape::default()
                } else {
                    self.shape
                };
                let mut renderer = self.format.renderer(&rows.schema(), shape);
                self.part()?;
                let mut count = 0;
                while let Some(batch) = rows.next().await {
                    let batch = batch.map_err(|error| Failure::Refused(error.into()))?;
                    count += batch.num_rows() as u64;
                    let written = renderer.batch(&mut *self.out, &batch);
                    written.map_err(|error| self.unwritten(error))?;
                }
                let left_out = renderer.finish(&mut *self.out);
                let left_out = left_out.map_err(|error| self.unwritten(error))?;
                self.footer(count, left_out)
            }
            Answer::Written(report) => {
                self.wrote(&report);
                Ok(())
            }
            Answer::Done(confirmation) => {
                self.remark(&confirmation);
                Ok(())
            }
        }
    }

    /// An empty line between two results that a person reads.
    fn part(&mut self) -> Result<(), Failure> {
        let parted = std::mem::replace(&mut self.parted, self.format.for_people());
        match parted && self.format.for_people() {
            true => writeln!(self.out).map_err(Failure::Output),
            false => Ok(()),
        }
    }

    fn footer(&mut self, rows: u64, left_out: LeftOut) -> Result<(), Failure> {
        if self.quiet || !self.format.for_people() {
            return Ok(());
        }
        let mut text = figures::count(rows, "row");
        if left_out.rows > 0 {
            text.push_str(&format!(
                ", {} shown",
                figures::thousands(rows - left_out.rows)
            ));
        }
        if left_out.columns > 0 {
            let columns = figures::count(left_out.columns as u64, "column");
            text.push_str(&format!(", {columns} not shown"));
        }
        writeln!(self.out, "({text})").map_err(Failure::Output)
    }

    fn unwritten(&self, error: RenderError) -> Failure {
        match error {
            RenderError::Output(error) => Failure::Output(error),
            RenderError::Value(error) => Failure::Refused(
                Error::new(
                    ErrorKind::Unsupported,
                    format!("cannot write the result: {error}"),
                )
                .with_hint("cast the column to text, or choose another --format")
                .with_source(error),
            ),
        }
    }

    fn wrote(&mut self, report: &WriteReport) {
        self.remark(&report::text(report));
    }

    fn remark(&mut self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }
}

/// A plan is read whole: its columns are not cut and its rows not left out.
fn explains(sql: &str) -> bool {
    let verb = sql.split_whitespace().next().unwrap_or_default();
    verb.eq_ignore_ascii_case("explain")
}

/// Writes a line to standard error. Unlike `eprintln!`, it lives on when that is closed.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says why a statement failed, and where it stands: `tour.sql:12: error: ...`, which editors can jump to.
fn tell(failure: &Failure, statement: &Statement, source: Option<&str>) {
    let place = match source {
        Some(name) => format!("{name}:{}: ", statement.line),
        None => String::new(),
    };
    if let Some(text) = message(failure, &statement.text) {
        note(&format!("{place}{text}"));
    }
}

/// The failure as text; `None` when nobody needs to be told.
pub(crate) fn message(failure: &Failure, sql: &str) -> Option<String> {
    match failure {
        Failure::Refused(error) => Some(format!("error: {}", error.render(sql))),
        // `selvedge ... | head` closes the pipe on purpose.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Failure::Output(error) => Some(format!("error: cannot write the result: {error}")),
        Failure::Interrupted => Some("interrupted".into()),
    }
}

/// Columns of the terminal behind standard output.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (io::stdout().is_terminal() && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
