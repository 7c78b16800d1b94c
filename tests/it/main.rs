//! Integration tests of the whole: one binary, a module per topic.
//!
//! - `slt`: SQL behaviour, in the files under `slt/`, through every door and on every kind of store.
//! - `doors`: every way rows reach a table, and that rules and hooks hold at each.
//! - `evolution`: columns that change, and what the log says of it.
//! - `fault_loop`: each write to the store fails once, in every way; `processes`: writers that race or are killed.
//! - `matrix`: any two statements at once, held at every point where they could meet.
//! - `broken`: what a power loss, a lost object or a newer writer leaves behind.
//! - `bad_input`: mistakes of people; `disk`: a disk that is full or closed; `many_tables`: a lake of 10,000.
//! - `changes`: what `table_changes` reads, and that it leads from any version to any other.
//! - `journal`: what a history promises, by numbers: any order of events, two writers, faults, a real one.
//! - `metadata`: what a table says of itself, where SQL files cannot show it.
//! - `time`: the rules about versions, instants and zones, by their numbers.
//! - `s3`: what a lake needs of a remote store, and how the environment names it.
//! - `power`: the engine on every disk a power loss may leave.
//! - `cleanse`: what a table must forget, by their numbers: in the write, at rest, in its past, and the proof of it.
//! - `quality`: rules in the write, by their numbers: rows, metrics, quarantine, doors, faults.
//! - `traps`: what other engines got wrong, by name.
//! - `faults`: the tool that breaks a store on purpose, tested itself.
//! - `upkeep`: OPTIMIZE, VACUUM, RESTORE, ANALYZE and the merges behind writes, beside other statements and faults.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, and a child process reports by its output"
)]

mod bad_input;
mod broken;
mod changes;
mod cleanse;
mod disk;
mod doors;
mod evolution;
mod fault_loop;
mod faults;
mod journal;
mod many_tables;
mod matrix;
mod metadata;
mod power;
mod processes;
mod quality;
mod s3;
mod slt;
mod support;
mod time;
mod traps;
mod upkeep;
