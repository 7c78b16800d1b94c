//! Column mapping: names that columns have in files, statistics and partition values of the log. They stay
//! when a column is renamed, and never come again after it was dropped.
//!
//! A field of a snapshot's schema is called what queries call it, and carries its physical name and its
//! id as metadata, at any depth. So whoever has a field can tell both; what queries see of a schema is
//! [`logical`], what files hold is [`in_files`]. Where a table has no mapping, the two names are one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::actions::{Metadata, Protocol};
use super::schema::{JSON_PREFIX, path, to_arrow};
use crate::error::{Error, Result};

/// Table property: how columns find their data.
pub(crate) const MODE: &str = "delta.columnMapping.mode";
/// Table property: the highest id any column ever had.
pub(crate) const MAX_ID: &str = "delta.columnMapping.maxColumnId";
/// The feature of the protocol.
pub(crate) const FEATURE: &str = "columnMapping";

const PREFIX: &str = "delta.columnMapping.";
/// Metadata of a field: the name it has in files.
pub(super) const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
const ID: &str = "delta.columnMapping.id";

/// How columns of a table find their data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By their name.
    None,
    /// By their physical name.
    Name,
    /// By their id, which the file gives as field id.
    Id,
}

impl Mode {
    /// The mode of a table; `None` where the property says something else than the protocol knows.
    pub(crate) fn of(protocol: &Protocol, metadata: &Metadata) -> Option<Self> {
        // Without the feature the property means nothing, so says the protocol.
        let supported = match protocol.min_reader_version {
            2 => true,
            3 => protocol
                .reader_features
                .iter()
                .flatten()
                .any(|f| f == FEATURE),
            _ => false,
        };
        match metadata.configuration.get(MODE).map(String::as_str) {
            _ if !supported => Some(Self::None),
            None | Some("none") => Some(Self::None),
            Some("name") => Some(Self::Name),
            Some("id") => Some(Self::Id),
            Some(_) => None,
        }
    }
}

/// The name of a column in files and in the log.
pub(crate) fn physical_name(field: &Field) -> &str {
    match field.metadata().get(PHYSICAL_NAME) {
        Some(name) => name,
        None => field.name(),
    }
}

/// Whether a column has a physical name of its own, so that its name may be any.
pub(super) fn mapped(field: &Field) -> bool {
    field.metadata().contains_key(PHYSICAL_NAME)
}

/// The id of a column, by which files of mode `id` name it.
pub(crate) fn id(field: &Field) -> Option<i32> {
    field.metadata().get(&id_key())?.parse().ok()
}

/// Ids are numbers in the log's JSON, and so text under another key in Arrow's metadata.
fn id_key() -> String {
    format!("{JSON_PREFIX}{ID}")
}

/// The schema of a table of this mode: every name and id is there where they count, none where they do not.
pub(super) fn resolve(schema: SchemaRef, mode: Mode) -> Result<SchemaRef> {
    if mode == Mode::None {
        return Ok(without(&schema, PREFIX));
    }
    check(schema.fields(), "", &mut HashSet::new())?;
    Ok(schema)
}

fn check(fields: &Fields, parent: &str, ids: &mut HashSet<i32>) -> Result<()> {
    let mut names = HashSet::with_capacity(fields.len());
    for field in fields {
        let column = path(parent, field.name());
        let corrupt = |what: &str| {
            Err(Error::corrupt(format!(
                "column {column} of a table with column mapping {what}"
            )))
        };
        if !mapped(field) {
            return corrupt("has no physical name");
        }
        if !names.insert(physical_name(field)) {
            return corrupt("has the physical name of another column");
        }
        match id(field) {
            None => return corrupt("has no id"),
            Some(id) if !ids.insert(id) => return corrupt("has the id of another column"),
            Some(_) => {}
        }
        for inner in structs(field.data_type()) {
            check(inner, &column, ids)?;
        }
    }
    Ok(())
}

/// The structs a type is made of, less those inside of them.
fn structs(data_type: &DataType) -> Vec<&Fields> {
    match data_type {
        DataType::Struct(fields) => vec![fields],
        DataType::List(element) => structs(element.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(parts) => parts
                .iter()
                .flat_map(|part| structs(part.data_type()))
                .collect(),
            _ => vec![],
        },
        _ => vec![],
    }
}

/// The columns as queries see them: without what Delta notes of files.
pub(crate) fn logical(schema: &SchemaRef) -> SchemaRef {
    without(schema, "delta.")
}

fn without(schema: &SchemaRef, prefix: &str) -> SchemaRef {
    let noted = |key: &String| {
        key.strip_prefix(JSON_PREFIX)
            .unwrap_or(key)
            .starts_with(prefix)
    };
    let fields = each(schema.fields(), &mut |mut field| {
        if field.metadata().keys().any(noted) {
            let mut metadata = field.metadata().clone();
            metadata.retain(|key, _| !noted(key));
            field = field.with_metadata(metadata);
        }
        field
    });
    match fields == *schema.fields() {
        true => Arc::clone(schema),
        false => Arc::new(Schema::new(fields)),
    }
}

/// The columns as files hold them: under their physical names, with their ids, and nothing else noted.
fn physical(schema: &Schema) -> Schema {
    Schema::new(each(schema.fields(), &mut |field| {
        let id = id(&field).map(|id| (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()));
        let name = physical_name(&field).to_owned();
        field.with_name(name).with_metadata(HashMap::from_iter(id))
    }))
}

/// What files of the table `metadata` describes hold, whose columns are those of `schema`.
pub(crate) fn in_files(schema: &SchemaRef, metadata: &Metadata) -> Result<Schema> {
    match metadata.configuration.get(MODE).map(String::as_str) {
        None | Some("none") => Ok(physical(schema)),
        Some(_) => Ok(physical(&*to_arrow(&metadata.schema_string)?)),
    }
}

/// The same values under another type that differs in what fields of structs are called.
pub(crate) fn relabel(
    array: &ArrayRef,
    data_type: &DataType,
) -> std::result::Result<ArrayRef, ArrowError> {
    if array.data_type() == data_type {
        return Ok(ArrayRef::clone(array));
    }
    Ok(match data_type {
        DataType::Struct(fields) if array.data_type().is_nested() => {
            Arc::new(relabel_struct(array.as_struct(), fields)?)
        }
        DataType::List(element) => {
            let list: &ListArray = array.as_list();
            let values = relabel(list.values(), element.data_type())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Arc::new(ListArray::try_new(
                Arc::clone(element),
                offsets,
                values,
                nulls,
            )?)
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let DataType::Struct(parts) = entries.data_type() else {
                return Ok(ArrayRef::clone(array));
            };
            let values = relabel_struct(map.entries(), parts)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            let entries = Arc::clone(entries);
            Arc::new(MapArray::try_new(entries, offsets, values, nulls, *sorted)?)
        }
        _ => ArrayRef::clone(array),
    })
}

fn relabel_struct(
    array: &StructArray,
    fields: &Fields,
) -> std::result::Result<StructArray, ArrowError> {
    let columns = array
        .columns()
        .iter()
        .zip(fields)
        .map(|(column, field)| relabel(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new(fields.clone(), columns, array.nulls().cloned())
}

/// The physical name of a new column: one no column had before.
pub(crate) fn new_name(id: uuid::Uuid) -> String {
    format!("col-{id}")
}

/// Gives ids to columns of a table, and physical names by `name`; those that have theirs keep them.
pub(crate) fn assign(
    fields: &Fields,
    max_id: &mut i32,
    name: &mut dyn FnMut(&str) -> String,
) -> Fields {
    each(fields, &mut |field| {
        if mapped(&field) && id(&field).is_some() {
            return field;
        }
        *max_id += 1;
        let mut metadata = field.metadata().clone();
        metadata.insert(PHYSICAL_NAME.to_owned(), name(field.name()));
        metadata.insert(id_key(), max_id.to_string());
        field.with_metadata(metadata)
    })
}

/// The highest id in use, or that the table remembers.
pub(crate) fn max_id(schema: &Schema, metadata: &Metadata) -> i32 {
    let mut highest = metadata
        .configuration
        .get(MAX_ID)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    each(schema.fields(), &mut |field| {
        highest = id(&field).unwrap_or(0).max(highest);
        field
    });
    highest
}

/// `fields` with `change` done to each that has a name of its own: columns, and fields of structs at any
/// depth, but not the parts of lists and maps.
fn each(fields: &Fields, change: &mut dyn FnMut(Field) -> Field) -> Fields {
    fields
        .iter()
        .map(|field| {
            let field = change(field.as_ref().clone());
            let data_type = inside(field.data_type(), change);
            Arc::new(field.with_data_type(data_type))
        })
        .collect()
}

fn inside(data_type: &DataType, change: &mut dyn FnMut(Field) -> Field) -> DataType {
    let mut part = |field: &Field| {
        let data_type = inside(field.data_type(), change);
        Arc::new(field.clone().with_data_type(data_type))
    };
    match data_type {
        DataType::List(element) => DataType::List(part(element)),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(parts) => {
                let parts = parts.iter().map(|field| part(field)).collect();
                let entries = entries.as_ref().clone();
                DataType::Map(
                    Arc::new(entries.with_data_type(DataType::Struct(parts))),
                    *sorted,
                )
            }
            _ => data_type.clone(),
        },
        DataType::Struct(fields) => DataType::Struct(each(fields, change)),
        _ => data_type.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::schema::to_delta;
    use super::*;

    fn nested() -> SchemaRef {
        let field = |name: &str, data_type: Value| json!({"name": name, "type": data_type, "nullable": true, "metadata": {"comment": name}});
        let inner = json!({"type": "struct", "fields": [field("x", json!("long"))]});
        let schema = json!({"type": "struct", "fields": [
            field("a", json!("long")),
            field("s", inner.clone()),
            field("l", json!({"type": "array", "elementType": inner, "containsNull": true})),
            field("m", json!({"type": "map", "keyType": inner, "valueType": inner, "valueContainsNull": true})),
        ]});
        to_arrow(&schema.to_string()).unwrap()
    }

    fn assigned() -> (Schema, i32) {
        let mut max_id = 10;
        let fields = assign(nested().fields(), &mut max_id, &mut |name| {
            format!("col-{name}")
        });
        (Schema::new(fields), max_id)
    }

    #[test]
    fn every_field_gets_a_name_and_an_id_of_its_own() {
        let (schema, max_id) = assigned();
        assert_eq!(max_id, 18);
        let schema = resolve(Arc::new(schema), Mode::Name).unwrap();
        assert_eq!(physical_name(schema.field(3)), "col-m");
        assert_eq!(id(schema.field(0)), Some(11));
        // Once more changes nothing.
        let mut again = max_id;
        let fields = assign(schema.fields(), &mut again, &mut |_| unreachable!());
        assert_eq!((&fields, again), (schema.fields(), max_id));
        // The log gives back what it was given.
        assert_eq!(to_arrow(&to_delta(&schema).unwrap()).unwrap(), schema);
        let delta: Value = serde_json::from_str(&to_delta(&schema).unwrap()).unwrap();
        assert_eq!(delta["fields"][0]["metadata"][ID], 11);
    }

    #[test]
    fn queries_see_names_and_comments_and_files_see_physical_names_and_ids() {
        let schema = Arc::new(assigned().0);
        assert_eq!(logical(&schema), nested());
        let plain = nested();
        assert!(Arc::ptr_eq(&logical(&plain), &plain));
        let physical = physical(&schema);
        let DataType::Map(entries, _) = physical.field(3).data_type() else {
            panic!()
        };
        let DataType::Struct(parts) = entries.data_type() else {
            panic!()
        };
        assert_eq!(parts[0].name(), "key");
        let DataType::Struct(value) = parts[1].data_type() else {
            panic!()
        };
        assert_eq!(value[0].name(), "col-x");
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), "18".to_owned());
        assert_eq!(value[0].metadata(), &HashMap::from([id]));
    }

    #[test]
    fn names_and_ids_count_only_where_the_mode_says_so() {
        let schema = Arc::new(assigned().0);
        assert_eq!(resolve(Arc::clone(&schema), Mode::None).unwrap(), nested());
        let error = resolve(nested(), Mode::Id).unwrap_err();
        assert!(error.message().contains("column a"), "{error}");
        let twice = Schema::new(vec![
            schema.field(0).clone(),
            schema.field(0).clone().with_name("b"),
        ]);
        let error = resolve(Arc::new(twice), Mode::Name).unwrap_err();
        assert!(error.message().contains("column b"), "{error}");
    }
}
