//! Data quality: what a table expects of its rows, asked of every row once, on its way into the table.
//!
//! ```text
//! rule (as kept) -> compile -> evaluate, batch by batch -> settle -> results and metrics (record)
//! ```
//!
//! - `rule`: what is kept and exchanged
//! - `check`, `condition`: what one row is asked, Delta's CHECK included
//! - `compile`: from text to something that can be asked; everything wrong with a rule is told there
//! - `row`, `reference`: rules about each row; `keys`: the keys that a `reference` looks for
//! - `metric`, `formula`, `past`: numbers about all rows of a write, and rules about these
//! - `evaluate`: all rules over the batches of one worker, and what all workers found
//! - `failure`: what is wrong with one row
//! - `record`: what a write says of its rules
//!
//! This room knows batches and rules, no session and no store. The write path, CHECK TABLE and EXPLAIN QUALITY
//! all ask through it.

pub(crate) mod check;
pub(crate) mod compile;
mod condition;
pub(crate) mod evaluate;
pub(crate) mod failure;
mod formula;
mod keys;
pub(crate) mod metric;
pub(crate) mod past;
pub(crate) mod record;
mod reference;
mod row;
pub(crate) mod rule;
