"""polars: a stream of Parquet files into one, after a query that checks them."""

from peer import FORGOTTEN, Peak, all_hold, check_query, fresh, serve


def start():
    import polars

    return f"polars {polars.__version__}", Peer(polars)


class Peer:
    def __init__(self, polars):
        self.polars = polars

    def checked_write(self, source, to, threads, codec, level, checks, conditions, lists=None):
        """The checks as a query over the source, then the copy, of the source joined with the lists if there are any.
        How many threads it has is told to polars by the environment, before it is loaded; without a word it takes all
        cores, as we do. Its SQL has no estimate of distinct values: they are counted."""
        files = self.polars.scan_parquet(f"{source}/*.parquet")
        target = fresh(to + ".parquet")
        with Peak() as peak:
            if query := check_query(checks, conditions, "count(DISTINCT ", "t"):
                answer = self.polars.SQLContext(t=files).execute(query)
                all_hold(answer.collect(engine="streaming").row(0))
            if lists:
                nullified, erased = (self.polars.scan_parquet(file) for file in lists)
                listed = nullified.with_columns(self.polars.lit(True).alias("listed"))
                files = files.join(erased, on="client_id", how="anti").join(listed, on="client_id", how="left")
                kept = self.polars.col("listed").is_null()
                cells = [self.polars.when(kept).then(self.polars.col(column)).alias(column) for column in FORGOTTEN]
                files = files.with_columns(cells).drop("listed")
            files.sink_parquet(target, compression=codec, compression_level=level)
        rows = self.polars.scan_parquet(target).select(self.polars.len()).collect().item()
        fresh(target)
        return peak.answer(rows=rows)


serve("pip install polars", start)
