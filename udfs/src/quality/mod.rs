//! What is asked of data when its quality is judged: how much is missing, what repeats, where the middle lies.
//!
//! - `counts`: NULL and NaN, as numbers and as a share.
//! - `unique`: whether rows repeat, over `values` (rows to keys), `key` (what a key is) and `seen` (keys met so far).

mod counts;
mod key;
mod seen;
mod unique;
mod values;

use datafusion::common::{Result, not_impl_err};
use datafusion::functions_aggregate::approx_percentile_cont::approx_percentile_cont_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::function::AccumulatorArgs;

use crate::adapted::Adapted;
use crate::scalar::documentation;

/// The functions of this room.
pub(crate) fn functions() -> Vec<AggregateUDF> {
    let mut functions = counts::functions();
    functions.extend([unique::function(), approx_percentile()]);
    functions
}

fn approx_percentile() -> AggregateUDF {
    const NAME: &str = "approx_percentile";
    let parameters = [
        ("column", "numbers; NULLs are left out"),
        ("share", "a constant from 0 to 1: 0.5 is the median"),
    ];
    let documentation = documentation(
        NAME,
        "The value below which this share of all values lies, nearly: from a t-digest, whose size does not grow with the number of rows. The same as approx_percentile_cont.",
        parameters.into_iter(),
        "SELECT approx_percentile(x, 0.5) FROM (VALUES (1), (2), (3)) AS t(x) -- 2.0",
    );
    Adapted::named(NAME, approx_percentile_cont_udaf(), documentation).into()
}

/// The planner rewrites DISTINCT of one column to distinct rows, on which these functions work as on others. What still
/// is distinct here would be counted with its duplicates.
fn not_distinct(name: &str, args: &AccumulatorArgs<'_>) -> Result<()> {
    if args.is_distinct {
        return not_impl_err!(
            "{name}(DISTINCT ..) of several columns, with a clause or beside other aggregates is not implemented; select the distinct rows in a subquery"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
