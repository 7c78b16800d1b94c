//! Text to statements. Knows no table, resolves no name and does no I/O.
//!
//! ```text
//! text -> lex -> read -> check -> Statement -> take_versions -> planner
//! ```
//!
//! Two rules make the room fail closed. Statements of ours are read word by word, so a clause that
//! nobody reads is an error by construction. Queries are read by sqlparser, which knows the clauses of
//! every dialect, and then walked by [`refuse`], which takes each node apart field by field: a clause
//! that the planner would drop is an error that names it, and a field that a later sqlparser adds
//! breaks the build.

mod alter;
mod changes;
mod cleanse;
mod confine;
mod constraint;
mod copy;
mod create;
mod dialect;
mod dml;
mod explain;
mod function;
mod history;
mod insert;
mod journal;
mod lex;
mod limits;
mod maintenance;
mod merge;
mod parameters;
mod parser;
mod plain;
mod policy;
mod quality;
mod reader;
mod refuse;
mod session;
mod show;
mod split;
mod statement;
mod suggest;
mod syntax;
mod target;
#[cfg(test)]
mod tests;
mod valid;
mod versions;
mod walk;

pub use split::{Script, split};

pub(crate) use changes::Changes;
pub(crate) use constraint::{
    Condition, Reference, parse_condition, parse_reference, reference_text, rule_clause,
};
pub(crate) use journal::journal_clause;
pub(crate) use parameters::{holds_parameter, parameter_count, sole_parameter};
pub(crate) use parser::{parse, parse_expr, parse_relation, parse_value};
pub(crate) use policy::{name_tables, parse_keys, policy_clause};
pub(crate) use statement::*;
pub(crate) use suggest::nearest;
pub(crate) use syntax::{position, syntax_error};
pub(crate) use versions::{AS_OF_ROW, At, Reading, Valid, ValidTime, take_versions};
