//! Plain values that tune an engine. Units are in the names; [`Settings::validate`] refuses nonsense.

use std::time::Duration;

use crate::error::{Error, Result};

/// Values of an engine; `Settings::default()` is right for one machine.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Whether a returned commit on a local disk has been synced, so that it survives power loss.
    pub durable: bool,
    /// Bytes of memory all statements share before they spill to disk.
    pub memory_limit_bytes: usize,
    /// Plan partitions per statement; the default is the number of cores.
    pub target_partitions: usize,
    /// Size at which a data file is closed and the next one is begun.
    pub target_file_bytes: u64,
    /// How often a commit is tried again after another writer took its version.
    pub max_commit_retries: u32,
    /// Commits after which a checkpoint is considered.
    pub checkpoint_interval: u64,
    /// Whether small files are merged in the background of writes, on tables that do not say otherwise.
    pub auto_optimize: bool,
    /// Longest pause between two tries of a commit.
    pub max_backoff: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durable: true,
            memory_limit_bytes: 4 << 30,
            target_partitions: std::thread::available_parallelism().map_or(1, usize::from),
            target_file_bytes: 256 << 20,
            max_commit_retries: 100,
            checkpoint_interval: 100,
            auto_optimize: true,
            max_backoff: Duration::from_millis(200),
        }
    }
}

impl Settings {
    /// Refuses values no engine can run with, naming the value.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name: &str, value: &dyn std::fmt::Display, least: &str| {
            Err(Error::invalid(format!(
                "setting {name} = {value}: must be at least {least}"
            )))
        };
        if self.memory_limit_bytes < 16 << 20 {
            return refuse("memory_limit_bytes", &self.memory_limit_bytes, "16777216");
        }
        if self.target_partitions == 0 {
            return refuse("target_partitions", &0, "1");
        }
        if self.target_file_bytes < 1 << 10 {
            return refuse("target_file_bytes", &self.target_file_bytes, "1024");
        }
        if self.checkpoint_interval == 0 {
            return refuse("checkpoint_interval", &0, "1");
        }
        Ok(())
    }
}
