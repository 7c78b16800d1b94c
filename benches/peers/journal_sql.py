"""A history of intervals kept by SQL, as users of DuckDB and DuckLake do it: close what changed, insert what is new.

Its texts serve the peers that keep the same history in other ways too.
"""

from peer import Timer

# The attributes of the history, which are compared.
COLUMNS = ("city", "plan", "score", "amount", "visits")
CURRENT = "SELECT count(*) AS n, CAST(sum(score) AS BIGINT) AS s FROM j WHERE is_current"


def changed(batch, table):
    """The rows of a batch that differ from what is current."""
    differs = " OR ".join(f"(b.{column} IS DISTINCT FROM c.{column})" for column in COLUMNS)
    return (
        f"SELECT b.* FROM {batch} AS b LEFT JOIN (SELECT * FROM {table} WHERE is_current) AS c ON b.k = c.k "
        f"WHERE CASE WHEN b.op = 'D' THEN c.k IS NOT NULL ELSE c.k IS NULL OR {differs} END"
    )


def question(kind, key, instant):
    """What is asked of `j`; the instant is an expression."""
    aggregate = "SELECT city, count(*), sum(amount), avg(score) FROM j WHERE {} GROUP BY city"
    return {
        "current aggregate": aggregate.format("is_current"),
        "as of aggregate": aggregate.format(f"valid_from <= {instant} AND (valid_to IS NULL OR valid_to > {instant})"),
        "key, current": f"SELECT * FROM j WHERE is_current AND k = {key}",
        "key, history": f"SELECT * FROM j WHERE k = {key} ORDER BY valid_from",
    }[kind]


class JournalSql:
    """Needs `db`, a connection in which `j` is the table."""

    def make_journal(self, source):
        self.db.execute(
            f"CREATE TABLE j AS SELECT k, {', '.join(COLUMNS)}, since AS valid_from, CAST(NULL AS TIMESTAMP) AS valid_to, "
            f"true AS is_current FROM read_parquet('{source}/*.parquet') ORDER BY k"
        )

    def journal_day(self, source):
        """One transaction: the rows that differ from what is current, their intervals closed, the new ones opened."""
        rows = changed(f"read_parquet('{source}')", "j")
        with Timer() as timer:
            self.db.execute("BEGIN")
            self.db.execute(f"CREATE OR REPLACE TEMP TABLE changed AS {rows}")
            self.db.execute(
                "UPDATE j SET valid_to = changed.since, is_current = false FROM changed WHERE j.k = changed.k AND j.is_current"
            )
            self.db.execute(
                f"INSERT INTO j SELECT k, {', '.join(COLUMNS)}, since, NULL, true FROM changed WHERE op <> 'D'"
            )
            self.db.execute("COMMIT")
        (rows,) = self.db.execute("SELECT count(*) FROM changed").fetchone()
        return timer.answer(rows=rows)

    def journal_sum(self):
        rows, total = self.db.execute(CURRENT).fetchone()
        return {"rows": rows, "sum": total}

    def journal_query(self, kind, key, at):
        sql = question(kind, key, f"make_timestamp({at})")
        with Timer() as timer:
            rows = self.db.execute(sql).to_arrow_table().num_rows
        return timer.answer(rows=rows)
