//! Cleansing: cells and rows that a table must forget, taken out of what comes in and of what is there.
//!
//! ```text
//! policy (as kept) -> compile (everything wrong with it is told) -> keys (read when a run begins) -> apply, batch by
//! batch -> results (record)
//! ```
//!
//! - `policy`: what is kept and exchanged
//! - `compile`: from a policy to something that rows can be put through
//! - `keys`: whose rows: a query, and the set of what it answered
//! - `apply`: what becomes of the rows of a batch
//! - `aside`: the same for rows in quarantine, which hold their values in more places
//! - `cast`: values in the type that others are compared in
//! - `mask`: which cells were cleansed, told to those who judge rows afterwards
//! - `record`: what a write, or `CLEANSE TABLE`, says of its policies
//!
//! This room knows batches and policies, no session and no store. The write path and the upkeep of tables both
//! cleanse through it.

pub(crate) mod apply;
pub(crate) mod aside;
pub(crate) mod cast;
pub(crate) mod compile;
pub(crate) mod keys;
pub(crate) mod mask;
pub(crate) mod policy;
pub(crate) mod record;
#[cfg(test)]
mod tests;
