"""Tables written by selvedge, read by others with equal rows."""

import json
import shutil

import deltalake
import polars
import pyarrow as pa
import pytest
from readers import READERS, plain, with_delta_rs
from samples import EVERY_TYPE, PARTITIONED, ids

everyone = pytest.mark.parametrize("read", READERS)


def numbers(table):
    return [row["id"] for row in plain(table)]


@everyone
def test_every_type(lake, read):
    lake.load("CREATE TABLE t AS SELECT * FROM {}", EVERY_TYPE)
    assert plain(read(lake.table())) == plain(EVERY_TYPE)


@everyone
def test_declared_types(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT NOT NULL, i SMALLINT, f REAL, d DECIMAL(12, 2) DEFAULT 0, s TEXT, b BYTEA, "
        "o BOOLEAN, y DATE, n TIMESTAMP, z TIMESTAMP WITH TIME ZONE)",
        "INSERT INTO t VALUES (1, 2, 0.5, 12.34, 'x', X'00ff', true, DATE '2024-02-29', "
        "TIMESTAMP '2024-02-29 12:00:00.000001', TIMESTAMP WITH TIME ZONE '2024-02-29T12:00:00+02:00')",
        "INSERT INTO t (id) VALUES (2)",
    )
    first, second = plain(read(lake.table()))
    assert [str(value) for value in first.values()] == [
        "1",
        "2",
        "0.5",
        "12.34",
        "x",
        str(b"\x00\xff"),
        "True",
        "2024-02-29",
        "2024-02-29 12:00:00.000001",
        "2024-02-29 10:00:00+00:00",
    ]
    assert str(second.pop("d")) == "0.00"
    assert set(second.values()) == {2, None}


@everyone
def test_partitions(lake, read):
    lake.run("CREATE TABLE t (id BIGINT, kind TEXT, day DATE, amount DOUBLE) PARTITIONED BY (kind, day)")
    lake.load("INSERT INTO t SELECT * FROM {}", PARTITIONED)
    assert plain(read(lake.table())) == plain(PARTITIONED)
    assert plain(lake.arrow("SELECT * FROM t")) == plain(PARTITIONED)


@everyone
def test_a_table_without_rows(lake, read):
    lake.run("CREATE TABLE t (id BIGINT, s TEXT)")
    assert plain(read(lake.table())) == []


@everyone
def test_overwritten(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT)",
        "INSERT INTO t VALUES (1), (2)",
        "INSERT OVERWRITE t VALUES (3)",
        "INSERT INTO t VALUES (4)",
    )
    assert numbers(read(lake.table())) == [3, 4]


@everyone
def test_a_column_added(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT)",
        "INSERT INTO t VALUES (1)",
        "ALTER TABLE t ADD COLUMN s TEXT",
        "INSERT INTO t VALUES (2, 'two')",
    )
    assert plain(read(lake.table())) == [{"id": 1, "s": None}, {"id": 2, "s": "two"}]


@everyone
def test_check_constraints(lake, read):
    lake.run("CREATE TABLE t (id BIGINT NOT NULL, CONSTRAINT positive CHECK (id > 0))", "INSERT INTO t VALUES (1)")
    assert "positive" in lake.refused("INSERT INTO t VALUES (0)")
    assert numbers(read(lake.table())) == [1]


def test_other_writers_are_told_of_our_constraints(lake):
    lake.run("CREATE TABLE t (id BIGINT, CONSTRAINT positive CHECK (id > 0))")
    table = deltalake.DeltaTable(lake.table())
    assert "checkConstraints" in table.protocol().writer_features
    assert table.metadata().configuration["delta.constraints.positive"] == "id > 0"


def test_a_writer_that_cannot_keep_our_commit_times_is_kept_out(lake):
    """Such a writer would make time travel find the wrong version; that delta-rs is one is no loss of readers."""
    lake.run("CREATE TABLE t (id BIGINT)", "INSERT INTO t VALUES (1)")
    with pytest.raises(Exception, match="InCommitTimestamp"):
        deltalake.write_deltalake(lake.table(), ids(2), mode="append")
    assert numbers(lake.arrow("SELECT * FROM t")) == numbers(with_delta_rs(lake.table())) == [1]


def test_versions(lake):
    lake.run("CREATE TABLE t (id BIGINT)", *(f"INSERT INTO t VALUES ({n})" for n in range(3)))
    for version in range(4):
        assert polars.scan_delta(str(lake.table()), version=version).collect().height == version
        assert deltalake.DeltaTable(lake.table(), version=version).version() == version
        assert len(lake.rows(f"SELECT * FROM t VERSION AS OF {version}")) == version


COMMITS = 120


@pytest.fixture(scope="module")
def long_history(program, tmp_path_factory):
    """A table of many commits, so that a checkpoint is there; made once, for it is only read."""
    from lake import Lake

    lake = Lake(program, tmp_path_factory.mktemp("history") / "lake")
    lake.run(
        "CREATE TABLE t (id BIGINT, kind TEXT) PARTITIONED BY (kind)",
        *(f"INSERT INTO t VALUES ({n}, '{n % 3} %')" for n in range(COMMITS // 2)),
        "INSERT OVERWRITE t VALUES (-1, NULL)",
        *(f"INSERT INTO t VALUES ({n}, '{n % 3} %')" for n in range(COMMITS // 2, COMMITS)),
    )
    expected = [{"id": -1, "kind": None}] + [{"id": n, "kind": f"{n % 3} %"} for n in range(COMMITS // 2, COMMITS)]
    return lake, expected


@everyone
def test_checkpoints(long_history, read):
    lake, expected = long_history
    assert plain(read(lake.table())) == expected


@everyone
def test_the_checkpoint_says_all_that_the_commits_before_it_said(long_history, read, tmp_path):
    lake, expected = long_history
    copy = tmp_path / "t"
    shutil.copytree(lake.table(), copy)
    log = copy / "_delta_log"
    checkpoint = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert checkpoint >= 100
    for version in range(checkpoint + 1):
        (log / f"{version:020}.json").unlink()
    assert plain(read(copy)) == expected


def test_statistics_are_those_of_the_rows(lake):
    """A reader that skips files by wrong statistics loses rows without a word."""
    lake.load("CREATE TABLE t AS SELECT * FROM {}", EVERY_TYPE)
    adds = pa.table(deltalake.DeltaTable(lake.table()).get_add_actions(flatten=True)).to_pylist()
    assert sum(add["num_records"] for add in adds) == EVERY_TYPE.num_rows
    for add in adds:
        assert add["min.id"] >= 1 and add["max.id"] <= 3
    for predicate in [
        "text > 'it'",
        "day >= DATE '9999-12-31'",
        "id = 2",
        "wide_decimal > CAST('9999999999999999999999999999' AS DECIMAL(38, 10))",
    ]:
        query = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(lake.table()))
        found = pa.table(query.execute(f"SELECT id FROM t WHERE {predicate}").read_all())
        assert found["id"].to_pylist() == [2], predicate
        assert lake.rows(f"SELECT id FROM t WHERE {predicate}") == [{"id": 2}], predicate
