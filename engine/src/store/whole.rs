//! A store that answers a range whole or not at all.
//!
//! Other stores answer with what is left when an object ends inside the range, and the Parquet reader takes the length
//! of the answer for granted: it panics on a data file that is shorter than its log says. That is what a power loss
//! leaves of a file that was not synced, so here it is an error that names the file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What the error says of the object. It is known by these words, because readers keep nothing else of it.
pub(crate) const SHORTER: &str = "is shorter than expected";

/// The store below, held to the ranges it is asked for.
#[derive(Debug)]
pub(crate) struct Whole(pub Arc<dyn ObjectStore>);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn short(path: &Path, asked: &Range<u64>, got: u64) -> Error {
    let (first, length) = (asked.start, asked.end - asked.start);
    let what = format!("{path} {SHORTER}: from byte {first} on it has {got} of {length} bytes");
    Error::Generic {
        store: "object",
        source: what.into(),
    }
}

/// The local store says itself that a range ends behind the file, in words of its own.
fn shorter(path: &Path, error: Error) -> Error {
    match error.to_string() {
        words if words.contains("Out of range of file") => Error::Generic {
            store: "object",
            source: format!("{path} {SHORTER}: {words}").into(),
        },
        _ => error,
    }
}

#[async_trait]
impl ObjectStore for Whole {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let asked = match (&options.range, options.head) {
            (Some(GetRange::Bounded(range)), false) => Some(range.clone()),
            _ => None,
        };
        let got = self.0.get_opts(location, options).await;
        let got = got.map_err(|error| shorter(location, error))?;
        match asked {
            Some(asked) if got.range != asked => {
                let length = got.range.end.saturating_sub(got.range.start);
                Err(short(location, &asked, length))
            }
            _ => Ok(got),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let got = self.0.get_ranges(location, ranges).await;
        let got = got.map_err(|error| shorter(location, error))?;
        for (asked, bytes) in ranges.iter().zip(&got) {
            if bytes.len() as u64 != asked.end - asked.start {
                return Err(short(location, asked, bytes.len() as u64));
            }
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_range_is_answered_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
        for store in stores.map(Whole) {
            let path = Path::from("x");
            store.put(&path, "0123456789".into()).await.unwrap();
            assert_eq!(store.get_range(&path, 2..10).await.unwrap(), "23456789");
            assert_eq!(
                store.get_ranges(&path, &[0..1, 9..10]).await.unwrap(),
                ["0", "9"]
            );
            let one = store.get_range(&path, 5..11).await.unwrap_err();
            let many = store.get_ranges(&path, &[0..1, 5..11]).await;
            for error in [one, many.unwrap_err()] {
                let text = error.to_string();
                assert!(text.contains("x is shorter than expected"), "{text}");
            }
            for range in [10..12, 30..40] {
                assert!(store.get_range(&path, range.clone()).await.is_err());
                assert!(store.get_ranges(&path, &[range]).await.is_err());
            }
        }
    }
}
