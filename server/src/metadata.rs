//! What there is: catalogs, schemas, tables, their columns, keys, features and types.
//!
//! The ticket of such a request is the request itself: it holds no SQL and no state, and anyone who can redeem it
//! could as well have asked. Tables are opened only when their columns are asked for, and only those that match.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow::compute::like;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder, SqlInfoData, XdbcTypeInfoData,
};
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables};
use futures::{StreamExt, TryStreamExt};
use selvedge_engine::{ErrorKind, Session, TableInfo, TableKind};
use tonic::Status;

use crate::boundary::{plain_schema, required};
use crate::status::refusal;
use crate::{sql_info, xdbc};

/// Tables opened at the same time when their columns are listed.
const OPEN_AT_ONCE: usize = 8;

static SQL_INFO: LazyLock<Result<SqlInfoData, FlightError>> = LazyLock::new(sql_info::build);
static TYPES: LazyLock<Result<XdbcTypeInfoData, FlightError>> = LazyLock::new(xdbc::build);

/// The columns of the answer to a metadata command.
pub(crate) fn schema(command: &Command) -> Result<SchemaRef, Status> {
    Ok(match command {
        Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
        Command::CommandGetDbSchemas(_) => schemas_builder().schema(),
        Command::CommandGetTables(command) => tables_builder(command.include_schema).schema(),
        Command::CommandGetTableTypes(_) => CommandGetTableTypes {}.into_builder().schema(),
        Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS),
        Command::CommandGetSqlInfo(_) => built(&SQL_INFO)?.schema(),
        Command::CommandGetXdbcTypeInfo(_) => built(&TYPES)?.schema(),
        other => {
            return Err(Status::unimplemented(format!(
                "command {} is not supported",
                short_name(other)
            )));
        }
    })
}

/// The answer to a metadata command.
pub(crate) async fn rows(session: &Session, command: Command) -> Result<RecordBatch, Status> {
    let announced = schema(&command)?;
    match command {
        Command::CommandGetCatalogs(_) => {
            let mut builder = GetCatalogsBuilder::new();
            builder.append(session.catalog());
            builder.build().map_err(unbuilt)
        }
        Command::CommandGetDbSchemas(command) => schemas(session, command).await,
        Command::CommandGetTables(command) => tables(session, command).await,
        Command::CommandGetTableTypes(command) => {
            let mut builder = command.into_builder();
            for kind in [TableKind::Table, TableKind::View] {
                builder.append(type_name(kind));
            }
            builder.build().map_err(unbuilt)
        }
        Command::CommandGetSqlInfo(command) => built(&SQL_INFO)?
            .record_batch(command.info)
            .map_err(unbuilt),
        Command::CommandGetXdbcTypeInfo(command) => built(&TYPES)?
            .record_batch(command.data_type)
            .map_err(unbuilt),
        // Tables have no declared keys.
        _ => Ok(RecordBatch::new_empty(announced)),
    }
}

async fn schemas(session: &Session, command: CommandGetDbSchemas) -> Result<RecordBatch, Status> {
    let mut builder = command.into_builder();
    for schema in session.schemas().await.map_err(refusal)? {
        builder.append(session.catalog(), schema);
    }
    builder.build().map_err(unbuilt)
}

async fn tables(session: &Session, command: CommandGetTables) -> Result<RecordBatch, Status> {
    let mut builder = tables_builder(command.include_schema);
    let catalog = session.catalog();
    let asked = command
        .catalog
        .as_deref()
        .is_none_or(|name| name == catalog);
    if !asked {
        return builder.build().map_err(unbuilt);
    }
    let tables = matching(session.tables().await.map_err(refusal)?, &command)?;
    let no_columns = Schema::empty();
    if !command.include_schema {
        for table in tables {
            let kind = type_name(table.kind);
            builder
                .append(catalog, table.schema, table.name, kind, &no_columns)
                .map_err(unbuilt)?;
        }
        return builder.build().map_err(unbuilt);
    }
    let mut opened = futures::stream::iter(tables)
        .map(|table| async move {
            let columns = session.table_schema(&table.schema, &table.name).await;
            Ok::<_, Status>((table, columns))
        })
        .buffered(OPEN_AT_ONCE);
    while let Some((table, columns)) = opened.try_next().await? {
        let columns = match columns {
            Ok(columns) => described(&columns, catalog, &table),
            // Dropped since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // One broken table must not hide all others from a client that lists them; reading it will tell.
            Err(error) => {
                tracing::warn!(schema = table.schema, table = table.name, %error, "table listed without its columns");
                Schema::empty()
            }
        };
        let kind = type_name(table.kind);
        builder
            .append(catalog, table.schema, table.name, kind, &columns)
            .map_err(unbuilt)?;
    }
    builder.build().map_err(unbuilt)
}

fn matching(tables: Vec<TableInfo>, command: &CommandGetTables) -> Result<Vec<TableInfo>, Status> {
    let schema = like_pattern(
        tables.iter().map(|table| table.schema.as_str()),
        command.db_schema_filter_pattern.as_deref(),
    )?;
    let name = like_pattern(
        tables.iter().map(|table| table.name.as_str()),
        command.table_name_filter_pattern.as_deref(),
    )?;
    Ok(tables
        .into_iter()
        .enumerate()
        .filter(|(row, table)| {
            schema.value(*row) && name.value(*row) && wanted(table.kind, &command.table_types)
        })
        .map(|(_, table)| table)
        .collect())
}

/// `%` is any text, `_` any character, `\` takes the next one as it is.
fn like_pattern<'a>(
    names: impl Iterator<Item = &'a str>,
    pattern: Option<&str>,
) -> Result<BooleanArray, Status> {
    let names = StringArray::from_iter_values(names);
    match pattern {
        None => Ok(BooleanArray::from(vec![true; names.len()])),
        Some(pattern) => {
            like(&names, &StringArray::new_scalar(pattern)).map_err(|error| unbuilt(error.into()))
        }
    }
}

/// Clients ask for what `information_schema` calls a base table by either name.
fn wanted(kind: TableKind, types: &[String]) -> bool {
    types.is_empty()
        || types.iter().any(|name| {
            name.eq_ignore_ascii_case(type_name(kind))
                || (kind == TableKind::Table && name.eq_ignore_ascii_case("BASE TABLE"))
        })
}

/// Tableau asks for `TABLE` and `VIEW` and shows nothing else.
fn type_name(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Table => "TABLE",
        TableKind::View => "VIEW",
    }
}

/// Columns as a query would return them, with what JDBC and ODBC say about a column in its metadata.
fn described(columns: &Schema, catalog: &str, table: &TableInfo) -> Schema {
    let columns = plain_schema(columns);
    let fields: Vec<Field> = columns
        .fields()
        .iter()
        .map(|field| {
            let mut metadata: HashMap<String, String> = [
                ("CATALOG_NAME", catalog.to_owned()),
                ("SCHEMA_NAME", table.schema.clone()),
                ("TABLE_NAME", table.name.clone()),
                ("TYPE_NAME", xdbc::type_name(field.data_type()).to_owned()),
                ("IS_AUTO_INCREMENT", "0".to_owned()),
                ("IS_READ_ONLY", "0".to_owned()),
                ("IS_SEARCHABLE", "1".to_owned()),
            ]
            .into_iter()
            .map(|(key, value)| (format!("ARROW:FLIGHT:SQL:{key}"), value))
            .collect();
            if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) =
                field.data_type()
            {
                metadata.insert("ARROW:FLIGHT:SQL:PRECISION".into(), precision.to_string());
                metadata.insert("ARROW:FLIGHT:SQL:SCALE".into(), scale.to_string());
            }
            if let Some(comment) = field.metadata().get("comment") {
                metadata.insert("ARROW:FLIGHT:SQL:REMARKS".into(), comment.clone());
            }
            metadata.extend(field.metadata().clone());
            field.as_ref().clone().with_metadata(metadata)
        })
        .collect();
    Schema::new(fields)
}

fn schemas_builder() -> GetDbSchemasBuilder {
    GetDbSchemasBuilder::new(None::<String>, None::<String>)
}

/// A builder that filters nothing: tables are chosen before they are opened.
fn tables_builder(include_schema: bool) -> GetTablesBuilder {
    let none = None::<String>;
    GetTablesBuilder::new(
        none.clone(),
        none.clone(),
        none,
        Vec::<String>::new(),
        include_schema,
    )
}

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        required("table_name", DataType::Utf8),
        required("column_name", DataType::Utf8),
        Field::new("key_name", DataType::Utf8, true),
        required("key_sequence", DataType::Int32),
    ]))
});

static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        required("pk_table_name", DataType::Utf8),
        required("pk_column_name", DataType::Utf8),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        required("fk_table_name", DataType::Utf8),
        required("fk_column_name", DataType::Utf8),
        required("key_sequence", DataType::Int32),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        required("update_rule", DataType::UInt8),
        required("delete_rule", DataType::UInt8),
    ]))
});

fn built<T>(data: &'static Result<T, FlightError>) -> Result<&'static T, Status> {
    data.as_ref()
        .map_err(|error| Status::internal(format!("metadata could not be built: {error}")))
}

fn unbuilt(error: FlightError) -> Status {
    Status::internal(format!("metadata could not be built: {error}"))
}

fn short_name(command: &Command) -> &str {
    let url = command.type_url();
    url.rsplit('.').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str, kind: TableKind) -> TableInfo {
        TableInfo {
            schema: schema.into(),
            name: name.into(),
            kind,
        }
    }

    fn names(command: CommandGetTables) -> Vec<String> {
        let all = vec![
            table("main", "media_types", TableKind::Table),
            table("main", "mediaxtypes", TableKind::Table),
            table("main", "recent", TableKind::View),
            table("raw", "media_types", TableKind::Table),
        ];
        matching(all, &command)
            .unwrap()
            .into_iter()
            .map(|table| format!("{}.{}", table.schema, table.name))
            .collect()
    }

    #[test]
    fn patterns_follow_like_and_its_escape() {
        let by_name = |pattern: &str| {
            names(CommandGetTables {
                db_schema_filter_pattern: Some("main".into()),
                table_name_filter_pattern: Some(pattern.into()),
                ..Default::default()
            })
        };
        assert_eq!(by_name("%").len(), 3);
        assert_eq!(by_name("media_types").len(), 2);
        assert_eq!(by_name("media\\_types"), ["main.media_types"]);
        assert_eq!(by_name("re%t"), ["main.recent"]);
        assert!(by_name("MEDIA%").is_empty());
        assert!(by_name("").is_empty());
    }

    #[test]
    fn table_types_are_known_by_both_names() {
        let by_type = |types: &[&str]| {
            names(CommandGetTables {
                table_types: types.iter().map(|name| (*name).to_owned()).collect(),
                ..Default::default()
            })
            .len()
        };
        assert_eq!(by_type(&[]), 4);
        assert_eq!(by_type(&["TABLE"]), 3);
        assert_eq!(by_type(&["BASE TABLE"]), 3);
        assert_eq!(by_type(&["view"]), 1);
        assert_eq!(by_type(&["TABLE", "VIEW"]), 4);
        assert_eq!(by_type(&["SYSTEM TABLE"]), 0);
    }

    #[test]
    fn columns_carry_what_drivers_ask_for() {
        let schema = Schema::new(vec![
            Field::new("price", DataType::Decimal128(10, 2), false).with_metadata(HashMap::from([
                ("comment".to_owned(), "in euro".to_owned()),
            ])),
            Field::new("name", DataType::Utf8View, true),
        ]);
        let described = described(&schema, "lake", &table("main", "goods", TableKind::Table));
        let of = |column: usize, key: &str| {
            described
                .field(column)
                .metadata()
                .get(&format!("ARROW:FLIGHT:SQL:{key}"))
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(of(0, "TYPE_NAME"), "DECIMAL");
        assert_eq!(
            (of(0, "PRECISION"), of(0, "SCALE")),
            ("10".into(), "2".into())
        );
        assert_eq!(of(0, "REMARKS"), "in euro");
        assert_eq!(of(1, "TYPE_NAME"), "VARCHAR");
        assert_eq!(of(1, "TABLE_NAME"), "goods");
        assert_eq!(described.field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn metadata_is_announced_as_it_is_sent() {
        use arrow_flight::sql::{CommandGetSqlInfo, CommandGetXdbcTypeInfo};
        let info = Command::CommandGetSqlInfo(CommandGetSqlInfo { info: vec![8] });
        let batch = built(&SQL_INFO).unwrap().record_batch([8]).unwrap();
        assert_eq!(schema(&info).unwrap(), batch.schema());
        let types = Command::CommandGetXdbcTypeInfo(CommandGetXdbcTypeInfo { data_type: None });
        let batch = built(&TYPES).unwrap().record_batch(None).unwrap();
        assert_eq!(schema(&types).unwrap(), batch.schema());
    }
}
