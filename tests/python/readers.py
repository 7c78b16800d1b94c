"""Other people's readers of Delta tables, and rows in a form in which their answers can be compared."""

import datetime
import functools
import math
import pathlib

import deltalake
import duckdb
import duckdb_extension_delta
import polars
import pyarrow


def with_delta_rs(folder, version=None):
    table = deltalake.DeltaTable(folder, version=version)
    query = deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t")
    return pyarrow.table(query.read_all())


@functools.cache
def duckdb_with_delta():
    """Loading the extension takes longer than to read a small table."""
    [extension] = pathlib.Path(duckdb_extension_delta.__path__[0]).rglob("delta.duckdb_extension")
    db = duckdb.connect()
    db.execute(f"LOAD '{extension}'")
    return db


def with_duckdb(folder, version=None):
    db = duckdb_with_delta().cursor()
    if version is None:
        return db.execute("SELECT * FROM delta_scan(?)", [str(folder)]).to_arrow_table()
    return db.execute("SELECT * FROM delta_scan(?, version := ?)", [str(folder), version]).to_arrow_table()


def with_polars(folder, version=None):
    return polars.scan_delta(str(folder), version=version).collect().to_arrow()


READERS = [with_delta_rs, with_duckdb, with_polars]


def plain(table):
    """Rows of an Arrow table, sorted by `id`, in which equal rows are equal: NaN is NaN, an instant has one zone."""
    return sorted((same(row) for row in table.to_pylist()), key=lambda row: row["id"])


def same(value):
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case datetime.datetime(tzinfo=zone) if zone is not None:
            return value.astimezone(datetime.timezone.utc)
        case dict():
            return {name: same(inner) for name, inner in value.items()}
        case list() | tuple():
            return [same(inner) for inner in value]
    return value
