//! One Delta table: its log, its snapshots, its scan.
//!
//! ```text
//! log -> replay -> snapshot -> versioned (scan: location, prune, deletion, stats, partition, footer)
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `actions` | the lines of a commit |
//! | `log` | names, bytes and checksums of commits |
//! | `replay` | from checkpoint and commits to a snapshot |
//! | `checkpoint` | from a snapshot to a checkpoint |
//! | `protocol` | features read and written, others refused |
//! | `schema` | Delta's schema JSON and Arrow |
//! | `mapping` | names of columns in files, apart from those in queries |
//! | `mapped_footer` | footers of files, in the names of queries |
//! | `mask` | which rows of a file are visible, and columns without the others |
//! | `widening` | types of columns that have grown |
//! | `snapshot` | one version in memory |
//! | `reader` | readers of Parquet files, with changed footers |
//! | `footer` | Parquet footers, without bounds that NaN makes untrue |
//! | `handle` | one table of an engine: cache, queue of writers |
//! | `running` | writes of this process that have not ended |
//! | `retention` | how long what only the past needs is kept |
//! | `cleanup` | commits older than that, deleted |
//! | `vacuumed` | which old versions a vacuum has left |
//! | `erased` | which old versions were ended for what they held |
//! | `leaves` | which columns files hold |
//! | `located` | where the rows of a scan are: file and position |
//! | `records/` | what writes said of their rules, and which rows they quarantined |
//! | `pieces` | what deletion vectors leave of files, in pieces of row groups |
//! | `visible` | the Parquet source, without the rows they hide |
//! | `versioned` | a snapshot as DataFusion's `TableProvider` |
//! | `journal` | a journal by valid time, as views of its raw table |
//! | `changes` | what versions brought and took, as a table of its own |
//! | `meta/` | what a snapshot and its log say of the table, as relations |

pub(crate) mod actions;
pub(crate) mod changes;
pub(crate) mod checkpoint;
pub(crate) mod cleanup;
pub(crate) mod deletion;
pub(crate) mod erased;
pub(crate) mod footer;
pub(crate) mod handle;
pub(crate) mod journal;
pub(crate) mod leaves;
pub(crate) mod located;
pub(crate) mod location;
pub(crate) mod log;
mod mapped_footer;
pub(crate) mod mapping;
mod mask;
pub(crate) mod meta;
pub(crate) mod partition;
mod pieces;
pub(crate) mod protocol;
pub(crate) mod prune;
mod reader;
pub(crate) mod records;
pub(crate) mod replay;
pub(crate) mod retention;
pub(crate) mod running;
pub(crate) mod schema;
pub(crate) mod snapshot;
mod source;
pub(crate) mod stats;
pub(crate) mod vacuumed;
pub(crate) mod versioned;
mod visible;
pub(crate) mod widening;
