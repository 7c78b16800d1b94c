//! The Flight SQL door: Selvedge over gRPC for ADBC, JDBC and everything else that speaks Arrow Flight SQL.
//!
//! The server parses no SQL and touches no storage; every statement goes through
//! [`Session`](selvedge_engine::Session), so what holds in the shell holds here.
//!
//! ```text
//! request -> server (limits) -> service (the RPC table) -> sessions (who asks) -> a room below -> boundary -> client
//! ```
//!
//! Rooms:
//! - `server`: the socket, the limits of gRPC, start and graceful stop
//! - `service`: one function per RPC; every one of them is admitted by `sessions` first
//! - `sessions`, `registry`: bearer tokens and cookies to sessions, bounded in number and idle time
//! - `shelf`: random handles to what a session keeps for a client, bounded and expiring
//! - `statements`: SQL to `FlightInfo`; writes run there, exactly once; tickets to rows
//! - `prepared`: prepared statements and their parameters
//! - `ingest`: bulk ingest through the write path
//! - `metadata`, `sql_info`, `xdbc`: what catalogs, tables and features there are
//! - `options`: the session options actions
//! - `boundary`: types that every client can read
//! - `status`: errors to gRPC codes, in one table

mod boundary;
mod ingest;
mod metadata;
mod options;
mod prepared;
mod registry;
mod server;
mod service;
mod sessions;
mod shelf;
mod sql_info;
mod statements;
mod status;
mod xdbc;

pub use server::{BoundServer, Server, ServerOptions};

/// A value nobody can guess: handles and tokens are secrets.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the server that asks the machine for randomness"
)]
fn random<T>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    rand::random()
}
