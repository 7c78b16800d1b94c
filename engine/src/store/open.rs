//! URL to store.

use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use datafusion::datasource::object_store::ObjectStoreUrl;
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use url::{Position, Url};

use super::durable::{DurableLocal, sync_folder};
use crate::error::{Error, ErrorKind, Result};

/// What an error about an unknown scheme offers.
const SCHEMES: &str =
    "a folder, file://, memory://, s3://bucket/path, gs://bucket/path, az://container/path";

/// An opened lake: its store, and where in the store it is.
#[derive(Debug, Clone)]
pub(crate) struct Lake {
    /// Holds the objects; paths are relative to [`Self::store_url`], not to the lake.
    pub store: Arc<dyn ObjectStore>,
    /// Root of the lake; ends with `/`.
    pub url: Url,
    /// Under what DataFusion's registry has the store: scheme and authority.
    pub store_url: ObjectStoreUrl,
    /// Root of the lake inside the store.
    pub prefix: Path,
}

impl Lake {
    /// A lake at `url` whose objects are in `store`, for callers that bring their own.
    ///
    /// The store is asked for paths relative to the URL's scheme and authority, so under `file://`
    /// it must be rooted at `/`.
    pub(crate) fn over(url: &str, store: Arc<dyn ObjectStore>) -> Result<Self> {
        let (url, _) = resolve(url)?;
        Self::at(url, store)
    }

    /// The lake's folder, if it is on a local disk.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file")
            .then(|| self.url.to_file_path().ok())
            .flatten()
    }

    /// Whether other machines may write to it, through a store whose promises need a [probe](super::probe).
    pub(crate) fn remote(&self) -> bool {
        !matches!(self.url.scheme(), "file" | "memory")
    }

    /// `error` of the first request to it, where a wrong URL and wrong credentials are found out.
    pub(crate) fn unread(&self, error: Error) -> Error {
        let error = error.ending(&format!("lake {} cannot be read", self.url));
        match (error.kind(), environment(&self.url)) {
            (ErrorKind::Denied | ErrorKind::Storage, Some(hint)) => error.with_hint(hint),
            _ => error,
        }
    }

    fn at(mut url: Url, store: Arc<dyn ObjectStore>) -> Result<Self> {
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{trimmed}/"));
        let prefix = Path::from_url_path(&trimmed).map_err(|e| {
            Error::invalid(format!("lake {url} is not at a usable path")).with_source(e)
        })?;
        Ok(Self {
            store,
            store_url: store_url(&url)?,
            url,
            prefix,
        })
    }
}

/// A store for files outside the lake, and the URL under which DataFusion is to find it.
#[derive(Debug, Clone)]
pub(crate) struct External {
    pub store: Arc<dyn ObjectStore>,
    pub store_url: ObjectStoreUrl,
}

/// Opens the lake at `url`; a folder is created on first use, remote stores are not contacted.
///
/// With `durable`, what a local store acknowledged survives power loss.
pub(crate) async fn open(url: &str, durable: bool) -> Result<Lake> {
    let (url, folder) = resolve(url)?;
    let Some(folder) = folder else {
        let store = connect(&url)?;
        return Lake::at(url, store);
    };
    let folder = tokio::task::spawn_blocking(move || prepare_folder(&folder, durable))
        .await
        .map_err(|e| Error::internal("opening a lake's folder was cut short").with_source(e))??;
    // Rooted at `/`, not at the lake: that is how DataFusion and the Delta kernel address `file://`.
    let store: Arc<dyn ObjectStore> = if durable {
        Arc::new(DurableLocal::new(folder.clone()))
    } else {
        Arc::new(LocalFileSystem::new())
    };
    Lake::at(folder_url(&folder)?, store)
}

/// Opens a store for the file, folder or pattern `location` outside the lake. Nothing is created or contacted.
pub(crate) fn open_external(location: &str) -> Result<External> {
    // Patterns have characters that mean something in a URL, and only scheme and authority matter here.
    let url = match location.split_once("://") {
        Some(_) => parse(
            location
                .split(['?', '*', '[', '#'])
                .next()
                .unwrap_or(location),
        )?,
        None => parse("file:///")?,
    };
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "file" => Arc::new(LocalFileSystem::new()),
        "memory" => {
            return Err(Error::invalid(format!(
                "cannot open {location}: memory:// is only for lakes"
            )));
        }
        _ => connect(&url)?,
    };
    Ok(External {
        store,
        store_url: store_url(&url)?,
    })
}

/// Text to URL, and to a folder if it is on the local disk.
fn resolve(text: &str) -> Result<(Url, Option<PathBuf>)> {
    if text.is_empty() {
        return Err(Error::invalid("lake URL is empty").with_hint(format!("use {SCHEMES}")));
    }
    if !text.contains("://") && !text.starts_with("file:") {
        let folder = std::path::absolute(text).map_err(|e| folder_error(FsPath::new(text), e))?;
        return Ok((folder_url(&folder)?, Some(folder)));
    }
    let url = parse(text)?;
    if let Some(part) = url.query().or(url.fragment()) {
        return Err(Error::invalid(format!(
            "lake URL {text} has a part that is not understood: \"{part}\""
        ))
        .with_hint("credentials and options are taken from the environment"));
    }
    if url.scheme() != "file" {
        return Ok((url, None));
    }
    let folder = url.to_file_path().map_err(|()| {
        Error::invalid(format!("lake URL {text} is not on this machine"))
            .with_hint("write a local folder as file:///folder, with three slashes")
    })?;
    Ok((url, Some(folder)))
}

/// The store of a URL that is not on the local disk.
fn connect(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    Ok(match url.scheme() {
        "memory" => Arc::new(InMemory::new()),
        "s3" | "s3a" => Arc::new(s3(url)?),
        #[cfg(feature = "gcp")]
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket(url)?);
            Arc::new(builder.build().map_err(|e| refused(url, e))?)
        }
        #[cfg(not(feature = "gcp"))]
        "gs" => return Err(not_built_in(url, "gcp")),
        #[cfg(feature = "azure")]
        "az" | "abfss" => {
            bucket(url)?;
            let builder =
                object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.build().map_err(|e| refused(url, e))?)
        }
        #[cfg(not(feature = "azure"))]
        "az" | "abfss" => return Err(not_built_in(url, "azure")),
        scheme => {
            return Err(Error::unsupported(format!("no store for {scheme}:// URLs"))
                .with_hint(format!("use {SCHEMES}")));
        }
    })
}

/// S3 and what speaks its protocol, as the `AWS_*` variables say.
fn s3(url: &Url) -> Result<object_store::aws::AmazonS3> {
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket(url)?);
    let plain_http = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key))
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    // Whoever writes http:// into the endpoint has said so once; AWS_ALLOW_HTTP would be saying it twice.
    let builder = if plain_http {
        builder.with_allow_http(true)
    } else {
        builder
    };
    builder.build().map_err(|e| refused(url, e))
}

fn bucket(url: &Url) -> Result<&str> {
    url.host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| {
            Error::invalid(format!("{url} names no bucket"))
                .with_hint(format!("write it as {}://bucket/path", url.scheme()))
        })
}

fn refused(url: &Url, source: object_store::Error) -> Error {
    let error = Error::invalid(format!("cannot open {url}: {source}")).with_source(source);
    match environment(url) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The variables that say where a remote store is and who asks.
fn environment(url: &Url) -> Option<&'static str> {
    match url.scheme() {
        "s3" | "s3a" => Some(
            "look at the bucket's name and the credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for \
             stores beside Amazon's",
        ),
        "gs" => Some(
            "look at the bucket's name and the credentials: GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names their file",
        ),
        "az" | "abfss" => Some(
            "look at the bucket's name and the credentials: AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID, \
             AZURE_CLIENT_SECRET and AZURE_TENANT_ID",
        ),
        _ => None,
    }
}

#[cfg(not(all(feature = "gcp", feature = "azure")))]
fn not_built_in(url: &Url, feature: &str) -> Error {
    Error::unsupported(format!(
        "this build has no store for {}:// URLs",
        url.scheme()
    ))
    .with_hint(format!("build with the cargo feature \"{feature}\""))
}

fn parse(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|e| {
        Error::invalid(format!("\"{text}\" is not a URL: {e}"))
            .with_hint(format!("use {SCHEMES}"))
            .with_source(e)
    })
}

fn store_url(url: &Url) -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(&url[..Position::BeforePath])
        .map_err(|e| Error::invalid(format!("{url} has no usable authority")).with_source(e))
}

/// Makes sure the folder is there, is a folder and can be read; returns its one canonical name.
fn prepare_folder(folder: &FsPath, durable: bool) -> Result<PathBuf> {
    let refuse = |e| folder_error(folder, e);
    let missing: Vec<_> = folder.ancestors().take_while(|at| !at.exists()).collect();
    std::fs::create_dir_all(folder).map_err(refuse)?;
    if durable {
        for made in missing {
            sync_folder(made.parent().unwrap_or(made)).map_err(refuse)?;
        }
    }
    std::fs::read_dir(folder).map_err(refuse)?;
    folder.canonicalize().map_err(refuse)
}

fn folder_error(folder: &FsPath, source: io::Error) -> Error {
    let lake = folder.display();
    let error = match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Error::invalid(format!("lake {lake} is not a folder"))
                .with_hint("a file is in the way: name another folder, or move the file")
        }
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::Denied,
            format!("no permission to open lake {lake}"),
        )
        .with_hint("the folder must be readable, and writable to create or change tables"),
        io::ErrorKind::ReadOnlyFilesystem => Error::new(
            ErrorKind::Denied,
            format!("cannot create lake {lake}: the file system is read-only"),
        ),
        io::ErrorKind::StorageFull => Error::new(
            ErrorKind::Exhausted,
            format!("cannot create lake {lake}: no space left"),
        ),
        _ => Error::new(
            ErrorKind::Storage,
            format!("cannot open lake {lake}: {source}"),
        ),
    };
    error.with_source(source)
}

fn folder_url(folder: &FsPath) -> Result<Url> {
    Url::from_directory_path(folder).map_err(|()| {
        Error::invalid(format!(
            "lake {} cannot be written as a URL",
            folder.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    async fn refusal(url: &str) -> String {
        open(url, true).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_folder_is_created_and_found_again_by_its_url() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a b%20c/ü#1");
        for durable in [true, false] {
            let lake = open(folder.to_str().unwrap(), durable).await.unwrap();
            assert!(folder.is_dir());
            assert!(lake.url.as_str().ends_with('/'), "{}", lake.url);
            assert_eq!(lake.store_url.as_str(), "file:///");
            assert_eq!(lake.folder().unwrap(), folder.canonicalize().unwrap());
            assert!(!lake.remote());

            let file = lake.prefix.clone().join("x.json");
            lake.store.put(&file, "one".into()).await.unwrap();
            assert_eq!(std::fs::read(folder.join("x.json")).unwrap(), b"one");
            // The kernel and DataFusion come from the URL: they must mean the same object.
            let by_url = Path::from_url_path(lake.url.join("x.json").unwrap().path()).unwrap();
            assert_eq!(by_url, file);

            let again = open(lake.url.as_str(), durable).await.unwrap();
            assert_eq!((again.url, again.prefix), (lake.url, lake.prefix));
        }
    }

    #[tokio::test]
    async fn a_link_to_a_lake_is_the_same_lake() {
        let dir = tempfile::tempdir().unwrap();
        let lake = open(dir.path().join("real").to_str().unwrap(), true)
            .await
            .unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        let linked = open(dir.path().join("link").to_str().unwrap(), true)
            .await
            .unwrap();
        assert_eq!(lake.url, linked.url);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        let text = refusal(file.to_str().unwrap()).await;
        assert!(
            text.starts_with(&format!("lake {} is not a folder", file.display())),
            "{text}"
        );
        let text = refusal(file.join("below").to_str().unwrap()).await;
        assert!(text.contains("is not a folder"), "{text}");
    }

    #[test]
    fn each_refusal_of_the_disk_has_its_kind() {
        for (kind, expected, text) in [
            (
                io::ErrorKind::PermissionDenied,
                ErrorKind::Denied,
                "no permission to open lake /l",
            ),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                ErrorKind::Denied,
                "read-only",
            ),
            (
                io::ErrorKind::StorageFull,
                ErrorKind::Exhausted,
                "no space left",
            ),
            (
                io::ErrorKind::TimedOut,
                ErrorKind::Storage,
                "cannot open lake /l",
            ),
        ] {
            let error = folder_error(FsPath::new("/l"), kind.into());
            assert_eq!(error.kind(), expected);
            assert!(error.message().contains(text), "{error}");
        }
    }

    #[tokio::test]
    async fn memory_is_fresh_at_each_open() {
        for (url, prefix) in [
            ("memory://", ""),
            ("memory:///", ""),
            ("memory:///a/b", "a/b"),
        ] {
            let one = open(url, true).await.unwrap();
            assert_eq!(one.prefix.as_ref(), prefix);
            assert_eq!(one.store_url.as_str(), "memory:///");
            assert!(one.url.as_str().ends_with('/'));
            let file = one.prefix.clone().join("x");
            one.store.put(&file, "1".into()).await.unwrap();
            let two = open(url, true).await.unwrap();
            assert!(two.store.head(&file).await.is_err());
        }
    }

    #[tokio::test]
    async fn s3_is_split_into_bucket_and_prefix_without_a_request() {
        let lake = open("s3://bucket/a/b%20c/", true).await.unwrap();
        assert_eq!(lake.url.as_str(), "s3://bucket/a/b%20c/");
        assert_eq!(lake.store_url.as_str(), "s3://bucket/");
        assert_eq!(lake.prefix.as_ref(), "a/b c");
        assert!(lake.remote());
        assert!(lake.folder().is_none());
    }

    #[tokio::test]
    async fn wrong_urls_are_refused_with_what_would_be_right() {
        for (url, text) in [
            ("", "lake URL is empty"),
            (
                "ftp://host/x",
                "no store for ftp:// URLs\nhint: use a folder, file://, memory://, s3://",
            ),
            ("s3:///x", "s3:///x names no bucket"),
            ("s3://b//x", "not at a usable path"),
            (
                "s3://b/x?endpoint=http://evil",
                "a part that is not understood: \"endpoint=http://evil\"",
            ),
            ("file://host/x", "is not on this machine"),
            ("http://[", "is not a URL"),
        ] {
            let error = refusal(url).await;
            assert!(error.contains(text), "{url}: {error}");
        }
    }

    #[test]
    fn files_outside_the_lake() {
        for (location, store_url) in [
            ("x/*.parquet", "file:///"),
            ("/tmp/x.csv", "file:///"),
            ("file:///tmp/[ab].csv", "file:///"),
            ("s3://b/dir/*.parquet", "s3://b/"),
        ] {
            let external = open_external(location).unwrap();
            assert_eq!(external.store_url.as_str(), store_url, "{location}");
        }
        let error = open_external("memory:///x").unwrap_err().to_string();
        assert!(error.contains("only for lakes"), "{error}");
        let error = open_external("https://host/x.csv").unwrap_err().to_string();
        assert!(error.contains("no store for https:// URLs"), "{error}");
    }
}
