"""Tables written by others, read and appended to by selvedge."""

import crafted
import deltalake
import pyarrow as pa
import pytest
from readers import READERS, plain, with_delta_rs
from samples import EVERY_TYPE, PARTITIONED, ids


def numbers(table):
    return [row["id"] for row in plain(table)]


@pytest.fixture
def foreign(lake, tmp_path):
    """A folder for a table of others, and what registers it as `t` once it is there."""
    folder = tmp_path / "foreign"

    def register():
        lake.run(f"CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{folder}'")
        return lake

    return folder, register


def test_every_type(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, EVERY_TYPE)
    lake = register()
    assert plain(lake.arrow("SELECT * FROM t")) == plain(EVERY_TYPE)
    lake.load("INSERT INTO t SELECT * FROM {}", EVERY_TYPE)
    twice = plain(pa.concat_tables([EVERY_TYPE, EVERY_TYPE]))
    for read in READERS:
        assert plain(read(folder)) == twice, read.__name__


def test_partitions(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, PARTITIONED, partition_by=["kind", "day"])
    lake = register()
    assert plain(lake.arrow("SELECT * FROM t")) == plain(PARTITIONED)
    for row in plain(PARTITIONED):
        if row["kind"] is not None:
            kind = row["kind"].replace("'", "''")
            found = plain(lake.arrow(f"SELECT * FROM t WHERE kind = '{kind}'"))
            assert row in found and len(found) == 2, kind
    lake.load("INSERT INTO t SELECT * FROM {}", PARTITIONED)
    assert plain(with_delta_rs(folder)) == plain(pa.concat_tables([PARTITIONED, PARTITIONED]))


def test_versions_deletes_and_a_checkpoint(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, ids(*range(100)))
    table = deltalake.DeltaTable(folder)
    table.delete("id % 10 = 3")
    deltalake.write_deltalake(folder, ids(*range(100, 110)), mode="append")
    table.update_incremental()
    table.create_checkpoint()
    table.update({"id": "id + 1000"}, predicate="id = 0")
    table.delete("id = 109")
    lake = register()
    now = [n for n in range(1, 109) if n % 10 != 3 or n > 100] + [1000]
    assert numbers(lake.arrow("SELECT * FROM t")) == now
    assert len(lake.rows("SELECT * FROM t VERSION AS OF 0")) == 100
    assert len(lake.rows("SELECT * FROM t VERSION AS OF 1")) == 90
    # Beside the checkpoint of others ours must go on where theirs ends.
    lake.run("INSERT INTO t VALUES (2000)")
    assert numbers(with_delta_rs(folder)) == [*now, 2000]


def test_only_a_checkpoint_is_left_of_old_commits(foreign):
    folder, register = foreign
    for n in range(5):
        deltalake.write_deltalake(folder, ids(n), mode="append")
    deltalake.DeltaTable(folder).create_checkpoint()
    for version in range(5):
        (folder / "_delta_log" / f"{version:020}.json").unlink()
    lake = register()
    assert numbers(lake.arrow("SELECT * FROM t")) == list(range(5))
    lake.run("INSERT INTO t VALUES (5)")
    assert numbers(with_delta_rs(folder)) == list(range(6))


def test_overwritten(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, ids(1, 2))
    deltalake.write_deltalake(folder, ids(3), mode="overwrite")
    assert numbers(register().arrow("SELECT * FROM t")) == [3]


def test_constraints_of_others_are_honoured(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, ids(1))
    deltalake.DeltaTable(folder).alter.add_constraint({"positive": "id > 0"})
    lake = register()
    lake.run("INSERT INTO t VALUES (2)")
    assert "positive" in lake.refused("INSERT INTO t VALUES (-1)")
    assert numbers(with_delta_rs(folder)) == [1, 2]


def test_taking_turns(foreign):
    folder, register = foreign
    deltalake.write_deltalake(folder, ids(0))
    lake = register()
    for turn in range(1, 11, 2):
        lake.run(f"INSERT INTO t VALUES ({turn})")
        deltalake.write_deltalake(folder, ids(turn + 1), mode="append")
    assert numbers(lake.arrow("SELECT * FROM t")) == list(range(11))
    for read in READERS:
        assert numbers(read(folder)) == list(range(11)), read.__name__


def test_a_location_that_needs_escaping(lake, tmp_path):
    folder = tmp_path / "50% of a b#ü"
    deltalake.write_deltalake(folder, ids(1))
    lake.run(f"CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{folder}'", "INSERT INTO t VALUES (2)")
    assert numbers(lake.arrow("SELECT * FROM t")) == [1, 2]
    # Not the others: polars takes the escapes of a location for its name, DuckDB unescapes a name that has none.
    assert numbers(with_delta_rs(folder)) == [1, 2]


def test_deletion_vectors(foreign):
    folder, register = foreign
    left = crafted.table_with_vectors(folder)
    lake = register()
    assert numbers(lake.arrow("SELECT * FROM t")) == left
    assert lake.rows("SELECT count(*) AS n, min(id) AS low, max(id) AS high FROM t") == [
        {"n": len(left), "low": left[0], "high": left[-1]}
    ]
    # The rows around the edges of files, of row groups and of the deleted run.
    for number in [0, 2, 3, 4, 49, 50, 499, 500, 549, 550, 749, 750, 799, 800, 801, 998, 999]:
        found = lake.rows(f"SELECT id, text FROM t WHERE id = {number}")
        assert found == ([{"id": number, "text": f"row {number}"}] if number in left else []), number
    assert lake.rows("SELECT id FROM t WHERE id >= 540 ORDER BY id LIMIT 12") == [
        {"id": n} for n in [n for n in left if n >= 540][:12]
    ]


@pytest.mark.parametrize("version, rows", [(0, 1_000), (1, 729), (2, 728), (3, 727)])
def test_deletion_vectors_by_version(foreign, version, rows):
    folder, register = foreign
    crafted.table_with_vectors(folder)
    found = register().rows(f"SELECT count(*) AS n FROM t VERSION AS OF {version}")
    assert found == [{"n": rows}]
    assert deltalake.QueryBuilder().register("t", deltalake.DeltaTable(folder, version=version)).execute(
        "SELECT * FROM t"
    ).read_all().num_rows == rows


def test_appending_keeps_deletion_vectors(foreign):
    folder, register = foreign
    left = crafted.table_with_vectors(folder)
    lake = register()
    lake.run("INSERT INTO t VALUES (1000, 'new')")
    for read in READERS:
        assert numbers(read(folder)) == [*left, 1000], read.__name__
    # A checkpoint of ours must keep them too: one is due after these.
    lake.run(*(f"INSERT INTO t VALUES ({n}, 'newer')" for n in range(1001, 1121)))
    assert (folder / "_delta_log" / "_last_checkpoint").is_file()
    for read in READERS:
        assert numbers(read(folder)) == [*left, *range(1000, 1121)], read.__name__


def test_overwriting_a_table_with_deletion_vectors(foreign):
    folder, register = foreign
    crafted.table_with_vectors(folder)
    register().run("INSERT OVERWRITE t VALUES (7, 'only')")
    # A removal that forgets a file's vector leaves the file alive.
    for read in READERS:
        assert numbers(read(folder)) == [7], read.__name__


def test_a_vector_at_an_absolute_path(foreign):
    folder, register = foreign
    folder.mkdir()
    add = crafted.add_file(folder, "a.parquet", 0, 10)
    crafted.commit(folder, 0, *crafted.head(**crafted.VECTORS), add)
    [descriptor] = crafted.in_files(folder, {1}, absolute=True)
    crafted.commit(folder, 1, crafted.remove(add), crafted.with_vector(add, descriptor))
    assert numbers(register().arrow("SELECT * FROM t")) == [0, *range(2, 10)]


def test_a_damaged_vector_is_an_error(foreign):
    folder, register = foreign
    crafted.table_with_vectors(folder)
    lake = register()
    [file] = folder.rglob("deletion_vector_*.bin")
    content = bytearray(file.read_bytes())
    content[40] ^= 0xFF
    file.write_bytes(content)
    assert file.name in lake.refused("SELECT count(text) FROM t")
    file.unlink()
    assert file.name in lake.refused("SELECT count(text) FROM t")


def test_a_feature_needed_for_reading_is_refused_by_name(foreign):
    folder, register = foreign
    folder.mkdir()
    features = ["deletionVectors", "looksFine"]
    add = crafted.add_file(folder, "a.parquet", 0, 10)
    crafted.commit(folder, 0, *crafted.head(features, features), add)
    # When it is registered or when it is read: that is left open.
    with pytest.raises(AssertionError, match="looksFine"):
        register().run("SELECT * FROM t")


def test_a_feature_needed_for_writing_is_refused_by_name(foreign):
    folder, register = foreign
    folder.mkdir()
    add = crafted.add_file(folder, "a.parquet", 0, 10)
    crafted.commit(folder, 0, *crafted.head([], ["looksFine"]), add)
    lake = register()
    assert numbers(lake.arrow("SELECT * FROM t")) == list(range(10))
    assert "looksFine" in lake.refused("INSERT INTO t VALUES (10, 'ten')")
