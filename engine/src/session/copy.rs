//! COPY: rows out to files, and files into a table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::common::file_options::file_type::FileType;
use datafusion::datasource::file_format::avro::AvroFormatFactory;
use datafusion::datasource::file_format::csv::CsvFormatFactory;
use datafusion::datasource::file_format::json::JsonFormatFactory;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::file_format::{FileFormatFactory, format_as_file_type};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, SetExpr};

use super::insert::{self, Assignment};
use super::scope::Scope;
use super::{debezium, files};
use crate::error::{Error, Result};
use crate::quality::rule::QUARANTINE_INVALID;
use crate::sql::{self, CopyInto, CopySource, CopyTo, FileFormat};

/// COPY .. TO: its one row is the number of rows copied.
pub(super) async fn to(scope: &Arc<Scope>, copy: CopyTo) -> Result<LogicalPlan> {
    scope.may_use_files("COPY TO")?;
    let query = match copy.source {
        CopySource::Query(query) => *query,
        CopySource::Table(name) => everything_of(name)?,
    };
    let plan = scope.plan_query(query).await?;
    let format = match copy.format {
        Some(format) => format,
        None => files::format_of(&copy.target)?,
    };
    let file_type = file_type(format)?;
    let mut options: HashMap<String, String> = copy
        .options
        .into_iter()
        // DataFusion keeps the options of a format apart from its own.
        .map(|(key, value)| match key.split_once('.') {
            Some(_) => (key, value),
            None => (format!("format.{key}"), value),
        })
        .collect();
    check_options(format, options.keys())?;
    // A file is read by its name, so it must be what its name says.
    if let Some(compression) = files::compression_of(&copy.target) {
        options
            .entry("format.compression".to_owned())
            .or_insert_with(|| compression.to_owned());
    }
    Ok(LogicalPlanBuilder::copy_to(plan, copy.target, file_type, options, Vec::new())?.build()?)
}

/// Refuses options that writers of this format do not have, with the nearest they have.
fn check_options<'a>(format: FileFormat, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut known = TableOptions::new();
    known.set_config_format(match format {
        FileFormat::Csv => ConfigFileType::CSV,
        FileFormat::Json => ConfigFileType::JSON,
        // Parquet's options may name a column, and Avro has none; their writers check for themselves.
        _ => return Ok(()),
    });
    let entries = known.entries();
    let known: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.key.split_once('.').map(|(_, name)| name))
        .collect();
    for name in names {
        let bare = name.strip_prefix("format.").unwrap_or(name);
        if known.contains(&bare) {
            continue;
        }
        let error = Error::invalid(format!("{format} files have no option {bare}"));
        return Err(match sql::nearest(bare, known.iter().copied()) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!("options: {}", known.join(", "))),
        });
    }
    Ok(())
}

fn file_type(format: FileFormat) -> Result<Arc<dyn FileType>> {
    let factory: Arc<dyn FileFormatFactory> = match format {
        FileFormat::Parquet => Arc::new(ParquetFormatFactory::new()),
        FileFormat::Csv => Arc::new(CsvFormatFactory::new()),
        FileFormat::Json => Arc::new(JsonFormatFactory::new()),
        FileFormat::Avro => Arc::new(AvroFormatFactory),
        FileFormat::Delta => {
            return Err(Error::invalid("COPY TO writes files, not Delta tables")
                .with_hint("CREATE TABLE .. AS SELECT"));
        }
    };
    Ok(format_as_file_type(factory))
}

fn everything_of(name: ast::ObjectName) -> Result<ast::Query> {
    let sql::Statement::Query(mut query) = sql::parse("SELECT * FROM t")? else {
        return Err(Error::internal("a SELECT is not a query"));
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        for from in &mut select.from {
            if let ast::TableFactor::Table { name: table, .. } = &mut from.relation {
                table.clone_from(&name);
            }
        }
    }
    Ok(*query)
}

/// COPY INTO: the files' columns go to those of the same name, or in order to the columns listed. Lines of FORMAT
/// DEBEZIUM say what changed.
pub(super) async fn into(scope: &Arc<Scope>, copy: CopyInto) -> Result<LogicalPlan> {
    scope.may_use_files("COPY INTO")?;
    if copy.debezium {
        return debezium::copy(scope, copy).await;
    }
    let opened = scope.open(&copy.table).await?;
    let options: BTreeMap<String, String> = copy.options.into_iter().collect();
    // Types that are guessed from the first rows would refuse the file for what the table keeps in quarantine.
    let keeps_invalid = opened.snapshot.property(QUARANTINE_INVALID) == Some("true");
    let state = scope.state();
    let mut source: Option<LogicalPlan> = None;
    for path in &copy.files {
        let mut options = options.clone();
        let format = copy.format.or_else(|| files::format_of(path).ok());
        if keeps_invalid && format == Some(FileFormat::Csv) {
            let guessed = options.entry("schema_infer_max_rec".to_owned());
            guessed.or_insert_with(|| "0".to_owned());
        }
        let table = files::read(&state, path, copy.format, &options, None).await?;
        let scan = LogicalPlanBuilder::scan("files", provider_as_source(table), None)?;
        source = Some(match source {
            None => scan.build()?,
            Some(before) => LogicalPlanBuilder::from(before)
                .union_by_name(scan.build()?)?
                .build()?,
        });
    }
    let source = source.ok_or_else(|| Error::invalid("COPY INTO names no files"))?;
    let columns: Vec<String> = copy.columns.iter().map(sql::fold).collect();
    let assignment = match columns.is_empty() {
        true => Assignment::Names,
        false => Assignment::Positions(columns),
    };
    insert::into(scope, &opened, source, &assignment, InsertOp::Append)
}
