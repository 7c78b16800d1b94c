//! SQL functions of ours. Knows DataFusion's expressions and nothing of the engine.
//!
//! - [`session`]: what BI tools and drivers ask a session about itself.

pub mod session;

use datafusion::logical_expr::ScalarUDF;

/// Every scalar function of this crate, to be registered in a session.
pub fn scalar_functions() -> Vec<ScalarUDF> {
    session::functions()
}
