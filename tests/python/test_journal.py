"""Journal tables: the intervals that other people's readers find, at every version."""

import datetime
import json
import random

import deltalake
import duckdb
import pyarrow as pa
import pytest
from readers import READERS, same

everyone = pytest.mark.parametrize("read", READERS)

UTC = datetime.timezone.utc
CREATE = (
    "CREATE TABLE t (id BIGINT NOT NULL, city TEXT, amount DECIMAL(10, 2), at TIMESTAMP WITH TIME ZONE) "
    "JOURNAL KEYS (id) SEQUENCE BY at APPLY AS DELETE WHEN city IS NULL"
)


def day(n):
    return datetime.datetime(2026, 1, n, tzinfo=UTC)


def rows(table):
    """Rows of an Arrow table in the order of keys and time, columns by name."""
    found = [{name: same(value) for name, value in sorted(row.items())} for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["id"], row["valid_from"]))


def ours(lake, version=None):
    clause = "" if version is None else f" VERSION AS OF {version}"
    return rows(lake.arrow(f'SELECT * FROM "t$journal"{clause}'))


def days_of_changes(lake, days=6, keys=40, clauses=""):
    """Some days of changes, deletions and late rows; a version each."""
    lake.run(f"{CREATE} {clauses}")
    dice = random.Random(7)
    for today in range(1, days + 1):
        values = []
        for key in range(keys):
            match dice.randrange(6):
                case 0:
                    values.append(f"({key}, NULL, NULL, TIMESTAMP WITH TIME ZONE '2026-01-{today:02}T00:00:00Z')")
                case 1 | 2:
                    city, amount = dice.choice(["Basel", "Bern", "Zug"]), dice.randrange(3)
                    hour = dice.randrange(24)
                    late = max(1, today - dice.randrange(3))
                    at = f"TIMESTAMP WITH TIME ZONE '2026-01-{late:02}T{hour:02}:{key:02}:{today:02}Z'"
                    values.append(f"({key}, '{city}', {amount}, {at})")
        lake.run(f"INSERT INTO t VALUES {', '.join(values)}")


@everyone
@pytest.mark.parametrize("clauses", ["", "LATE APPLY AFTER INTERVAL '30 days'"], ids=["plain", "horizon"])
def test_everyone_reads_the_same_intervals_at_every_version(lake, read, clauses):
    days_of_changes(lake, clauses=clauses)
    for version in range(1, 7):
        expected = ours(lake, version)
        assert rows(read(lake.table(), version)) == expected, version
        # What is current is one row a key, and the flag says so to everyone.
        current = [row for row in expected if row["is_current"]]
        assert len({row["id"] for row in current}) == len(current)
        assert all((row["valid_to"] is None) == row["is_current"] for row in expected)
    assert rows(read(lake.table())) == ours(lake)


@everyone
def test_everyone_reads_what_upkeep_leaves(lake, read):
    days_of_changes(lake)
    before = ours(lake)
    lake.run("OPTIMIZE t")
    assert ours(lake) == before
    assert rows(read(lake.table())) == before
    lake.run("INSERT INTO t VALUES (1, 'Chur', 1, TIMESTAMP WITH TIME ZONE '2026-01-30T00:00:00Z')")
    assert rows(read(lake.table())) == ours(lake) != before


@everyone
def test_an_open_end_that_is_far_is_the_same_to_everyone(lake, read):
    lake.run(
        f"{CREATE} TBLPROPERTIES ('selvedge.journal.openEnd' = 'far_future', 'selvedge.journal.columns' = 'stitchfix')",
        "INSERT INTO t VALUES (1, 'Basel', 1, TIMESTAMP WITH TIME ZONE '2026-01-01T00:00:00Z')",
        "INSERT INTO t VALUES (1, 'Bern', 1, TIMESTAMP WITH TIME ZONE '2026-01-05T00:00:00Z')",
    )
    found = sorted(read(lake.table()).to_pylist(), key=lambda row: row["start_date"])
    assert [(row["city"], same(row["start_date"]), same(row["end_date"]), row["is_current"]) for row in found] == [
        ("Basel", day(1), day(5), False),
        ("Bern", day(5), datetime.datetime(9999, 12, 31, tzinfo=UTC), True),
    ]


def test_as_of_is_what_duckdb_finds_in_the_intervals(lake):
    """The state at an instant by another engine: a filter over the intervals that delta-rs reads."""
    days_of_changes(lake, days=8)
    table = deltalake.DeltaTable(lake.table())
    intervals = pa.table(deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.register("intervals", intervals)
    for instant in ["2026-01-01 00:00:00", "2026-01-03 12:30:00", "2026-01-05 00:00:00", "2026-01-08 23:59:59"]:
        expected = db.execute(
            "SELECT id, city, CAST(amount AS VARCHAR) FROM intervals WHERE valid_from <= CAST(? AS TIMESTAMPTZ) "
            "AND (valid_to IS NULL OR valid_to > CAST(? AS TIMESTAMPTZ)) ORDER BY id",
            [f"{instant}+00", f"{instant}+00"],
        ).fetchall()
        query = f"SELECT id, city, amount FROM t FOR VALID_TIME AS OF TIMESTAMP '{instant}' ORDER BY id"
        found = [(row["id"], row["city"], str(row["amount"])) for row in lake.arrow(query).to_pylist()]
        assert found == expected, instant


def test_events_behind_are_a_model_s_intervals(lake):
    """Events in a shuffled order, against a fold of twenty lines that knows nothing of files."""
    dice = random.Random(11)
    events = {}
    for _ in range(200):
        second = dice.randrange(3600)
        events[(dice.randrange(8), second)] = dice.choice(["a", "b", None])
    order = list(events)
    dice.shuffle(order)
    lake.run(f"{CREATE} LATE APPLY AFTER INTERVAL '1 day'")

    def instant(second):
        return datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(seconds=second)

    for start in range(0, len(order), 23):
        values = []
        for key, second in order[start : start + 23]:
            city = events[(key, second)]
            text = "NULL" if city is None else f"'{city}'"
            at = instant(second).strftime("%Y-%m-%dT%H:%M:%SZ")
            values.append(f"({key}, {text}, 0, TIMESTAMP WITH TIME ZONE '{at}')")
        lake.run(f"INSERT INTO t VALUES {', '.join(values)}")

    expected = []
    for key in range(8):
        held = None
        for second in sorted(second for other, second in events if other == key):
            city = events[(key, second)]
            if held and city == held[0]:
                continue
            if held:
                expected.append((key, held[0], instant(held[1]), instant(second)))
            held = (city, second) if city is not None else None
        if held:
            expected.append((key, held[0], instant(held[1]), None))
    found = [(row["id"], row["city"], row["valid_from"], row["valid_to"]) for row in ours(lake)]
    assert found == expected
    assert lake.rows("CHECK JOURNAL t") == []


def test_a_reader_is_asked_for_nothing_but_deletion_vectors(lake):
    days_of_changes(lake, clauses="LATE APPLY AFTER INTERVAL '30 days'")
    protocol = deltalake.DeltaTable(lake.table()).protocol()
    assert set(protocol.reader_features or []) <= {"deletionVectors", "timestampNtz"}
    assert "domainMetadata" in protocol.writer_features
    metadata = deltalake.DeltaTable(lake.table()).metadata()
    assert metadata.partition_columns == ["is_current"]
    definition = json.loads(metadata.configuration["selvedge.journal"])
    assert definition["keys"] == ["id"]
    # What is kept for late events is nobody's data file.
    assert list((lake.table() / "_selvedge" / "journal").iterdir())
    assert not any("_selvedge" in path for path in deltalake.DeltaTable(lake.table()).file_uris())


def test_debezium_files_from_outside(lake, tmp_path):
    first = int(day(1).timestamp() * 1000)
    file = tmp_path / "changes.json"

    def change(op, before, after, days):
        at = first + days * 86_400_000
        return {"op": op, "before": before, "after": after, "ts_ms": at, "source": {"ts_ms": at}}

    basel, bern = ({"id": 1, "city": city, "amount": "1.50"} for city in ("Basel", "Bern"))
    events = [change("c", None, basel, 0), change("u", basel, bern, 2), change("d", bern, None, 4)]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    lake.run(CREATE, f"COPY INTO t FROM '{file}' FORMAT DEBEZIUM")
    found = [(row["city"], str(row["amount"]), row["valid_from"], row["valid_to"]) for row in ours(lake)]
    assert found == [("Basel", "1.50", day(1), day(3)), ("Bern", "1.50", day(3), day(5))]
    file.write_text(json.dumps(change("x", None, basel, 6)) + "\n")
    assert "op x" in lake.refused(f"COPY INTO t FROM '{file}' FORMAT DEBEZIUM")
