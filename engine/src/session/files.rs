//! Files read in place: paths in FROM, external tables, the sources of COPY INTO.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::file_format::FileFormat as DfFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::SessionState;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::culprit::shown;
use super::parquet::SoundParquet;
use crate::catalog::entry::FilesEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::{self, FileFormat};
use crate::table::schema;

/// Endings of file names, and what they hold.
const ENDINGS: [(&str, FileFormat); 7] = [
    ("parquet", FileFormat::Parquet),
    ("csv", FileFormat::Csv),
    ("tsv", FileFormat::Csv),
    ("json", FileFormat::Json),
    ("jsonl", FileFormat::Json),
    ("ndjson", FileFormat::Json),
    ("avro", FileFormat::Avro),
];

/// Endings of compressed files, and the compression by type and by name.
const COMPRESSIONS: [(&str, FileCompressionType, &str); 4] = [
    ("gz", FileCompressionType::GZIP, "gzip"),
    ("zst", FileCompressionType::ZSTD, "zstd"),
    ("bz2", FileCompressionType::BZIP2, "bzip2"),
    ("xz", FileCompressionType::XZ, "xz"),
];

/// What the name of a file says of its content.
#[derive(Clone, Copy)]
struct Kind {
    format: FileFormat,
    compression: FileCompressionType,
    /// Ending with dot and compression, such as `.csv.gz`.
    tabs: bool,
}

fn kind_of(path: &str) -> Option<(Kind, String)> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let (stem, compression, outer) = match name.rsplit_once('.') {
        Some((stem, ending)) => match COMPRESSIONS.iter().find(|(known, ..)| *known == ending) {
            Some((known, compression, _)) => (stem.to_owned(), *compression, format!(".{known}")),
            None => (
                name.clone(),
                FileCompressionType::UNCOMPRESSED,
                String::new(),
            ),
        },
        None => return None,
    };
    let ending = stem.rsplit('.').next()?;
    let (ending, format) = ENDINGS.iter().find(|(known, _)| *known == ending)?;
    let kind = Kind {
        format: *format,
        compression,
        tabs: *ending == "tsv",
    };
    Some((kind, format!(".{ending}{outer}")))
}

/// What a session is told that may not use files outside the lake.
pub(super) fn denied(what: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("{what}: this session may not use files outside the lake"),
    )
}

/// Whether a name that is no table may mean files.
pub(super) fn looks_like_files(name: &str) -> bool {
    name.contains('/') || kind_of(name).is_some()
}

/// The files at a path, in the format their ending tells.
pub(super) async fn of_path(state: &SessionState, path: &str) -> Result<Arc<dyn TableProvider>> {
    read(state, path, None, &BTreeMap::new(), None).await
}

/// The files of a catalog entry.
pub(super) async fn of_entry(
    state: &SessionState,
    name: &str,
    entry: &FilesEntry,
) -> Result<Arc<dyn TableProvider>> {
    let format = format_named(&entry.format).ok_or_else(|| {
        Error::corrupt(format!(
            "table {name} has the unknown format {}",
            entry.format
        ))
    })?;
    read(
        state,
        &entry.location,
        Some(format),
        &entry.options,
        entry.schema.as_deref(),
    )
    .await
}

fn format_named(name: &str) -> Option<FileFormat> {
    FileFormat::ALL
        .into_iter()
        .find(|format| format.to_string() == name)
}

/// A table over the files that `path` (file, folder or pattern) names.
///
/// # Errors
/// When no file is there, the format is unknown, or an option is.
pub(super) async fn read(
    state: &SessionState,
    path: &str,
    format: Option<FileFormat>,
    options: &BTreeMap<String, String>,
    declared: Option<&str>,
) -> Result<Arc<dyn TableProvider>> {
    let told = kind_of(path);
    let (kind, ending) = match (format, told) {
        (Some(format), Some((kind, ending))) if kind.format == format => (kind, ending),
        (Some(format), _) => {
            let plain = Kind {
                format,
                compression: FileCompressionType::UNCOMPRESSED,
                tabs: false,
            };
            (plain, String::new())
        }
        (None, Some((kind, ending))) => (kind, ending),
        (None, None) => {
            return Err(Error::invalid(format!("cannot tell the format of {path} from its name")).with_hint(
                "name files .parquet, .csv, .tsv, .json, .jsonl, .ndjson or .avro (and .gz, .zst, .bz2, .xz), or say FORMAT",
            ));
        }
    };
    let url = ListingTableUrl::parse(path)?;
    let reader = reader(kind, options)?;
    let listing = ListingOptions::new(reader).with_file_extension(ending);
    let schema = match declared {
        Some(declared) => schema::to_arrow(declared)?,
        None => {
            let found = listing.infer_schema(state, &url).await;
            match found {
                Ok(found) if !found.fields().is_empty() => found,
                other => {
                    let files = Files {
                        path,
                        format: kind.format,
                        url: &url,
                        listing: &listing,
                    };
                    return Err(files.without_columns(state, other.err()).await);
                }
            }
        }
    };
    let config = ListingTableConfig::new(url)
        .with_listing_options(listing)
        .with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// A file whose content somebody else reads.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub store: Arc<dyn ObjectStore>,
    pub location: Path,
    /// As its user wrote it.
    pub name: String,
    pub compression: FileCompressionType,
}

/// The files that `path` (file, folder or pattern) names, those of a folder by their names.
///
/// # Errors
/// When no file is there.
pub(super) async fn listed(state: &SessionState, path: &str) -> Result<Vec<Listed>> {
    let url = ListingTableUrl::parse(path)?;
    let store = state.runtime_env().object_store(&url)?;
    let mut found: Vec<ObjectMeta> = url
        .list_all_files(state, store.as_ref(), "")
        .await?
        .try_collect()
        .await?;
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("no file matches {path}"),
        ));
    }
    found.sort_by(|a, b| a.location.cmp(&b.location));
    let listed = found.into_iter().map(|file| {
        let name = shown(&url.object_store(), &file.location);
        let ending = name.rsplit('.').next().unwrap_or_default();
        let ending = ending.to_ascii_lowercase();
        let known = COMPRESSIONS.iter().find(|(known, ..)| *known == ending);
        Listed {
            store: Arc::clone(&store),
            compression: known.map_or(FileCompressionType::UNCOMPRESSED, |(_, known, _)| *known),
            location: file.location,
            name,
        }
    });
    Ok(listed.collect())
}

/// Files whose columns were not found.
struct Files<'a> {
    path: &'a str,
    format: FileFormat,
    url: &'a ListingTableUrl,
    listing: &'a ListingOptions,
}

impl Files<'_> {
    /// Why they have no columns: none is there, all are empty, or one of them is wrong.
    async fn without_columns(&self, state: &SessionState, why: Option<DataFusionError>) -> Error {
        let Self { path, format, .. } = self;
        let (store, found) = match self.list(state).await {
            Ok((_, found)) if found.is_empty() => {
                return Error::new(ErrorKind::NotFound, format!("no file matches {path}"));
            }
            Ok(found) => found,
            Err(error) => return self.unreadable(why.unwrap_or(error)),
        };
        let Some(why) = why else {
            let what = match found.as_slice() {
                [_] => format!("{path} is empty"),
                several => format!("all {} files that match {path} are empty", several.len()),
            };
            return Error::invalid(format!("{what}, so its columns are not known")).with_hint(
                format!(
                    "declare them: CREATE EXTERNAL TABLE t (..) STORED AS {format} LOCATION '{path}'"
                ),
            );
        };
        if found.len() == 1 {
            return self.unreadable(why);
        }
        // The error does not say which file it is about: the first that fails alone, or beside those before it.
        let mut merged = Schema::empty();
        for file in found.iter().filter(|file| file.size > 0) {
            let one = std::slice::from_ref(file);
            let columns = self.listing.format.infer_schema(state, &store, one).await;
            let joined = columns.and_then(|columns| {
                Ok(Schema::try_merge([
                    merged.clone(),
                    columns.as_ref().clone(),
                ])?)
            });
            match joined {
                Ok(joined) => merged = joined,
                Err(error) => {
                    let error = self.unreadable(error);
                    let detail = error.detail().unwrap_or_default();
                    let file = shown(&self.url.object_store(), &file.location);
                    let detail = format!("{file}: {detail}");
                    return error.with_detail(detail);
                }
            }
        }
        self.unreadable(why)
    }

    async fn list(
        &self,
        state: &SessionState,
    ) -> std::result::Result<(Arc<dyn ObjectStore>, Vec<ObjectMeta>), DataFusionError> {
        let store = state.runtime_env().object_store(self.url)?;
        let found = self
            .url
            .list_all_files(state, store.as_ref(), &self.listing.file_extension)
            .await?
            .try_collect()
            .await?;
        Ok((store, found))
    }

    fn unreadable(&self, why: DataFusionError) -> Error {
        let why = Error::from(why);
        let message = format!("cannot read {} as {}", self.path, self.format);
        let detail = match why.detail() {
            Some(detail) => format!("{}: {detail}", why.message()),
            None => why.message().to_owned(),
        };
        Error::new(why.kind(), message).with_detail(detail)
    }
}

fn reader(kind: Kind, options: &BTreeMap<String, String>) -> Result<Arc<dyn DfFormat>> {
    const CSV: [&str; 7] = [
        "header",
        "delimiter",
        "quote",
        "escape",
        "comment",
        "null_regex",
        "schema_infer_max_rec",
    ];
    const JSON: [&str; 1] = ["schema_infer_max_rec"];
    let known: &[&str] = match kind.format {
        FileFormat::Csv => &CSV,
        FileFormat::Json => &JSON,
        _ => &[],
    };
    for name in options.keys() {
        let bare = name.strip_prefix("format.").unwrap_or(name);
        if !known.contains(&bare) {
            let error = Error::invalid(format!("{} files have no option {name}", kind.format));
            return Err(match sql::nearest(bare, known.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None if known.is_empty() => error,
                None => error.with_hint(format!("options: {}", known.join(", "))),
            });
        }
    }
    let option = |name: &str| {
        options
            .get(name)
            .or_else(|| options.get(&format!("format.{name}")))
            .map(String::as_str)
    };
    let byte = |name: &str| match option(name) {
        None => Ok(None),
        Some("\\t") => Ok(Some(b'\t')),
        Some(text) => match text.as_bytes() {
            [byte] => Ok(Some(*byte)),
            _ => Err(Error::invalid(format!(
                "option {name} = '{text}' must be one character"
            ))),
        },
    };
    let rows = match option("schema_infer_max_rec") {
        None => None,
        Some(text) => Some(text.parse::<usize>().map_err(|_| {
            Error::invalid(format!(
                "option schema_infer_max_rec = '{text}' must be a number"
            ))
        })?),
    };
    Ok(match kind.format {
        FileFormat::Delta => {
            return Err(
                Error::invalid("a Delta table is read as a table, not as files")
                    .with_hint("CREATE EXTERNAL TABLE name STORED AS DELTA LOCATION '...'"),
            );
        }
        FileFormat::Parquet => Arc::new(SoundParquet::default()),
        FileFormat::Avro => Arc::new(AvroFormat),
        FileFormat::Json => {
            let mut format = JsonFormat::default().with_file_compression_type(kind.compression);
            if let Some(rows) = rows {
                format = format.with_schema_infer_max_rec(rows);
            }
            Arc::new(format)
        }
        FileFormat::Csv => {
            let header = match option("header") {
                None => true,
                Some(text) => text.parse().map_err(|_| {
                    Error::invalid(format!("option header = '{text}' must be true or false"))
                })?,
            };
            let delimiter = byte("delimiter")?.unwrap_or(if kind.tabs { b'\t' } else { b',' });
            let mut format = CsvFormat::default()
                .with_file_compression_type(kind.compression)
                .with_has_header(header)
                .with_delimiter(delimiter)
                .with_escape(byte("escape")?)
                .with_comment(byte("comment")?)
                .with_null_regex(option("null_regex").map(str::to_owned));
            if let Some(quote) = byte("quote")? {
                format = format.with_quote(quote);
            }
            if let Some(rows) = rows {
                format = format.with_schema_infer_max_rec(rows);
            }
            Arc::new(format)
        }
    })
}

/// The format that the name of a file tells.
pub(super) fn format_of(path: &str) -> Result<FileFormat> {
    match kind_of(path) {
        Some((kind, _)) => Ok(kind.format),
        None => Err(
            Error::invalid(format!("cannot tell the format of {path} from its name"))
                .with_hint("say it: COPY .. TO '..' STORED AS PARQUET"),
        ),
    }
}

/// The name of the compression that the name of a file tells.
pub(super) fn compression_of(path: &str) -> Option<&'static str> {
    let ending = path.rsplit('.').next()?.to_ascii_lowercase();
    COMPRESSIONS
        .iter()
        .find(|(known, ..)| *known == ending)
        .map(|(_, _, name)| *name)
}
