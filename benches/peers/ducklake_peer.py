"""DuckLake: one table of Parquet files whose catalog is a DuckDB file beside them, changed by SQL."""

import os
import pathlib

from journal_sql import JournalSql
from peer import Peak, Timer, all_hold, check_query, forget_query, fresh, serve


def start():
    import duckdb
    import duckdb_extension_ducklake

    # The wheel brings the extension as a file: nothing is fetched when it is loaded.
    [extension] = pathlib.Path(duckdb_extension_ducklake.__path__[0]).rglob("ducklake.duckdb_extension")
    return f"ducklake of duckdb {duckdb.__version__}", Peer(duckdb, extension)


class Peer(JournalSql):
    def __init__(self, duckdb, extension):
        self.duckdb = duckdb
        self.extension = extension
        self.db = None

    def open(self, folder, codec, level, threads):
        self.db = self.duckdb.connect(config={"threads": threads})
        self.db.execute(f"LOAD '{self.extension}'")
        # The catalog remembers where its files were; a copy of the folder has them elsewhere.
        self.db.execute(
            f"ATTACH 'ducklake:{folder}/catalog.ducklake' AS lake (DATA_PATH '{folder}/data', OVERRIDE_DATA_PATH true)"
        )
        self.db.execute("USE lake")
        self.db.execute(f"CALL lake.set_option('parquet_compression', '{codec}')")
        self.db.execute(f"CALL lake.set_option('parquet_compression_level', '{level}')")
        return {}

    def close(self):
        self.db.close()
        return {}

    def load(self, source, folder, codec, level, threads):
        os.makedirs(fresh(folder))
        self.open(folder, codec, level, threads)
        self.db.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{source}/*.parquet')")
        return self.close()

    def checked_write(self, source, to, threads, codec, level, checks, conditions, lists=None):
        """The checks as a query over the source, then a table of it, joined with the lists if there are any."""
        folder = fresh(to)
        os.makedirs(folder)
        self.open(folder, codec, level, threads)
        files = f"read_parquet('{source}/*.parquet')"
        with Peak() as peak:
            if query := check_query(checks, conditions, "approx_count_distinct(", files):
                all_hold(self.db.execute(query).fetchone())
            self.db.execute(f"CREATE TABLE t AS {forget_query(files, lists)}")
        (rows,) = self.db.execute("SELECT count(*) FROM t").fetchone()
        self.close()
        fresh(folder)
        return peak.answer(rows=rows)

    def change(self, sql, **_):
        with Timer() as timer:
            (rows,) = self.db.execute(sql).fetchone()
        return timer.answer(rows=rows)

    def journal_load(self, source, folder, codec, level, threads):
        os.makedirs(fresh(folder))
        self.open(folder, codec, level, threads)
        self.make_journal(source)
        return {}

    def dump(self, to):
        """The rows of the table as one Parquet file."""
        self.db.execute(f"COPY (FROM t) TO '{to}' (FORMAT parquet)")
        return {}


serve("pip install duckdb duckdb-extension-ducklake", start)
