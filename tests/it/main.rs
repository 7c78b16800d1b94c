//! Integration tests of the whole: one binary, a module per topic.
//!
//! - `slt`: SQL behaviour, in the files under `slt/`, through every door and on every kind of store.
//! - `doors`: every way rows reach a table, and that rules and hooks hold at each.
//! - `fault_loop`: each write to the store fails once, in every way; `processes`: writers that race or are killed.
//! - `broken`: what a power loss, a lost object or a newer writer leaves behind.
//! - `s3`: what a lake needs of a store, over the real S3 protocol.
//! - `faults`, `power`: the tools that break a store on purpose, tested themselves.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, and a child process reports by its output"
)]

mod broken;
mod doors;
mod fault_loop;
mod faults;
mod power;
mod processes;
mod s3;
mod slt;
mod support;
