//! The write path: the one way rows get into a table. Files in the order in which rows travel.
//!
//! ```text
//! Received -> Validated -> Hooked -> Cleansed -> Checked   plans only: EXPLAIN shows every stage, nothing happens
//! [-> events of a journal -> intervals]
//! -> files, quarantine (first effects, invisible) -> verdicts -> commit (the only visible effect)
//! ```

mod cast;
pub(crate) mod change;
mod cleanse;
pub(crate) mod commit;
pub(crate) mod conflict;
pub(crate) mod files;
pub(crate) mod hook;
mod invalid;
mod journal;
mod plan;
mod quality;
pub(crate) mod quarantine;
mod removal;
mod replay;
pub(crate) mod report;
mod run;
pub(crate) mod sink;
mod stage;
mod stages;
pub(crate) mod target;
mod validate;

pub(crate) use cast::lossless;
pub(crate) use files::{STATS_COLUMNS_KEY, lists};
pub(crate) use plan::plan;
