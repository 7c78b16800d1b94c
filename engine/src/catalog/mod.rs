//! Names of a lake and what they stand for, kept in the lake itself.

pub(crate) mod entry;
mod log;

pub(crate) use log::{CatalogLog, Pinned};

/// The one catalog of a lake.
pub(crate) const NAME: &str = "lake";

/// The schema that is always there, and that unqualified names mean at first.
pub(crate) const DEFAULT_SCHEMA: &str = "public";

/// The schema DataFusion makes up from all others.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
