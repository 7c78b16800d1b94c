//! ANALYZE: statistics for files whose writers left none in the log, so that queries leave such files out and
//! know how many rows they hold. Only footers are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::{Job, bytes};
use crate::error::Result;
use crate::table::actions::Add;
use crate::table::located::footer;
use crate::table::protocol;
use crate::table::snapshot::{DataFile, Snapshot};
use crate::write::commit::{Intent, Removes};
use crate::write::files::FileSink;

/// Footers read at once.
const CONCURRENT_READS: usize = 16;

/// What ANALYZE did.
#[derive(Debug, Default)]
pub(crate) struct Analyzed {
    /// Files that have statistics now and had none.
    pub files: u64,
    /// Rows in them, deleted ones counted.
    pub rows: u64,
    /// The version that has them, if any file lacked them.
    pub version: Option<u64>,
}

/// Runs ANALYZE.
pub(crate) async fn run(job: &Job) -> Result<Analyzed> {
    let base = job.table.pin(&job.name).await?;
    protocol::check_writable(&job.name, &base)?;
    let lacking = lacking(&base);
    if lacking.is_empty() {
        return Ok(Analyzed::default());
    }
    let total = lacking.values().map(|file| bytes(file)).sum();
    job.meter.expect(lacking.len() as u64, total);

    let sink = job.sink(&base)?;
    let files: Vec<_> = lacking.values().cloned().collect();
    let read: Vec<(Add, u64)> = stream::iter(files)
        .map(|file| measured(job, &sink, file).boxed())
        .buffer_unordered(CONCURRENT_READS)
        .try_collect()
        .await?;
    let mut analyzed = Analyzed {
        files: read.len() as u64,
        rows: read.iter().map(|(_, rows)| rows).sum(),
        version: None,
    };
    let intent = Intent {
        adds: read.into_iter().map(|(add, _)| add).collect(),
        // They come back at once; it is by this that a file which was removed meanwhile does not.
        removes: Removes::Files(lacking),
        ..job.intent(&base, "ANALYZE")
    };
    analyzed.version = job.commit(intent).await?.version;
    Ok(analyzed)
}

/// Files of which the log does not say how many rows they hold, by path.
fn lacking(base: &Snapshot) -> BTreeMap<String, Arc<DataFile>> {
    let counted = |file: &DataFile| {
        let stats = file.stats(&base.schema);
        stats.is_some_and(|stats| stats.num_records.is_some())
    };
    let files = base.files.iter().filter(|(_, file)| !counted(file));
    files
        .map(|(path, file)| (path.clone(), Arc::clone(file)))
        .collect()
}

/// The line of a file with its statistics, and its rows.
async fn measured(job: &Job, sink: &FileSink, file: Arc<DataFile>) -> Result<(Add, u64)> {
    let footer = footer(&job.table.root, &file).await?;
    let rows = footer.file_metadata().num_rows().max(0).unsigned_abs();
    let tight = file.add.deletion_vector.is_none();
    let add = Add {
        stats: Some(sink.statistics(&footer, tight)),
        data_change: false,
        ..file.add.clone()
    };
    job.meter.rows(rows);
    job.meter.done(1, bytes(&file));
    Ok((add, rows))
}
