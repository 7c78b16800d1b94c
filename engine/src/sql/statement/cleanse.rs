//! What the statements say that take values out of a table for good.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use crate::cleanse::policy::Policy;

#[derive(Debug, Clone)]
pub(crate) struct CreatePolicy {
    /// Name, scope and action as typed. What only the table can tell is not filled in, and the tables that its keys
    /// come from are named as they were typed.
    pub(crate) policy: Policy,
    pub(crate) table: ObjectName,
    pub(crate) or_replace: bool,
}

/// The policies of a table, applied to all that is kept of it.
#[derive(Debug, Clone)]
pub(crate) struct Cleanse {
    pub(crate) table: ObjectName,
    /// None: all that are enabled.
    pub(crate) policy: Option<Ident>,
    /// Older versions end, so that nothing of what was cleansed can be read again.
    pub(crate) erase: bool,
    /// What would be done is told, and not done.
    pub(crate) dry_run: bool,
}
