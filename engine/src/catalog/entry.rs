//! What the catalog keeps of a schema, a table, a view, a function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything the catalog knows at one of its versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalog {
    pub schemas: BTreeMap<String, Schema>,
}

/// One schema and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Schema {
    #[serde(default)]
    pub relations: BTreeMap<String, Relation>,
    /// Names of their own: a table and a function may have the same one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, FunctionEntry>,
}

/// A schema and a name in it.
pub(crate) type TableName = (String, String);

/// One name in a schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum Relation {
    /// A Delta table.
    Table(TableEntry),
    /// A stored query.
    View(ViewEntry),
    /// Files read in place.
    Files(FilesEntry),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableEntry {
    /// The table's own identifier, as in its metadata: tells a table from a later one at the same place.
    pub id: String,
    /// Folder relative to the lake, or a URL for a table that lives elsewhere.
    pub location: String,
    /// Whether DROP TABLE leaves the files alone.
    #[serde(default)]
    pub external: bool,
    /// Tables that rules of this one refer to, or did in some version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refers_to: Vec<TableName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ViewEntry {
    /// SQL text of the query.
    pub query: String,
    /// Names of its columns, where the statement gave them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Schema that unqualified names in the query mean.
    pub search_schema: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FilesEntry {
    /// `PARQUET`, `CSV`, `JSON` or `AVRO`.
    pub format: String,
    pub location: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Declared columns as Delta schema JSON; inferred from the files where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
}

/// An expression or a query under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FunctionEntry {
    /// Names and types as Delta schema JSON, in order.
    pub parameters: String,
    pub returns: ReturnsEntry,
    /// SQL text of the expression or query.
    pub body: String,
    /// Schema that unqualified names in the body mean.
    pub search_schema: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What a function gives. Types are Delta schema JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum ReturnsEntry {
    /// One value; the schema has one field.
    Value { schema: String },
    /// Rows; without a schema, of the columns that the query has when it runs.
    Rows { schema: Option<String> },
}

/// One step from a catalog version to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "camelCase")]
pub(crate) enum Change {
    PutSchema {
        schema: String,
    },
    DropSchema {
        schema: String,
    },
    Put {
        schema: String,
        name: String,
        relation: Relation,
    },
    Drop {
        schema: String,
        name: String,
    },
    PutFunction {
        schema: String,
        name: String,
        function: FunctionEntry,
    },
    DropFunction {
        schema: String,
        name: String,
    },
}

impl Catalog {
    /// The catalog of a lake nobody has written to.
    pub(crate) fn empty() -> Self {
        let mut catalog = Self::default();
        catalog
            .schemas
            .insert(super::DEFAULT_SCHEMA.to_owned(), Schema::default());
        catalog
    }

    pub(crate) fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.schemas.get(schema)?.relations.get(name)
    }

    pub(crate) fn function(&self, schema: &str, name: &str) -> Option<&FunctionEntry> {
        self.schemas.get(schema)?.functions.get(name)
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::PutSchema { schema } => {
                self.schemas.entry(schema).or_default();
            }
            Change::DropSchema { schema } => {
                self.schemas.remove(&schema);
            }
            Change::Put {
                schema,
                name,
                relation,
            } => {
                self.schemas
                    .entry(schema)
                    .or_default()
                    .relations
                    .insert(name, relation);
            }
            Change::Drop { schema, name } => {
                if let Some(schema) = self.schemas.get_mut(&schema) {
                    schema.relations.remove(&name);
                }
            }
            Change::PutFunction {
                schema,
                name,
                function,
            } => {
                self.schemas
                    .entry(schema)
                    .or_default()
                    .functions
                    .insert(name, function);
            }
            Change::DropFunction { schema, name } => {
                if let Some(schema) = self.schemas.get_mut(&schema) {
                    schema.functions.remove(&name);
                }
            }
        }
    }
}
