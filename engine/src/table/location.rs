//! Where the paths of the log point: one place that decodes them, and keeps them inside the table.

use object_store::path::Path;
use url::Url;

use super::snapshot::TableRoot;
use crate::error::{Error, Result};

impl TableRoot {
    /// The table's folder as a URL, for messages.
    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.store_url.as_str(), self.path)
    }

    /// The object a path of the log means: URL-encoded and relative to the table, or an absolute URL.
    ///
    /// Percent-encoding is undone exactly once: what is left is the object's name, and a folder may
    /// really be called `a%20b`.
    pub(crate) fn locate(&self, path: &str) -> Result<Path> {
        let malformed = |e: object_store::path::Error| {
            Error::corrupt(format!(
                "table {}: the log names a file by the malformed path '{path}'",
                self.url()
            ))
            .with_source(e)
        };
        let absolute = if path.starts_with('/') {
            Some(Path::from_url_path(path).map_err(malformed)?)
        } else if path.contains(':')
            && let Ok(url) = Url::parse(path)
        {
            if !self.same_store(&url) {
                return Err(self.outside(path));
            }
            Some(Path::from_url_path(url.path()).map_err(malformed)?)
        } else {
            None
        };
        match absolute {
            Some(location) if location != self.path && location.prefix_matches(&self.path) => {
                Ok(location)
            }
            Some(_) => Err(self.outside(path)),
            None => self.child(Path::from_url_path(path).map_err(malformed)?),
        }
    }

    /// The object with the literal, table-relative name `relative`.
    pub(crate) fn child(&self, relative: Path) -> Result<Path> {
        if relative.is_root() {
            return Err(Error::corrupt(format!(
                "table {}: the log names a file by an empty path",
                self.url()
            )));
        }
        if self.path.is_root() {
            return Ok(relative);
        }
        // Both halves are valid, so the whole is; `join` would encode the second one again.
        Path::parse(format!("{}/{relative}", self.path)).map_err(|e| {
            Error::internal(format!("path '{relative}' does not append")).with_source(e)
        })
    }

    fn same_store(&self, url: &Url) -> bool {
        // Hadoop's names of the S3 scheme mean the same buckets.
        let scheme = |url: &Url| match url.scheme() {
            "s3a" | "s3n" => "s3".to_owned(),
            other => other.to_owned(),
        };
        let store: &Url = self.store_url.as_ref();
        scheme(store) == scheme(url)
            && store.host_str().unwrap_or_default() == url.host_str().unwrap_or_default()
            && store.port() == url.port()
    }

    fn outside(&self, path: &str) -> Error {
        Error::unsupported(format!(
            "table {}: the log names the file '{path}' outside the table's folder",
            self.url()
        ))
        .with_hint("copy the table's files into its folder, or query the table they belong to")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::datasource::object_store::ObjectStoreUrl;
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::ErrorKind;

    fn root(store_url: &str, path: &str) -> TableRoot {
        TableRoot {
            store_url: ObjectStoreUrl::parse(store_url).unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from(path),
        }
    }

    #[test]
    fn relative_paths_are_decoded_once() {
        let root = root("s3://bucket", "lake/t");
        let at = |path: &str| root.locate(path).unwrap().to_string();
        assert_eq!(at("a.parquet"), "lake/t/a.parquet");
        assert_eq!(at("p=a%20b/x"), "lake/t/p=a b/x");
        assert_eq!(at("p=a%2520b/x"), "lake/t/p=a%20b/x");
        assert_eq!(at("p=%C3%A9/x"), "lake/t/p=é/x");
    }

    #[test]
    fn absolute_paths_stay_inside_the_table() {
        let s3 = root("s3://bucket", "lake/t");
        for inside in ["s3://bucket/lake/t/x", "s3a://bucket/lake/t/x", "/lake/t/x"] {
            assert_eq!(s3.locate(inside).unwrap().to_string(), "lake/t/x");
        }
        for outside in [
            "s3://bucket/lake/t2/x",
            "s3://bucket/lake/t/../u/x",
            "s3://other/lake/t/x",
            "file:///lake/t/x",
            "/lake/t",
            "/etc/passwd",
        ] {
            let error = s3.locate(outside).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{outside}: {error}");
        }
        let local = root("file://", "lake/t");
        assert_eq!(
            local.locate("file:/lake/t/a%20b").unwrap().to_string(),
            "lake/t/a b"
        );
    }

    #[test]
    fn paths_that_climb_are_corrupt() {
        let root = root("s3://bucket", "lake/t");
        for path in ["../u/x", "a/../../x", "a//b", "%2e%2e/x", "", "%FF"] {
            let error = root.locate(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{path}: {error}");
        }
    }
}
