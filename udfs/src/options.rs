//! Variables of a session that are ours, not DataFusion's. They are together here because one prefix has one owner:
//! functions of this crate read some of them, the engine the others.

use datafusion::common::extensions_options;
use datafusion::config::{ConfigExtension, ConfigOptions};

extensions_options! {
    /// The variables `selvedge.*`.
    pub struct SelvedgeOptions {
        /// Path of the MaxMind database (.mmdb) that geoip functions read; setting it again reads a newer file
        pub geoip_database: String, default = String::new()
        /// Whether VACUUM refuses a retention below the safe one
        pub vacuum_retention_check: bool, default = true
    }
}

impl SelvedgeOptions {
    /// Name of the variable that holds the path of the MaxMind database; empty while there is none.
    pub const GEOIP_DATABASE: &'static str = "selvedge.geoip_database";

    /// The path in [`Self::GEOIP_DATABASE`], if one is set.
    pub(crate) fn geoip_database(options: &ConfigOptions) -> Option<&str> {
        let ours = options.extensions.get::<Self>()?;
        Some(ours.geoip_database.as_str()).filter(|path| !path.is_empty())
    }
}

impl ConfigExtension for SelvedgeOptions {
    const PREFIX: &'static str = "selvedge";
}
