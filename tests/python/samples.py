"""Rows that readers get wrong, if they get anything wrong."""

import datetime
import math
from decimal import Decimal

import pyarrow as pa

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "byte": pa.int8(),
        "short": pa.int16(),
        "int": pa.int32(),
        "float": pa.float32(),
        "double": pa.float64(),
        "small_decimal": pa.decimal128(5, 2),
        "wide_decimal": pa.decimal128(38, 10),
        "text": pa.string(),
        "bytes": pa.binary(),
        "flag": pa.bool_(),
        "day": pa.date32(),
        "wall_clock": pa.timestamp("us"),
        "instant": pa.timestamp("us", "UTC"),
        "numbers": pa.list_(pa.int64()),
        "pair": pa.struct({"a": pa.int32(), "b": pa.string()}),
        "dictionary": pa.map_(pa.string(), pa.int64()),
        "points": pa.list_(pa.struct({"x": pa.float64(), "y": pa.list_(pa.string())})),
    }
)


def instant(*parts):
    return datetime.datetime(*parts, tzinfo=datetime.timezone.utc)


LOWEST = {
    "id": 1,
    "byte": -(2**7),
    "short": -(2**15),
    "int": -(2**31),
    "float": -math.inf,
    "double": math.nan,
    "small_decimal": Decimal("-999.99"),
    "wide_decimal": Decimal("-9999999999999999999999999999.9999999999"),
    "text": "",
    "bytes": b"",
    "flag": False,
    "day": datetime.date(1, 1, 1),
    "wall_clock": datetime.datetime(1900, 1, 1, 0, 0, 0, 1),
    "instant": instant(1969, 12, 31, 23, 59, 59, 999999),
    "numbers": [],
    "pair": {"a": None, "b": ""},
    "dictionary": [],
    "points": [],
}
HIGHEST = {
    "id": 2,
    "byte": 2**7 - 1,
    "short": 2**15 - 1,
    "int": 2**31 - 1,
    "float": 1.5,
    "double": 5e-324,
    "small_decimal": Decimal("999.99"),
    "wide_decimal": Decimal("9999999999999999999999999999.9999999999"),
    "text": "it's \"quoted\" \\ back, tab\t, new\nline, \u0000 nul, e\u0301, 🦆, \u202eright to left",
    "bytes": bytes(range(256)),
    "flag": True,
    "day": datetime.date(9999, 12, 31),
    "wall_clock": datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
    "instant": instant(2262, 4, 12, 0, 0, 0, 0),
    "numbers": [2**63 - 1, None, -(2**63)],
    "pair": {"a": 7, "b": "é"},
    "dictionary": [("", None), ("k v", -1)],
    "points": [{"x": -0.5, "y": ["p", None]}, None, {"x": None, "y": None}],
}
EMPTY = {"id": 3}

EVERY_TYPE = pa.Table.from_pylist([LOWEST, HIGHEST, EMPTY], schema=SCHEMA)

# Values of a text partition column that need escaping in a path, in a URL, or in neither.
PARTITIONS = [None, "plain", "a b", "a/b", "50%", "a%20b", "k=v", "a:b", "it's", "ü🦆", "__HIVE_DEFAULT_PARTITION__x", "#?&+", "."]

PARTITIONED = pa.table(
    {
        "id": pa.array(range(2 * len(PARTITIONS)), pa.int64()),
        "kind": pa.array(PARTITIONS * 2, pa.string()),
        "day": pa.array(
            [datetime.date(2024, 2, 29), None] * len(PARTITIONS),
            pa.date32(),
        ),
        "amount": pa.array([n / 4 for n in range(2 * len(PARTITIONS))], pa.float64()),
    }
)


def ids(*numbers):
    """A table with nothing but ids."""
    return pa.table({"id": pa.array(numbers, pa.int64())})
