"""DuckDB: queries on plain Parquet files, its own tables, COPY to Parquet."""

import os

from journal_sql import JournalSql
from peer import Peak, Timer, all_hold, check_query, each_timed, forget_query, fresh, serve


def start():
    import duckdb

    return f"duckdb {duckdb.__version__}", Peer(duckdb)


class Peer(JournalSql):
    def __init__(self, duckdb):
        self.duckdb = duckdb
        self.memory = None
        self.rows = None
        self.db = None

    def tables(self, tables, threads):
        """Names the folders of Parquet files that queries read."""
        self.memory = self.duckdb.connect(config={"threads": threads})
        for name, folder in tables.items():
            self.memory.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/*.parquet')")
        return {}

    def query(self, sql):
        with Timer() as timer:
            rows = self.memory.execute(sql).to_arrow_table().num_rows
        return timer.answer(rows=rows)

    def create_table(self, source, to, threads):
        """A table in a database file; the checkpoint that makes it one file is part of the time."""
        fresh(to + ".duckdb.wal")
        db = self.duckdb.connect(fresh(to + ".duckdb"), config={"threads": threads})
        with Timer() as timer:
            db.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{source}/*.parquet')")
            db.execute("CHECKPOINT")
        (rows,) = db.execute("SELECT count(*) FROM t").fetchone()
        db.close()
        size = os.path.getsize(to + ".duckdb")
        fresh(to + ".duckdb")
        return timer.answer(rows=rows, bytes=size)

    def copy(self, source, to, threads, codec, level):
        db = self.duckdb.connect(config={"threads": threads})
        level = f", COMPRESSION_LEVEL {level}" if level is not None else ""
        target = fresh(to + ".parquet")
        with Timer() as timer:
            (rows,) = db.execute(
                f"COPY (SELECT * FROM read_parquet('{source}/*.parquet')) TO '{target}' "
                f"(FORMAT parquet, COMPRESSION {codec}{level})"
            ).fetchone()
        size = os.path.getsize(target)
        fresh(target)
        return timer.answer(rows=rows, bytes=size)

    def checked_write(self, source, to, threads, codec, level, checks, conditions, lists=None):
        """The checks as a query over the source, then the copy, of the source joined with the lists if there are any."""
        db = self.duckdb.connect(config={"threads": threads})
        files = f"read_parquet('{source}/*.parquet')"
        target = fresh(to + ".parquet")
        with Peak() as peak:
            if query := check_query(checks, conditions, "approx_count_distinct(", files):
                all_hold(db.execute(query).fetchone())
            (rows,) = db.execute(
                f"COPY ({forget_query(files, lists)}) TO '{target}' "
                f"(FORMAT parquet, COMPRESSION {codec}, COMPRESSION_LEVEL {level})"
            ).fetchone()
        db.close()
        fresh(target)
        return peak.answer(rows=rows)

    def insert(self, to, first, count):
        """Single-row inserts, each its own durable transaction."""
        if self.rows is None:
            self.rows = self.duckdb.connect(fresh(to + ".duckdb"))
            self.rows.execute("CREATE TABLE t (id BIGINT, name VARCHAR, amount DOUBLE)")
        return each_timed(
            count,
            lambda i: self.rows.execute("INSERT INTO t VALUES (?, ?, ?)", [first + i, f"row {first + i}", i / 2]),
        )

    def journal_load(self, source, folder, codec, level, threads):
        """Its own storage, which has a codec of its own."""
        os.makedirs(fresh(folder))
        self.db = self.duckdb.connect(os.path.join(folder, "j.duckdb"), config={"threads": threads})
        self.make_journal(source)
        self.db.execute("CHECKPOINT")
        return {}

    def read(self):
        with Timer() as timer:
            rows, _ = self.rows.execute("SELECT count(*), sum(amount) FROM t").fetchone()
        return timer.answer(rows=rows)


serve("pip install duckdb", start)
