//! Rows become history: what a write says of keys, against what the journal knows of them.
//!
//! ```text
//! Checked -> events (stage) -> sorted -> spool (accept)
//!   -> stored intervals of their keys (find) -> intervals that go and come (merge, step) -> one commit (run)
//! ```
//!
//! - `riders`: what comes beside the columns of a row, on its way through the stages
//! - `stage`: rows to events
//! - `bounded`: the sort of events
//! - `accept`: events of one write, each once
//! - `spool`: rows that are read again
//! - `find`: the stored rows that the events are about
//! - `candidates`: pages that may have some of them
//! - `picked`: rows by their keys
//! - `merge`: events beside stored intervals, key by key
//! - `snapshots`: keys that a snapshot lacks
//! - `refusal`: rows that history has no place for, and what is said of them
//! - `step`: one try against one version
//! - `run`: tries until one lands
//!
//! A write that meets another one on the way to its commit does only the step again: the stages, and whoever
//! looked at the rows there, see each row once.

mod accept;
mod bounded;
mod candidates;
mod find;
mod merge;
mod picked;
mod refusal;
pub(super) mod riders;
pub(super) mod run;
mod snapshots;
mod spool;
mod stage;
mod step;

pub(super) use picked::keys_in_place;
pub(super) use stage::{ordering, plan};
