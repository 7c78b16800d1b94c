//! The one public error: what was tried, on what, why it was refused, and what to do.
//!
//! Every lower error (DataFusion, object store, Delta kernel) is translated here and nowhere else,
//! so callers can match on [`ErrorKind`] and print [`Error`] as it is.

mod storage;
mod translate;

use std::fmt;

use datafusion::error::DataFusionError;

pub(crate) use storage::took_nothing;

/// Result of every fallible public call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`]. Few on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The statement, a parameter or a setting is wrong: change it.
    Invalid,
    /// A named thing does not exist.
    NotFound,
    /// A named thing exists already.
    AlreadyExists,
    /// Rows were refused by a type, NOT NULL, CHECK, a rule or a hook; nothing was written.
    Rejected,
    /// Another writer won the race on the same rows; run the statement again.
    Conflict,
    /// Valid, but this engine does not do it.
    Unsupported,
    /// The caller may not do this.
    Denied,
    /// A memory, disk or time limit was reached.
    Exhausted,
    /// The statement was cancelled.
    Cancelled,
    /// What is stored is broken: a torn commit, a missing file, an unreadable log.
    Corrupt,
    /// The object store failed; trying again may help.
    Storage,
    /// A defect of this engine.
    Internal,
}

impl ErrorKind {
    /// Whether running the same statement again may succeed.
    pub fn retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Storage)
    }
}

/// The one error of the engine: a primary message, with detail, hint and the place in the SQL text.
///
/// `Display` prints all parts, one per line; it never holds a backtrace or a `Debug` dump.
#[derive(Debug)]
pub struct Error(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<Position>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A place in the text of a statement, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

impl Error {
    /// An error of `kind` whose primary line is `message` (lower case, no final period).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            source: None,
        }))
    }

    /// Adds a line of facts.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the place in the statement's text.
    #[must_use]
    pub fn with_position(mut self, position: Position) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Keeps the lower error for `std::error::Error::source`.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says before all else what it put an end to.
    pub(crate) fn ending(mut self, outcome: &str) -> Self {
        self.0.message = format!("{outcome}: {}", self.0.message);
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The primary line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The line of facts, if any.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The line that says what to do, if any.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The place in the statement's text, if known.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// The error as text for a person, with the line of `sql` it points at and a caret below it.
    pub fn render(&self, sql: &str) -> String {
        let mut text = self.0.message.clone();
        if let Some(at) = self.0.position
            && let Some(line) = sql.lines().nth((at.line.max(1) - 1) as usize)
        {
            let margin = format!("LINE {}: ", at.line);
            let before: String = line
                .chars()
                .take((at.column.max(1) - 1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let indent = " ".repeat(margin.len());
            text.push_str(&format!("\n{margin}{line}\n{indent}{before}^"));
        }
        self.push_rest(&mut text);
        text
    }

    fn push_rest(&self, text: &mut String) {
        if let Some(detail) = &self.0.detail {
            text.push_str("\ndetail: ");
            text.push_str(detail);
        }
        if let Some(hint) = &self.0.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
    }

    /// The same error with another primary line.
    #[must_use]
    pub(crate) fn reworded(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// The same words without the source, for errors several readers share.
    pub(crate) fn retold(&self) -> Self {
        Self(Box::new(Parts {
            kind: self.0.kind,
            message: self.0.message.clone(),
            detail: self.0.detail.clone(),
            hint: self.0.hint.clone(),
            position: self.0.position,
            source: None,
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, message)
    }
    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.message.clone();
        self.push_rest(&mut text);
        f.write_str(&text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Our errors cross DataFusion's plans as `External` and come back unchanged.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
