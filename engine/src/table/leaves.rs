//! Which columns data files hold, as their footers say.

use futures::{StreamExt, TryStreamExt, stream};

use super::located::footer;
use super::snapshot::{Snapshot, TableRoot};
use crate::error::{Error, Result};

/// Footers that are read at once.
const CONCURRENT_READS: usize = 16;

/// A data file that holds the struct `parent` and none of `fields` in it, all of them as files call them.
///
/// Of such a struct a reader cannot tell where it is NULL: only values of its fields say so.
pub(crate) async fn file_without(
    root: &TableRoot,
    snapshot: &Snapshot,
    parent: &[String],
    fields: &[String],
) -> Result<Option<String>> {
    let files: Vec<_> = snapshot.files.values().cloned().collect();
    let read = stream::iter(files)
        .map(|file| async move { Ok::<_, Error>((footer(root, &file).await?, file)) })
        .buffer_unordered(CONCURRENT_READS);
    let mut read = std::pin::pin!(read);
    while let Some((footer, file)) = read.try_next().await? {
        let columns = footer.file_metadata().schema_descr().columns();
        let holds = |field: Option<&String>| {
            let names = || parent.iter().chain(field);
            columns
                .iter()
                .any(|column| leads_through(column.path().parts(), names()))
        };
        if holds(None) && !fields.iter().any(|field| holds(Some(field))) {
            return Ok(Some(file.add.path.clone()));
        }
    }
    Ok(None)
}

/// Whether the way to a leaf goes by these names in this order. Between them are levels of lists and maps,
/// which writers call as they like.
fn leads_through<'a>(path: &[String], mut names: impl Iterator<Item = &'a String>) -> bool {
    let mut levels = path.iter();
    names.all(|name| levels.any(|level| level == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_lists_are_passed_over() {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let path = own(&["l", "list", "element", "x"]);
        let cases: [(&[&str], bool); 5] = [
            (&["l"], true),
            (&["l", "x"], true),
            (&["x", "l"], false),
            (&["l", "y"], false),
            (&[], true),
        ];
        for (names, expected) in cases {
            assert_eq!(
                leads_through(&path, own(names).iter()),
                expected,
                "{names:?}"
            );
        }
    }
}
