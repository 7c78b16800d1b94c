//! A hook of one's own: every write of this engine drops rows whose number was seen before in the same write.
//!
//! `cargo run -p selvedge-engine --example hook`

#![expect(clippy::print_stdout, reason = "a program's results go to its output")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::Int64Type;
use selvedge_engine::{
    Answer, Engine, Error, ErrorKind, Verdict, WriteContext, WriteHook, WriteHookSupplier,
};

/// Makes a fresh [`FirstOnly`] for each write of a table whose first column is a number.
struct Deduplicate;

impl WriteHookSupplier for Deduplicate {
    fn name(&self) -> &str {
        "deduplicate"
    }

    fn create(&self, context: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>, Error> {
        let first = context.schema().fields().first();
        let wanted = first.is_some_and(|field| field.data_type().is_integer());
        Ok(wanted.then(|| Arc::new(FirstOnly::default()) as _))
    }
}

/// Keeps the first row of each number.
#[derive(Default)]
struct FirstOnly {
    seen: Mutex<HashSet<i64>>,
}

impl WriteHook for FirstOnly {
    fn rows(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        let failed = |what: String| Error::new(ErrorKind::Rejected, what);
        let numbers = batch
            .column(0)
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(|| failed("the first column is not a BIGINT".to_owned()))?;
        let mut seen = self
            .seen
            .lock()
            .map_err(|_| failed("another thread of this write failed".to_owned()))?;
        let fresh: BooleanArray = numbers
            .iter()
            .map(|number| Some(number.is_none_or(|number| seen.insert(number))))
            .collect();
        filter_record_batch(&batch, &fresh).map_err(|error| failed(error.to_string()))
    }

    fn finish(&self) -> Result<Verdict, Error> {
        Ok(Verdict::Accept {
            counters: Vec::new(),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let engine = Engine::builder("memory:///")
        .hook(Arc::new(Deduplicate))
        .open()
        .await?;
    let session = engine.session();
    session
        .execute("CREATE TABLE t (id BIGINT NOT NULL, name TEXT)")
        .await?;
    let answer = session
        .execute("INSERT INTO t VALUES (1, 'warp'), (2, 'weft'), (1, 'again')")
        .await?;
    if let Answer::Written(report) = answer {
        println!(
            "{} rows received, {} written, hooks: {:?}",
            report.rows_received, report.rows_written, report.hooks
        );
    }
    Ok(())
}
