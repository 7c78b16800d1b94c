//! Hooks that behave, and hooks that do not.

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;

use super::*;
use crate::quality::check;
use crate::quality::compile::Compiled;
use crate::quality::past::Past;
use crate::write::stages::{Checked, Received, Settled};

type Rows = dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync;

/// A hook made of a closure.
struct Supplier {
    rows: Arc<Rows>,
    verdict: Verdict,
    wanted: bool,
}

struct Hook(Arc<Rows>, Verdict);

impl WriteHookSupplier for Supplier {
    fn name(&self) -> &str {
        "audit"
    }

    fn create(&self, context: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>> {
        assert_eq!(context.table(), "shop.orders");
        let hook: Arc<dyn WriteHook> = Arc::new(Hook(Arc::clone(&self.rows), self.verdict.clone()));
        Ok(self.wanted.then_some(hook))
    }
}

impl WriteHook for Hook {
    fn rows(&self, batch: RecordBatch) -> Result<RecordBatch> {
        (self.0)(batch)
    }

    fn finish(&self) -> Result<Verdict> {
        Ok(self.1.clone())
    }
}

fn accept() -> Verdict {
    Verdict::Accept {
        counters: vec![("seen".into(), 7)],
    }
}

fn supplier(
    rows: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
) -> Arc<dyn WriteHookSupplier> {
    Arc::new(Supplier {
        rows: Arc::new(rows),
        verdict: accept(),
        wanted: true,
    })
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
    ]))
}

fn batch(ids: &[i64]) -> RecordBatch {
    let names: StringViewArray = ids.iter().map(|id| Some(format!("n{id}"))).collect();
    let ids = Int64Array::from(ids.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

fn with_column(batch: &RecordBatch, at: usize, column: ArrayRef, nullable: bool) -> RecordBatch {
    let mut fields = batch.schema().fields().to_vec();
    fields[at] = Arc::new(fields[at].as_ref().clone().with_nullable(nullable));
    let mut columns = batch.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn even(batch: RecordBatch) -> Result<RecordBatch> {
    let ids = batch.column(0).as_primitive::<Int64Type>();
    let even: BooleanArray = ids.iter().map(|id| id.map(|id| id % 2 == 0)).collect();
    filter_record_batch(&batch, &even).map_err(|error| Error::internal(error.to_string()))
}

fn context() -> WriteContext {
    WriteContext::new("shop.orders", schema(), "WRITE", 5, Some(3))
}

fn stage(partitions: &[Vec<RecordBatch>], hooks: &[Arc<dyn WriteHookSupplier>]) -> Checked {
    let state = SessionContext::new().state();
    let check = check::compile(&state, "shop.orders", "small", "id < 100", &schema()).unwrap();
    let rules = TableRules {
        table: "shop.orders".into(),
        schema: schema(),
        journal: None,
        checks: vec![check],
        condition: false,
        quarantines_invalid: false,
    };
    let input = MemorySourceConfig::try_new_exec(partitions, schema(), None).unwrap();
    let validated = Received::rows(input).validate(Arc::new(rules), None);
    let hooked = validated.unwrap().hooks(hooks, &context()).unwrap();
    hooked.cleanse().check(Compiled::none(schema()))
}

async fn run(stage: &Checked) -> Result<(usize, Settled), String> {
    let context = SessionContext::new().task_ctx();
    let run = stage.account.begin(&context).await;
    let run = run.map_err(|error| error.to_string())?;
    let rows = collect(Arc::clone(&stage.plan), context).await;
    let rows = rows.map_err(|error| match error.find_root() {
        datafusion::error::DataFusionError::External(error) => error.to_string(),
        other => other.to_string(),
    })?;
    let settled = run
        .settle(&Past::default())
        .map_err(|error| error.to_string())?;
    Ok((rows.iter().map(RecordBatch::num_rows).sum(), settled))
}

async fn failure(
    rows: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
) -> String {
    let stage = stage(&[vec![batch(&[1, 2, 3])]], &[supplier(rows)]);
    let error = run(&stage).await.unwrap_err();
    assert!(
        error.starts_with("hook audit on table shop.orders "),
        "{error}"
    );
    error
}

#[tokio::test]
async fn rows_are_counted_in_and_out_of_each_hook() {
    let input = [vec![batch(&[1, 2]), batch(&[3])], vec![batch(&[4, 6])]];
    let stage = stage(&input, &[supplier(Ok), supplier(even), supplier(Ok)]);
    for _ in 0..2 {
        let (rows, settled) = run(&stage).await.unwrap();
        let counts: Vec<_> = settled
            .hooks
            .iter()
            .map(|hook| (hook.rows_in, hook.rows_out))
            .collect();
        assert_eq!((rows, settled.rows_received), (3, 5));
        assert_eq!(counts, [(5, 5), (5, 3), (3, 3)]);
        assert_eq!(settled.hooks[1].hook, "audit");
        assert_eq!(settled.hooks[1].counters, [("seen".to_string(), 7)]);
    }
}

#[test]
fn explain_shows_hooks_that_want_the_write() {
    let unwanted = Arc::new(Supplier {
        rows: Arc::new(Ok),
        verdict: accept(),
        wanted: false,
    });
    let stage = stage(&[vec![]], &[supplier(Ok), unwanted]);
    let shown = displayable(stage.plan.as_ref()).indent(false).to_string();
    let lines: Vec<&str> = shown.lines().map(str::trim).collect();
    assert_eq!(lines[0], "WriteHookExec: audit");
    assert!(lines[1].starts_with("ValidateExec: "), "{shown}");
}

#[tokio::test]
async fn hooks_see_no_row_that_breaks_a_constraint() {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let hook = supplier(move |batch| {
        *count.lock() += batch.num_rows();
        Ok(batch)
    });
    let stage = stage(&[vec![batch(&[1]), batch(&[2, 100]), batch(&[3])]], &[hook]);
    let error = run(&stage).await.unwrap_err();
    assert!(error.contains("refuses 1 of 4 rows"), "{error}");
    assert_eq!(*seen.lock(), 1);
}

#[tokio::test]
async fn a_hook_may_change_values() {
    let hook = supplier(|batch| {
        let names: StringViewArray = (0..batch.num_rows())
            .map(|_| Option::<&str>::None)
            .collect();
        Ok(with_column(&batch, 1, Arc::new(names), true))
    });
    let (rows, _) = run(&stage(&[vec![batch(&[1, 2])]], &[hook])).await.unwrap();
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn a_hook_is_held_to_the_rules_of_the_table() {
    let error = failure(|batch| {
        let ids: Int64Array = [Some(1), None, None].into_iter().collect();
        Ok(with_column(&batch, 0, Arc::new(ids), true))
    })
    .await;
    assert!(
        error.ends_with("left no value in NOT NULL column id (2 rows)"),
        "{error}"
    );

    let error = failure(|batch| {
        let ids = Int64Array::from(vec![1, 500, 600]);
        Ok(with_column(&batch, 0, Arc::new(ids), false))
    })
    .await;
    let told = "broke a constraint: CHECK small (id < 100) is not true for id = 500 (2 rows)";
    assert!(error.ends_with(told), "{error}");

    let error =
        failure(|batch| Ok(arrow::compute::concat_batches(&schema(), [&batch, &batch]).unwrap()))
            .await;
    assert!(error.ends_with("made 6 rows of 3"), "{error}");

    let error = failure(|batch| Ok(batch.project(&[0]).unwrap())).await;
    assert!(error.contains("changed the columns"), "{error}");
    let error = failure(|batch| Ok(batch.project(&[1, 0]).unwrap())).await;
    assert!(error.contains("changed the columns"), "{error}");
}

#[tokio::test]
async fn a_failing_hook_ends_the_write_by_name() {
    let error = failure(|_| Err(Error::invalid("no ledger").with_hint("start it"))).await;
    assert!(
        error.ends_with("failed: no ledger\nhint: start it"),
        "{error}"
    );
    let error = failure(|batch| panic!("{} rows!", batch.num_rows())).await;
    assert!(error.ends_with("panicked: 3 rows!"), "{error}");

    let refusing: Arc<dyn WriteHookSupplier> = Arc::new(Supplier {
        rows: Arc::new(Ok),
        verdict: Verdict::Refuse {
            reason: "too few rows".into(),
        },
        wanted: true,
    });
    let error = run(&stage(&[vec![batch(&[1])]], &[refusing]))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        "hook audit refused the write to table shop.orders: too few rows"
    );
}

mod suite {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn laws(
        rows: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Result<()> {
        let batches = [batch(&[1, 2, 3]), batch(&[]), batch(&[4, 4])];
        conformance::write_hook(&supplier(rows), &context(), &batches)
    }

    fn broken(
        law: &str,
        rows: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) {
        let error = laws(rows).unwrap_err().to_string();
        assert!(error.contains(law), "{error}");
    }

    #[test]
    fn accepts_hooks_that_keep_the_laws() {
        laws(Ok).unwrap();
        laws(even).unwrap();
    }

    #[test]
    fn finds_hooks_that_depend_on_batches() {
        broken("in other batches", |batch| {
            Ok(batch.slice(0, batch.num_rows().min(1)))
        });
    }

    #[test]
    fn finds_hooks_that_remember_other_writes() {
        let calls = AtomicUsize::new(0);
        broken("an instance of its own", move |batch| {
            let odd = calls.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            Ok(if odd { batch.slice(0, 0) } else { batch })
        });
    }

    #[test]
    fn finds_hooks_that_break_the_schema_or_fail() {
        broken("changed the columns", |batch| {
            Ok(batch.project(&[0]).unwrap())
        });
        broken("panicked", |batch| {
            assert!(batch.num_rows() > 0, "empty");
            Ok(batch)
        });
        broken("ledger", |_| Err(Error::invalid("no ledger")));
    }

    #[test]
    fn a_supplier_that_declines_is_not_green() {
        let declining: Arc<dyn WriteHookSupplier> = Arc::new(Supplier {
            rows: Arc::new(Ok),
            verdict: accept(),
            wanted: false,
        });
        let error = conformance::write_hook(&declining, &context(), &[batch(&[1])]).unwrap_err();
        assert!(error.to_string().contains("nothing was tested"), "{error}");
    }
}
