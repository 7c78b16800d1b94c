//! What metrics were in the writes before: for `previous` and `baseline`.

use std::collections::HashMap;

use super::record::{MetricValue, PartitionValues};
use super::rule::Over;

/// The most writes that a baseline may be the mean of.
pub(crate) const MOST_SAMPLES: usize = 1000;

/// A metric that a rule asks the past for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    /// The metric as SQL.
    pub metric: String,
    /// How many of its newest values.
    pub samples: usize,
}

/// The newest values of the metrics that are needed, of accepted writes only.
#[derive(Debug, Default)]
pub(crate) struct Past {
    series: HashMap<Key, Series>,
    /// Values that may still be found.
    missing: usize,
    /// The version from which on they were recorded.
    since: u64,
}

type Key = (String, Over, Option<PartitionValues>);

#[derive(Debug, Default)]
struct Series {
    wanted: usize,
    /// The newest first.
    found: Vec<Option<String>>,
}

impl Past {
    /// A past in which nothing is known yet of `needs`.
    pub(super) fn of(
        needs: impl IntoIterator<Item = (Need, Over, Option<PartitionValues>)>,
    ) -> Self {
        let mut past = Self::default();
        for (need, over, partition) in needs {
            let series = past
                .series
                .entry((need.metric, over, partition))
                .or_default();
            series.wanted = series.wanted.max(need.samples);
        }
        past.missing = past.series.values().map(|series| series.wanted).sum();
        past
    }

    /// The same, of no version before this one.
    pub(super) fn since(mut self, version: u64) -> Self {
        self.since = version;
        self
    }

    /// The oldest version that may be of interest.
    pub(crate) fn oldest(&self) -> u64 {
        self.since
    }

    /// Whether more writes have to be looked at.
    pub(crate) fn is_wanting(&self) -> bool {
        self.missing > 0
    }

    /// Takes note of a write, the newest first.
    pub(crate) fn note(&mut self, metrics: &[MetricValue]) {
        for metric in metrics {
            let key = (metric.metric.clone(), metric.over, metric.partition.clone());
            if let Some(series) = self.series.get_mut(&key)
                && series.found.len() < series.wanted
            {
                series.found.push(metric.value.clone());
                self.missing -= 1;
            }
        }
    }

    /// The newest `samples` values of a metric, fewer if there are not so many.
    pub(super) fn newest(
        &self,
        metric: &str,
        over: Over,
        partition: Option<&PartitionValues>,
        samples: usize,
    ) -> Vec<Option<String>> {
        let key = (metric.to_owned(), over, partition.cloned());
        let found = self.series.get(&key).map(|series| series.found.as_slice());
        let found = found.unwrap_or_default();
        found[..found.len().min(samples)].to_vec()
    }
}
