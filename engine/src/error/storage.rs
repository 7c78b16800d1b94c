//! Failures of the object store and of the disk below it: what the caller can do about them.

use std::error::Error as StdError;
use std::io;

use super::{Error, ErrorKind};
use crate::store::SHORTER;

impl Error {
    /// A failure of the object store while doing `what`, which names the object.
    pub(crate) fn storage(what: String, error: object_store::Error) -> Self {
        let told = Self::judged(what, verdict(&error)).with_detail(error.to_string());
        told.with_source(error)
    }

    /// A failure of the operating system, which `what` tells in full.
    pub(super) fn disk(what: String, error: io::Error) -> Self {
        Self::judged(what, of_io(error.kind())).with_source(error)
    }

    /// A failure of the object store of which only `words` are left; `what` has them.
    pub(super) fn storage_in_words(what: String, words: &str) -> Self {
        if words.contains(" not found: ") || words.contains(SHORTER) {
            return Self::judged(what, LOST);
        }
        let code = words
            .rsplit_once("(os error ")
            .and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
        match code {
            Some(code) => Self::disk(what, io::Error::from_raw_os_error(code)),
            None => Self::new(ErrorKind::Storage, what),
        }
    }

    fn judged(what: String, (kind, hint): Verdict) -> Self {
        let told = Self::new(kind, what);
        match hint {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    }

    /// Whether the store, or the disk under it, refused or failed; the statement itself may be right.
    pub fn of_storage(&self) -> bool {
        chain(self).any(|error| error.is::<object_store::Error>() || error.is::<io::Error>())
    }
}

/// Whether the disk said that it took nothing: it is full, or may not be written.
pub(crate) fn took_nothing(error: &object_store::Error) -> bool {
    matches!(verdict(error).0, ErrorKind::Denied | ErrorKind::Exhausted)
}

/// The kind, and what to do.
type Verdict = (ErrorKind, Option<&'static str>);

const LOST: Verdict = (ErrorKind::Corrupt, Some("restore this object from a copy"));

fn verdict(error: &object_store::Error) -> Verdict {
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => of_io(io::ErrorKind::PermissionDenied),
        object_store::Error::NotFound { .. } => LOST,
        cut if cut.to_string().contains(SHORTER) => LOST,
        other => chain(other)
            .find_map(|error| error.downcast_ref::<io::Error>())
            .map_or((ErrorKind::Storage, None), |error| of_io(error.kind())),
    }
}

/// What an error of the operating system means to the caller.
fn of_io(kind: io::ErrorKind) -> Verdict {
    use io::ErrorKind as Io;
    match kind {
        Io::PermissionDenied => (
            ErrorKind::Denied,
            Some(
                "this user or these credentials must be allowed to read, and to write where tables change",
            ),
        ),
        Io::ReadOnlyFilesystem => (
            ErrorKind::Denied,
            Some("the file system is mounted for reading only"),
        ),
        Io::StorageFull | Io::QuotaExceeded => (
            ErrorKind::Exhausted,
            Some("free space there, and run the statement again"),
        ),
        _ => (ErrorKind::Storage, None),
    }
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic {
            store: "disk",
            source: Box::new(io::Error::new(kind, "no")),
        }
    }

    #[test]
    fn each_failure_has_its_kind_and_says_what_to_do() {
        let denied = object_store::Error::PermissionDenied {
            path: "x".into(),
            source: "no".into(),
        };
        for (error, kind, hint) in [
            (denied, ErrorKind::Denied, Some("allowed to read")),
            (
                failure(io::ErrorKind::StorageFull),
                ErrorKind::Exhausted,
                Some("free space"),
            ),
            (
                failure(io::ErrorKind::ReadOnlyFilesystem),
                ErrorKind::Denied,
                Some("reading only"),
            ),
            (failure(io::ErrorKind::TimedOut), ErrorKind::Storage, None),
        ] {
            assert_eq!(took_nothing(&error), kind != ErrorKind::Storage);
            let told = Error::storage("cannot write x".into(), error);
            assert_eq!(told.kind(), kind);
            assert!(told.of_storage());
            match hint {
                Some(hint) => assert!(told.hint().unwrap().contains(hint), "{told}"),
                None => assert_eq!(told.hint(), None),
            }
        }
        assert!(!Error::invalid("no").of_storage());
    }

    #[test]
    fn words_are_enough() {
        for (words, kind) in [
            (
                "Unable to open file /x: Permission denied (os error 13)",
                ErrorKind::Denied,
            ),
            (
                "cannot read x: No space left on device (os error 28)",
                ErrorKind::Exhausted,
            ),
            (
                "Object at location x not found: No such file (os error 2)",
                ErrorKind::Corrupt,
            ),
            ("Generic S3 error: timed out", ErrorKind::Storage),
        ] {
            assert_eq!(
                Error::storage_in_words("no".into(), words).kind(),
                kind,
                "{words}"
            );
        }
    }
}
