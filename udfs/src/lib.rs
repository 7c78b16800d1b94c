//! SQL functions of ours. Knows DataFusion's expressions and nothing of the engine.
//!
//! Every function is told of in its `Documentation`: what it does, its parameters, and an example with its
//! result, which a test runs. A scalar function gives NULL for NULL. Text that does not hold what it reads (a
//! URL, an address, JSON) gives NULL too, because logs hold such text and one row must not fail a query; what a
//! person got wrong in the statement itself (a network, a key) is an error.
//!
//! - [`session`]: what BI tools and drivers ask a session about itself.
//! - `json`, `url`, `user_agent`, `ip`, `geoip`, `hash`: one family each.
//! - [`debezium`]: envelopes of captured changes, which are errors where they cannot be read.
//! - `scalar`, `values`: the shape they share, and their arguments row by row.
//! - `quality`: aggregates that tell how good data is.
//! - `extremes`: `min` and `max`, which DataFusion gets wrong over infinities.
//! - `adapted`, `groups`: functions of DataFusion in other words, and what accumulators share.
//! - `options`: the session variables they read.

mod adapted;
pub mod debezium;
mod extremes;
mod geoip;
mod groups;
mod hash;
mod ip;
mod json;
mod options;
mod quality;
mod scalar;
pub mod session;
mod url;
mod user_agent;
mod values;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub use geoip::GeoDatabases;
pub use options::SelvedgeOptions;

/// Every scalar function of this crate. Those that look up places read `databases`.
pub fn scalar_functions(databases: &Arc<GeoDatabases>) -> Vec<ScalarUDF> {
    [
        session::functions(),
        json::functions(),
        url::functions(),
        user_agent::functions(),
        ip::functions(),
        geoip::functions(databases),
        hash::functions(),
        debezium::functions(),
    ]
    .concat()
}

/// Every aggregate function of this crate. Some take the place of one of DataFusion, by its name.
pub fn aggregate_functions() -> Vec<AggregateUDF> {
    [quality::functions(), extremes::functions()].concat()
}

/// Registers [`scalar_functions`], the operators that go with them, and [`aggregate_functions`]. DataFusion's own come
/// before, or they would take back their names.
///
/// # Errors
/// When the registry takes no functions or operators.
pub fn register(registry: &mut dyn FunctionRegistry, databases: &Arc<GeoDatabases>) -> Result<()> {
    for function in scalar_functions(databases) {
        registry.register_udf(Arc::new(function))?;
    }
    for function in aggregate_functions() {
        registry.register_udaf(Arc::new(function))?;
    }
    registry.register_expr_planner(Arc::new(json::Operators))
}

#[cfg(test)]
mod tests;
