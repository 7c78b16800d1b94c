//! Delta's schema JSON and the Arrow schema of a scan, each from the other.
//!
//! The two hold the same facts: [`to_arrow`] keeps column metadata (comments, defaults, whatever
//! another writer left) and [`to_delta`] gives it back with its JSON types. The JSON is read by
//! structs of our own and not by the kernel's, whose errors do not name the column.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, Fields, Schema, SchemaRef, TimeUnit,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mapping;
use crate::error::{Error, Result};

/// Metadata key of a column's default, as SQL text (Delta feature `allowColumnDefaults`).
pub(crate) const DEFAULT_KEY: &str = "CURRENT_DEFAULT";
/// Metadata key of a column's comment.
pub(crate) const COMMENT_KEY: &str = "comment";
/// Metadata key of a column's tags, sorted, with a comma between them.
pub(crate) const TAGS_KEY: &str = "selvedge.tags";
/// The tag of columns that tell something of a person.
pub(crate) const PERSONAL: &str = "pii";

/// Arrow metadata holds text only: values that are not text are kept under their key with this
/// prefix, as JSON, so that `1` and `"1"` stay apart.
pub(super) const JSON_PREFIX: &str = "json:";

/// Characters that neither Parquet nor Delta takes in a column name without column mapping.
const FORBIDDEN: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The Arrow schema a scan of a table with this `metaData.schemaString` returns.
pub(crate) fn to_arrow(schema_string: &str) -> Result<SchemaRef> {
    let schema: StructJson = serde_json::from_str(schema_string).map_err(|e| {
        Error::corrupt("the schema in the table's metadata is not a Delta schema")
            .with_detail(e.to_string())
            .with_source(e)
    })?;
    Ok(Arc::new(Schema::new(arrow_fields(&schema, "")?)))
}

/// Delta's JSON of `schema`; types are normalized first, so any schema of a query may be given.
pub(crate) fn to_delta(schema: &Schema) -> Result<String> {
    check_names(schema.fields(), "")?;
    let schema = delta_struct(schema.fields(), "")?;
    serde_json::to_string(&schema)
        .map_err(|e| Error::internal("the schema cannot be written as JSON").with_source(e))
}

/// The schema of a table that is to hold rows of `schema`: its types normalized. Whether the names will do
/// is for [`check_names`], once it is known whether files hold them.
///
/// Comments stay; other metadata belongs to where the columns came from and is left behind.
pub(crate) fn normalize_schema(schema: &Schema) -> Result<Schema> {
    let fields = normalize_fields(schema.fields(), "")?;
    Ok(Schema::new(fields))
}

/// The type in which a table stores values of `data_type`; `column` is named when there is none.
pub(crate) fn normalize(column: &str, data_type: &DataType) -> Result<DataType> {
    use DataType::*;
    let refuse = |what: &str, hint: String| {
        Err(
            Error::unsupported(format!("column {column}: a table cannot hold {what}"))
                .with_hint(hint),
        )
    };
    Ok(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 => data_type.clone(),
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        UInt64 => Decimal128(20, 0),
        Float16 => Float32,
        Date64 => Date32,
        Utf8 | LargeUtf8 | Utf8View => Utf8View,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => BinaryView,
        Timestamp(_, zone) => Timestamp(
            TimeUnit::Microsecond,
            zone.as_ref().map(|_| Arc::from("UTC")),
        ),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => {
            // A negative scale counts trailing zeros: they become digits.
            let digits = p.saturating_add(s.min(&0).unsigned_abs());
            let scale = (*s).max(0);
            if digits > DECIMAL128_MAX_PRECISION || scale.unsigned_abs() > digits {
                return refuse(
                    &format!("decimals with {p} digits and scale {s}"),
                    format!("cast it: CAST({column} AS DECIMAL(38, {}))", scale.min(38)),
                );
            }
            Decimal128(digits, scale)
        }
        Dictionary(_, value) => normalize(column, value)?,
        RunEndEncoded(_, value) => normalize(column, value.data_type())?,
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) => {
            let element = normalize(&format!("{column}.element"), f.data_type())?;
            list_of(element, f.is_nullable())
        }
        Map(entries, _) => {
            let (key, value) = map_parts(column, entries)?;
            map_of(
                normalize(&format!("{column}.key"), key.data_type())?,
                normalize(&format!("{column}.value"), value.data_type())?,
                value.is_nullable(),
            )
        }
        Struct(fields) if fields.is_empty() => {
            return refuse("a struct without fields", "give it a field".into());
        }
        Struct(fields) => Struct(normalize_fields(fields, column)?.into()),
        Null => {
            return refuse(
                "values without a type",
                format!("give it a type: CAST(NULL AS VARCHAR) AS {column}"),
            );
        }
        Time32(_) | Time64(_) => {
            return refuse(
                "a time of day",
                format!("cast it: CAST({column} AS VARCHAR)"),
            );
        }
        Duration(_) | Interval(_) => {
            return refuse("intervals", format!("cast it: CAST({column} AS VARCHAR)"));
        }
        Union(..) => {
            return refuse("unions", "select one member of the union".into());
        }
    })
}

/// Whether a table of this schema needs the feature `timestampNtz`.
pub(crate) fn uses_timestamp_ntz(schema: &Schema) -> bool {
    fn uses(data_type: &DataType) -> bool {
        match data_type {
            DataType::Timestamp(_, None) => true,
            DataType::Struct(fields) => fields.iter().any(|f| uses(f.data_type())),
            DataType::List(f) | DataType::Map(f, _) => uses(f.data_type()),
            _ => false,
        }
    }
    schema.fields().iter().any(|f| uses(f.data_type()))
}

/// The same columns, any of which may be NULL: those of rows that a deletion vector hides.
pub(crate) fn nullable(schema: &Schema) -> Schema {
    let fields = schema
        .fields()
        .iter()
        .map(|field| match field.is_nullable() {
            true => Arc::clone(field),
            false => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    Schema::new_with_metadata(fields.collect::<Fields>(), schema.metadata().clone())
}

/// SQL text of a column's default.
pub(crate) fn column_default(field: &Field) -> Option<&str> {
    field.metadata().get(DEFAULT_KEY).map(String::as_str)
}

/// `field` with `default` as SQL text, or with none.
pub(crate) fn with_default(field: Field, default: Option<&str>) -> Field {
    with_entry(field, DEFAULT_KEY, default)
}

/// A column's comment.
pub(crate) fn comment(field: &Field) -> Option<&str> {
    field.metadata().get(COMMENT_KEY).map(String::as_str)
}

/// `field` with `comment`, or with none.
pub(crate) fn with_comment(field: Field, comment: Option<&str>) -> Field {
    with_entry(field, COMMENT_KEY, comment)
}

/// A column's tags, sorted.
pub(crate) fn tags(field: &Field) -> Vec<&str> {
    let listed = field.metadata().get(TAGS_KEY).map(String::as_str);
    let listed = listed.unwrap_or_default().split(',').map(str::trim);
    listed.filter(|tag| !tag.is_empty()).collect()
}

/// `field` with these tags and no others.
pub(crate) fn with_tags(field: Field, tags: &BTreeSet<&str>) -> Field {
    let listed: Vec<&str> = tags.iter().copied().collect();
    let listed = listed.join(",");
    with_entry(
        field,
        TAGS_KEY,
        (!listed.is_empty()).then_some(listed.as_str()),
    )
}

/// Whether the values of a column are kept out of messages, samples and statistics.
pub(crate) fn personal(field: &Field) -> bool {
    tags(field).contains(&PERSONAL)
}

fn with_entry(field: Field, key: &str, value: Option<&str>) -> Field {
    let mut metadata = field.metadata().clone();
    match value {
        Some(value) => metadata.insert(key.into(), value.into()),
        None => metadata.remove(key),
    };
    field.with_metadata(metadata)
}

/// Refuses names that Delta refuses: equal but for case, or with characters files cannot hold. Columns
/// with a physical name are called otherwise in files, so that theirs may hold what it likes but a NUL.
pub(crate) fn check_names(fields: &Fields, parent: &str) -> Result<()> {
    let mut seen = HashSet::with_capacity(fields.len());
    for field in fields {
        let column = path(parent, field.name());
        if field.name().is_empty() {
            return Err(Error::invalid("a column has an empty name"));
        }
        if !seen.insert(field.name().to_lowercase()) {
            return Err(Error::invalid(format!("column {column} is named twice"))
                .with_hint("column names differ by more than case; rename one with AS"));
        }
        let wrong = |found: char| {
            Error::invalid(format!(
                "column \"{column}\": a column name cannot hold {found:?}"
            ))
        };
        // Where footers are read by other names, NUL marks those that are no longer of the table.
        if field.name().contains('\0') {
            return Err(wrong('\0'));
        }
        if !mapping::mapped(field)
            && let Some(found) = field.name().chars().find(|c| FORBIDDEN.contains(c))
        {
            return Err(wrong(found).with_hint(format!(
                "rename it, for example to \"{}\", or make the table with TBLPROPERTIES ('{}' = 'name')",
                field.name().replace(FORBIDDEN, "_"),
                mapping::MODE
            )));
        }
        check_nested(field.data_type(), &column)?;
    }
    Ok(())
}

fn check_nested(data_type: &DataType, column: &str) -> Result<()> {
    use DataType::*;
    match data_type {
        Struct(fields) => check_names(fields, column),
        List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) => {
            check_nested(f.data_type(), &path(column, "element"))
        }
        Map(entries, _) => {
            let (key, value) = map_parts(column, entries)?;
            check_nested(key.data_type(), &path(column, "key"))?;
            check_nested(value.data_type(), &path(column, "value"))
        }
        _ => Ok(()),
    }
}

fn normalize_fields(fields: &Fields, parent: &str) -> Result<Vec<Field>> {
    fields
        .iter()
        .map(|f| {
            let data_type = normalize(&path(parent, f.name()), f.data_type())?;
            let plain = Field::new(f.name(), data_type, f.is_nullable());
            Ok(with_comment(plain, comment(f)))
        })
        .collect()
}

/// The name of a field inside of `parent`; of a column where that is empty.
pub(crate) fn path(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        _ => format!("{parent}.{name}"),
    }
}

/// A list as Delta names its parts in files.
fn list_of(element: DataType, nullable: bool) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, nullable)))
}

/// A map as Delta names its parts in files.
fn map_of(key: DataType, value: DataType, value_nullable: bool) -> DataType {
    let entries = Fields::from(vec![
        Field::new("key", key, false),
        Field::new("value", value, value_nullable),
    ]);
    let entries = Field::new("key_value", DataType::Struct(entries), false);
    DataType::Map(Arc::new(entries), false)
}

fn map_parts<'a>(column: &str, entries: &'a Field) -> Result<(&'a Field, &'a Field)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok((&fields[0], &fields[1])),
        other => Err(Error::internal(format!(
            "column {column}: the entries of a map are {other}"
        ))),
    }
}

/// `StructType` of the protocol's schema serialization.
#[derive(Debug, Serialize, Deserialize)]
struct StructJson {
    #[serde(rename = "type")]
    kind: StructKind,
    fields: Vec<FieldJson>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StructKind {
    Struct,
}

#[derive(Debug, Serialize, Deserialize)]
struct FieldJson {
    name: String,
    #[serde(rename = "type")]
    data_type: TypeJson,
    nullable: bool,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum TypeJson {
    Primitive(String),
    Nested(Box<NestedJson>),
    /// A shape this engine does not know; kept to be named.
    Unknown(Value),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
enum NestedJson {
    Struct {
        fields: Vec<FieldJson>,
    },
    Array {
        element_type: TypeJson,
        contains_null: bool,
    },
    Map {
        key_type: TypeJson,
        value_type: TypeJson,
        value_contains_null: bool,
    },
}

fn arrow_fields(schema: &StructJson, parent: &str) -> Result<Fields> {
    fields_of(&schema.fields, parent)
}

fn fields_of(fields: &[FieldJson], parent: &str) -> Result<Fields> {
    fields
        .iter()
        .map(|f| {
            let column = path(parent, &f.name);
            let data_type = arrow_type(&f.data_type, &column)?;
            let metadata: HashMap<_, _> = f.metadata.iter().map(metadata_text).collect();
            Ok(Field::new(&f.name, data_type, f.nullable).with_metadata(metadata))
        })
        .collect()
}

fn metadata_text((key, value): (&String, &Value)) -> (String, String) {
    match value {
        Value::String(text) => (key.clone(), text.clone()),
        other => (format!("{JSON_PREFIX}{key}"), other.to_string()),
    }
}

fn arrow_type(json: &TypeJson, column: &str) -> Result<DataType> {
    match json {
        TypeJson::Primitive(name) => primitive(name, column),
        TypeJson::Nested(nested) => match nested.as_ref() {
            NestedJson::Struct { fields } => Ok(DataType::Struct(fields_of(fields, column)?)),
            NestedJson::Array {
                element_type,
                contains_null,
            } => {
                let element = arrow_type(element_type, &path(column, "element"))?;
                Ok(list_of(element, *contains_null))
            }
            NestedJson::Map {
                key_type,
                value_type,
                value_contains_null,
            } => Ok(map_of(
                arrow_type(key_type, &path(column, "key"))?,
                arrow_type(value_type, &path(column, "value"))?,
                *value_contains_null,
            )),
        },
        TypeJson::Unknown(value) => {
            let name = match value.get("type") {
                Some(Value::String(name)) => name.clone(),
                _ => value.to_string(),
            };
            Err(unknown_type(&name, column))
        }
    }
}

fn primitive(name: &str, column: &str) -> Result<DataType> {
    Ok(match name {
        "string" => DataType::Utf8View,
        "long" => DataType::Int64,
        "integer" => DataType::Int32,
        "short" => DataType::Int16,
        "byte" => DataType::Int8,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "binary" => DataType::BinaryView,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => decimal(name).ok_or_else(|| unknown_type(name, column))?,
    })
}

/// `decimal(p,s)` within the protocol's bounds; `decimal` alone is `decimal(10,0)`, as in Spark.
fn decimal(name: &str) -> Option<DataType> {
    let rest = name.strip_prefix("decimal")?;
    if rest.is_empty() {
        return Some(DataType::Decimal128(10, 0));
    }
    let (precision, scale) = rest.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let precision: u8 = precision.trim().parse().ok()?;
    let scale: u8 = scale.trim().parse().ok()?;
    let valid = (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && scale <= precision;
    valid.then_some(DataType::Decimal128(precision, scale as i8))
}

fn unknown_type(name: &str, column: &str) -> Error {
    Error::unsupported(format!(
        "column {column} has the Delta type {name}, which this engine does not read"
    ))
}

fn delta_struct(fields: &Fields, parent: &str) -> Result<StructJson> {
    Ok(StructJson {
        kind: StructKind::Struct,
        fields: delta_fields(fields, parent)?,
    })
}

fn delta_fields(fields: &Fields, parent: &str) -> Result<Vec<FieldJson>> {
    fields
        .iter()
        .map(|f| {
            let column = path(parent, f.name());
            let metadata = f
                .metadata()
                .iter()
                .map(|(key, text)| metadata_json(key, text))
                .collect();
            Ok(FieldJson {
                name: f.name().clone(),
                data_type: delta_type(f.data_type(), &column)?,
                nullable: f.is_nullable(),
                metadata,
            })
        })
        .collect()
}

fn metadata_json(key: &str, text: &str) -> (String, Value) {
    if let Some(key) = key.strip_prefix(JSON_PREFIX)
        && let Ok(value) = serde_json::from_str(text)
    {
        return (key.to_owned(), value);
    }
    (key.to_owned(), Value::String(text.to_owned()))
}

fn delta_type(data_type: &DataType, column: &str) -> Result<TypeJson> {
    // Struct fields keep their metadata only if they are walked before normalization.
    let nested = match data_type {
        DataType::Struct(fields) if !fields.is_empty() => NestedJson::Struct {
            fields: delta_fields(fields, column)?,
        },
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => NestedJson::Array {
            element_type: delta_type(f.data_type(), &path(column, "element"))?,
            contains_null: f.is_nullable(),
        },
        DataType::Map(entries, _) => {
            let (key, value) = map_parts(column, entries)?;
            NestedJson::Map {
                key_type: delta_type(key.data_type(), &path(column, "key"))?,
                value_type: delta_type(value.data_type(), &path(column, "value"))?,
                value_contains_null: value.is_nullable(),
            }
        }
        DataType::Dictionary(_, value) => return delta_type(value, column),
        DataType::RunEndEncoded(_, value) => return delta_type(value.data_type(), column),
        _ => return Ok(TypeJson::Primitive(primitive_name(data_type, column)?)),
    };
    Ok(TypeJson::Nested(Box::new(nested)))
}

pub(super) fn primitive_name(data_type: &DataType, column: &str) -> Result<String> {
    let name = match normalize(column, data_type)? {
        DataType::Utf8View => "string",
        DataType::Int64 => "long",
        DataType::Int32 => "integer",
        DataType::Int16 => "short",
        DataType::Int8 => "byte",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::BinaryView => "binary",
        DataType::Date32 => "date",
        DataType::Timestamp(_, Some(_)) => "timestamp",
        DataType::Timestamp(_, None) => "timestamp_ntz",
        DataType::Decimal128(precision, scale) => {
            return Ok(format!("decimal({precision},{scale})"));
        }
        other => {
            return Err(Error::internal(format!(
                "column {column}: type {other} has no name in Delta"
            )));
        }
    };
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
