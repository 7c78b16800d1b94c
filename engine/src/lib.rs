//! Selvedge: an embedded SQL engine over Delta Lake tables whose every write passes hooks before it lands.
//!
//! [`Engine`] opens a lake, [`Session`] runs SQL on it, [`Answer`] is what a statement returns.
//!
//! ```text
//! SELECT  text -> sql -> catalog (versions pinned) -> plan -> run -> Answer::Rows
//! INSERT  text -> sql -> catalog -> TableProvider::insert_into -> write -> Answer::Written
//! ```
//!
//! Rooms: `sql` (text to statements), `catalog` (names to tables), `table` (one Delta table),
//! `write` (the only way in), `maintenance` (upkeep of tables), `store` (where objects live),
//! `quality` (what tables expect of rows), `cleanse` (what they must forget), `journal` (how history becomes
//! intervals), `asof` (facts beside the intervals that hold them), `expr` (what expressions mean).

mod answer;
mod around;
mod asof;
mod catalog;
mod cleanse;
mod clock;
mod engine;
mod error;
mod expr;
mod journal;
mod maintenance;
mod progress;
mod quality;
mod session;
mod settings;
mod shown;
mod sql;
mod store;
mod table;
mod write;

pub use answer::Answer;
pub use cleanse::policy::{Columns, Policy, PolicyAction, PolicyScope};
pub use cleanse::record::PolicyResult;
pub use engine::{Engine, EngineBuilder};
pub use error::{Error, ErrorKind, Position, Result};
pub use progress::Progress;
pub use quality::record::{MetricValue, PartitionValues, RuleOutcome, RuleResult};
pub use quality::rule::{OnNull, OnViolation, Over, Rule, RuleKind};
pub use session::{
    IngestMode, Prepared, Rules, Session, SessionOptions, StatementKind, TableInfo, TableKind,
    Validation,
};
pub use settings::Settings;
pub use sql::{Script, split};
pub use write::hook::{Verdict, WriteContext, WriteHook, WriteHookSupplier, conformance};
pub use write::report::{HookReport, WriteReport};
