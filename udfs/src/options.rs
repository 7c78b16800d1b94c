//! Variables of a session that are ours, not DataFusion's. They are together here because one prefix has one owner:
//! functions of this crate read some of them, the engine the others.

use std::any::Any;

use datafusion::common::{Result, config_err};
use datafusion::config::{
    ConfigEntry, ConfigExtension, ConfigField, ConfigOptions, ExtensionOptions,
};

const GEOIP_DATABASE: &str = "geoip_database";
const VACUUM_RETENTION_CHECK: &str = "vacuum_retention_check";

/// The variables `selvedge.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelvedgeOptions {
    geoip_database: String,
    /// Whether VACUUM refuses a retention below the safe one.
    pub vacuum_retention_check: bool,
}

impl Default for SelvedgeOptions {
    fn default() -> Self {
        Self {
            geoip_database: String::new(),
            vacuum_retention_check: true,
        }
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

/// By hand, because DataFusion's macro lists the variables without their prefix.
impl ExtensionOptions for SelvedgeOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            GEOIP_DATABASE => value.clone_into(&mut self.geoip_database),
            VACUUM_RETENTION_CHECK => self.vacuum_retention_check.set(key, value)?,
            _ => return config_err!("there is no variable selvedge.{key}"),
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |key: &str, value: String, description| ConfigEntry {
            key: format!("{}.{key}", Self::PREFIX),
            value: Some(value),
            description,
        };
        vec![
            entry(
                GEOIP_DATABASE,
                self.geoip_database.clone(),
                "Path of the MaxMind database (.mmdb) that geoip functions read; setting it again reads a newer file",
            ),
            entry(
                VACUUM_RETENTION_CHECK,
                self.vacuum_retention_check.to_string(),
                "Whether VACUUM refuses a retention below the safe one",
            ),
        ]
    }
}
