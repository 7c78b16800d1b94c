//! Readers of Parquet files whose footers are not taken as DataFusion's own take them.
//!
//! ```text
//! footer of the file, kept with the index of its pages where one is wanted -> changes, one after the other
//! ```

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

/// A change of what footers say.
pub(super) trait FooterChange: Debug + Send + Sync {
    /// `footer` changed; the same where there is nothing to change.
    fn changed(&self, footer: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>>;
}

/// Opens files as `inner` does, with changed footers.
#[derive(Debug)]
pub(super) struct Readers<F> {
    inner: F,
    footers: Arc<Footers>,
}

impl<F> Readers<F> {
    /// Readers that keep the page index with the footer, where `pages` asks for one.
    ///
    /// DataFusion's own keep the footer alone: a scan that needs the index of pages reads and decodes it each time
    /// anew, which for one key of a large table costs more than all else.
    pub(super) fn new(
        inner: F,
        pages: PageIndexPolicy,
        changes: Vec<Box<dyn FooterChange>>,
    ) -> Self {
        let footers = Footers {
            pages,
            changes,
            known: Mutex::default(),
        };
        Self {
            inner,
            footers: Arc::new(footers),
        }
    }
}

impl<F: ParquetFileReaderFactory> ParquetFileReaderFactory for Readers<F> {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self
            .inner
            .create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader {
            inner,
            footers: Arc::clone(&self.footers),
        }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    footers: Arc<Footers>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let footer = match self.footers.pages {
                PageIndexPolicy::Skip => self.inner.get_metadata(options).await?,
                pages => {
                    let options = options.cloned().unwrap_or_default();
                    let options = options.with_page_index_policy(pages);
                    self.inner.get_metadata(Some(&options)).await?
                }
            };
            self.footers.changed(footer)
        }
        .boxed()
    }
}

/// How footers are asked for, and what becomes of them.
#[derive(Debug)]
struct Footers {
    pages: PageIndexPolicy,
    changes: Vec<Box<dyn FooterChange>>,
    /// Footers that were changed lately, and what they became. A scan opens each piece of a file by itself, with
    /// one footer out of a cache.
    known: Mutex<VecDeque<[Arc<ParquetMetaData>; 2]>>,
}

impl Footers {
    /// More than there are files being read at a time.
    const KNOWN: usize = 32;

    fn changed(&self, footer: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
        if self.changes.is_empty() {
            return Ok(footer);
        }
        let same = |known: &&[Arc<ParquetMetaData>; 2]| Arc::ptr_eq(&known[0], &footer);
        let known = self.known.lock().iter().find(same).cloned();
        if let Some([_, changed]) = known {
            return Ok(changed);
        }
        let mut changes = self.changes.iter();
        let changed =
            changes.try_fold(Arc::clone(&footer), |footer, change| change.changed(footer))?;
        let mut known = self.known.lock();
        known.truncate(Self::KNOWN - 1);
        known.push_front([footer, Arc::clone(&changed)]);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::metadata::FileMetaData;
    use parquet::schema::types::{SchemaDescriptor, Type};

    use super::*;

    /// Adds a letter to the name of the writer.
    #[derive(Debug)]
    struct Signed(char);

    impl FooterChange for Signed {
        fn changed(&self, of_file: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
            let writer = of_file.file_metadata().created_by().unwrap();
            Ok(footer(&format!("{writer}{}", self.0)))
        }
    }

    fn footer(writer: &str) -> Arc<ParquetMetaData> {
        let root = Type::group_type_builder("schema").build().unwrap();
        let columns = Arc::new(SchemaDescriptor::new(Arc::new(root)));
        let file = FileMetaData::new(1, 0, Some(writer.to_owned()), None, columns, None);
        Arc::new(ParquetMetaData::new(file, vec![]))
    }

    #[test]
    fn changes_follow_one_another_once_for_a_footer() {
        let footers = Footers {
            pages: PageIndexPolicy::Skip,
            changes: vec![Box::new(Signed('a')), Box::new(Signed('b'))],
            known: Mutex::default(),
        };
        let of_file = footer("x");
        let changed = footers.changed(Arc::clone(&of_file)).unwrap();
        assert_eq!(changed.file_metadata().created_by(), Some("xab"));
        for other in 1..Footers::KNOWN {
            let other = footers.changed(footer(&other.to_string())).unwrap();
            assert!(!Arc::ptr_eq(&changed, &other));
        }
        let again = footers.changed(Arc::clone(&of_file)).unwrap();
        assert!(Arc::ptr_eq(&changed, &again));
        // No more than that many are held on to.
        footers.changed(footer("y")).unwrap();
        assert_eq!(footers.known.lock().len(), Footers::KNOWN);
        let anew = footers.changed(of_file).unwrap();
        assert!(!Arc::ptr_eq(&changed, &anew));
    }
}
