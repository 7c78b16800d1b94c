//! Files of COPY TO appear when all rows are written, or not at all.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use url::Url;

use crate::around::{Around, AroundExec, within};
use crate::error::Error;
use crate::store::{Held, HoldingStore};

/// Puts every sink of files under a step that makes it [`Whole`].
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
                true => Transformed::yes(AroundExec::plan(Whole, plan)),
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
struct Whole;

impl Around for Whole {
    const NAME: &'static str = "WholeExec";

    fn execute(
        &self,
        sink: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let held = Arc::new(Held::default());
        let rows = sink.execute(partition, holding(&context, &held))?;
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
    within(context, runtime)
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
