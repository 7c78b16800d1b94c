//! The making of a table, in two steps of which only the second makes it visible: its log begins at a place
//! nobody knows yet, then the catalog takes its name. Whoever loses the race for the name takes its log back.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::dml::InsertOp;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::create::{TABLE_CREATED, exists, still_there};
use super::insert::{self, Assignment};
use super::scope::Scope;
use super::{references, run_write};
use crate::catalog::entry::{Change, Relation, TableEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::definition;
use crate::journal::shape::Shape;
use crate::sql;
use crate::table::actions::Metadata;
use crate::table::handle::Table;
use crate::table::snapshot::Snapshot;
use crate::table::{log, mapping, protocol, schema as delta, widening};
use crate::write::commit::{self, Intent, Outcome, Removes};
use crate::write::report::WriteReport;
use crate::write::target::{JournalMode, JournalTarget, NewTable};

/// Table property: rows that go are marked in files that stay.
pub(super) const DELETION_VECTORS: &str = "delta.enableDeletionVectors";

/// What a new table is to be, whatever statement asks for it.
pub(super) struct Spec {
    pub schema: String,
    pub table: String,
    /// All that are stored.
    pub columns: SchemaRef,
    pub partitioned_by: Vec<String>,
    /// Properties and constraints.
    pub configuration: BTreeMap<String, String>,
    pub comment: Option<String>,
    /// Replaces the table that has the name, if one has.
    pub or_replace: bool,
    /// Whether the rows that fill it are all there was, instant by instant.
    pub snapshots: bool,
}

impl Spec {
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The journal that it is to be, if it is to be one.
    fn journal(&self) -> Result<Option<Arc<Shape>>> {
        let stored = mapping::logical(&self.columns);
        Shape::of_metadata(&self.name(), &self.configuration, &stored)
    }

    /// The columns that statements will know.
    pub(super) fn declared(&self) -> Result<SchemaRef> {
        Ok(match self.journal()? {
            Some(shape) => Arc::clone(&shape.declared),
            None => mapping::logical(&self.columns),
        })
    }
}

/// A table without rows.
pub(super) async fn empty(scope: &Arc<Scope>, spec: &Spec) -> Result<()> {
    let site = Site::prepare(scope, spec).await?;
    let (base, user) = (site.base.clone(), scope.user.clone());
    let operation = site.operation(spec);
    let intent = Intent {
        protocol: Some(site.new.protocol.clone()),
        metadata: Some(site.new.metadata.clone()),
        removes: match base {
            Some(_) => Removes::All,
            None => Removes::None,
        },
        ..Intent::new(spec.name(), base, operation, user, scope.batch_id)
    };
    let handle = Arc::clone(&site.handle);
    let committed = match commit::commit(handle, intent, &scope.engine.settings).await {
        Ok(Outcome::Committed(..)) => Ok(()),
        Ok(Outcome::Conflict(reason)) => Err(Error::new(ErrorKind::Conflict, reason)),
        Ok(Outcome::Unknown(error)) | Err(error) => Err(error),
    };
    site.publish(scope, spec, committed).await
}

/// A table with the rows of `source`, in one commit, through the write path.
pub(super) async fn filled(
    scope: &Arc<Scope>,
    spec: &Spec,
    source: LogicalPlan,
    assignment: &Assignment,
) -> Result<WriteReport> {
    let site = Site::prepare(scope, spec).await?;
    let written = match site.write(scope, spec, source, assignment) {
        Ok(plan) => run_write(scope, &plan).await,
        Err(error) => Err(error),
    };
    match written {
        Ok(report) => site.publish(scope, spec, Ok(())).await.map(|()| report),
        Err(error) => Err(match site.publish(scope, spec, Err(error)).await {
            Err(error) => error,
            Ok(()) => Error::internal("a failed CREATE TABLE was published"),
        }),
    }
}

/// Where a new table goes.
pub(super) struct Site {
    handle: Arc<Table>,
    entry: TableEntry,
    new: NewTable,
    /// The version that is replaced, if the name is a table's already.
    base: Option<Arc<Snapshot>>,
}

impl Site {
    pub(super) async fn prepare(scope: &Arc<Scope>, spec: &Spec) -> Result<Self> {
        let mut features = Vec::new();
        if delta::uses_timestamp_ntz(&spec.columns) {
            features.push("timestampNtz");
        }
        if spec
            .configuration
            .keys()
            .any(|key| key.starts_with("delta.constraints."))
        {
            features.push("checkConstraints");
        }
        if spec
            .columns
            .fields()
            .iter()
            .any(|field| delta::column_default(field).is_some())
        {
            features.push("allowColumnDefaults");
        }
        for (property, feature) in [
            (mapping::MODE, mapping::FEATURE),
            (widening::ENABLED, widening::FEATURE),
            (DELETION_VECTORS, "deletionVectors"),
        ] {
            if spec
                .configuration
                .get(property)
                .is_some_and(|v| v != "false")
            {
                features.push(feature);
            }
        }
        let definition = definition::of(&spec.name(), &spec.configuration)?;
        // Events that a journal keeps are listed in the log, which is not a reader's business.
        if definition.is_some_and(|definition| definition.late.after_micros.is_some()) {
            features.push("domainMetadata");
        }
        check_partitioning(spec)?;
        let replaced = match scope.pinned.catalog.relation(&spec.schema, &spec.table) {
            Some(Relation::Table(entry)) if spec.or_replace => Some(entry.clone()),
            Some(_) if spec.or_replace => {
                return Err(Error::invalid(format!(
                    "{} is not a versioned table, so it cannot be replaced by one",
                    spec.name()
                ))
                .with_hint(format!("DROP it first: DROP VIEW {}", spec.name())));
            }
            _ => None,
        };
        let (handle, entry, base) = match replaced {
            Some(entry) => {
                let handle = scope.engine.table(&entry)?;
                let base = handle.pin(&spec.name()).await?;
                protocol::check_writable(&spec.name(), &base)?;
                (handle, entry, Some(base))
            }
            None => {
                let id = scope.engine.ambient.id().to_string();
                let (handle, location) = vacant(scope, spec, &id).await?;
                (
                    handle,
                    TableEntry {
                        id,
                        location,
                        external: false,
                        refers_to: references::targets(scope, &spec.name(), &spec.configuration)?,
                    },
                    None,
                )
            }
        };
        let mut configuration = spec.configuration.clone();
        configuration.insert(
            "delta.enableInCommitTimestamps".to_owned(),
            "true".to_owned(),
        );
        let metadata = Metadata {
            id: entry.id.clone(),
            name: Some(spec.table.clone()),
            description: spec.comment.clone(),
            format: Default::default(),
            schema_string: delta::to_delta(&spec.columns)?,
            partition_columns: spec.partitioned_by.clone(),
            created_time: Some(scope.batch_id),
            configuration,
        };
        let protocol = match &base {
            None => protocol::for_new_table(&features),
            // A table keeps the features of its past: its old versions still need them.
            Some(base) => features
                .iter()
                .chain(&["inCommitTimestamp"])
                .fold((*base.protocol).clone(), |protocol, feature| {
                    protocol::with_feature(&protocol, feature).unwrap_or(protocol)
                }),
        };
        Ok(Self {
            handle,
            entry,
            new: NewTable { protocol, metadata },
            base,
        })
    }

    /// The write that fills the table, through the table itself.
    pub(super) fn write(
        &self,
        scope: &Arc<Scope>,
        spec: &Spec,
        source: LogicalPlan,
        assignment: &Assignment,
    ) -> Result<LogicalPlan> {
        let draft = Snapshot::draft(
            &self.new.protocol,
            &self.new.metadata,
            Arc::clone(&spec.columns),
        );
        let operation = match self.base {
            Some(_) => "CREATE OR REPLACE TABLE AS SELECT",
            None => "CREATE TABLE AS SELECT",
        };
        let mut target = scope.target(
            &spec.name(),
            Arc::clone(&self.handle),
            self.base.clone(),
            operation,
        )?;
        target.creates = Some(self.new.clone());
        target.schema = spec.declared()?;
        // What the table was that is replaced does not matter.
        target.journal = spec.journal()?.map(|shape| {
            Arc::new(JournalTarget {
                shape,
                mode: match spec.snapshots {
                    true => JournalMode::Snapshots,
                    false => JournalMode::Changes,
                },
                moves: false,
                instant: Shape::instant(scope.batch_id, self.base.as_deref()),
                max_delete_fraction: definition::max_delete_fraction(&spec.configuration),
            })
        });
        let table = self
            .handle
            .provider(&spec.name(), Arc::new(draft))
            .current()?
            .with_target(Arc::new(target));
        let name = TableReference::partial(spec.schema.as_str(), spec.table.as_str());
        insert::write(scope, name, table, source, assignment, InsertOp::Append)
    }

    fn operation(&self, spec: &Spec) -> &'static str {
        if self.base.is_some() && spec.or_replace {
            "CREATE OR REPLACE TABLE"
        } else {
            TABLE_CREATED
        }
    }

    /// Gives the table its name, or clears the place when it was not made or the name is taken by now.
    async fn publish(self, scope: &Arc<Scope>, spec: &Spec, made: Result<()>) -> Result<()> {
        if self.base.is_some() {
            return made;
        }
        let named = match made {
            Ok(()) => {
                scope
                    .engine
                    .catalog
                    .change(|catalog| {
                        if let Some(taken) = catalog.relation(&spec.schema, &spec.table) {
                            return Err(exists(&spec.schema, &spec.table, taken));
                        }
                        still_there(catalog, &spec.schema)?;
                        Ok(vec![Change::Put {
                            schema: spec.schema.clone(),
                            name: spec.table.clone(),
                            relation: Relation::Table(self.entry.clone()),
                        }])
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        match named {
            Ok(()) => {
                scope.engine.adopt(&self.entry, self.handle);
                Ok(())
            }
            // After a lost answer the name may be there, so the files must stay.
            Err(error) if error.kind() == ErrorKind::Storage => Err(error),
            Err(error) => {
                unmake(&self.handle).await;
                Err(error)
            }
        }
    }
}

/// Takes back a log that was begun for a table that did not get its name: its one commit and the files of it.
/// Nothing else in the folder is touched, because another creator may have the same place in mind.
async fn unmake(table: &Table) {
    let Some(snapshot) = table.cached() else {
        return;
    };
    let commit = log::commit_path(&table.root, 0);
    let files = snapshot
        .files
        .keys()
        .filter_map(|path| table.root.locate(path).ok());
    for path in std::iter::once(commit).chain(files) {
        if let Err(error) = table.root.store.delete(&path).await {
            tracing::warn!(%error, %path, "a file of a table that was not made was left behind");
        }
    }
    table.forget();
}

/// A place for a new table: `schema/table` if it is free, so that people find it, else one beside it.
async fn vacant(scope: &Arc<Scope>, spec: &Spec, id: &str) -> Result<(Arc<Table>, String)> {
    let plain = format!("{}/{}", spec.schema, spec.table);
    let awkward =
        spec.schema.starts_with('_') || spec.schema.contains('/') || spec.table.contains('/');
    if !awkward {
        let handle = scope.engine.open_table(&plain)?;
        let mut found = handle.root.store.list(Some(&handle.root.path));
        let free = found
            .try_next()
            .await
            .map_err(|error| Error::storage(format!("cannot look at {plain}"), error))?
            .is_none();
        drop(found);
        if free {
            return Ok((handle, plain));
        }
    }
    // Left over from a table that was dropped, or of an engine that made files here by hand.
    let beside = format!(
        "{}/{}-{}",
        spec.schema.replace('/', "_"),
        spec.table.replace('/', "_"),
        &id[..8]
    );
    Ok((scope.engine.open_table(&beside)?, beside))
}

/// Removes everything under a table's folder; what cannot be removed is only space.
pub(super) async fn clear(table: &Table) {
    let store = &table.root.store;
    let found = store
        .list(Some(&table.root.path))
        .map_ok(|meta| meta.location);
    let removed = store
        .delete_stream(Box::pin(found))
        .try_collect::<Vec<_>>()
        .await;
    if let Err(error) = removed {
        tracing::warn!(%error, table = %table.root.path, "files of a dropped table were left behind");
    }
    table.forget();
}

fn check_partitioning(spec: &Spec) -> Result<()> {
    let names: Vec<&str> = spec
        .columns
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    for (index, column) in spec.partitioned_by.iter().enumerate() {
        let Ok(field) = spec.columns.field_with_name(column) else {
            let missing = Error::new(
                ErrorKind::NotFound,
                format!(
                    "table {} cannot be partitioned by {column}: there is no such column",
                    spec.name()
                ),
            );
            return Err(match sql::nearest(column, names) {
                Some(near) => missing.with_hint(format!("did you mean {near}?")),
                None => missing,
            });
        };
        if spec.partitioned_by[..index].contains(column) {
            return Err(Error::invalid(format!(
                "table {}: partition column {column} is given twice",
                spec.name()
            )));
        }
        if field.data_type().is_nested() {
            return Err(Error::invalid(format!(
                "table {} cannot be partitioned by {column}: its type is {}",
                spec.name(),
                field.data_type()
            )));
        }
    }
    if !spec.partitioned_by.is_empty() && spec.partitioned_by.len() == names.len() {
        return Err(Error::invalid(format!(
            "table {} needs at least one column it is not partitioned by",
            spec.name()
        )));
    }
    Ok(())
}
