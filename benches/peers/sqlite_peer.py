"""SQLite, from Python's standard library: single-row inserts, each synced."""

from peer import Timer, each_timed, fresh, serve


def start():
    import sqlite3

    return f"sqlite {sqlite3.sqlite_version}", Peer(sqlite3)


class Peer:
    def __init__(self, sqlite3):
        self.sqlite3 = sqlite3
        self.rows = None

    def insert(self, to, first, count):
        if self.rows is None:
            for rest in ("", "-wal", "-shm"):
                fresh(to + ".sqlite" + rest)
            self.rows = self.sqlite3.connect(to + ".sqlite", isolation_level=None)
            self.rows.execute("PRAGMA journal_mode = WAL")
            self.rows.execute("PRAGMA synchronous = FULL")
            self.rows.execute("CREATE TABLE t (id INTEGER, name TEXT, amount REAL)")
        return each_timed(
            count,
            lambda i: self.rows.execute("INSERT INTO t VALUES (?, ?, ?)", [first + i, f"row {first + i}", i / 2]),
        )

    def read(self):
        with Timer() as timer:
            rows, _ = self.rows.execute("SELECT count(*), sum(amount) FROM t").fetchone()
        return timer.answer(rows=rows)


serve("install a Python that has the sqlite3 module", start)
