"""delta-rs: a bulk write and single-row appends. Nothing it writes is synced to the disk."""

import os

from peer import Timer, each_timed, fresh, serve


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


serve("pip install deltalake pyarrow", start)
