//! Files of COPY TO appear when all rows are written, or not at all.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use url::Url;

use crate::error::Error;
use crate::store::{Held, HoldingStore};

/// Puts every sink of files under a [`WholeExec`].
#[derive(Debug)]
pub(super) struct WholeFiles;

impl PhysicalOptimizerRule for WholeFiles {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            Ok(match plan.is::<DataSinkExec>() {
                true => Transformed::yes(Arc::new(WholeExec { sink: plan }) as _),
                false => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "whole_files"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Runs a sink over stores that hold its writes back until it has ended well.
#[derive(Debug)]
struct WholeExec {
    sink: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for WholeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeExec")
    }
}

impl ExecutionPlan for WholeExec {
    fn name(&self) -> &str {
        "WholeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.sink.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.sink]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(sink) => Ok(Arc::new(Self { sink })),
            None => internal_err!("whole files need a sink"),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let held = Arc::new(Held::default());
        let rows = self.sink.execute(partition, holding(&context, &held))?;
        let schema = rows.schema();
        let run = async move {
            match rows.try_collect::<Vec<_>>().await {
                Ok(count) => {
                    held.release().await.map_err(|error| {
                        Error::storage("a file of COPY TO could not be ended".to_owned(), error)
                    })?;
                    Ok(stream::iter(count.into_iter().map(Ok)))
                }
                Err(error) => {
                    held.discard().await;
                    Err::<_, DataFusionError>(error)
                }
            }
        };
        let rows = stream::once(run).try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// The same context, but what is written goes into `held`.
fn holding(context: &TaskContext, held: &Arc<Held>) -> Arc<TaskContext> {
    let runtime = context.runtime_env();
    let stores = HoldingStores {
        inner: Arc::clone(&runtime.object_store_registry),
        held: Arc::clone(held),
    };
    let runtime = RuntimeEnv {
        object_store_registry: Arc::new(stores),
        ..RuntimeEnv::clone(&runtime)
    };
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone(),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        Arc::new(runtime),
    ))
}

#[derive(Debug)]
struct HoldingStores {
    inner: Arc<dyn ObjectStoreRegistry>,
    held: Arc<Held>,
}

impl ObjectStoreRegistry for HoldingStores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.inner.register_store(url, store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(HoldingStore {
            inner: self.inner.get_store(url)?,
            held: Arc::clone(&self.held),
        }))
    }
}
