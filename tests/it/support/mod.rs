//! What tests are built with.

pub(crate) mod delta;
pub(crate) mod door;
pub(crate) mod fault;
pub(crate) mod flight;
pub(crate) mod gate;
pub(crate) mod intercept;
pub(crate) mod lake;
pub(crate) mod numbered;
pub(crate) mod ordeal;
pub(crate) mod power;
pub(crate) mod process;
pub(crate) mod query;
pub(crate) mod render;
pub(crate) mod s3;
pub(crate) mod slt;
pub(crate) mod traces;
