//! The local store whose acknowledged writes survive power loss.
//!
//! `LocalFileSystem` (object_store 0.13) never syncs: after a power loss a commit that was
//! acknowledged may be gone, or be there under its name and empty, which a reader takes for a
//! version without rows. Here an object's bytes reach the disk before its name does, and the name
//! before the caller hears of it:
//!
//! write `name#1` -> sync it -> link or rename to `name` -> sync the folders -> acknowledge
//!
//! A deleted object's name is gone from the disk before the caller hears of it. Reading and listing are
//! `LocalFileSystem`'s, and so is the naming of staging files, which its listing hides.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use parking_lot::Mutex;

/// A `LocalFileSystem` of the whole disk that syncs what it writes.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    inner: LocalFileSystem,
    folders: Arc<Folders>,
}

impl DurableLocal {
    /// A store of the whole disk; `root` is the lake's folder, which exists and is on the disk for good.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            inner: LocalFileSystem::new(),
            folders: Arc::new(Folders {
                root,
                settled: Mutex::default(),
            }),
        }
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.folders.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            // Not possible on a disk; the inner store's refusal names the option.
            return self.inner.put_opts(location, payload, opts).await;
        }
        let dest = self.inner.path_to_filesystem(location)?;
        let folders = Arc::clone(&self.folders);
        let create = opts.mode == PutMode::Create;
        blocking(move || {
            if create && dest.symlink_metadata().is_ok() {
                // Only spares the losers of a race the work: the link below is what decides it.
                return Err(exists(&dest, io::ErrorKind::AlreadyExists.into()));
            }
            let staged = Staged::create(dest, &folders)?;
            staged.write(0, &payload)?;
            staged.publish(create, &folders)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return self.inner.put_multipart_opts(location, opts).await;
        }
        let dest = self.inner.path_to_filesystem(location)?;
        let folders = Arc::clone(&self.folders);
        let staged = blocking({
            let folders = Arc::clone(&folders);
            move || Staged::create(dest, &folders)
        })
        .await?;
        Ok(Box::new(DurableUpload {
            staged: Some(Arc::new(staged)),
            offset: 0,
            folders,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    /// Synced too: who erases what nobody may know must not find it again after a power loss.
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let deleted = self.inner.delete_stream(locations);
        // The inner store knows the disk by the same names.
        let names = LocalFileSystem::new();
        deleted
            .and_then(move |path| {
                let file = names.path_to_filesystem(&path);
                async move {
                    let file = file?;
                    blocking(move || unnamed(&file)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    /// Syncs after the fact: a copy is a hard link here, and its source was synced when it was put.
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.settle(&[to]).await
    }

    /// Syncs after the fact, as a copy does, and the folder the name was taken from as well.
    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.settle(&[to, from]).await
    }
}

impl DurableLocal {
    /// Makes the folders' entries of these names, and the file under the first, final.
    async fn settle(&self, names: &[&Path]) -> Result<()> {
        let paths = names
            .iter()
            .map(|name| self.inner.path_to_filesystem(name))
            .collect::<Result<Vec<_>>>()?;
        let folders = Arc::clone(&self.folders);
        blocking(move || {
            if let Some(file) = paths.first() {
                let opened = File::open(file).map_err(|e| failed("open", file, e))?;
                sync_file(&opened, file)?;
            }
            paths.iter().try_for_each(|path| folders.settle(path))
        })
        .await
    }
}

/// Which folders are known to be on the disk, so that each is paid for once and not at every put.
#[derive(Debug)]
struct Folders {
    root: PathBuf,
    /// Folders below `root` whose entry in their parent has been synced.
    ///
    /// That a folder exists is not enough to leave it alone: another put may have made it a moment
    /// ago and not synced its parent yet, and this one would be acknowledged on sand.
    settled: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    /// Above this the set is begun anew: syncing a folder twice is harmless, growing for ever is not.
    const MOST: usize = 1 << 16;

    /// Syncs the folder that holds `file`, and up to the root each folder not synced before.
    fn settle(&self, file: &FsPath) -> Result<()> {
        let Some(folder) = file.parent() else {
            return Ok(());
        };
        let sync =
            |folder: &FsPath| sync_folder(folder).map_err(|e| failed("sync folder", folder, e));
        sync(folder)?;
        // Files outside the lake (COPY TO) end here: folders above may not even be ours to open.
        for at in folder.ancestors() {
            if at == self.root || !at.starts_with(&self.root) || self.settled.lock().contains(at) {
                break;
            }
            sync(at.parent().unwrap_or(at))?;
            let mut settled = self.settled.lock();
            if settled.len() >= Self::MOST {
                settled.clear();
            }
            settled.insert(at.to_owned());
        }
        Ok(())
    }

    /// Makes the folder; whatever was known of it was about one of the same name that has gone.
    fn make(&self, folder: &FsPath) -> Result<()> {
        step("make", folder);
        std::fs::create_dir_all(folder).map_err(|e| failed("create folder", folder, e))?;
        let mut settled = self.settled.lock();
        for at in folder.ancestors().take_while(|at| *at != self.root) {
            settled.remove(at);
        }
        Ok(())
    }
}

/// A file being written beside its final name. Dropped without being published, it is removed.
#[derive(Debug)]
struct Staged {
    file: Mutex<File>,
    path: PathBuf,
    dest: PathBuf,
    /// Whether `path` has become `dest`.
    moved: AtomicBool,
}

impl Staged {
    fn create(dest: PathBuf, folders: &Folders) -> Result<Self> {
        let mut attempt = 1u64;
        let mut made_by_others = false;
        loop {
            let mut path = dest.clone().into_os_string();
            path.push(format!("#{attempt}"));
            let path = PathBuf::from(path);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    return Ok(Self {
                        file: Mutex::new(file),
                        path,
                        dest,
                        moved: AtomicBool::new(false),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => match dest.parent() {
                    Some(folder) if !folder.exists() => folders.make(folder)?,
                    // It was not there, and is now: another writer has made it in between.
                    Some(_) if !made_by_others => made_by_others = true,
                    _ => return Err(failed("create", &path, e)),
                },
                Err(e) => return Err(failed("create", &path, e)),
            }
        }
    }

    fn write(&self, offset: u64, payload: &PutPayload) -> Result<()> {
        step("write", &self.path);
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| payload.iter().try_for_each(|bytes| file.write_all(bytes)))
            .map_err(|e| failed("write", &self.path, e))
    }

    /// Gives the file its name, once and for good. With `create`, only if the name is free.
    ///
    /// A failure after the name was given (syncing the folder) leaves the file there: others may
    /// have read it. The caller sees an error whose outcome is open, as with any remote store.
    fn publish(&self, create: bool, folders: &Folders) -> Result<PutResult> {
        let file = self.file.lock();
        sync_file(&file, &self.path)?;
        let e_tag = file
            .metadata()
            .map(|metadata| e_tag(&metadata))
            .map_err(|e| failed("inspect", &self.path, e))?;
        step("name", &self.dest);
        if create {
            std::fs::hard_link(&self.path, &self.dest).map_err(|e| self.not_linked(e))?;
        } else {
            std::fs::rename(&self.path, &self.dest).map_err(|e| failed("rename", &self.path, e))?;
            self.moved.store(true, Ordering::Release);
        }
        // Before the folder is synced, so that one sync covers the name given and the name taken away.
        self.discard();
        folders.settle(&self.dest)?;
        Ok(PutResult {
            e_tag: Some(e_tag),
            version: None,
        })
    }

    fn not_linked(&self, source: io::Error) -> object_store::Error {
        // EPERM, unlike EACCES, is what link(2) answers where the file system has no hard links.
        let no_links =
            source.kind() == io::ErrorKind::Unsupported || source.raw_os_error() == Some(1);
        if source.kind() == io::ErrorKind::AlreadyExists {
            exists(&self.dest, source)
        } else if no_links {
            object_store::Error::NotSupported {
                source: format!(
                    "cannot create {}: its file system has no hard links, which commits need to be exclusive; \
                     move the lake to another file system",
                    self.dest.display()
                )
                .into(),
            }
        } else {
            failed("link", &self.dest, source)
        }
    }

    fn discard(&self) {
        if !self.moved.swap(true, Ordering::AcqRel) {
            // What cannot be removed is left to the sweep.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Parts go to their place in one staged file. Parts in flight share it, so the last one to end
/// after an abort removes it.
#[derive(Debug)]
struct DurableUpload {
    staged: Option<Arc<Staged>>,
    offset: u64,
    folders: Arc<Folders>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += data.content_length() as u64;
        let staged = self.staged.clone();
        async move {
            let staged = staged.ok_or_else(ended)?;
            blocking(move || staged.write(offset, &data)).await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(ended)?;
        let folders = Arc::clone(&self.folders);
        blocking(move || staged.publish(false, &folders)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take().ok_or_else(ended)?;
        blocking(move || {
            drop(staged);
            Ok(())
        })
        .await
    }
}

/// One hop to the blocking pool for all of a put: each hop costs more than the write itself.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Makes it final that a file is gone.
fn unnamed(file: &FsPath) -> Result<()> {
    let Some(folder) = file.parent() else {
        return Ok(());
    };
    match sync_folder(folder) {
        // With the folder, all that was in it is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|error| failed("sync folder", folder, error)),
    }
}

/// Makes the names in a folder final.
pub(super) fn sync_folder(folder: &FsPath) -> io::Result<()> {
    step("sync folder", folder);
    // Elsewhere folders cannot be opened, and the journal of the file system has to do.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn sync_file(file: &File, path: &FsPath) -> Result<()> {
    step("sync", path);
    file.sync_all().map_err(|e| failed("sync", path, e))
}

/// Called before each step whose order decides what a power loss leaves; tests watch it.
#[cfg(not(test))]
fn step(_: &str, _: &FsPath) {}

#[cfg(test)]
use tests::step;

/// The tag `LocalFileSystem` reads back for the same file.
fn e_tag(metadata: &Metadata) -> String {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or_default()
        .as_micros();
    format!("{inode:x}-{modified:x}-{:x}", metadata.len())
}

fn failed(action: &str, path: &FsPath, source: io::Error) -> object_store::Error {
    let path = path.display().to_string();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return object_store::Error::PermissionDenied {
            path,
            source: source.into(),
        };
    }
    let text = format!("cannot {action} {path}: {source}");
    object_store::Error::Generic {
        store: "DurableLocal",
        // The kind is kept, so that a full disk is still told from a broken one.
        source: io::Error::new(source.kind(), text).into(),
    }
}

fn exists(path: &FsPath, source: io::Error) -> object_store::Error {
    object_store::Error::AlreadyExists {
        path: path.display().to_string(),
        source: source.into(),
    }
}

fn ended() -> object_store::Error {
    object_store::Error::Generic {
        store: "DurableLocal",
        source: "the upload was completed or aborted before".into(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::{Attribute, ObjectStoreExt};

    use super::*;

    thread_local! {
        static STEPS: std::cell::RefCell<Vec<(String, PathBuf)>> = const { std::cell::RefCell::new(vec![]) };
    }

    pub(super) fn step(what: &str, path: &FsPath) {
        STEPS.with_borrow_mut(|steps| steps.push((what.to_owned(), path.to_owned())));
    }

    #[test]
    fn bytes_reach_the_disk_before_the_name_and_the_name_before_the_answer() {
        for create in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().to_owned();
            let folders = Folders {
                root: root.clone(),
                settled: Mutex::default(),
            };
            let put = |name: &str| {
                STEPS.take();
                let staged = Staged::create(root.join(name), &folders).unwrap();
                staged.write(0, &"x".into()).unwrap();
                staged.publish(create, &folders).unwrap();
                let below = |path: PathBuf| match path.strip_prefix(&root) {
                    Ok(below) => below.display().to_string(),
                    Err(_) => panic!("touched {} above the lake", path.display()),
                };
                STEPS
                    .take()
                    .into_iter()
                    .map(|(what, path)| format!("{what} {}", below(path)).trim_end().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                put("t/_log/0.json"),
                [
                    "make t/_log",
                    "write t/_log/0.json#1",
                    "sync t/_log/0.json#1",
                    "name t/_log/0.json",
                    "sync folder t/_log",
                    "sync folder t",
                    "sync folder",
                ]
            );
            // Folders known to be on the disk cost nothing again.
            assert_eq!(
                put("t/_log/1.json"),
                [
                    "write t/_log/1.json#1",
                    "sync t/_log/1.json#1",
                    "name t/_log/1.json",
                    "sync folder t/_log",
                ]
            );
            // A folder that another put made a moment ago may not be.
            std::fs::create_dir(root.join("t/p=1")).unwrap();
            let steps = put("t/p=1/a.parquet");
            assert_eq!(steps[3..], ["sync folder t/p=1", "sync folder t"]);
        }
    }

    #[test]
    fn a_name_is_gone_from_the_disk_before_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        STEPS.take();
        unnamed(&dir.path().join("gone")).unwrap();
        assert_eq!(
            STEPS.take(),
            [("sync folder".to_owned(), dir.path().to_owned())]
        );
        unnamed(&dir.path().join("no such folder/gone")).unwrap();
    }

    struct Fixture {
        dir: tempfile::TempDir,
        store: Arc<DurableLocal>,
        prefix: Path,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().canonicalize().unwrap();
            Self {
                store: Arc::new(DurableLocal::new(root.clone())),
                prefix: Path::from_absolute_path(root).unwrap(),
                dir,
            }
        }

        fn path(&self, name: &str) -> Path {
            Path::parse(format!("{}/{name}", self.prefix)).unwrap()
        }

        /// Names of all files, staging files included.
        fn files(&self) -> Vec<String> {
            fn walk(folder: &FsPath, root: &FsPath, into: &mut Vec<String>) {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        walk(&path, root, into);
                    } else {
                        let name = path.strip_prefix(root).unwrap();
                        into.push(name.to_str().unwrap().to_owned());
                    }
                }
            }
            let mut files = vec![];
            walk(self.dir.path(), self.dir.path(), &mut files);
            files.sort();
            files
        }

        async fn read(&self, name: &str) -> Bytes {
            let got = self.store.get(&self.path(name)).await.unwrap();
            got.bytes().await.unwrap()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_creators_exactly_one_wins_and_its_content_stays() {
        let f = Fixture::new();
        for round in 0..10 {
            let name = format!("t/_delta_log/{round:020}.json");
            let tries = (0..32u32).map(|writer| {
                let (store, path) = (Arc::clone(&f.store), f.path(&name));
                tokio::spawn(async move {
                    let payload = PutPayload::from(format!("{writer}\n").repeat(100));
                    let put = store.put_opts(&path, payload, PutMode::Create.into()).await;
                    (writer, put)
                })
            });
            let mut winners = vec![];
            for outcome in futures::future::join_all(tries).await {
                match outcome.unwrap() {
                    (writer, Ok(_)) => winners.push(writer),
                    (_, Err(object_store::Error::AlreadyExists { .. })) => {}
                    (_, Err(other)) => panic!("{other}"),
                }
            }
            assert_eq!(winners.len(), 1);
            assert_eq!(f.read(&name).await, format!("{}\n", winners[0]).repeat(100));
        }
        assert!(
            f.files().iter().all(|name| !name.contains('#')),
            "{:?}",
            f.files()
        );
    }

    #[tokio::test]
    async fn overwrite_replaces_and_tags_agree_with_reading() {
        let f = Fixture::new();
        let path = f.path("a/b/c");
        for text in ["first", "second, and longer", ""] {
            let put = f.store.put(&path, text.into()).await.unwrap();
            let head = f.store.head(&path).await.unwrap();
            assert_eq!(put.e_tag, head.e_tag);
            assert_eq!(head.size, text.len() as u64);
            assert_eq!(f.read("a/b/c").await, text);
        }
        assert_eq!(f.files(), ["a/b/c"]);
    }

    #[tokio::test]
    async fn a_payload_of_many_chunks_is_written_in_order() {
        let f = Fixture::new();
        let chunks: Vec<Bytes> = (0..300u16).map(|i| i.to_string().into()).collect();
        let whole = chunks.concat();
        f.store
            .put(&f.path("x"), chunks.into_iter().collect())
            .await
            .unwrap();
        assert_eq!(f.read("x").await, whole);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn multipart_appears_whole_and_only_when_completed() {
        let f = Fixture::new();
        let path = f.path("p=1/data.parquet");
        let mut upload = f.store.put_multipart(&path).await.unwrap();
        let parts: Vec<_> = (0..20u8)
            .map(|i| upload.put_part(vec![i; 1000 + usize::from(i)].into()))
            .collect();
        // Polled in another order than they were made.
        futures::future::try_join_all(parts.into_iter().rev())
            .await
            .unwrap();
        assert!(f.store.head(&path).await.is_err());
        let put = upload.complete().await.unwrap();
        assert_eq!(put.e_tag, f.store.head(&path).await.unwrap().e_tag);
        let whole: Vec<u8> = (0..20u8)
            .flat_map(|i| vec![i; 1000 + usize::from(i)])
            .collect();
        assert_eq!(f.read("p=1/data.parquet").await, whole);
        assert_eq!(f.files(), ["p=1/data.parquet"]);
        assert!(upload.complete().await.is_err());
        assert!(upload.put_part("more".into()).await.is_err());
    }

    #[tokio::test]
    async fn an_upload_aborted_or_forgotten_leaves_nothing() {
        let f = Fixture::new();
        let mut upload = f.store.put_multipart(&f.path("x")).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        assert_eq!(f.files(), ["x#1"]);
        upload.abort().await.unwrap();
        assert_eq!(f.files(), [""; 0]);
        let mut upload = f.store.put_multipart(&f.path("x")).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        drop(upload);
        assert_eq!(f.files(), [""; 0]);
    }

    #[tokio::test]
    async fn staging_files_of_a_crash_are_in_nobodys_way_and_hidden() {
        let f = Fixture::new();
        std::fs::write(f.dir.path().join("x#1"), "torn").unwrap();
        f.store
            .put_opts(&f.path("x"), "whole".into(), PutMode::Create.into())
            .await
            .unwrap();
        assert_eq!(f.read("x").await, "whole");
        assert_eq!(f.files(), ["x", "x#1"]);
        let listed: Vec<_> = f.store.list(Some(&f.prefix)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
    }

    #[tokio::test]
    async fn folders_are_settled_up_to_the_root_and_again_when_made_anew() {
        let f = Fixture::new();
        f.store.put(&f.path("a/b/x"), "1".into()).await.unwrap();
        let root = f.store.folders.root.clone();
        let settled = || {
            let mut all: Vec<_> = f.store.folders.settled.lock().iter().cloned().collect();
            all.sort();
            all
        };
        assert_eq!(settled(), [root.join("a"), root.join("a/b")]);
        std::fs::remove_dir_all(root.join("a")).unwrap();
        f.store.folders.make(&root.join("a/c")).unwrap();
        assert_eq!(settled(), [root.join("a/b")]);
        f.store.put(&f.path("a/b/x"), "2".into()).await.unwrap();
        assert_eq!(settled(), [root.join("a"), root.join("a/b")]);
    }

    #[tokio::test]
    async fn copies_and_renames() {
        let f = Fixture::new();
        f.store.put(&f.path("x"), "1".into()).await.unwrap();
        f.store.copy(&f.path("x"), &f.path("new/y")).await.unwrap();
        assert_eq!(f.read("new/y").await, "1");
        let again = f
            .store
            .copy_if_not_exists(&f.path("x"), &f.path("new/y"))
            .await;
        assert!(matches!(
            again,
            Err(object_store::Error::AlreadyExists { .. })
        ));
        f.store.rename(&f.path("x"), &f.path("z")).await.unwrap();
        assert_eq!(f.files(), ["new/y", "z"]);
        let gone = f.store.rename(&f.path("x"), &f.path("z")).await;
        assert!(matches!(gone, Err(object_store::Error::NotFound { .. })));
        f.store.delete(&f.path("z")).await.unwrap();
        assert_eq!(f.files(), ["new/y"]);
    }

    #[tokio::test]
    async fn what_a_disk_cannot_do_is_refused() {
        let f = Fixture::new();
        let path = f.path("x");
        let version = f.store.put(&path, "1".into()).await.unwrap().into();
        let update = f
            .store
            .put_opts(&path, "2".into(), PutMode::Update(version).into())
            .await;
        assert!(matches!(
            update,
            Err(object_store::Error::NotImplemented { .. })
        ));
        let mut options = PutOptions::default();
        options
            .attributes
            .insert(Attribute::ContentType, "text".into());
        let attributes = f.store.put_opts(&path, "2".into(), options).await;
        assert!(matches!(
            attributes,
            Err(object_store::Error::NotImplemented { .. })
        ));
        assert_eq!(f.read("x").await, "1");
        assert!(f.store.put(&f.path("x#1"), "1".into()).await.is_err());
        let below_a_file = f.store.put(&f.path("x/y"), "1".into()).await.unwrap_err();
        assert!(
            below_a_file.to_string().contains("cannot create"),
            "{below_a_file}"
        );
    }

    #[test]
    fn a_file_system_without_hard_links_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            root: dir.path().to_owned(),
            settled: Mutex::default(),
        };
        let staged = Staged::create(dir.path().join("0.json"), &folders).unwrap();
        for refusal in [
            io::ErrorKind::Unsupported.into(),
            io::Error::from_raw_os_error(1),
        ] {
            let error = staged.not_linked(refusal).to_string();
            assert!(
                error.contains("0.json: its file system has no hard links"),
                "{error}"
            );
        }
        let denied = staged.not_linked(io::Error::from_raw_os_error(13));
        assert!(matches!(
            denied,
            object_store::Error::PermissionDenied { .. }
        ));
    }
}
