//! Journal tables: what was true when, as intervals that are exact at every version.
//!
//! ```text
//! definition (as kept) -> shape (everything wrong with it is told)
//! events + stored intervals + kept events -> fold -> intervals that go and come, events to keep
//! ```
//!
//! - `definition`: what a table says of its journal
//! - `shape`: the same, resolved against its columns
//! - `event`: rows that say something changed, and intervals, as batches
//! - `key`: whose rows: order, hashes, and how a message shows one
//! - `fold`: events and intervals of keys to the intervals that follow from them
//! - `columnar`: whether rows differ, many at once
//! - `horizon`: events kept because an earlier one may still come
//! - `told`: the newest snapshot it was told
//! - `check`: what is wrong with the intervals of a table
//!
//! This room knows batches and definitions. What is read and written of a table for them, and when, is the write
//! path's to say.

pub(crate) mod check;
pub(crate) mod columnar;
pub(crate) mod definition;
pub(crate) mod event;
pub(crate) mod fold;
pub(crate) mod horizon;
pub(crate) mod key;
pub(crate) mod shape;
pub(crate) mod told;
