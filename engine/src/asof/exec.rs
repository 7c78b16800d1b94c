//! The operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{BatchCoalescer, SortOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DataFusionError, JoinType, Result, Statistics};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::equivalence::join_equivalence_properties;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::{
    LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr, PhysicalExprRef,
    PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation,
};
use datafusion::physical_plan::joins::utils::build_join_schema;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, StatisticsArgs,
};
use futures::{FutureExt, TryFutureExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::held::{At, Held, Holding, Passing};
use super::merge::{Merge, Spanning};
use super::rows::{Encoder, Terms};
use super::wanted::{self, Limits};
use crate::error::Error;

/// How the sides come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Both in order, split by keys.
    Merge,
    /// All facts in memory and in order, the journal as it comes.
    Held,
}

/// Joins facts (left) to a journal (right): to each fact the interval of its keys that holds its instant.
#[derive(Debug)]
pub(super) struct AsOfJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    terms: Arc<Terms>,
    encoder: Arc<Encoder>,
    way: Way,
    /// What each side is sorted by, where it must be.
    orders: [LexOrdering; 2],
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// The facts, once the first part asks for them. Of [`Way::Held`].
    holding: Mutex<Option<Holding>>,
    /// What the scan of the journal is told when they are there. Of [`Way::Held`].
    wanted: Option<Arc<DynamicFilterPhysicalExpr>>,
}

impl AsOfJoinExec {
    pub(super) fn try_new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        terms: Arc<Terms>,
        way: Way,
    ) -> Result<Self> {
        let (schema, _) = build_join_schema(&left.schema(), &right.schema(), &terms.join_type);
        let schema = Arc::new(schema);
        let [from, _] = terms.period(&right.schema())?;
        let facts = terms.on.iter().map(|(key, _)| key).chain([&terms.at]);
        let spans = terms.on.iter().map(|(_, key)| key).chain([&from]);
        let orders = [ascending(facts)?, ascending(spans)?];
        let encoder = Encoder::new(&terms, &left.schema())?;
        let properties = properties(&left, &right, &terms, way, &schema)?;
        Ok(Self {
            left,
            right,
            terms,
            encoder: Arc::new(encoder),
            way,
            orders,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            holding: Mutex::new(None),
            wanted: None,
        })
    }

    /// The same with other sides, before it runs.
    fn anew(
        &self,
        [left, right]: [&Arc<dyn ExecutionPlan>; 2],
        wanted: Option<Arc<DynamicFilterPhysicalExpr>>,
    ) -> Result<Self> {
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let join = Self::try_new(left, right, Arc::clone(&self.terms), self.way)?;
        Ok(Self { wanted, ..join })
    }

    /// The facts, which the first part to run has begun to collect.
    fn holding(&self, context: &Arc<TaskContext>) -> Result<Holding> {
        let mut holding = self.holding.lock();
        if let Some(holding) = &*holding {
            return Ok(holding.clone());
        }
        let facts = self.left.execute(0, Arc::clone(context))?;
        let encoder = Arc::clone(&self.encoder);
        let parts = self.right.output_partitioning().partition_count();
        let memory = MemoryConsumer::new("AsOfJoinFacts").register(context.memory_pool());
        let (terms, journal) = (Arc::clone(&self.terms), self.right.schema());
        let wanted = self.wanted.clone();
        let limits = Limits::from(&context.session_config().options().optimizer);
        let held = async move {
            let held = Held::collect(facts, encoder, parts, memory).await?;
            if let Some(wanted) = wanted {
                wanted::tell(&wanted, &terms, &journal, &held.facts, limits)?;
            }
            Ok::<_, DataFusionError>(held)
        };
        let held = held.map_err(Arc::new);
        let held: Holding = held.boxed().shared();
        *holding = Some(held.clone());
        Ok(held)
    }

    /// One part of the journal, which is run when its first row is asked for: a scan that has begun may have chosen its
    /// files already, and where no fact looks for anything there is nothing to run.
    fn journal(&self, partition: usize, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let journal = Arc::clone(&self.right);
        let rows = stream::once(async move { journal.execute(partition, context) });
        let rows = rows.try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.right.schema(), rows))
    }

    fn passed(&self, partition: usize) -> Count {
        MetricBuilder::new(&self.metrics).counter("journal_rows", partition)
    }
}

fn ascending<'a>(columns: impl Iterator<Item = &'a PhysicalExprRef>) -> Result<LexOrdering> {
    // As the rows are compared: see `Encoder`.
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let columns = columns.map(|column| PhysicalSortExpr::new(Arc::clone(column), options));
    LexOrdering::new(columns)
        .ok_or_else(|| Error::internal("an as-of join compares nothing").into())
}

fn properties(
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    terms: &Terms,
    way: Way,
    schema: &SchemaRef,
) -> Result<PlanProperties> {
    let equivalences = join_equivalence_properties(
        left.equivalence_properties().clone(),
        right.equivalence_properties().clone(),
        &terms.join_type,
        Arc::clone(schema),
        &[false, false],
        None,
        &terms.on,
    )?;
    let (partitioning, emission) = match way {
        Way::Merge => (
            left.output_partitioning().clone(),
            EmissionType::Incremental,
        ),
        Way::Held => {
            let parts = right.output_partitioning().partition_count();
            let emission = match terms.join_type {
                JoinType::Left => EmissionType::Both,
                _ => EmissionType::Incremental,
            };
            (Partitioning::UnknownPartitioning(parts), emission)
        }
    };
    Ok(PlanProperties::new(
        equivalences,
        partitioning,
        emission,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for AsOfJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = &self.terms;
        let on = terms
            .on
            .iter()
            .map(|(fact, key)| format!("({fact}, {key})"));
        let on = on.collect::<Vec<_>>().join(", ");
        let way = match self.way {
            Way::Merge => "merge",
            Way::Held => "facts held",
        };
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(
                    f,
                    "AsOfJoinExec: way={way}, join_type={:?}, on=[{on}], at={}",
                    terms.join_type, terms.at
                )?;
                match &terms.filter {
                    Some(filter) => write!(f, ", filter={}", filter.expression()),
                    None => Ok(()),
                }
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "way={way}")?;
                writeln!(f, "join_type={:?}", terms.join_type)?;
                writeln!(f, "on={on}")?;
                writeln!(f, "at={}", terms.at)
            }
        }
    }
}

impl ExecutionPlan for AsOfJoinExec {
    fn name(&self) -> &str {
        "AsOfJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        match self.way {
            Way::Merge => {
                let (facts, spans) = self.terms.on.iter().cloned().unzip();
                InputDistributionRequirements::co_partitioned(vec![
                    Distribution::KeyPartitioned(facts),
                    Distribution::KeyPartitioned(spans),
                ])
            }
            Way::Held => InputDistributionRequirements::new(vec![
                Distribution::SinglePartition,
                Distribution::UnspecifiedDistribution,
            ]),
        }
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let [facts, spans] = &self.orders;
        let spans = (self.way == Way::Merge).then(|| spans.clone());
        vec![
            Some(OrderingRequirements::from(facts.clone())),
            spans.map(OrderingRequirements::from),
        ]
    }

    /// A merge keeps that of the facts, and does not say so: the planner would put a longer order that is asked of the
    /// join in the place of the one the join asks for.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let keys = self.terms.on.iter().flat_map(|(fact, key)| [fact, key]);
        let filter = self.terms.filter.iter().map(|filter| filter.expression());
        for expression in keys.chain([&self.terms.at]).chain(filter) {
            if visit(expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        for expression in self.dynamic_expressions_produced() {
            if visit(&expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[_; 2]>::try_from(children) else {
            return Err(Error::internal("a join has two sides").into());
        };
        // The scan below has the filter, whatever else became of the sides.
        let join = self.anew([&left, &right], self.wanted.clone())?;
        Ok(Arc::new(join))
    }

    /// As a hash join does it, a plan that is to run again and again tells its scans nothing: several runs of it at a
    /// time share them.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let join = self.anew([&self.left, &self.right], None)?;
        Ok(Arc::new(join))
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let filter = self.wanted.clone();
        let filter = filter.map(|filter| filter as Arc<dyn PhysicalExpr>);
        filter.into_iter().collect()
    }

    /// Intervals that no fact finds are not told, in neither type of join. So the journal may leave them out.
    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        above: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let facts = ChildFilterDescription::all_unsupported(&above);
        let mut journal = ChildFilterDescription::all_unsupported(&above);
        if self.way == Way::Held
            && self.wanted.is_none()
            && phase == FilterPushdownPhase::Post
            && config.optimizer.enable_join_dynamic_filter_pushdown
        {
            let filter = wanted::unknown(&self.terms, &self.right.schema())?;
            journal = journal.with_self_filter(Arc::new(filter));
        }
        Ok(FilterDescription::new()
            .with_child(facts)
            .with_child(journal))
    }

    /// Takes its filter back. A scan that does not apply it may still leave out files by it.
    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let own = pushed.self_filters.iter().flatten().next();
        let own = own.map(|own| Arc::clone(&own.predicate));
        let own = own.and_then(|own| Arc::downcast::<DynamicFilterPhysicalExpr>(own).ok());
        let pushed = FilterPushdownPropagation::if_all(pushed);
        Ok(match own {
            Some(own) => {
                let join = self.anew([&self.left, &self.right], Some(own))?;
                pushed.with_updated_node(Arc::new(join))
            }
            None => pushed,
        })
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let most = context.session_config().batch_size().max(1);
        let schema = Arc::clone(&self.schema);
        let out = BatchCoalescer::new(Arc::clone(&schema), most);
        let encoder = Arc::clone(&self.encoder);
        let memory = MemoryConsumer::new(format!("AsOfJoin[{partition}]"));
        let memory = memory.register(context.memory_pool());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let none = RecordBatch::new_empty(self.right.schema());
        let terms = Arc::clone(&self.terms);
        let passed = self.passed(partition);
        match self.way {
            Way::Merge => {
                let facts = self.left.execute(partition, Arc::clone(&context))?;
                let spans = Spanning {
                    rows: self.right.execute(partition, context)?,
                    none,
                    next: None,
                    last: None,
                    passed,
                    ended: false,
                    waited: std::time::Duration::ZERO,
                };
                let merge = Merge {
                    terms,
                    encoder,
                    facts,
                    spans,
                    schema: Arc::clone(&schema),
                    pairs: Vec::new(),
                    out,
                    memory,
                    metrics,
                    ended: false,
                };
                let rows = stream::try_unfold(merge, |mut merge| async move {
                    let batch = merge.next().await?;
                    Ok(batch.map(|batch| (batch, merge)))
                });
                Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
            }
            Way::Held => {
                let passing = Passing {
                    terms,
                    encoder,
                    holding: self.holding(&context)?,
                    held: None,
                    spans: self.journal(partition, context),
                    none,
                    schema: Arc::clone(&schema),
                    most,
                    at: At::Between,
                    hint: 0,
                    out,
                    passed,
                    memory,
                    metrics,
                };
                let rows = stream::try_unfold(passing, |mut passing| async move {
                    let batch = passing.next().await?;
                    Ok(batch.map(|batch| (batch, passing)))
                });
                Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
            }
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        let facts = match (self.way, partition) {
            (Way::Merge, partition) => ChildStats::At(partition),
            (Way::Held, None) => ChildStats::At(None),
            // Which facts find their intervals in one part of the journal is not known.
            (Way::Held, Some(_)) => ChildStats::Skip,
        };
        vec![facts, ChildStats::Skip]
    }

    /// At most one row for each fact.
    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(facts) = inputs.first() {
            // Never exact, for others may have broken a journal.
            let facts = facts.as_ref().clone().to_inexact();
            statistics.num_rows = facts.num_rows;
            let mut columns = facts.column_statistics;
            columns.resize(self.schema.fields().len(), ColumnStatistics::new_unknown());
            statistics.column_statistics = columns;
        }
        Ok(Arc::new(statistics))
    }
}
