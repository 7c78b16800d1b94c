//! Errors to gRPC status: the one table of codes, and the text a person reads.

use std::error::Error as StdError;

use datafusion::error::DataFusionError;
use selvedge_engine::{Error, ErrorKind};
use tonic::{Code, Status};

/// The message travels percent-encoded in a header, and clients refuse headers above 8 KiB.
const MESSAGE_BYTES: usize = 3 << 10;

/// What the caller can do, said as a gRPC code.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Rejected => Code::FailedPrecondition,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Storage => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
        // `ErrorKind` may grow; a kind without a row here is a defect that must show.
        _ => Code::Unknown,
    }
}

/// An error that belongs to no statement text.
pub(crate) fn refusal(error: Error) -> Status {
    Status::new(code(error.kind()), fit(&error.to_string()))
}

/// An error of a statement, with the line it points at, as the shell prints it.
pub(crate) fn refusal_in(sql: &str, error: Error) -> Status {
    let rendered = error.render(sql);
    if header_bytes(&rendered) <= MESSAGE_BYTES {
        Status::new(code(error.kind()), rendered)
    } else {
        // A statement on one very long line: the reason matters more than the line.
        refusal(error)
    }
}

/// An error that came out of a running plan, where ours travel inside DataFusion's.
pub(crate) fn refusal_of_plan(sql: &str, error: DataFusionError) -> Status {
    match ours(&error) {
        Some(ours) => {
            let rendered = ours.render(sql);
            let text = if header_bytes(&rendered) <= MESSAGE_BYTES {
                rendered
            } else {
                fit(&ours.to_string())
            };
            Status::new(code(ours.kind()), text)
        }
        None => refusal(foreign(&error)),
    }
}

fn ours(error: &DataFusionError) -> Option<&Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn foreign(error: &DataFusionError) -> Error {
    let root = error.find_root();
    let kind = match root {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Storage,
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::Internal(_) => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    Error::new(kind, root.strip_backtrace())
}

/// Cuts at a character boundary so that the header stays within [`MESSAGE_BYTES`].
fn fit(text: &str) -> String {
    if header_bytes(text) <= MESSAGE_BYTES {
        return text.to_owned();
    }
    let mut room = MESSAGE_BYTES - "...".len();
    let kept: String = text
        .chars()
        .take_while(|c| {
            let needed = encoded_bytes(*c);
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        })
        .collect();
    format!("{kept}...")
}

fn header_bytes(text: &str) -> usize {
    text.chars().map(encoded_bytes).sum()
}

fn encoded_bytes(c: char) -> usize {
    if matches!(c, ' '..='~') && c != '%' {
        1
    } else {
        3 * c.len_utf8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_engine::Position;

    #[test]
    fn every_kind_has_its_code() {
        let table = [
            (ErrorKind::Invalid, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::Rejected, Code::FailedPrecondition),
            (ErrorKind::Conflict, Code::Aborted),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::Denied, Code::PermissionDenied),
            (ErrorKind::Exhausted, Code::ResourceExhausted),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Corrupt, Code::DataLoss),
            (ErrorKind::Storage, Code::Unavailable),
            (ErrorKind::Internal, Code::Internal),
        ];
        for (kind, expected) in table {
            let status = refusal(Error::new(kind, "no"));
            assert_eq!(status.code(), expected, "{kind:?}");
            assert_eq!(status.message(), "no");
        }
    }

    #[test]
    fn a_retryable_kind_has_a_code_clients_retry() {
        for (kind, code_) in [
            (ErrorKind::Conflict, Code::Aborted),
            (ErrorKind::Storage, Code::Unavailable),
        ] {
            assert!(kind.retryable());
            assert_eq!(code(kind), code_);
        }
    }

    #[test]
    fn a_statement_error_reads_as_in_the_shell() {
        let error = || {
            Error::new(ErrorKind::NotFound, "table \"ordrs\" does not exist")
                .with_position(Position {
                    line: 1,
                    column: 15,
                })
                .with_hint("did you mean \"orders\"?")
        };
        let sql = "select * from ordrs";
        let status = refusal_in(sql, error());
        assert_eq!(status.message(), error().render(sql));
        assert!(status.message().contains('^'));
    }

    #[test]
    fn our_error_is_found_inside_a_plan_error() {
        let inner: DataFusionError = Error::new(ErrorKind::Rejected, "3 rows refused").into();
        let wrapped = DataFusionError::Context("writing".into(), Box::new(inner));
        let status = refusal_of_plan("insert", wrapped);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "3 rows refused");
    }

    #[test]
    fn a_long_statement_does_not_overflow_the_header() {
        let sql = format!("select {} from t", "ü, ".repeat(10_000));
        let error = Error::new(ErrorKind::Invalid, "column \"ü\" does not exist")
            .with_position(Position { line: 1, column: 8 });
        assert_eq!(
            refusal_in(&sql, error).message(),
            "column \"ü\" does not exist"
        );
        let long = refusal(Error::new(ErrorKind::Invalid, "ü".repeat(10_000)));
        assert!(header_bytes(long.message()) <= MESSAGE_BYTES);
        assert!(long.message().ends_with("..."));
    }
}
