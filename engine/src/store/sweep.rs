//! Removal of what a crash left half written on a local disk.

use std::io;
use std::path::Path as FsPath;
use std::time::{Duration, SystemTime};

use object_store::path::Path;

use super::Lake;
use crate::error::{Error, ErrorKind, Result};

/// Removes staging files (`name#1`) under `folder` of a lake on a local disk that nobody has written
/// to for `older_than` before `now`; returns how many. Elsewhere there are none.
///
/// Only this can: the store's listing hides such files and its delete refuses them, so a vacuum
/// never sees them. `older_than` must exceed the longest pause of a living upload; one that is
/// swept all the same fails when it completes, and loses nothing that was acknowledged.
pub(crate) async fn sweep(
    lake: &Lake,
    folder: &Path,
    older_than: Duration,
    now: SystemTime,
) -> Result<u64> {
    let (Some(root), Some(below)) = (lake.folder(), folder.prefix_match(&lake.prefix)) else {
        return Ok(0);
    };
    let folder = below.fold(root, |at, part| at.join(part.as_ref()));
    let Some(before) = now.checked_sub(older_than) else {
        return Ok(0);
    };
    tokio::task::spawn_blocking(move || sweep_folder(&folder, before))
        .await
        .map_err(|e| Error::internal("sweeping was cut short").with_source(e))?
}

fn sweep_folder(folder: &FsPath, before: SystemTime) -> Result<u64> {
    let mut removed = 0;
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let refuse = |e| failed(&folder, e);
        // Tables may be dropped and uploads may end while this runs: what has gone needs no sweeping.
        let Some(entries) = unless_gone(std::fs::read_dir(&folder)).map_err(refuse)? else {
            continue;
        };
        for entry in entries {
            let entry = entry.map_err(refuse)?;
            let path = entry.path();
            let refuse = |e| failed(&path, e);
            let Some(kind) = unless_gone(entry.file_type()).map_err(refuse)? else {
                continue;
            };
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_staging) {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                if unless_gone(modified)
                    .map_err(refuse)?
                    .is_some_and(|at| at <= before)
                    && unless_gone(std::fs::remove_file(&path))
                        .map_err(refuse)?
                        .is_some()
                {
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// Exactly the names that the store's listing hides.
fn is_staging(name: &str) -> bool {
    name.split_once('#').is_some_and(|(base, number)| {
        !base.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn failed(path: &FsPath, source: io::Error) -> Error {
    Error::new(
        ErrorKind::Storage,
        format!("cannot sweep {}: {source}", path.display()),
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::store::open;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn only_old_staging_files_below_the_folder_go() {
        let dir = tempfile::tempdir().unwrap();
        let lake = open(dir.path().to_str().unwrap(), true).await.unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let file = |name: &str, age: Duration| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(&path)
                .unwrap()
                .set_modified(now - age)
                .unwrap();
        };
        let old = HOUR * 2;
        for (name, age) in [
            ("s/t/a.parquet#1", old),
            ("s/t/a b#2", HOUR),
            ("s/t/_delta_log/00000000000000000003.json#17", old),
            // None of these may be touched.
            ("s/t/young#1", HOUR - Duration::from_secs(1)),
            ("s/t/future#1", Duration::ZERO),
            ("s/t/a.parquet", old),
            ("s/t/a#b", old),
            ("s/t/a#b#1", old),
            ("s/t/a#1x", old),
            ("s/t/a#", old),
            ("s/t/#1", old),
            ("s/t/p=#1/kept", old),
            ("s/other#1", old),
            ("outside/x#1", old),
        ] {
            file(name, age);
        }
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("s/t/link"))
            .unwrap();
        let folder = lake.prefix.clone().join("s").join("t");
        assert_eq!(sweep(&lake, &folder, HOUR, now).await.unwrap(), 3);
        assert_eq!(sweep(&lake, &folder, HOUR, now).await.unwrap(), 0);
        let left = |folder: &str| {
            let mut names: Vec<_> = std::fs::read_dir(dir.path().join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            left("s/t"),
            [
                "#1",
                "_delta_log",
                "a#",
                "a#1x",
                "a#b",
                "a#b#1",
                "a.parquet",
                "future#1",
                "link",
                "p=#1",
                "young#1"
            ]
        );
        assert_eq!(left("s/t/_delta_log"), [""; 0]);
        assert_eq!(left("outside"), ["x#1"]);
        // All of the lake.
        assert_eq!(sweep(&lake, &lake.prefix, HOUR, now).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn nothing_to_sweep() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let lake = open(dir.path().to_str().unwrap(), false).await.unwrap();
        let missing = lake.prefix.clone().join("missing");
        assert_eq!(sweep(&lake, &missing, HOUR, now + HOUR).await.unwrap(), 0);
        assert_eq!(
            sweep(&lake, &Path::from("etc"), HOUR, now + HOUR)
                .await
                .unwrap(),
            0
        );
        let memory = open("memory://", true).await.unwrap();
        assert_eq!(
            sweep(&memory, &Path::ROOT, HOUR, now + HOUR).await.unwrap(),
            0
        );
    }
}
