//! What a session does with journals apart from rows on their way: they are made, proved, and followed through time.
//!
//! - `create`: from what a statement says of a journal to what its table keeps of it
//! - `check`: CHECK JOURNAL, and the proof that a correction leaves intervals as they must be
//! - `history`: HISTORY OF, and `valid_time_changes`

mod check;
mod create;
pub(super) mod history;

pub(super) use check::{as_kept, check, checked, faults, plain};
pub(super) use create::{described, fits, settable};
