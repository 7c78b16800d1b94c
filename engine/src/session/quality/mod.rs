//! Statements that ask the rules of a table: CHECK TABLE, EXPLAIN QUALITY and REPLAY QUARANTINE.

mod at_rest;
mod rehearse;
mod replay;

pub(super) use at_rest::{check, checked, table, violations};
pub(super) use rehearse::{explain, explained};
pub(super) use replay::replay;
