//! Joins of facts to a journal: to each fact the interval of its key that holds its instant.
//!
//! | file | holds |
//! | --- | --- |
//! | `interval` | when an interval holds an instant, as a function of plans and for the operator |
//! | `choose` | which joins of a plan become such ones, and in which of two ways |
//! | `exec` | the operator: what it asks of its inputs, what it promises |
//! | `rows` | rows of both sides as the ways compare them, and rows put together |
//! | `merge` | both sides in order, passed once: nothing is held but the rows at hand |
//! | `held` | few facts, held in order; the journal passes by in any order |
//! | `wanted` | what held facts ask of the journal before it is read |
//!
//! As the planner sees it, the join is one by equality with the condition [`holds`], which any join can evaluate. So
//! all of DataFusion's rules about joins apply to it: what is pushed below it, when LEFT becomes INNER, which columns
//! are read. Only the physical join is another one, where the condition proves that it may be.
//!
//! Why it may be: intervals of one key do not overlap. Of all that begin at an instant or before it, only the last one
//! can still hold it, for every other one has ended when the next one began. That is so for rows which agree in *all*
//! keys of the journal, so the operator stands only where the equalities of the join contain them. Further conditions
//! only take candidates away, be it below the join or in it; then the interval before is a candidate, and it has ended.
//!
//! Other engines may write a journal's files past its rules, and CHECK JOURNAL tells if intervals overlap. Of such, a
//! merge finds the one that begins last, if it holds the instant; the other ways find all that hold it.

mod choose;
mod exec;
mod held;
mod interval;
mod merge;
mod rows;
mod wanted;

pub(crate) use choose::AsOfJoins;
pub(crate) use interval::{holds, micros};

#[cfg(test)]
mod tests;
