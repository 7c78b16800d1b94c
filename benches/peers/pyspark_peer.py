"""PySpark: a history of intervals whose every change is the whole table, written anew."""

import os
import shutil

from journal_sql import COLUMNS, CURRENT, question
from peer import Timer, fresh, serve


def start():
    import pyspark

    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise ImportError("PySpark needs a Java runtime, and there is none")
    return f"pyspark {pyspark.__version__}", Peer()


class Peer:
    def __init__(self):
        self.spark = None
        self.folder = None
        self.version = 0

    def journal_load(self, source, folder, codec, level, threads):
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master(f"local[{threads}]").appName("journal")
        options = {
            "spark.driver.memory": "8g",
            "spark.sql.shuffle.partitions": threads * 4,
            "spark.sql.parquet.compression.codec": codec,
            "spark.sql.session.timeZone": "UTC",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.log.level": "ERROR",
        }
        for name, value in options.items():
            builder = builder.config(name, value)
        self.spark = builder.getOrCreate()
        os.makedirs(fresh(folder))
        self.folder, self.version = folder, 0
        rows = self.spark.read.parquet(source)
        rows.createOrReplaceTempView("b")
        columns = ", ".join(COLUMNS)
        self.write(
            f"SELECT k, {columns}, since AS valid_from, CAST(NULL AS TIMESTAMP_NTZ) AS valid_to, true AS is_current FROM b"
        )
        return {}

    def path(self):
        return os.path.join(self.folder, str(self.version))

    def write(self, sql):
        rows = self.spark.sql(sql)
        self.version += 1
        rows.write.partitionBy("is_current").parquet(self.path())

    def name(self):
        # Spark takes a flag in a folder's name for a text.
        rows = self.spark.read.parquet(self.path())
        rows.withColumn("is_current", rows["is_current"].cast("boolean")).createOrReplaceTempView("j")

    def journal_day(self, source):
        """Current rows joined with the batch, closed rows as they are: all of them into the next folder."""
        columns = ", ".join(COLUMNS)
        old = ", ".join(f"c.{column}" for column in COLUMNS)
        new = ", ".join(f"b.{column}" for column in COLUMNS)
        differs = " OR ".join(f"NOT (b.{column} <=> c.{column})" for column in COLUMNS)
        # Processor time is that of the virtual machine, which nobody tells: the wall clock is compared.
        with Timer() as timer:
            self.name()
            self.spark.read.parquet(source).createOrReplaceTempView("b")
            self.write(
                f"WITH c AS (SELECT * FROM j WHERE is_current), m AS ("
                f"SELECT c.k AS old_k, b.k AS new_k, b.op, b.since, c.valid_from, {old}, struct({new}) AS n, "
                f"CASE WHEN b.k IS NULL THEN false WHEN c.k IS NULL THEN b.op <> 'D' ELSE b.op = 'D' OR {differs} END "
                f"AS moved FROM c FULL OUTER JOIN b ON b.k = c.k) "
                f"SELECT k, {columns}, valid_from, valid_to, is_current FROM j WHERE NOT is_current "
                f"UNION ALL SELECT old_k, {columns}, valid_from, CASE WHEN moved THEN since END, NOT moved FROM m "
                f"WHERE old_k IS NOT NULL "
                f"UNION ALL SELECT new_k, {', '.join(f'n.{column}' for column in COLUMNS)}, since, "
                f"CAST(NULL AS TIMESTAMP_NTZ), true FROM m WHERE moved AND op <> 'D'"
            )
        rows = self.spark.read.parquet(source).count()
        # The version before last is of no use to anyone.
        fresh(os.path.join(self.folder, str(self.version - 2)))
        return timer.answer(rows=rows)

    def journal_sum(self):
        self.name()
        row = self.spark.sql(CURRENT).first()
        return {"rows": row["n"], "sum": row["s"]}

    def journal_query(self, kind, key, at):
        sql = question(kind, key, f"CAST(timestamp_micros({at}) AS TIMESTAMP_NTZ)")
        self.name()
        with Timer() as timer:
            rows = len(self.spark.sql(sql).collect())
        return timer.answer(rows=rows)


serve("pip install pyspark (and a Java runtime)", start)
