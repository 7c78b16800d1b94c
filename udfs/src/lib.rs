//! SQL functions of ours. Knows DataFusion's expressions and nothing of the engine.
//!
//! Every function is told of in its `Documentation`: what it does, its parameters, and an example with its
//! result, which a test runs. NULL gives NULL. Text that does not hold what a function reads (a URL, an
//! address, JSON) gives NULL too, because logs hold such text and one row must not fail a query; what a
//! person got wrong in the statement itself (a network, a key) is an error.
//!
//! - [`session`]: what BI tools and drivers ask a session about itself.
//! - `json`, `url`, `user_agent`, `ip`, `geoip`, `hash`: one family each.
//! - `scalar`, `values`: the shape they share, and their arguments row by row.
//! - `options`: the session variables they read.

mod geoip;
mod hash;
mod ip;
mod json;
mod options;
mod scalar;
pub mod session;
mod url;
mod user_agent;
mod values;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::ScalarUDF;

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
    ]
    .concat()
}

/// Registers [`scalar_functions`] and the operators that go with them.
///
/// # Errors
/// When the registry takes no functions or operators.
pub fn register(registry: &mut dyn FunctionRegistry, databases: &Arc<GeoDatabases>) -> Result<()> {
    for function in scalar_functions(databases) {
        registry.register_udf(Arc::new(function))?;
    }
    registry.register_expr_planner(Arc::new(json::Operators))
}

#[cfg(test)]
mod tests;
