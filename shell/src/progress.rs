//! One line at the foot of a terminal: how far a long statement has come. It goes when the statement ends.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use selvedge_engine::{Progress, Session};

use crate::figures::{bytes, count, thousands};

/// A statement that is done by then needs no line.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two drawings: more than an eye can tell apart only keeps the terminal busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the line away and begins it anew.
const CLEAR: &str = "\r\x1b[K";

/// The line, on standard error.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// When the next drawing is due; `None` while no statement runs.
    due: Option<Instant>,
    drawn: bool,
}

impl Line {
    /// A line for the statements of `session`. Where nobody watches, none is ever drawn.
    pub(crate) fn of(session: &Session, quiet: bool) -> Self {
        let line = Self::default();
        if !quiet && io::stderr().is_terminal() {
            let drawn = line.clone();
            session.on_progress(move |now| drawn.draw(now));
        }
        line
    }

    /// A statement begins.
    pub(crate) fn begin(&self) {
        self.state().due = Some(Instant::now() + PATIENCE);
    }

    /// The statement has ended, or was dropped while the engine still works.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.due = None;
        if std::mem::take(&mut state.drawn) {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }

    fn draw(&self, progress: &Progress) {
        let mut state = self.state();
        let now = Instant::now();
        if state.due.is_some_and(|due| due <= now) {
            state.due = Some(now + PAUSE);
            state.drawn = true;
            let line: String = text(progress).chars().take(width() - 1).collect();
            let _ = write!(io::stderr(), "{CLEAR}{line}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A drawing that panicked has left nothing that matters behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(now: &Progress) -> String {
    let mut text = format!(
        "{}: {} of {}",
        now.statement,
        thousands(now.files_done),
        count(now.files_total, "file")
    );
    if now.rows_done > 0 {
        text.push_str(&format!(", {}", count(now.rows_done, "row")));
    }
    text.push_str(&format!(
        ", {} of {}",
        bytes(now.bytes_done),
        bytes(now.bytes_total)
    ));
    text
}

/// Columns of the terminal: a line that is longer would leave its beginning behind.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let columns = size.ok().map(|size| usize::from(size.ws_col));
    columns.filter(|columns| *columns > 0).unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rows_and_bytes_are_told() {
        let mut now = Progress::default();
        now.statement = "OPTIMIZE";
        now.files_done = 1200;
        now.files_total = 4000;
        now.rows_done = 1_234_567;
        now.bytes_done = 35_140;
        now.bytes_total = 2_000_000;
        assert_eq!(
            text(&now),
            "OPTIMIZE: 1,200 of 4,000 files, 1,234,567 rows, 35.1 KB of 2.0 MB"
        );
        now.rows_done = 0;
        assert_eq!(
            text(&now),
            "OPTIMIZE: 1,200 of 4,000 files, 35.1 KB of 2.0 MB"
        );
    }

    #[test]
    fn a_line_is_drawn_only_while_a_statement_runs_for_long() {
        let line = Line::default();
        line.draw(&Progress::default());
        assert!(!line.state().drawn);
        line.begin();
        line.draw(&Progress::default());
        assert!(!line.state().drawn);
        line.state().due = Some(Instant::now());
        line.draw(&Progress::default());
        assert!(line.state().drawn);
        line.end();
        line.draw(&Progress::default());
        assert!(!line.state().drawn);
    }
}
