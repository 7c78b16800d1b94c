//! The next metadata of a table, while a statement changes it.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Fields, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::journal::definition::{self, Definition};
use crate::journal::shape::Shape;
use crate::session::scope::{Opened, Scope};
use crate::table::actions::{Metadata, Protocol};
use crate::table::mapping::{self, Mode};
use crate::table::{protocol, schema as delta, widening};
use crate::write::target::NewTable;

/// What a table is to become: first what it is, then changed step by step, then committed whole.
pub(in crate::session) struct Draft<'a> {
    scope: &'a Arc<Scope>,
    opened: &'a Opened,
    /// Columns as the snapshot has them, with what Delta notes of them.
    pub fields: Fields,
    pub metadata: Metadata,
    protocol: Protocol,
}

impl<'a> Draft<'a> {
    pub(in crate::session) fn of(scope: &'a Arc<Scope>, opened: &'a Opened) -> Self {
        let snapshot = &opened.snapshot;
        Self {
            scope,
            opened,
            fields: snapshot.schema.fields().clone(),
            metadata: (*snapshot.metadata).clone(),
            protocol: (*snapshot.protocol).clone(),
        }
    }

    /// Sets a property, and whatever else makes it true.
    pub(in crate::session) fn set(&mut self, key: String, value: String) -> Result<()> {
        if key == mapping::MODE {
            match self.opened.snapshot.mapping() {
                Mode::None => self.begin_mapping(),
                Mode::Name => {}
                Mode::Id => {
                    return Err(Error::invalid(format!(
                        "table {} finds its columns by id, so {key} cannot become {value}",
                        self.opened.name
                    )));
                }
            }
        }
        if key == widening::ENABLED && value == "true" {
            self.need(widening::FEATURE);
        }
        self.metadata.configuration.insert(key, value);
        Ok(())
    }

    /// What the journal is from now on.
    pub(super) fn keep(&mut self, definition: &Definition) -> Result<()> {
        let property = definition::property(definition)?;
        self.metadata.configuration.extend([property]);
        Ok(())
    }

    /// Takes a property away; says whether it was there.
    pub(in crate::session) fn unset(&mut self, key: &str) -> Result<bool> {
        if key == mapping::MODE && self.opened.snapshot.mapping() != Mode::None {
            return Err(Error::invalid(format!(
                "table {} cannot lose {key}: its files call columns by other names than its queries do",
                self.opened.name
            )));
        }
        Ok(self.metadata.configuration.remove(key).is_some())
    }

    /// Gives the columns names that stay in files, so that theirs may change. A table of this lake gets them
    /// with the first statement that needs them; one that lives elsewhere has other readers, who are asked
    /// first.
    pub(super) fn map_columns(&mut self, what: &str) -> Result<()> {
        if self.opened.snapshot.mapping() != Mode::None {
            return Ok(());
        }
        if self.opened.external {
            return Err(self.unasked(what, "column mapping", mapping::MODE, "name"));
        }
        self.begin_mapping();
        Ok(())
    }

    /// Lets types of columns grow, under the same terms.
    pub(super) fn widen_types(&mut self, what: &str) -> Result<()> {
        if self.opened.snapshot.property(widening::ENABLED) == Some("true") {
            self.need(widening::FEATURE);
            return Ok(());
        }
        if self.opened.external {
            return Err(self.unasked(what, "type widening", widening::ENABLED, "true"));
        }
        self.set(widening::ENABLED.to_owned(), "true".to_owned())
    }

    fn unasked(&self, what: &str, feature: &str, key: &str, value: &str) -> Error {
        let table = &self.opened.name;
        Error::unsupported(format!(
            "{what}: that needs {feature}, which table {table} does not have, and it lives outside the lake, where others may read it"
        ))
        .with_hint(format!(
            "if they can, ALTER TABLE {table} SET TBLPROPERTIES ('{key}' = '{value}') first"
        ))
    }

    /// Files that are there hold columns under the names they have now.
    fn begin_mapping(&mut self) {
        let mut max_id = self.max_id();
        self.fields = mapping::assign(&self.fields, &mut max_id, &mut str::to_owned);
        let configuration = &mut self.metadata.configuration;
        configuration.insert(mapping::MODE.to_owned(), "name".to_owned());
        configuration.insert(mapping::MAX_ID.to_owned(), max_id.to_string());
        self.need(mapping::FEATURE);
    }

    /// Names new columns in files, where those have names of their own: as no column was called before.
    pub(super) fn name_new_columns(&mut self) {
        if self.opened.snapshot.mapping() == Mode::None {
            return;
        }
        let mut max_id = self.max_id();
        let ambient = &self.scope.engine.ambient;
        self.fields = mapping::assign(&self.fields, &mut max_id, &mut |_| {
            mapping::new_name(ambient.id())
        });
        let configuration = &mut self.metadata.configuration;
        configuration.insert(mapping::MAX_ID.to_owned(), max_id.to_string());
    }

    fn max_id(&self) -> i32 {
        mapping::max_id(&Schema::new(self.fields.clone()), &self.metadata)
    }

    fn need(&mut self, feature: &str) {
        if let Some(more) = protocol::with_feature(&self.protocol, feature) {
            self.protocol = more;
        }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    /// The columns that statements will know: those of a journal's intervals are not among them.
    pub(super) fn declared(&self) -> Result<SchemaRef> {
        Ok(match self.shape()? {
            Some(shape) => Arc::clone(&shape.declared),
            None => self.schema(),
        })
    }

    /// The journal that the table will be, if it is one.
    fn shape(&self) -> Result<Option<Arc<Shape>>> {
        let stored = mapping::logical(&self.schema());
        Shape::of_metadata(&self.opened.name, &self.metadata.configuration, &stored)
    }

    /// The table as it is to be.
    pub(in crate::session) fn finish(mut self) -> Result<NewTable> {
        // What is left undone of a change must not be committed: nobody could read the table.
        self.shape()?;
        let schema = self.schema();
        if schema.fields() != self.opened.snapshot.schema.fields() {
            self.metadata.schema_string = delta::to_delta(&schema)?;
        }
        if delta::uses_timestamp_ntz(&schema) {
            self.need("timestampNtz");
        }
        if schema
            .fields()
            .iter()
            .any(|field| delta::column_default(field).is_some())
        {
            self.need("allowColumnDefaults");
        }
        Ok(NewTable {
            protocol: self.protocol,
            metadata: self.metadata,
        })
    }
}
