//! Deletion vectors: which rows of a data file are gone.
//!
//! The positions are a 64-bit Roaring bitmap in the portable format, behind a magic number; inline
//! in the log as Z85, or in a file of several with sizes and checksums. The kernel's reader fetches
//! the whole file for each vector; here only the bytes of one vector are read.

use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::util::bit_util;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::actions::DeletionVector;
use super::snapshot::TableRoot;
use crate::error::{Error, ErrorKind, Result};

/// Marks the portable Roaring format, little endian.
const MAGIC: u32 = 1_681_511_377;
const FILE_VERSION: u8 = 1;
/// Characters of a UUID in Z85.
const UUID_CHARS: usize = 20;

impl DeletionVector {
    /// Keeps `deleted` in the log itself.
    pub(crate) fn inline(deleted: &RoaringTreemap) -> Result<Self> {
        let mut deleted = deleted.clone();
        Self::inline_bytes(to_bytes(&mut deleted)?, deleted.len())
    }

    fn inline_bytes(bytes: Vec<u8>, rows: u64) -> Result<Self> {
        let size_in_bytes = size_of_vector(bytes.len(), rows)?;
        // Z85 knows only whole groups of four; the size says where the padding starts.
        let mut padded = bytes;
        padded.resize(padded.len().next_multiple_of(4), 0);
        Ok(Self {
            storage_type: "i".into(),
            path_or_inline_dv: z85::encode(padded),
            offset: None,
            size_in_bytes,
            cardinality: cardinality(rows)?,
        })
    }

    /// The deleted positions of the data file `file` of the table at `root`.
    pub(crate) async fn load(&self, root: &TableRoot, file: &str) -> Result<RoaringTreemap> {
        let context = |why: String| unreadable(root, file, &why);
        let size = usize::try_from(self.size_in_bytes)
            .map_err(|_| context(format!("has the size {}", self.size_in_bytes)))?;
        let deleted = match self.object(root, file)? {
            None => self.decode_inline(size).map_err(context)?,
            Some(path) => self.read(root, &path, size, &context).await?,
        };
        if i64::try_from(deleted.len()) != Ok(self.cardinality) {
            return Err(context(format!(
                "holds {} rows, the log says {}",
                deleted.len(),
                self.cardinality
            )));
        }
        Ok(deleted)
    }

    /// The object that holds the deleted positions of the data file `file`; `None` where the log does.
    pub(crate) fn object(&self, root: &TableRoot, file: &str) -> Result<Option<Path>> {
        let context = |why: String| unreadable(root, file, &why);
        match self.storage_type.as_str() {
            "i" => Ok(None),
            "u" => {
                let name = self.file_name().map_err(context)?;
                let name = Path::parse(&name)
                    .map_err(|e| context(format!("has the path '{name}'")).with_source(e))?;
                root.child(name).map(Some)
            }
            "p" => root.locate(&self.path_or_inline_dv).map(Some),
            other => Err(context(format!("has the unknown storage type '{other}'"))),
        }
    }

    fn decode_inline(&self, size: usize) -> Result<RoaringTreemap, String> {
        if self.offset.is_some() {
            return Err("is inline but has an offset".into());
        }
        let bytes = z85::decode(&self.path_or_inline_dv).map_err(|e| format!("is not Z85: {e}"))?;
        match bytes.get(..size) {
            Some(content) if bytes.len() - size < 4 => from_bytes(content),
            _ => Err(format!("has {} bytes, the log says {size}", bytes.len())),
        }
    }

    /// Name of the file inside the table, from an optional folder and the UUID in Z85.
    fn file_name(&self) -> Result<String, String> {
        let encoded = &self.path_or_inline_dv;
        let malformed = || format!("has the malformed path '{encoded}'");
        let (folder, uuid) = encoded
            .len()
            .checked_sub(UUID_CHARS)
            .and_then(|at| encoded.split_at_checked(at))
            .ok_or_else(malformed)?;
        let uuid = z85::decode(uuid).map_err(|_| malformed())?;
        let uuid = Uuid::from_slice(&uuid).map_err(|_| malformed())?;
        Ok(match folder {
            "" => format!("deletion_vector_{uuid}.bin"),
            folder => format!("{folder}/deletion_vector_{uuid}.bin"),
        })
    }

    async fn read(
        &self,
        root: &TableRoot,
        path: &Path,
        size: usize,
        context: &impl Fn(String) -> Error,
    ) -> Result<RoaringTreemap> {
        // A file starts with its version; a vector is its size, its bytes and their checksum.
        let start = u64::try_from(self.offset.unwrap_or(1))
            .map_err(|_| context(format!("has the offset {:?}", self.offset)))?;
        let ranges = [0..1, start..start + size as u64 + 8];
        let failed = |e: object_store::Error| match e {
            object_store::Error::NotFound { .. } => {
                context(format!("file '{path}' does not exist")).with_source(e)
            }
            e => Error::new(
                ErrorKind::Storage,
                format!("table {}: reading '{path}' failed: {e}", root.url()),
            )
            .with_source(e),
        };
        let parts = match root.store.get_ranges(path, &ranges).await {
            Ok(parts) => parts,
            // A range past the end is an error that names no reason: only then look for it.
            Err(e) => match root.store.head(path).await {
                Ok(object) if ranges[1].end > object.size => {
                    let (end, length) = (ranges[1].end, object.size);
                    return Err(context(format!(
                        "ends at byte {end} of '{path}', which has {length}"
                    )));
                }
                Ok(_) => return Err(failed(e)),
                Err(e) => return Err(failed(e)),
            },
        };
        let [version, framed] = parts.as_slice() else {
            return Err(context(format!("file '{path}' cannot be read")));
        };
        if version.as_ref() != [FILE_VERSION] {
            return Err(context(format!(
                "file '{path}' has the unknown version {version:?}"
            )));
        }
        unframe(framed, size).map_err(|why| context(format!("in '{path}' {why}")))
    }
}

fn unreadable(root: &TableRoot, file: &str, why: &str) -> Error {
    Error::corrupt(format!(
        "table {}, data file '{file}': deletion vector {why}",
        root.url()
    ))
}

/// The rows of a file with `rows` rows: a bit for each, set unless the row is deleted.
///
/// Every deleted position must be below `rows`.
pub(crate) fn visible_rows(deleted: &RoaringTreemap, rows: usize) -> BooleanBuffer {
    let mut bits = MutableBuffer::new(rows.div_ceil(8)).with_bitset(rows.div_ceil(8), true);
    for (high, bitmap) in deleted.bitmaps() {
        let base = u64::from(high) << 32;
        let mut positions = bitmap.iter();
        while let Some(range) = positions.next_range() {
            let (first, last) = (
                base + u64::from(*range.start()),
                base + u64::from(*range.end()),
            );
            clear(bits.as_slice_mut(), first as usize, last as usize + 1);
        }
    }
    BooleanBuffer::new(bits.into(), 0, rows)
}

/// Clears the bits from `begin` to before `end`.
fn clear(bits: &mut [u8], begin: usize, end: usize) {
    // Most ranges are short, and some are nearly all of a file: those go by whole bytes.
    let whole = begin.next_multiple_of(8)..end - end % 8;
    if whole.is_empty() {
        (begin..end).for_each(|bit| bit_util::unset_bit(bits, bit));
        return;
    }
    bits[whole.start / 8..whole.end / 8].fill(0);
    (begin..whole.start).for_each(|bit| bit_util::unset_bit(bits, bit));
    (whole.end..end).for_each(|bit| bit_util::unset_bit(bits, bit));
}

/// Vectors up to this many bytes stay in the log: no object of their own, nothing that can go missing.
const INLINE_BYTES: usize = 2048;

/// Bytes after which a file of vectors is closed: other readers fetch the whole file for each vector in it.
const PACK_BYTES: usize = 256 * 1024;

/// Keeps vectors of deleted rows: small ones in the log, others packed into files of the table.
/// Returns them in order, and the files that were written. In memory they become as small as they are there.
pub(crate) async fn store(
    root: &TableRoot,
    ids: &(dyn Fn() -> Uuid + Send + Sync),
    vectors: &mut [RoaringTreemap],
) -> Result<(Vec<DeletionVector>, Vec<Path>)> {
    let mut stored = Vec::with_capacity(vectors.len());
    let mut written = Vec::new();
    let mut pack = Pack::new(ids());
    for deleted in vectors {
        let bytes = to_bytes(deleted)?;
        if bytes.len() <= INLINE_BYTES {
            stored.push(DeletionVector::inline_bytes(bytes, deleted.len())?);
            continue;
        }
        if pack.bytes.len() >= PACK_BYTES {
            let full = std::mem::replace(&mut pack, Pack::new(ids()));
            written.push(full.put(root).await?);
        }
        stored.push(pack.add(&bytes, deleted.len())?);
    }
    if pack.bytes.len() > 1 {
        written.push(pack.put(root).await?);
    }
    Ok((stored, written))
}

/// A file of deletion vectors being filled.
struct Pack {
    id: Uuid,
    bytes: Vec<u8>,
}

impl Pack {
    fn new(id: Uuid) -> Self {
        Self {
            id,
            bytes: vec![FILE_VERSION],
        }
    }

    /// Adds one vector: its size, its bytes, their checksum.
    fn add(&mut self, vector: &[u8], rows: u64) -> Result<DeletionVector> {
        let size_in_bytes = size_of_vector(vector.len(), rows)?;
        let offset = i32::try_from(self.bytes.len())
            .map_err(|_| Error::internal("a file of deletion vectors is too long"))?;
        self.bytes.extend_from_slice(&size_in_bytes.to_be_bytes());
        self.bytes.extend_from_slice(vector);
        self.bytes
            .extend_from_slice(&crc32fast::hash(vector).to_be_bytes());
        Ok(DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: z85::encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes,
            cardinality: cardinality(rows)?,
        })
    }

    async fn put(self, root: &TableRoot) -> Result<Path> {
        let path = root
            .path
            .clone()
            .join(format!("deletion_vector_{}.bin", self.id));
        root.store
            .put(&path, self.bytes.into())
            .await
            .map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
        Ok(path)
    }
}

fn size_of_vector(bytes: usize, rows: u64) -> Result<i32> {
    i32::try_from(bytes).map_err(|_| {
        Error::unsupported(format!(
            "a deletion vector of {rows} rows takes {bytes} bytes, which is more than the log can say"
        ))
        .with_hint("OPTIMIZE the table first, which takes deleted rows out of the files")
    })
}

fn cardinality(rows: u64) -> Result<i64> {
    i64::try_from(rows).map_err(|_| Error::internal(format!("deletion vector of {rows} rows")))
}

fn to_bytes(deleted: &mut RoaringTreemap) -> Result<Vec<u8>> {
    // Deleted ranges are common, and shrink to nothing as runs.
    deleted.optimize();
    let mut bytes = Vec::with_capacity(4 + deleted.serialized_size());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    deleted
        .serialize_into(&mut bytes)
        .map_err(|e| Error::internal("deletion vector cannot be serialised").with_source(e))?;
    Ok(bytes)
}

fn from_bytes(bytes: &[u8]) -> Result<RoaringTreemap, String> {
    let Some((magic, mut bitmap)) = bytes.split_first_chunk::<4>() else {
        return Err(format!("has only {} bytes", bytes.len()));
    };
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(format!("starts with {magic:?}, not the magic number"));
    }
    let deleted = RoaringTreemap::deserialize_from(&mut bitmap)
        .map_err(|e| format!("is not a bitmap: {e}"))?;
    // Some writers count the padding into the size.
    if bitmap.len() >= 4 {
        return Err(format!("has {} bytes after its bitmap", bitmap.len()));
    }
    Ok(deleted)
}

/// Big-endian size, content, big-endian CRC-32 of the content.
fn unframe(framed: &[u8], size: usize) -> Result<RoaringTreemap, String> {
    let parts = framed.split_first_chunk::<4>().and_then(|(length, rest)| {
        rest.split_last_chunk::<4>()
            .map(|(c, crc)| (length, c, crc))
    });
    let Some((length, content, checksum)) = parts else {
        return Err(format!("has only {} bytes", framed.len()));
    };
    let length = u32::from_be_bytes(*length);
    if length as usize != size || content.len() != size {
        return Err(format!("has {length} bytes, the log says {size}"));
    }
    if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
        return Err("fails its checksum".into());
    }
    from_bytes(content)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::datasource::object_store::ObjectStoreUrl;
    use delta_kernel::actions::deletion_vector::{
        DeletionVectorDescriptor, DeletionVectorStorageType,
    };
    use delta_kernel::actions::deletion_vector_writer::{
        KernelDeletionVector, StreamingDeletionVectorWriter,
    };
    use delta_kernel::{FileMeta, KernelResult, KernelResultIteratorStatic, StorageHandler};
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    fn root() -> TableRoot {
        TableRoot {
            store_url: ObjectStoreUrl::parse("memory://").unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from("lake/t"),
        }
    }

    fn shapes() -> Vec<RoaringTreemap> {
        vec![
            RoaringTreemap::new(),
            [0].into_iter().collect(),
            (10..70_000).collect(),
            (0..200_000).step_by(7).collect(),
            [3, 5, u64::from(u32::MAX), 1 << 32, (1 << 33) + 9]
                .into_iter()
                .collect(),
        ]
    }

    /// Inline vectors need no storage.
    struct NoStorage;

    impl StorageHandler for NoStorage {
        fn list_from(&self, _: &Url) -> KernelResult<KernelResultIteratorStatic<FileMeta>> {
            unreachable!()
        }
        fn read_files(
            &self,
            _: Vec<(Url, Option<std::ops::Range<u64>>)>,
        ) -> KernelResult<KernelResultIteratorStatic<bytes::Bytes>> {
            unreachable!()
        }
        fn copy_atomic(&self, _: &Url, _: &Url) -> KernelResult<()> {
            unreachable!()
        }
        fn put(&self, _: &Url, _: bytes::Bytes, _: bool) -> KernelResult<()> {
            unreachable!()
        }
        fn head(&self, _: &Url) -> KernelResult<FileMeta> {
            unreachable!()
        }
        fn delete(&self, _: &Url) -> KernelResult<()> {
            unreachable!()
        }
    }

    #[tokio::test]
    async fn inline_vectors_are_read_by_the_kernel_and_by_us() {
        for deleted in shapes() {
            let vector = DeletionVector::inline(&deleted).unwrap();
            assert_eq!(vector.load(&root(), "f").await.unwrap(), deleted);
            let kernel = DeletionVectorDescriptor::try_new(
                DeletionVectorStorageType::Inline,
                &vector.path_or_inline_dv,
                vector.offset,
                vector.size_in_bytes,
                vector.cardinality,
            )
            .unwrap();
            let parent = Url::parse("memory:///lake/t/").unwrap();
            assert_eq!(kernel.read(Arc::new(NoStorage), &parent).unwrap(), deleted);
        }
    }

    /// Vectors of the kernel's writer, several in one file, as `u` and as `p`.
    async fn packed(root: &TableRoot) -> Vec<(DeletionVector, RoaringTreemap)> {
        let uuid = Uuid::from_u128(0x61d1_6c75_6994_46b7_a15b_8b53_8852_e50e);
        let mut bytes = Vec::new();
        let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
        let mut written = Vec::new();
        for deleted in shapes() {
            let mut vector = KernelDeletionVector::new();
            vector.add_deleted_row_indexes(deleted.iter());
            written.push((writer.write_deletion_vector(vector).unwrap(), deleted));
        }
        writer.finalize().unwrap();
        let path = Path::from(format!("lake/t/ab/deletion_vector_{uuid}.bin"));
        root.store.put(&path, bytes.into()).await.unwrap();
        let relative = format!("ab{}", z85::encode(uuid.as_bytes()));
        let absolute = format!("memory:///{path}");
        let places = [("u", relative), ("p", absolute)];
        let vectors = written.iter().flat_map(|(result, deleted)| {
            places.iter().map(move |(storage_type, place)| {
                let vector = DeletionVector {
                    storage_type: (*storage_type).to_owned(),
                    path_or_inline_dv: place.clone(),
                    offset: Some(result.offset),
                    size_in_bytes: result.size_in_bytes,
                    cardinality: result.cardinality,
                };
                (vector, deleted.clone())
            })
        });
        vectors.collect()
    }

    #[tokio::test]
    async fn files_of_the_kernel_are_read() {
        let root = root();
        for (vector, deleted) in packed(&root).await {
            assert_eq!(vector.load(&root, "f").await.unwrap(), deleted);
        }
    }

    #[tokio::test]
    async fn every_broken_byte_is_an_error_that_names_the_file() {
        let root = root();
        let vectors = packed(&root).await;
        let path = Path::from("lake/t/ab/deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin");
        let bytes = root.store.get(&path).await.unwrap().bytes().await.unwrap();
        let (vector, _) = &vectors[2];
        let end = vector.offset.unwrap() as usize + vector.size_in_bytes as usize + 8;
        for at in std::iter::once(0).chain(vector.offset.unwrap() as usize..end) {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0x40;
            root.store.put(&path, broken.into()).await.unwrap();
            let error = vector.load(&root, "data.parquet").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
            assert!(error.message().contains("data.parquet"), "{error}");
        }
        for length in 0..end {
            root.store
                .put(&path, bytes.slice(..length).into())
                .await
                .unwrap();
            let error = vector.load(&root, "data.parquet").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{length} bytes: {error}");
        }
        root.store.delete(&path).await.unwrap();
        let error = vector.load(&root, "data.parquet").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }

    #[tokio::test]
    async fn broken_descriptors_are_errors() {
        let root = root();
        let good = DeletionVector::inline(&(3..9).collect()).unwrap();
        let text = good.path_or_inline_dv.clone();
        let changed: [&dyn Fn(&mut DeletionVector); 14] = [
            &|v| v.storage_type = "x".into(),
            &|v| v.offset = Some(1),
            &|v| v.size_in_bytes = -1,
            &|v| v.size_in_bytes = 0,
            &|v| v.size_in_bytes = i32::MAX,
            &|v| v.size_in_bytes += 5,
            &|v| v.cardinality = 5,
            &|v| v.cardinality = -1,
            &|v| v.path_or_inline_dv = String::new(),
            &|v| v.path_or_inline_dv = "é".repeat(10),
            &|v| v.path_or_inline_dv.truncate(5),
            &|v| v.storage_type = "u".into(),
            &|v| {
                v.storage_type = "u".into();
                v.path_or_inline_dv = format!("../x{}", "0".repeat(20));
            },
            &|v| {
                v.storage_type = "p".into();
                v.path_or_inline_dv = "memory:///lake/t/none.bin".into();
                v.offset = Some(-1);
            },
        ];
        for (at, change) in changed.iter().enumerate() {
            let mut broken = good.clone();
            change(&mut broken);
            let error = broken.load(&root, "f").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {error}");
        }
        // Bytes of any kind must be refused or read, never panic.
        let mut seed = 7_u64;
        for _ in 0..2_000 {
            let mut broken = good.clone();
            let mut bytes = text.clone().into_bytes();
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = 33 + (seed >> 20) as u8 % 94;
            broken.path_or_inline_dv = String::from_utf8(bytes).unwrap();
            let _ = broken.load(&root, "f").await;
        }
    }

    #[test]
    fn just_the_other_rows_are_visible() {
        for (deleted, rows) in [
            (vec![], 5),
            (vec![], 0),
            (vec![0], 5),
            (vec![4], 5),
            (vec![0, 1, 2, 3, 4], 5),
            (vec![1, 2, 4], 8),
            ((3..30).collect(), 33),
            ((8..16).collect(), 16),
            (vec![65_535, 65_536], 70_000),
        ] {
            let treemap: RoaringTreemap = deleted.iter().copied().collect();
            let visible = visible_rows(&treemap, rows);
            assert_eq!(visible.len(), rows);
            for row in 0..rows {
                let gone = deleted.contains(&(row as u64));
                assert_eq!(
                    visible.value(row),
                    !gone,
                    "row {row} of {rows}, {deleted:?}"
                );
            }
        }
    }
}
