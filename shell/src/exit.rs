//! The exit codes, so that a script can tell a wrong statement from a lake that is away.

use std::process::ExitCode;

/// How the program ends. A wrong command line ends it with 2, which is clap's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Every statement ran.
    Ok = 0,
    /// A statement was refused.
    Sql = 1,
    /// The lake or a script cannot be opened, the object store failed, or the output was closed.
    Io = 3,
    /// Ctrl-C, as a shell reports a program that a signal ended.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
