//! Upkeep of a table: its rows stay what they are, and lie in better files.
//!
//! - `compact`: which files are to be rewritten, and which of them together
//! - `optimize`: OPTIMIZE, rewriting and committing them
//! - `tally`: rows counted as they pass, for whoever waits
//! - `zorder`: rows arranged so that those near in several columns share files
//! - `auto`: the same in the background of writes, little by little
//! - `scattered`: which file of a journal's current rows is written again next
//! - `kept`: files of events that journals keep, and which versions need them
//! - `vacuum`: VACUUM, deleting what no version within the retention needs
//! - `restore`: RESTORE, an old version as the newest
//! - `cleanse/`: CLEANSE TABLE, rows that lie already made to meet the policies of the table
//! - `erase/`: CLEANSE TABLE .. ERASE, the end of all versions before, and of what they held
//! - `verify/`: VERIFY ERASURE, everything in the table's folder read for what should be gone
//! - `analyze`: ANALYZE, the statistics that other writers left out
//!
//! This room knows no SQL text and no session. Rows are read by the table's own scan and written by the files
//! of the write path; they pass no hooks, for none of them is new. Whatever becomes visible does so in
//! `write::commit`.

pub(crate) mod analyze;
pub(crate) mod auto;
pub(crate) mod cleanse;
mod compact;
pub(crate) mod erase;
mod kept;
pub(crate) mod optimize;
pub(crate) mod restore;
mod scattered;
mod tally;
pub(crate) mod vacuum;
pub(crate) mod verify;
mod zorder;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};

use crate::engine::session_config;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Meter;
use crate::settings::Settings;
use crate::table::handle::Table;
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::versioned::VersionedTable;
use crate::write::commit::{self, Intent, Outcome};
use crate::write::files::FileSink;
use crate::write::report::WriteReport;

/// One piece of upkeep: on which table, with what, and for whom.
#[derive(Debug)]
pub(crate) struct Job {
    /// Table as `schema.name`, for messages.
    pub name: String,
    pub table: Arc<Table>,
    pub runtime: Arc<RuntimeEnv>,
    pub settings: Settings,
    pub user: Option<String>,
    /// Milliseconds since the epoch of the statement.
    pub batch_id: i64,
    pub meter: Meter,
}

impl Job {
    /// A state to read the table with: the engine's own, whatever a session has set for its queries.
    fn state(&self, partitions: usize) -> SessionState {
        SessionStateBuilder::new()
            .with_config(session_config(&self.settings).with_target_partitions(partitions))
            .with_runtime_env(Arc::clone(&self.runtime))
            .build()
    }

    /// The table as if it had only `files`, which a scan of one partition reads in this order.
    fn only(&self, base: &Snapshot, files: &[Arc<DataFile>]) -> VersionedTable {
        // A scan takes files in the order of their keys, and asks nothing else of a key.
        let files = files.iter().enumerate();
        let snapshot = Snapshot {
            files: files
                .map(|(at, file)| (format!("{at:020}"), Arc::clone(file)))
                .collect(),
            ..base.clone()
        };
        self.table.provider(&self.name, Arc::new(snapshot))
    }

    /// Where rewritten rows of `base` go.
    fn sink(&self, base: &Arc<Snapshot>) -> Result<FileSink> {
        let table = self.table.provider(&self.name, Arc::clone(base));
        FileSink::new(
            &self.table.root,
            &table.schema(),
            &base.metadata,
            self.settings.target_file_bytes,
            self.table.ambient.ids(),
            self.table.ambient.millis(),
        )
    }

    /// A commit to `base` that changes nothing yet.
    fn intent(&self, base: &Arc<Snapshot>, operation: &'static str) -> Intent {
        let base = Some(Arc::clone(base));
        let (name, user) = (self.name.clone(), self.user.clone());
        Intent {
            rearranges: true,
            ..Intent::new(name, base, operation, user, self.batch_id)
        }
    }

    /// Commits what cannot be made to fit a version it was not made for: then the statement runs again.
    async fn commit(&self, intent: Intent) -> Result<WriteReport> {
        self.commit_with(intent, &self.settings).await
    }

    async fn commit_with(&self, intent: Intent, settings: &Settings) -> Result<WriteReport> {
        match commit::commit(Arc::clone(&self.table), intent, settings).await? {
            Outcome::Committed(report) => Ok(report),
            Outcome::Conflict(reason) => {
                Err(Error::new(ErrorKind::Conflict, reason).with_hint("run the statement again"))
            }
            Outcome::Unknown(error) => Err(error),
        }
    }
}

/// Bytes of a data file.
fn bytes(file: &DataFile) -> u64 {
    file.add.size.max(0).unsigned_abs()
}
