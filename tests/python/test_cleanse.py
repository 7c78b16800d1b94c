"""Cleansing as others see it: the table they read afterwards, and the bytes that are left."""

import json
import re

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from lake import Lake
from readers import READERS, plain
from test_quality import flights

everyone = pytest.mark.parametrize("read", READERS)

MARKER = "q7marker9z"

PERSONAL = (
    "CREATE TABLE asked (id BIGINT)",
    "CREATE TABLE t (id BIGINT, name TEXT, kind TEXT, n BIGINT, "
    "CONSTRAINT low EXPECT (n >= 0) ON VIOLATION QUARANTINE ROW) PARTITIONED BY (kind)",
    f"INSERT INTO t VALUES (1, 'a', 'x', 1), (2, '{MARKER}', 'x', 2), (3, 'c', 'y', 3), (2, '{MARKER}', 'y', -4)",
    f"INSERT INTO t VALUES (4, 'd', 'y', 4), (5, '{MARKER} five', 'x', 5), (6, 'f', NULL, 6)",
    f"UPDATE t SET name = '{MARKER} again' WHERE id = 2",
    "DELETE FROM t WHERE id = 5",
    "INSERT INTO asked VALUES (2), (5)",
)
FORGET = "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (name)"
GONE = "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS"


def table_of(lake, name):
    """The folder of one of several tables."""
    [folder] = [log.parent for log in lake.folder.rglob("_delta_log") if log.parent.name == name]
    return folder


def holding(folder, marker):
    """The files below that hold the text: in their name, in the open, or in a cell or a bound of Parquet."""
    found = []
    for file in sorted(folder.rglob("*")):
        if not file.is_file():
            continue
        if marker in str(file.relative_to(folder)) or marker.encode() in file.read_bytes():
            found.append(file)
        elif file.suffix == ".parquet":
            parquet = pyarrow.parquet.ParquetFile(file)
            cells = json.dumps(parquet.read().to_pylist(), default=str)
            footer = str(parquet.metadata.to_dict())
            if marker in cells or marker in footer:
                found.append(file)
    return found


ROWS = [
    {"id": 1, "name": "a", "kind": "x", "n": 1},
    {"id": 3, "name": "c", "kind": "y", "n": 3},
    {"id": 4, "name": "d", "kind": "y", "n": 4},
    {"id": 6, "name": "f", "kind": None, "n": 6},
]


@everyone
@pytest.mark.parametrize("erase", ["", " ERASE"])
@pytest.mark.parametrize("policy", [FORGET, GONE], ids=["forget", "gone"])
def test_others_read_what_is_left(lake, read, policy, erase):
    lake.run(*PERSONAL, policy, f"CLEANSE TABLE t{erase}")
    forgotten = [{"id": 2, "name": None, "kind": "x", "n": 2}] if policy == FORGET else []
    expected = sorted([*ROWS, *forgotten], key=lambda row: row["id"])
    assert plain(read(table_of(lake, "t"))) == expected
    assert plain(read(table_of(lake, "t"))) == lake.rows("SELECT * FROM t ORDER BY id")
    # And what is written on top, up to a checkpoint and beyond it.
    lake.run(*(f"INSERT INTO t VALUES ({100 + n}, 'z', 'z', 1), (2, 'back', 'z', 1)" for n in range(5)))
    again = plain(read(table_of(lake, "t")))
    assert [row["id"] for row in again if row["id"] >= 100] == list(range(100, 105))
    assert not any(row["name"] == "back" for row in again)


@everyone
def test_others_find_no_version_that_was_erased(lake, read):
    lake.run(*PERSONAL, GONE, "CLEANSE TABLE t ERASE")
    folder = table_of(lake, "t")
    newest = deltalake.DeltaTable(folder).version()
    for version in range(newest):
        try:
            rows = plain(read(folder, version))
        except Exception:  # each says it in its own way
            continue
        assert not any(row["id"] in (2, 5) for row in rows), f"version {version} can be read"
    assert [row["id"] for row in plain(read(folder, newest))] == [1, 3, 4, 6]


@pytest.mark.parametrize("policy", [FORGET, GONE], ids=["forget", "gone"])
def test_no_byte_of_it_is_left(lake, policy):
    lake.run(*PERSONAL)
    before = holding(lake.folder, MARKER)
    kinds = {re.sub(r".*/(_delta_log|_selvedge)/.*", r"\1", str(file)) for file in before}
    assert {"_delta_log", "_selvedge"} < kinds, before
    lake.run(policy, "OPTIMIZE t")
    assert lake.rows("VERIFY ERASURE OF t"), "nothing to find"
    lake.run("CLEANSE TABLE t ERASE")
    assert holding(lake.folder, MARKER) == []
    assert lake.rows("VERIFY ERASURE OF t") == []


def test_others_take_it_for_upkeep(lake):
    lake.run(*PERSONAL, GONE, "CLEANSE TABLE t")
    folder = table_of(lake, "t")
    history = deltalake.DeltaTable(folder).history()
    assert history[0]["operation"] == "CLEANSE"
    commits = sorted((folder / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in commits[-1].read_text().splitlines()]
    changes = [line[kind]["dataChange"] for line in lines for kind in ("add", "remove") if kind in line]
    assert changes and not any(changes)


def test_policies_are_properties_that_others_need_not_know(lake):
    lake.run(*PERSONAL, FORGET, "ALTER TABLE t ALTER COLUMN name SET TAG pii")
    table = deltalake.DeltaTable(table_of(lake, "t"))
    policy = json.loads(table.metadata().configuration["selvedge.policies.forget"])
    assert policy["action"] == {"nullify": {"columns": {"named": ["name"]}}}
    assert policy["scope"]["keys"]["columns"] == ["id"]
    [field] = [field for field in json.loads(table.schema().to_json())["fields"] if field["name"] == "name"]
    assert field["metadata"]["selvedge.tags"] == "pii"


# Real rows: planes whose owners do not want to be found.

ASKED = "SELECT tailnum FROM came WHERE tailnum LIKE 'N1%' GROUP BY tailnum ORDER BY count(*) LIMIT 60"


@pytest.fixture(scope="module")
def airport(program, tmp_path_factory):
    """The lake with the flights of a year and a list of planes, and DuckDB with the same."""
    table = flights()
    lake = Lake(program, tmp_path_factory.mktemp("planes") / "lake")
    db = duckdb.connect()
    db.register("came", table)
    db.execute(f"CREATE TABLE asked AS {ASKED}")
    columns = [(field.name, "BIGINT" if pa.types.is_integer(field.type) else "TEXT") for field in table.schema]
    columns = ", ".join(f"{name} {type}" for name, type in columns)
    lake.run(f"CREATE TABLE flights ({columns}) PARTITIONED BY (month)", "CREATE TABLE asked (tailnum TEXT)")
    lake.load("INSERT INTO flights SELECT * FROM {}", table)
    lake.load("INSERT INTO asked SELECT * FROM {}", db.execute("FROM asked").to_arrow_table())
    lake.run(
        "CREATE CLEANSE POLICY anonymous ON flights KEY (tailnum) IN (SELECT tailnum FROM asked) "
        "SET (tailnum = 'none', carrier = '')"
    )
    return lake, db


def test_planes_are_forgotten_row_by_row_as_duckdb_would(airport):
    lake, db = airport
    (rows,) = db.execute("SELECT count(*) FROM came WHERE tailnum IN (FROM asked)").fetchone()
    assert rows > 60
    (dry,) = lake.rows("CLEANSE TABLE flights DRY RUN")
    assert (dry["keys"], dry["rows_nullified"], dry["rows_deleted"]) == (60, rows, 0)
    (done,) = lake.rows("CLEANSE TABLE flights ERASE")
    assert (done["rows_nullified"], done["files_rewritten"]) == (rows, dry["files_rewritten"])
    columns = "month, day, sched_dep_time, flight, origin, dest, distance, dep_delay"
    ours = lake.arrow(f"SELECT tailnum, carrier, {columns} FROM flights")
    db.register("ours", ours)
    theirs = (
        "SELECT CASE WHEN tailnum IN (FROM asked) THEN 'none' ELSE tailnum END AS tailnum, "
        f"CASE WHEN tailnum IN (FROM asked) THEN '' ELSE carrier END AS carrier, {columns} FROM came"
    )
    mine = f"SELECT tailnum, carrier, {columns} FROM ours"
    for one_way in [f"{mine} EXCEPT ALL {theirs}", f"{theirs} EXCEPT ALL {mine}"]:
        assert db.execute(f"SELECT count(*) FROM ({one_way})").fetchone() == (0,)
    db.unregister("ours")
    assert lake.rows("VERIFY ERASURE OF flights") == []
    folder = table_of(lake, "flights")
    for (plane,) in db.execute("FROM asked LIMIT 5").fetchall():
        assert holding(folder, plane) == [], plane


def test_planes_that_come_again_are_not_known(airport):
    lake, db = airport
    january = db.execute("FROM came WHERE month = 1").to_arrow_table()
    known = "SELECT count(*) FROM came WHERE month = 1 AND tailnum IN (FROM asked)"
    (asked,) = db.execute(known).fetchone()
    lake.load("INSERT OVERWRITE flights SELECT * FROM {}", january)
    assert lake.rows("SELECT count(*) AS n FROM flights WHERE tailnum = 'none'") == [{"n": asked}]
    left = "SELECT count(*) AS n FROM flights WHERE tailnum IN (SELECT tailnum FROM asked)"
    assert lake.rows(left) == [{"n": 0}]
