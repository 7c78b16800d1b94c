//! The data all systems read: plain Parquet files, generated once, the same on every machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use tpchgen::generators as tpch;
use tpchgen_arrow as arrow_tpch;

use crate::Result;

/// The codec of every file that any system reads or writes here, so that no one wins by compressing less.
pub(crate) const CODEC: &str = "zstd";
/// The level our own writer has.
pub(crate) const CODEC_LEVEL: i32 = 1;

/// Files a large table comes in, as a load from another system would.
const PARTS: i32 = 4;

/// The tables of TPC-H.
pub(crate) const TPCH_TABLES: [&str; 8] = [
    "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier",
];

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>>>;

/// The folder that holds a folder of Parquet files for each TPC-H table.
pub(crate) fn tpch(data: &Path, scale: f64) -> Result<PathBuf> {
    once(&data.join(format!("tpch-{scale}")), |folder| {
        let files = TPCH_TABLES.iter().flat_map(|table| {
            let parts = if matches!(*table, "nation" | "region") {
                1
            } else {
                PARTS
            };
            (1..=parts).map(move |part| (*table, part, parts))
        });
        write_all(files.collect(), |(table, part, parts)| {
            let path = folder.join(table).join(format!("{part}.parquet"));
            write(&path, tpch_rows(table, scale, part, parts)?)
        })
    })
}

fn tpch_rows(table: &str, scale: f64, part: i32, parts: i32) -> Result<Batches> {
    macro_rules! rows {
        ($rows:ident, $generator:ident) => {
            Box::new(arrow_tpch::$rows::new(tpch::$generator::new(
                scale, part, parts,
            )))
        };
    }
    Ok(match table {
        "customer" => rows!(CustomerArrow, CustomerGenerator),
        "lineitem" => rows!(LineItemArrow, LineItemGenerator),
        "nation" => rows!(NationArrow, NationGenerator),
        "orders" => rows!(OrderArrow, OrderGenerator),
        "part" => rows!(PartArrow, PartGenerator),
        "partsupp" => rows!(PartSuppArrow, PartSuppGenerator),
        "region" => rows!(RegionArrow, RegionGenerator),
        "supplier" => rows!(SupplierArrow, SupplierGenerator),
        other => return Err(format!("TPC-H has no table {other}").into()),
    })
}

/// The folder of a table of orders, twelve columns wide: keys, measures, low- and high-cardinality text, times.
pub(crate) fn wide(data: &Path, rows: u64) -> Result<PathBuf> {
    const BATCH: u64 = 65_536;
    once(&data.join(format!("wide-{rows}")), |folder| {
        let share = rows.div_ceil(PARTS as u64);
        write_all((0..PARTS as u64).collect(), |part| {
            let (from, to) = ((part * share).min(rows), ((part + 1) * share).min(rows));
            let starts = (from..to).step_by(BATCH as usize);
            let batches = starts.map(move |start| wide_rows(start, (start + BATCH).min(to)));
            write(&folder.join(format!("{part}.parquet")), Box::new(batches))
        })
    })
}

/// Rows `from..to`: each value is a function of its row number and column alone.
fn wide_rows(from: u64, to: u64) -> std::result::Result<RecordBatch, ArrowError> {
    const STATUSES: [&str; 5] = ["open", "paid", "packed", "sent", "returned"];
    const DAY_MICROS: i64 = 86_400_000_000;
    const FIRST_DAY: i64 = 19_723;
    let at = |column: u64| (from..to).map(move |row| mixed(row, column));
    let below = |column: u64, bound: u64| at(column).map(move |value| (value % bound) as i64);
    // A year of orders, in the order of arrival with a few seconds of jitter.
    let micros = || {
        (from..to).zip(below(8, 5_000_000)).map(|(row, jitter)| {
            FIRST_DAY * DAY_MICROS + (row as i64 * 3_153_600) % (365 * DAY_MICROS) + jitter
        })
    };
    let columns: [(&str, ArrayRef); 12] = [
        (
            "order_id",
            Arc::new(Int64Array::from_iter_values(
                (from..to).map(|row| row as i64),
            )),
        ),
        (
            "client_id",
            Arc::new(Int64Array::from_iter_values(below(1, 1_000_000))),
        ),
        (
            "product_id",
            Arc::new(Int32Array::from_iter_values(
                below(2, 50_000).map(|value| value as i32),
            )),
        ),
        (
            "quantity",
            Arc::new(Int32Array::from_iter_values(
                below(3, 20).map(|value| value as i32 + 1),
            )),
        ),
        ("amount", {
            let cents = below(4, 1_000_000).map(i128::from);
            Arc::new(Decimal128Array::from_iter_values(cents).with_precision_and_scale(12, 2)?)
        }),
        (
            "discount",
            Arc::new(Float64Array::from_iter_values(
                below(5, 1_000).map(|value| value as f64 / 1e3),
            )),
        ),
        (
            "status",
            Arc::new(StringArray::from_iter_values(
                below(6, 5).map(|value| STATUSES[value as usize]),
            )),
        ),
        (
            "country",
            Arc::new(StringArray::from_iter_values(
                below(7, 200).map(|value| format!("C{value:03}")),
            )),
        ),
        (
            "ordered_at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(micros()).with_timezone("UTC")),
        ),
        (
            "ds",
            Arc::new(Date32Array::from_iter_values(
                micros().map(|micros| (micros / DAY_MICROS) as i32),
            )),
        ),
        (
            "gift",
            Arc::new(BooleanArray::from_iter(
                below(9, 10).map(|value| Some(value == 0)),
            )),
        ),
        (
            "note",
            Arc::new(StringArray::from_iter(below(10, 10).zip(at(11)).map(
                |(null, value)| (null != 0).then(|| format!("{value:016x} left at the door")),
            ))),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true)))
}

/// SplitMix64 of a row number and a column.
fn mixed(row: u64, column: u64) -> u64 {
    let mut value = row
        .wrapping_add(column << 48)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// `folder`, filled by `fill` if it is not there. A run that is stopped half-way leaves no half-filled folder.
fn once(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !folder.is_dir() {
        eprintln!("generating {}", folder.display());
        let parent = folder.parent().ok_or("a data folder without a parent")?;
        let unfinished = tempfile::tempdir_in(parent)?;
        fill(unfinished.path())?;
        std::fs::rename(unfinished.keep(), folder)?;
    }
    Ok(folder.to_path_buf())
}

/// Calls `write` for every file, on as many threads as there are cores.
fn write_all<T: Send>(mut files: Vec<T>, write: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    while !files.is_empty() {
        let now = files.split_off(files.len().saturating_sub(threads));
        std::thread::scope(|scope| {
            let running: Vec<_> = now
                .into_iter()
                .map(|file| scope.spawn(|| write(file)))
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a generator panicked")?)
        })?;
    }
    Ok(())
}

fn write(path: &Path, batches: Batches) -> Result<()> {
    let mut batches = batches.peekable();
    let Some(Ok(first)) = batches.peek() else {
        return Err(format!("no rows for {}", path.display()).into());
    };
    let codec = Compression::ZSTD(ZstdLevel::try_new(CODEC_LEVEL)?);
    let properties = WriterProperties::builder().set_compression(codec).build();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut writer = ArrowWriter::try_new(File::create(path)?, first.schema(), Some(properties))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
