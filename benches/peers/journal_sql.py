"""A history of intervals kept by SQL, as users of DuckDB and DuckLake do it: close what changed, insert what is new."""

from peer import Timer

COLUMNS = ("city", "plan", "score", "amount", "visits")
AGGREGATE = "SELECT city, count(*), sum(amount), avg(score) FROM j WHERE {} GROUP BY city"


def instant(micros):
    return f"make_timestamp({micros})"


class JournalSql:
    """Needs `db`, a connection in which `j` is the table."""

    def make_journal(self, source):
        self.db.execute(
            f"CREATE TABLE j AS SELECT k, {', '.join(COLUMNS)}, since AS valid_from, CAST(NULL AS TIMESTAMP) AS valid_to, "
            f"true AS is_current FROM read_parquet('{source}/*.parquet') ORDER BY k"
        )

    def journal_day(self, source):
        """One transaction: the rows that differ from what is current, their intervals closed, the new ones opened."""
        differs = " OR ".join(f"(b.{column} IS DISTINCT FROM c.{column})" for column in COLUMNS)
        with Timer() as timer:
            self.db.execute("BEGIN")
            self.db.execute(
                f"CREATE OR REPLACE TEMP TABLE changed AS SELECT b.* FROM read_parquet('{source}') AS b "
                f"LEFT JOIN (SELECT * FROM j WHERE is_current) AS c ON b.k = c.k "
                f"WHERE CASE WHEN b.op = 'D' THEN c.k IS NOT NULL ELSE c.k IS NULL OR {differs} END"
            )
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
        rows, total = self.db.execute("SELECT count(*), CAST(sum(score) AS BIGINT) FROM j WHERE is_current").fetchone()
        return {"rows": rows, "sum": total}

    def journal_query(self, kind, key, at):
        was = f"valid_from <= {instant(at)} AND (valid_to IS NULL OR valid_to > {instant(at)})"
        sql = {
            "current aggregate": AGGREGATE.format("is_current"),
            "as of aggregate": AGGREGATE.format(was),
            "key, current": f"SELECT * FROM j WHERE is_current AND k = {key}",
            "key, history": f"SELECT * FROM j WHERE k = {key} ORDER BY valid_from",
        }[kind]
        with Timer() as timer:
            rows = self.db.execute(sql).to_arrow_table().num_rows
        return timer.answer(rows=rows)
