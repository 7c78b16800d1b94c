//! Runs the `.slt` files through a door.
//!
//! - `SLT=insert cargo test --test it slt` runs the files whose path contains `insert`.
//! - `SLT_COMPLETE=1 cargo test --test it slt::folder` writes what the engine answers into the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use sqllogictest::{AsyncDB, DBOutput, Runner, default_validator, strict_column_validator};

use super::door::{Connection, Door, DoorError, Output};
use super::render::{self, Column};

/// Longer than any file may take; one that hangs is named instead of hanging the run.
const LIMIT: Duration = Duration::from_secs(300);

/// Files at a time: statements use several threads themselves.
const PARALLEL: usize = 4;

/// Runs all files through `door`; panics with every failure.
pub(crate) async fn run(door: impl Door + 'static) {
    let door: Arc<dyn Door> = Arc::new(door);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let wanted = std::env::var("SLT").unwrap_or_default();
    let files: Vec<_> = files(&root)
        .into_iter()
        .filter(|file| name(&root, file).contains(&wanted))
        .collect();
    assert!(
        !files.is_empty(),
        "no file under {} contains {wanted:?}",
        root.display()
    );
    let total = files.len();
    let failures: Vec<String> = stream::iter(files)
        .map(|file| {
            let (door, name) = (Arc::clone(&door), name(&root, &file));
            async move {
                let label = format!("{} {name}", door.name());
                eprintln!("{label}");
                // A task of its own: a panic of the engine fails its file, not the run.
                let task = tokio::spawn(tokio::time::timeout(LIMIT, run_file(door, name, file)));
                match task.await {
                    Ok(Ok(Ok(()))) => None,
                    Ok(Ok(Err(text))) => Some(format!("{label}: {text}")),
                    Ok(Err(_)) => Some(format!("{label}: no end after {LIMIT:?}")),
                    Err(panic) => Some(format!("{label}: {panic}")),
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(
        failures.is_empty(),
        "{} of {total} files failed\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

async fn run_file(door: Arc<dyn Door>, name: String, file: PathBuf) -> Result<(), String> {
    let lake = door.lake(&name).await.map_err(|e| e.to_string())?;
    let lake = Arc::new(lake);
    let mut runner = Runner::new(|| {
        let (lake, label) = (Arc::clone(&lake), door.name());
        async move {
            let connection = lake.connect().await?;
            Ok(Db { connection, label })
        }
    });
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(without_trailing_space);
    if std::env::var_os("SLT_COMPLETE").is_some_and(|value| value != "0") {
        return runner
            .update_test_file(
                &file,
                " ",
                default_validator,
                without_trailing_space,
                strict_column_validator,
            )
            .await
            .map_err(|e| e.to_string());
    }
    runner
        .run_file_async(&file)
        .await
        .map_err(|e| e.display(false).to_string())
}

/// Spaces inside a value are part of it; at the end of a line no editor keeps them.
#[allow(clippy::ptr_arg)] // the runner's signature
fn without_trailing_space(text: &String) -> String {
    text.trim_end().to_owned()
}

struct Db {
    connection: Box<dyn Connection>,
    label: &'static str,
}

#[async_trait]
impl AsyncDB for Db {
    type Error = DoorError;
    type ColumnType = Column;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Column>, DoorError> {
        Ok(match self.connection.run(sql).await? {
            Output::Rows(schema, batches) => DBOutput::Rows {
                types: render::columns(&schema),
                rows: render::rows(&batches).map_err(|e| DoorError(e.to_string()))?,
            },
            // One row with the count, as in DataFusion's files: `query I` with a number below.
            Output::Written(count) => DBOutput::Rows {
                types: vec![Column::Integer],
                rows: vec![vec![count.to_string()]],
            },
            Output::Done => DBOutput::StatementComplete(0),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.label
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn name(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).unwrap_or(file);
    below.with_extension("").display().to_string()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    found.sort();
    found
}
