"""Tables whose columns selvedge renamed, dropped and widened, read by others: those that know how, and those that say
that they do not."""

import pytest
from readers import plain, with_delta_rs, with_duckdb, with_polars

know_mapping = pytest.mark.parametrize("read", [with_delta_rs, with_duckdb])


@know_mapping
def test_a_column_renamed(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT, name TEXT)",
        "INSERT INTO t VALUES (1, 'one')",
        "ALTER TABLE t RENAME COLUMN name TO \"what it is called\"",
        "INSERT INTO t VALUES (2, 'two')",
    )
    expected = [{"id": 1, "what it is called": "one"}, {"id": 2, "what it is called": "two"}]
    assert plain(read(lake.table())) == expected


@know_mapping
def test_a_column_dropped_and_added_again(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT, name TEXT)",
        "INSERT INTO t VALUES (1, 'one')",
        "ALTER TABLE t DROP COLUMN name",
        "INSERT INTO t VALUES (2)",
        "ALTER TABLE t ADD COLUMN name TEXT",
        "INSERT INTO t VALUES (3, 'three')",
    )
    expected = [{"id": 1, "name": None}, {"id": 2, "name": None}, {"id": 3, "name": "three"}]
    assert plain(read(lake.table())) == expected


@know_mapping
def test_a_partition_column_renamed(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT, kind TEXT) PARTITIONED BY (kind)",
        "INSERT INTO t VALUES (1, 'a b'), (2, NULL)",
        "ALTER TABLE t RENAME COLUMN kind TO sort",
        "INSERT INTO t VALUES (3, 'a b')",
    )
    expected = [{"id": 1, "sort": "a b"}, {"id": 2, "sort": None}, {"id": 3, "sort": "a b"}]
    assert plain(read(lake.table())) == expected


@know_mapping
def test_a_field_renamed(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT, s STRUCT<a INT, b TEXT>)",
        "INSERT INTO t SELECT 1, named_struct('a', 1, 'b', 'x')",
        "ALTER TABLE t RENAME COLUMN s.b TO c",
        "ALTER TABLE t ADD COLUMN s.d INT",
        "INSERT INTO t SELECT 2, named_struct('a', 2, 'c', 'y', 'd', 3)",
    )
    expected = [{"id": 1, "s": {"a": 1, "c": "x", "d": None}}, {"id": 2, "s": {"a": 2, "c": "y", "d": 3}}]
    assert plain(read(lake.table())) == expected


@know_mapping
def test_rows_changed_after_a_rename(lake, read):
    lake.run(
        "CREATE TABLE t (id BIGINT, name TEXT)",
        "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        "ALTER TABLE t RENAME COLUMN name TO label",
        "DELETE FROM t WHERE label = 'two'",
        "UPDATE t SET label = 'THREE' WHERE id = 3",
    )
    expected = [{"id": 1, "label": "one"}, {"id": 3, "label": "THREE"}]
    assert plain(read(lake.table())) == expected


def test_a_type_widened(lake):
    lake.run(
        "CREATE TABLE t (id BIGINT, n INT)",
        "INSERT INTO t VALUES (1, 1)",
        "ALTER TABLE t ALTER COLUMN n TYPE BIGINT",
        "INSERT INTO t VALUES (2, 3000000000)",
    )
    assert plain(with_duckdb(lake.table())) == [{"id": 1, "n": 1}, {"id": 2, "n": 3000000000}]
    for read in [with_delta_rs, with_polars]:
        with pytest.raises(Exception, match="(?i)typeWidening"):
            read(lake.table())


def test_polars_refuses_a_mapping(lake):
    lake.run(
        "CREATE TABLE t (id BIGINT, name TEXT)",
        "INSERT INTO t VALUES (1, 'one')",
        "ALTER TABLE t RENAME COLUMN name TO label",
    )
    with pytest.raises(Exception, match="column mapping|columnMapping"):
        with_polars(lake.table())
