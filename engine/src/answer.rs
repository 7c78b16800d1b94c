//! What a statement answers.

use datafusion::execution::SendableRecordBatchStream;

use crate::write::report::WriteReport;

/// The answer to one statement.
#[expect(
    clippy::large_enum_variant,
    reason = "an answer is made once per statement and never kept in numbers"
)]
pub enum Answer {
    /// Rows, as a stream that runs the plan while it is read; dropping it cancels the statement.
    Rows(SendableRecordBatchStream),
    /// A write that is committed and visible.
    Written(WriteReport),
    /// A statement with nothing to return (DDL, SET); the text is a short confirmation such as `CREATE TABLE`.
    Done(String),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(stream) => f.debug_tuple("Rows").field(&stream.schema()).finish(),
            Self::Written(report) => f.debug_tuple("Written").field(report).finish(),
            Self::Done(tag) => f.debug_tuple("Done").field(tag).finish(),
        }
    }
}
