"""Columns of every type for random histories: their values, what statements make of them and ask about them.

Texts are SQL that DataFusion and DuckDB read alike, but for what `histories.in_duckdb` translates.
"""

import dataclasses

from samples import PARTITIONS


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a column may hold, what may become of it, what may be asked about it: `COL` is it, `ID` the row's id."""

    type: str
    values: tuple[str, ...]
    changes: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    default: str | None = None
    partition: bool = False
    orders: bool = True


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def decimal(number, of="12,2"):
    return f"CAST('{number}' AS DECIMAL({of}))"


def instant(text):
    return f"CAST('{text}Z' AS TIMESTAMP WITH TIME ZONE)"


# Values stay where no step of arithmetic leaves the type, for there the two differ. NaN has a column of its own that
# is not compared: DataFusion loses it to the statistics of row groups.
KINDS = {
    "n": Kind(
        "INT",
        ("0", "1", "-7", "42", "100"),
        ("(COL * 7 + 3) % 101", "coalesce(COL, 5)", "CAST(ID % 50 AS INT)"),
        (
            "COL < 10",
            "COL = 42",
            "COL IN (1, 42, NULL)",
            "COL NOT IN (0, 100)",
            "COL BETWEEN -10 AND 5",
            "COL % 3 = 1",
        ),
        default="7",
        partition=True,
    ),
    "d": Kind(
        "DECIMAL(12,2)",
        tuple(map(decimal, ("0", "1.25", "-99999.99", "3.50"))),
        (f"COL + {decimal('1.25')}", "-COL", "CAST(ID AS DECIMAL(12,2))"),
        (f"COL > {decimal('1.20')}", f"COL = {decimal('3.50')}"),
        partition=True,
    ),
    "w": Kind(
        "DECIMAL(38,10)",
        tuple(decimal(value, "38,10") for value in ("1234567890123456789012345678.0123456789", "0.0000000001", "-1")),
        ("-COL",),
        (f"COL >= {decimal('0.0000000001', '38,10')}", f"COL < {decimal('0', '38,10')}"),
    ),
    "f": Kind(
        "DOUBLE",
        ("CAST(0.5 AS DOUBLE)", "CAST(-2.25 AS DOUBLE)", "CAST(1e300 AS DOUBLE)", "CAST('-inf' AS DOUBLE)"),
        ("COL + 0.25", "COL / 2", "CAST(ID AS DOUBLE)"),
        ("COL < EXACT(0.75)", "COL = EXACT(-2.25)", "COL > 1000", "COL > EXACT(0.0)"),
    ),
    "r": Kind("DOUBLE", ("CAST('NaN' AS DOUBLE)", "CAST(1.5 AS DOUBLE)", "CAST('inf' AS DOUBLE)"), orders=False),
    "s": Kind(
        "TEXT",
        ("'x'", "''", "'it''s'", "'ü🦆'", "'100% a\\b'", quoted("long " * 20), quoted("é🦆" * 20)),
        ("COL || 'x'", "upper(COL)", "substr(COL, 2)", "coalesce(COL, 'none')", "'row ' || ID"),
        (
            "COL = 'x'",
            "COL LIKE 'r%'",
            "COL > 'm'",
            "length(COL) > 3",
            "COL IN ('x', '')",
            f"COL >= {quoted('long ' * 8)}",
        ),
        default="'nobody'",
    ),
    "b": Kind("BYTEA", ("X'00ff'", "X''", "X'6162'"), tests=("COL = X'00ff'",), orders=False),
    "o": Kind(
        "BOOLEAN",
        ("true", "false"),
        ("NOT COL",),
        ("COL", "NOT COL", "COL = (ID > 5)"),
        partition=True,
        orders=False,
    ),
    "y": Kind(
        "DATE",
        ("DATE '2024-02-29'", "DATE '1969-12-31'", "DATE '0001-01-01'", "DATE '2262-04-12'"),
        ("CAST(COL + INTERVAL '1 day' AS DATE)", "DATE '2024-03-01'"),
        ("COL > DATE '2024-01-01'", "COL = DATE '2024-02-29'", "COL <= DATE '1970-01-01'"),
        partition=True,
    ),
    "ts": Kind(
        "TIMESTAMP",
        (
            "TIMESTAMP '2024-02-29 23:59:59.999999'",
            "TIMESTAMP '1900-01-01 00:00:00.000001'",
            "TIMESTAMP '2200-01-01 00:00:00'",
        ),
        ("COL + INTERVAL '1 hour'", "COL - INTERVAL '1 second'"),
        ("COL < TIMESTAMP '2024-03-01 00:00:00'", "COL = TIMESTAMP '2024-02-29 23:59:59.999999'"),
        partition=True,
    ),
    "tz": Kind(
        "TIMESTAMP WITH TIME ZONE",
        (instant("2024-02-29T23:59:59.999999"), instant("1969-12-31T23:59:59.000001"), instant("2024-06-01T10:00:00")),
        ("COL + INTERVAL '1 hour'",),
        (f"COL < {instant('2024-03-01T00:00:00')}", f"COL >= {instant('2024-02-29T23:59:59.999999')}"),
        partition=True,
    ),
    "k": Kind(
        "TEXT",
        tuple(quoted(value) for value in PARTITIONS if value),
        ("upper(COL)", "COL || '/%'", "coalesce(COL, '?')"),
        ("COL = 'a b'", "COL IN ('50%', 'a/b', 'ü🦆')", "COL LIKE 'a%'", "COL > 'b'", "COL <> 'plain'"),
        partition=True,
    ),
    "l": Kind(
        "INT[]",
        ("[1, NULL]", "[2, 3]", "[]"),
        ("array_append(COL, CAST(5 AS INT))", "CASE WHEN ID % 2 = 0 THEN COL END"),
        ("COL[1] = 1", "COL[2] IS NULL"),
        orders=False,
    ),
    "p": Kind(
        "STRUCT<a INT, b TEXT>",
        ("{'a': 1, 'b': 'x'}", "{'a': 9, 'b': ''}"),
        ("{'a': CAST(ID AS INT), 'b': 'new'}", "{'a': COL['a'], 'b': 'kept'}"),
        ("COL['a'] > 3", "COL['b'] = 'x'", "COL['a'] IS NULL"),
        orders=False,
    ),
    "m": Kind("MAP(TEXT, INT)", ("MAP {'a': 1, 'b': NULL}", "MAP {'k v': -1}"), ("MAP {'a': 2}",), orders=False),
    "g": Kind(
        "ARRAY<STRUCT<x INT, y TEXT>>",
        ("[{'x': 1, 'y': 'p'}, NULL]", "[{'x': 2, 'y': ''}]"),
        ("CASE WHEN ID % 3 > 0 THEN COL END",),
        orders=False,
    ),
}
ID_TESTS = (
    "ID < 8",
    "ID % 3 = 1",
    "ID % 2 = 0",
    "ID IN (1, 5, 11, 12)",
    "ID = 4",
    "ID BETWEEN 5 AND 12",
    "ID > 4000",
    "ID <> 3",
)
