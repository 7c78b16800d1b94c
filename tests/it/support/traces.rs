//! What is in a store, and where a value is left in it: every object byte by byte, and Parquet page by page, for what
//! is compressed in it cannot be seen from outside.

use bytes::Bytes;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Paths of all objects that contain `part`, sorted.
pub(crate) async fn objects(store: &dyn ObjectStore, part: &str) -> Vec<String> {
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut paths: Vec<String> = all
        .into_iter()
        .map(|meta| meta.location.to_string())
        .collect();
    paths.retain(|path| path.contains(part));
    paths.sort();
    paths
}

/// The objects under `prefix` that hold `marker`, in the open or behind compression.
pub(crate) async fn holding(store: &dyn ObjectStore, prefix: &str, marker: &str) -> Vec<String> {
    let all: Vec<_> = store
        .list(Some(&Path::from(prefix)))
        .try_collect()
        .await
        .unwrap();
    let mut found = Vec::new();
    for meta in all {
        let path = meta.location;
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        if path.as_ref().contains(marker) || contains(&bytes, marker) {
            found.push(path.to_string());
        } else if path.as_ref().ends_with(".parquet") && in_pages(bytes, marker) {
            found.push(format!("{path}, compressed"));
        }
    }
    found.sort();
    found
}

/// As UTF-8, and as it would stand in a text that was encoded once more.
pub(crate) fn contains(bytes: &[u8], marker: &str) -> bool {
    let wide: Vec<u8> = marker.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hex: String = marker.bytes().map(|byte| format!("{byte:02x}")).collect();
    [
        marker.as_bytes(),
        &wide,
        hex.as_bytes(),
        hex.to_uppercase().as_bytes(),
    ]
    .iter()
    .any(|form| bytes.windows(form.len()).any(|window| window == *form))
}

/// Every page of every column, dictionaries whose values no row has any more among them.
fn in_pages(bytes: Bytes, marker: &str) -> bool {
    let file = SerializedFileReader::new(bytes).unwrap();
    (0..file.num_row_groups()).any(|group| {
        let group = file.get_row_group(group).unwrap();
        (0..group.num_columns()).any(|column| {
            let pages = group.get_column_page_reader(column).unwrap();
            pages
                .map(Result::unwrap)
                .any(|page| contains(page.buffer(), marker))
        })
    })
}
