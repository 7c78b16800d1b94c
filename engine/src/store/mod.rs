//! Where objects live: from the text of a lake's URL to a store that keeps what it was given.
//!
//! - `open`: URL to [`Lake`]; which schemes there are is written there and nowhere else.
//! - `durable`: the local store whose acknowledged writes survive power loss.
//! - `held`: a store whose writes appear together, or not at all.
//! - `probe`: whether a remote store refuses to create an object twice, without which commits race.
//! - `whole`: ranges are answered whole or not at all.
//! - `sweep`: removal of what a crash left half written on a local disk.
//!
//! This room knows no table and no log: to it a commit is an object like any other.

mod durable;
mod held;
mod open;
mod probe;
mod sweep;
mod whole;

pub(crate) use held::{Held, HoldingStore};
pub(crate) use open::{Lake, open, open_external};
pub(crate) use probe::probe;
pub(crate) use sweep::sweep;
pub(crate) use whole::{SHORTER, Whole};
