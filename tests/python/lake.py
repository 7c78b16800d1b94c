"""The `selvedge` program as a test uses it."""

import json
import pathlib
import subprocess

import pyarrow.parquet


class Lake:
    """A lake in a folder. Every call is a process of its own, so nothing is remembered but what is stored."""

    def __init__(self, program, folder):
        self.program, self.folder = program, pathlib.Path(folder)

    def start(self, *arguments, stdin=None):
        command = [self.program, self.folder, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)

    def run(self, *statements):
        """Runs statements that must succeed."""
        done = self.start("-f", "-", stdin="".join(f"{statement};\n" for statement in statements))
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"

    def rows(self, query):
        """Rows of a query as dicts of JSON values."""
        done = self.start("--format", "jsonl", "-c", query)
        assert done.returncode == 0, f"{query}\n{done.stderr}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def arrow(self, query):
        """Rows of a query with their types: as Parquet, for JSON has no dates and no decimals."""
        file = self.folder.with_name("answer.parquet")
        self.run(f"COPY ({query}) TO '{file}' STORED AS PARQUET")
        return pyarrow.parquet.read_table(file)

    def refused(self, statement):
        """The message of a statement that must fail."""
        done = self.start("-c", statement)
        assert done.returncode == 1, f"{statement}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr

    def load(self, statement, table):
        """Runs `statement`, in which `{}` stands for a Parquet file that holds `table`."""
        file = self.folder.with_name("load.parquet")
        pyarrow.parquet.write_table(table, file)
        self.run(statement.format(f"'{file}'"))

    def table(self):
        """The folder of the lake's only table. Where a lake keeps a table is its own affair."""
        tables = [log.parent for log in self.folder.rglob("_delta_log")]
        assert len(tables) == 1, f"one table expected, found {tables}"
        return tables[0]
