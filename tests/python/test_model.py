"""Random histories of tables beside a model of each in DuckDB: the same statements, the same rows at every version.

A run prints its seeds. SELVEDGE_MODEL_SEED=n runs one of them, SELVEDGE_MODEL_FROM=random begins where nobody has
looked, SELVEDGE_MODEL_SECONDS=n looks for longer.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import time

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import duckdb
import pyarrow
import pytest
from adbc_driver_manager import AdbcStatusCode
from histories import History
from readers import READERS, same, with_polars
from test_flight import serving

SEED = os.environ.get("SELVEDGE_MODEL_SEED")
# Where a run begins: the same histories every time, so that it judges the change at hand and not its luck.
FROM = os.environ.get("SELVEDGE_MODEL_FROM", "215034300")
SECONDS = int(os.environ.get("SELVEDGE_MODEL_SECONDS", "60"))
# For the shortest history that still fails.
SHRINK_SECONDS = 60
# Histories side by side, each lane with a server of its own, and how many of each another server reads afterwards.
LANES = 2
COLD = 5
STEPS = 16
ALLOWED = {
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "OVERWRITE",
    "REPLACE WHERE",
    "TRUNCATE",
    "SELECT",
    "ALTER",
    "DECIMALS BESIDE DOUBLES",
    "TWO IN LISTS",
    "OPTIMIZE",
    "RESTORE",
    "FIELDS IN MERGE",
    "DISTINCT BEFORE AND",
}


class Difference(Exception):
    """Ours and the model do not say the same."""


class Ours:
    """The lake of one lane, by one connection."""

    def __init__(self, cursor, folder):
        self.cursor, self.folder = cursor, folder

    def run(self, sql):
        """The rows of an answer, or the error it is refused with."""
        statement = self.cursor.adbc_statement
        try:
            # Not by the cursor, which would have each statement planned once more, to prepare it.
            statement.set_sql_query(sql)
            stream, _ = statement.execute_query()
            return pyarrow.RecordBatchReader.from_stream(stream).read_all(), None
        except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError) as error:
            return None, error

    def tables(self):
        return {log.parent for log in self.folder.rglob("_delta_log")}


class Model:
    """The table in DuckDB; each of its versions is kept as a table of its own."""

    def __init__(self):
        self.db = duckdb.connect(config={"threads": 1})
        self.db.execute("SET TimeZone = 'UTC'")

    def run(self, statements):
        """The answers of a transaction's statements, or the error it is rolled back with."""
        self.db.execute("BEGIN")
        try:
            answers = [self.db.execute(statement).to_arrow_table() for statement in statements]
            self.db.execute("COMMIT")
            return answers, None
        except duckdb.Error as error:
            self.db.execute("ROLLBACK")
            return None, error

    def keep(self, version, rows):
        self.db.execute(f"CREATE TABLE t_{version} AS SELECT * FROM {rows}")


def bag(table):
    """Rows in which equal rows are equal, in no order."""
    return collections.Counter(repr(same(row)) for row in table.to_pylist())


def compare(where, ours, model):
    """Refuses rows of a table that are not those of a bag."""
    ours = bag(ours)
    if ours == model:
        return
    lines = [f"{where}: {ours.total()} rows, not the {model.total()} of the model"]
    for whose, rows in (("here", ours - model), ("in the model", model - ours)):
        lines += (f"  only {whose}: {count} x {row}" for row, count in sorted(rows.items())[:10])
    raise Difference("\n".join(lines))


def look(ours, said, expected):
    answer, refused = ours.run(said)
    if refused:
        raise Difference(f"{said}\n  here: {refused}")
    compare(said, answer, expected)


class Run:
    """One history, step by step on both sides."""

    def __init__(self, ours, name):
        self.ours, self.model, self.name = ours, Model(), name
        self.version, self.folder, self.said = -1, None, []

    def texts(self, step):
        """The step as either side is told."""
        old = int(step.age * (self.version + 1))
        said = step.sql.replace("@old", f"{self.name} VERSION AS OF {old}").replace("@n", str(old))
        modelled = [text.replace("@old", f"t_{old}").replace("@t", "t") for text in step.model]
        return said.replace("@t", self.name), modelled

    def take(self, step):
        said, modelled = self.texts(step)
        self.said.append(said)
        if self.folder is None:
            before = self.ours.tables()
        answer, refused = self.ours.run(said)
        answers, impossible = self.model.run(modelled)
        if getattr(refused, "status_code", None) == AdbcStatusCode.INTERNAL:
            raise Difference(f"{said}\n  here: {refused}")
        if bool(refused) != bool(impossible):
            raise Difference(f"{said}\n  here: {refused or 'done'}\n  in the model: {impossible or 'done'}")
        if refused:
            return
        if self.folder is None:
            [self.folder] = self.ours.tables() - before
        if step.query:
            compare(said, answer, bag(answers[-1]))
            return
        if step.counted:
            counts = [count[0][0].as_py() for count in answers[-step.counted :]]
            if answer[0][0].as_py() != sum(counts):
                raise Difference(f"{said}\n  {answer[0][0]} rows here, {sum(counts)} in the model")
        self.remember()

    def remember(self):
        """Keeps the rows of the versions that came. One that only rearranges files has the rows of the one before."""
        while (commit := self.folder / "_delta_log" / f"{self.version + 1:020}.json").exists():
            lines = map(json.loads, commit.read_text().splitlines())
            rearranged = "OPTIMIZE" in (line["commitInfo"].get("operation") for line in lines if "commitInfo" in line)
            self.model.keep(self.version + 1, f"t_{self.version}" if rearranged else "t")
            self.version += 1

    def rows(self, table):
        return bag(self.model.db.execute(f"SELECT * FROM {table}").to_arrow_table())

    def look_back(self, ours, versions):
        """These versions as we read them, and the newest without a word of versions."""
        olds = [(f"{self.name} VERSION AS OF {version}", f"t_{version}") for version in versions]
        for relation, modelled in [*olds, (self.name, "t")]:
            look(ours, f"SELECT * FROM {relation}", self.rows(modelled))

    def some(self):
        return sorted({self.version // 2, self.version * 3 // 4, self.version})

    def escapes(self):
        """Whether rows are deleted of a file whose path the log escapes: polars, which compares that path as it is with
        the one it unescaped, then shows them."""
        commits = (self.folder / "_delta_log").glob("*.json")
        adds = (json.loads(line).get("add", {}) for commit in commits for line in commit.read_text().splitlines())
        return any("deletionVector" in add and "%" in add["path"] for add in adds)

    def others_look(self, versions):
        """Some versions as others read them."""
        for version in versions:
            for read in READERS:
                if read is with_polars and self.escapes():
                    continue
                where = f"{read.__name__}, version {version}"
                try:
                    found = read(self.folder, version)
                except Exception as error:
                    raise Difference(f"{where}: {error}") from error
                compare(where, found, self.rows(f"t_{version}"))


def run(ours, name, create, steps):
    """A history, and how it differs if it does."""
    history = Run(ours, name)
    try:
        for step in (create, *steps):
            history.take(step)
        history.look_back(ours, range(history.version + 1))
        history.others_look(history.some())
    except Difference as difference:
        return history, difference
    return history, None


def shrink(ours, name, create, steps):
    """The fewest steps found that still differ, and how they do."""
    until, least, attempt = time.monotonic() + SHRINK_SECONDS, None, 0
    size = max(len(steps) // 2, 1)
    while size and time.monotonic() < until:
        at, before = 0, len(steps)
        while at < len(steps) and time.monotonic() < until:
            attempt += 1
            fewer = steps[:at] + steps[at + size :]
            history, difference = run(ours, f"{name}_{attempt}", create, fewer)
            if difference:
                steps, least = fewer, (history, difference)
            else:
                at += size
        if size > 1 or len(steps) == before:
            size //= 2
    return least


def report(seed, history, difference):
    listed = "".join(f"{statement};\n" for statement in history.said)
    pytest.fail(f"SELVEDGE_MODEL_SEED={seed}\n{listed}{difference}", pytrace=False)


def lane(program, folder, seeds, until):
    """Runs histories until the time is over. Returns of how many steps."""
    last, steps = collections.deque(maxlen=COLD), 0
    with connected(program, folder) as ours:
        for seed in seeds:
            history = History(seed, STEPS, ALLOWED)
            done = run(ours, f"t{seed}", history.create, history.steps)
            if done[1]:
                report(seed, *(shrink(ours, f"t{seed}_least", history.create, history.steps) or done))
            last.append((seed, done[0]))
            steps += 1 + len(history.steps)
            if time.monotonic() > until:
                break
    # A server that knows nothing yet finds in the log what this one had in memory.
    with connected(program, folder) as ours:
        for seed, history in last:
            try:
                history.look_back(ours, history.some())
            except Difference as difference:
                report(seed, history, difference)
    return steps


@contextlib.contextmanager
def connected(program, folder):
    with serving(program, folder) as (uri, _), flight_sql.connect(uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            yield Ours(cursor, folder)


# A busy machine may need minutes for its last histories.
@pytest.mark.timeout(SECONDS + SHRINK_SECONDS + 600)
def test_histories(program, tmp_path, capsys):
    first = random.SystemRandom().randrange(10**9) if FROM == "random" else int(SEED or FROM)
    seeds = [[first]] if SEED else [itertools.count(first + at, LANES) for at in range(LANES)]
    until = time.monotonic() + SECONDS
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        lanes = [pool.submit(lane, program, tmp_path / f"lake{at}", some, until) for at, some in enumerate(seeds)]
        steps = sum(done.result() for done in concurrent.futures.as_completed(lanes))
    with capsys.disabled():
        print(f"\n{steps} steps of random histories, seeds from {first} on")
