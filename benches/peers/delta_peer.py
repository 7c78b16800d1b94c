"""delta-rs: a bulk write, single-row appends, changes of rows. Nothing it writes is synced to the disk."""

import os

from journal_sql import COLUMNS, CURRENT, changed, question
from peer import FORGOTTEN, Peak, Timer, all_hold, check_query, each_timed, fresh, serve


def start():
    import deltalake
    import pyarrow
    import pyarrow.dataset

    return f"deltalake {deltalake.__version__}", Peer(deltalake, pyarrow)


class Peer:
    def __init__(self, deltalake, pyarrow):
        self.deltalake = deltalake
        self.pyarrow = pyarrow
        self.path = None
        self.table = None
        self.properties = None

    def write(self, source, to, codec, level):
        import pyarrow.dataset

        properties = self.deltalake.WriterProperties(compression=codec.upper(), compression_level=level)
        target = fresh(to + ".delta")
        with Timer() as timer:
            reader = pyarrow.dataset.dataset(source, format="parquet").scanner().to_reader()
            self.deltalake.write_deltalake(target, reader, writer_properties=properties)
        actions = self.deltalake.DeltaTable(target).get_add_actions(flatten=True)
        rows = sum(actions.column("num_records").to_pylist())
        size = sum(actions.column("size_bytes").to_pylist())
        fresh(target)
        return timer.answer(rows=rows, bytes=size)

    def checked_write(self, source, to, threads, codec, level, checks, conditions, lists=None):
        """Conditions about each row as constraints, which the write asks; the rest by a query over what it wrote; then
        the lists, if there are any, merged into it."""
        properties = self.deltalake.WriterProperties(compression=codec.upper(), compression_level=level)
        files = self.pyarrow.dataset.dataset(source, format="parquet")
        target = fresh(to + ".delta")
        table = self.deltalake.DeltaTable.create(target, schema=files.schema)
        for number, condition in enumerate(conditions):
            table.alter.add_constraint({f"c{number}": condition})
        with Peak() as peak:
            reader = files.scanner().to_reader()
            self.deltalake.write_deltalake(target, reader, mode="append", writer_properties=properties)
            if query := check_query(checks, [], "approx_distinct(", "t"):
                table = self.deltalake.DeltaTable(target)
                answer = self.deltalake.QueryBuilder().register("t", table).execute(query)
                [row] = self.pyarrow.table(answer.read_all()).to_pylist()
                all_hold(row.values())
            if lists:
                nullified, erased = (self.pyarrow.dataset.dataset(file, format="parquet").to_table() for file in lists)
                for keys, gone in ((nullified, False), (erased, True)):
                    merge = self.deltalake.DeltaTable(target).merge(
                        keys,
                        "t.client_id = s.client_id",
                        source_alias="s",
                        target_alias="t",
                        writer_properties=properties,
                    )
                    if gone:
                        merge.when_matched_delete().execute()
                    else:
                        merge.when_matched_update({column: "NULL" for column in FORGOTTEN}).execute()
        table = self.deltalake.DeltaTable(target)
        rows = sum(table.get_add_actions(flatten=True).column("num_records").to_pylist())
        fresh(target)
        return peak.answer(rows=rows)

    def insert(self, to, first, count):
        if self.path is None:
            self.path = fresh(to + ".delta")
            os.makedirs(self.path)
        schema = self.pyarrow.schema([("id", "int64"), ("name", "string"), ("amount", "float64")])

        def append(i):
            row = {"id": [first + i], "name": [f"row {first + i}"], "amount": [i / 2]}
            table = self.pyarrow.table(row, schema=schema)
            self.deltalake.write_deltalake(self.path, table, mode="append")

        return each_timed(count, append)

    def read(self):
        with Timer() as timer:
            rows = self.deltalake.DeltaTable(self.path).to_pyarrow_dataset().to_table(columns=["amount"]).num_rows
        return timer.answer(rows=rows)

    def open(self, folder, codec, level, threads):
        self.properties = self.deltalake.WriterProperties(compression=codec.upper(), compression_level=level)
        self.table = self.deltalake.DeltaTable(folder)
        return {}

    def close(self):
        self.table = None
        return {}

    def load(self, source, folder, codec, level, threads):
        properties = self.deltalake.WriterProperties(compression=codec.upper(), compression_level=level)
        reader = self.pyarrow.dataset.dataset(source, format="parquet").scanner().to_reader()
        self.deltalake.write_deltalake(fresh(folder), reader, writer_properties=properties)
        return {}

    def change(self, predicate, values=None, source=None, **_):
        """Deletes the rows of the predicate, or gives them values, or merges the rows of a file into the table."""
        with Timer() as timer:
            if source is not None:
                rows = self.pyarrow.dataset.dataset(source, format="parquet").to_table()
                merge = self.table.merge(
                    rows, predicate, source_alias="s", target_alias="t", writer_properties=self.properties
                )
                done = merge.when_matched_update_all().when_not_matched_insert_all().execute()
            elif values is not None:
                done = self.table.update(values, predicate=predicate, writer_properties=self.properties)
            else:
                done = self.table.delete(predicate, writer_properties=self.properties)
        kinds = ("num_deleted_rows", "num_updated_rows", "num_target_rows_updated", "num_target_rows_inserted")
        return timer.answer(rows=sum(done.get(kind, 0) for kind in kinds))

    def journal_load(self, source, folder, codec, level, threads):
        self.path = fresh(folder)
        self.properties = self.deltalake.WriterProperties(compression=codec.upper(), compression_level=level)
        rows = self.pyarrow.dataset.dataset(source, format="parquet").to_table().drop_columns(["op"])
        nothing = self.pyarrow.nulls(rows.num_rows, rows.schema.field("since").type)
        yes = self.pyarrow.array([True]).take(self.pyarrow.array([0] * rows.num_rows, "int32"))
        rows = rows.rename_columns({"since": "valid_from"})
        rows = rows.append_column("valid_to", nothing).append_column("is_current", yes)
        self.deltalake.write_deltalake(
            self.path, rows, partition_by=["is_current"], writer_properties=self.properties
        )
        return {}

    def journal_day(self, source):
        """The rows that differ, once with their key to close and once without to be inserted, merged into the table."""
        batch = fresh(self.path + ".batch")
        with Timer() as timer:
            rows = self.pyarrow.dataset.dataset(source, format="parquet").to_table()
            self.deltalake.write_deltalake(batch, rows)
            table = self.deltalake.DeltaTable(self.path)
            query = self.deltalake.QueryBuilder().register("t", table)
            query = query.register("b", self.deltalake.DeltaTable(batch))
            twice = query.execute(
                f"WITH changed AS ({changed('b', 't')}) "
                "SELECT *, k AS merge_key FROM changed UNION ALL SELECT *, NULL FROM changed WHERE op <> 'D'"
            )
            twice = self.pyarrow.table(twice.read_all())
            merge = table.merge(
                twice,
                "t.k = s.merge_key AND t.is_current = true",
                source_alias="s",
                target_alias="t",
                writer_properties=self.properties,
            )
            values = {column: f"s.{column}" for column in ("k", *COLUMNS)}
            opened = {**values, "valid_from": "s.since", "valid_to": "NULL", "is_current": "true"}
            merge = merge.when_matched_update({"valid_to": "s.since", "is_current": "false"})
            # A key that is new has no row to close, so its first copy meets nothing either.
            merge.when_not_matched_insert(opened, predicate="s.merge_key IS NULL").execute()
        fresh(batch)
        return timer.answer(rows=twice.num_rows)

    def journal_ask(self, sql):
        query = self.deltalake.QueryBuilder().register("j", self.deltalake.DeltaTable(self.path))
        return self.pyarrow.table(query.execute(sql).read_all())

    def journal_sum(self):
        [row] = self.journal_ask(CURRENT).to_pylist()
        return {"rows": row["n"], "sum": row["s"]}

    def journal_query(self, kind, key, at):
        sql = question(kind, key, f"to_timestamp_micros({at})")
        with Timer() as timer:
            rows = self.journal_ask(sql).num_rows
        return timer.answer(rows=rows)

    def dump(self, to):
        """The rows of the table as one Parquet file."""
        import pyarrow.parquet

        rows = self.deltalake.QueryBuilder().register("t", self.table).execute("SELECT * FROM t")
        rows = self.pyarrow.RecordBatchReader.from_stream(rows)
        with self.pyarrow.parquet.ParquetWriter(to, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
        return {}


serve("pip install deltalake pyarrow", start)
