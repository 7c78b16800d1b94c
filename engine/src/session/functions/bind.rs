//! Arguments in place of parameters.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Subquery, Volatility,
};

use super::Function;
use super::fit::{fitted, unfit};
use crate::error::{Error, Result};

/// A function of the lake as the planner sees it; [`expand`] takes it out of the plan again.
#[derive(Debug)]
pub(super) struct Macro {
    /// The name by which the query calls it.
    name: String,
    signature: Signature,
    function: Function,
    returns: DataType,
    /// Over columns that are the parameters.
    body: Expr,
}

impl Macro {
    pub(super) fn udf(
        name: String,
        function: Function,
        returns: DataType,
        body: Expr,
    ) -> ScalarUDF {
        // How many arguments there are is known from the text; what they are, when they take their places.
        let signature = match function.parameters.fields().len() {
            0 => Signature::nullary(Volatility::Stable),
            count => Signature::any(count, Volatility::Stable),
        };
        ScalarUDF::from(Self {
            name,
            signature,
            function,
            returns,
            body,
        })
    }
}

impl ScalarUDFImpl for Macro {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let full = &self.function.full;
        Err(Error::internal(format!("the call of function {full} was left in a plan")).into())
    }
}

// The name tells functions of one statement apart.
impl PartialEq for Macro {
    fn eq(&self, other: &Self) -> bool {
        self.function.full == other.function.full
    }
}

impl Eq for Macro {}

impl Hash for Macro {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.full.hash(state);
    }
}

/// Puts the bodies of functions in the places of their calls, under the names that the calls gave to columns.
pub(in crate::session) fn expand(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let schema = Arc::new(merge_schema(&node.inputs()));
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| call(expr, &schema))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })?;
        // Types stay; whether there may be NULL is known better now.
        node.map_data(LogicalPlan::recompute_schema)
    })
    .map(|done| done.data)
}

fn call(expr: Expr, schema: &DFSchemaRef) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let Some(ours) = func.inner().downcast_ref::<Macro>() else {
                return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction {
                    func,
                    args,
                })));
            };
            let bind = Bind::new(&ours.function, args, Arc::clone(schema))?;
            bind.value(ours.body.clone()).map(Transformed::yes)
        }
        other => Ok(Transformed::no(told_again(other))),
    }
}

/// A subquery says which columns of its outer query it uses, which another plan inside may have changed.
fn told_again(expr: Expr) -> Expr {
    let again = |subquery: Subquery| Subquery {
        outer_ref_columns: subquery.subquery.all_out_ref_exprs(),
        ..subquery
    };
    match expr {
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(again(subquery)),
        Expr::Exists(mut exists) => {
            exists.subquery = again(exists.subquery);
            Expr::Exists(exists)
        }
        Expr::InSubquery(mut within) => {
            within.subquery = again(within.subquery);
            Expr::InSubquery(within)
        }
        Expr::SetComparison(mut comparison) => {
            comparison.subquery = again(comparison.subquery);
            Expr::SetComparison(comparison)
        }
        other => other,
    }
}

/// One call: which argument stands for which parameter.
pub(super) struct Bind<'a> {
    function: &'a Function,
    arguments: HashMap<&'a str, Expr>,
    /// The columns that arguments use.
    schema: Arc<DFSchema>,
}

impl<'a> Bind<'a> {
    pub(super) fn new(
        function: &'a Function,
        arguments: Vec<Expr>,
        schema: Arc<DFSchema>,
    ) -> Result<Self> {
        let fields = function.parameters.fields();
        let arguments = fields.iter().zip(arguments).map(|(field, argument)| {
            let typed = argument_of(function, field.name(), argument, field.data_type(), &schema)?;
            Ok((field.name().as_str(), typed))
        });
        Ok(Self {
            function,
            arguments: arguments.collect::<Result<_>>()?,
            schema,
        })
    }

    /// The value of the call.
    pub(super) fn value(&self, body: Expr) -> DfResult<Expr> {
        self.once(&body)?;
        // From the leaves up, so that an argument that is in its place is not looked at again.
        let done = body.transform_up(|expr| match expr {
            Expr::Column(column) => Ok(match self.argument(&column) {
                Some(argument) => Transformed::yes(argument.clone()),
                None => Transformed::no(Expr::Column(column)),
            }),
            Expr::ScalarSubquery(subquery) => Ok(Transformed::yes(Expr::ScalarSubquery(
                self.inside(subquery)?,
            ))),
            Expr::Exists(mut exists) => {
                exists.subquery = self.inside(exists.subquery)?;
                Ok(Transformed::yes(Expr::Exists(exists)))
            }
            Expr::InSubquery(mut within) => {
                within.subquery = self.inside(within.subquery)?;
                Ok(Transformed::yes(Expr::InSubquery(within)))
            }
            Expr::SetComparison(mut comparison) => {
                comparison.subquery = self.inside(comparison.subquery)?;
                Ok(Transformed::yes(Expr::SetComparison(comparison)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }

    /// A query of the body, whose parameters are columns of its outer query.
    pub(super) fn rows(&self, plan: LogicalPlan) -> DfResult<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let below = merge_schema(&node.inputs());
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| match expr {
                    Expr::OuterReferenceColumn(field, column) => match self.argument(&column) {
                        Some(argument) => {
                            self.told_apart(argument, &below)?;
                            self.seen_from_inside(argument).map(Transformed::yes)
                        }
                        None => Ok(Transformed::no(Expr::OuterReferenceColumn(field, column))),
                    },
                    other => Ok(Transformed::no(told_again(other))),
                })?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })?;
            let node = node.update_data(|node| match node {
                LogicalPlan::Subquery(subquery) => LogicalPlan::Subquery(Subquery {
                    outer_ref_columns: subquery.subquery.all_out_ref_exprs(),
                    ..subquery
                }),
                other => other,
            });
            node.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(done.data)
    }

    /// Refuses a column of the caller where the body has one of the same name and table. SQL text cannot say that,
    /// and the optimizer, which knows columns by their names, would compare the inner one with itself.
    fn told_apart(&self, argument: &Expr, below: &DFSchema) -> Result<()> {
        let columns = argument.column_refs();
        match columns.into_iter().find(|column| below.has_column(column)) {
            None => Ok(()),
            Some(column) => Err(Error::unsupported(format!(
                "function {} and the query that calls it both have a column {}",
                self.function.full,
                column.flat_name()
            ))
            .with_hint("give the table in the function an alias that nobody else has")),
        }
    }

    fn inside(&self, subquery: Subquery) -> DfResult<Subquery> {
        let plan = self.rows(Arc::unwrap_or_clone(subquery.subquery))?;
        Ok(Subquery {
            outer_ref_columns: plan.all_out_ref_exprs(),
            subquery: Arc::new(plan),
            spans: subquery.spans,
        })
    }

    fn seen_from_inside(&self, argument: &Expr) -> DfResult<Expr> {
        let done = argument.clone().transform_up(|expr| match expr {
            Expr::Column(column) => {
                let (_, field) = self.schema.qualified_field_from_column(&column)?;
                let field = Arc::clone(field);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(done.data)
    }

    fn argument(&self, column: &Column) -> Option<&Expr> {
        let table = column.relation.as_ref()?.table();
        match table == self.function.name {
            true => self.arguments.get(column.name.as_str()),
            false => None,
        }
    }

    /// A function gets each value once, and so must use one that is another each time it is computed.
    fn once(&self, body: &Expr) -> Result<()> {
        for (name, argument) in self
            .arguments
            .iter()
            .filter(|(_, value)| value.is_volatile())
        {
            if self.uses(body, name)? > 1 {
                return Err(Error::invalid(format!(
                    "function {} uses its parameter {name} more than once, and its argument {argument} is another value each time",
                    self.function.full
                ))
                .with_hint(format!(
                    "compute it first: SELECT {}(v) FROM (SELECT {argument} AS v) AS t",
                    self.function.name
                )));
            }
        }
        Ok(())
    }

    fn uses(&self, body: &Expr, parameter: &str) -> Result<usize> {
        let mut uses = 0;
        let is = |column: &Column| column.name == parameter && self.argument(column).is_some();
        body.apply(|expr| {
            match expr {
                Expr::Column(column) if is(column) => uses += 1,
                // A query is computed for many rows.
                Expr::ScalarSubquery(subquery) => uses += 2 * outer(subquery, &is),
                Expr::Exists(exists) => uses += 2 * outer(&exists.subquery, &is),
                Expr::InSubquery(within) => uses += 2 * outer(&within.subquery, &is),
                Expr::SetComparison(comparison) => uses += 2 * outer(&comparison.subquery, &is),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(uses)
    }
}

fn outer(subquery: &Subquery, is: &impl Fn(&Column) -> bool) -> usize {
    let references = subquery.subquery.all_out_ref_exprs();
    let references = references.iter().filter(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => is(column),
        _ => false,
    });
    references.count()
}

fn argument_of(
    function: &Function,
    parameter: &str,
    argument: Expr,
    wanted: &DataType,
    schema: &DFSchema,
) -> Result<Expr> {
    if let Expr::Placeholder(Placeholder { id, field: None }) = argument {
        let field = datafusion::arrow::datatypes::Field::new(&id, wanted.clone(), true);
        let placeholder = Placeholder::new_with_field(id, Some(Arc::new(field)));
        return Ok(Expr::Placeholder(placeholder));
    }
    let given = argument.get_type(schema)?;
    let what = format!(
        "parameter {parameter} of function {}: {argument}",
        function.full
    );
    fitted(argument, &given, wanted).ok_or_else(|| unfit(&what, &given, wanted))
}
