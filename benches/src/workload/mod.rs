//! What is measured, one file each.

pub(crate) mod bulk;
pub(crate) mod changes;
pub(crate) mod cleanse;
pub(crate) mod cold;
pub(crate) mod journal;
pub(crate) mod quality;
pub(crate) mod small;
pub(crate) mod tpch;
