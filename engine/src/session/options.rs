//! Variables of a session that are ours, not DataFusion's.

use datafusion::common::extensions_options;
use datafusion::config::ConfigExtension;

extensions_options! {
    /// The variables `selvedge.*`.
    pub(crate) struct Options {
        /// Whether VACUUM refuses a retention below the safe one.
        pub vacuum_retention_check: bool, default = true
    }
}

impl ConfigExtension for Options {
    const PREFIX: &'static str = "selvedge";
}
