"""A Delta table with deletion vectors, made by hand: no Python writer makes them.

Layouts are those of the Delta protocol, "Deletion Vectors" and "Deletion Vector Format".
"""

import base64
import json
import struct
import uuid
import zlib

import pyarrow as pa
import pyarrow.parquet
import pyroaring

MAGIC = 1681511377
# ZeroMQ's alphabet: that of RFC 1924 without its order, so Python's own base 85 is translated.
Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
RFC1924 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def z85(data):
    padded = data + b"\0" * (-len(data) % 4)
    return base64.b85encode(padded).translate(bytes.maketrans(RFC1924, Z85)).decode()


def vector(rows):
    return struct.pack("<I", MAGIC) + pyroaring.BitMap64(rows).serialize()


def inline(rows):
    """A vector within the commit."""
    data = vector(rows)
    return {"storageType": "i", "pathOrInlineDv": z85(data), "sizeInBytes": len(data), "cardinality": len(rows)}


def in_files(table, *row_sets, folder="", absolute=False):
    """Vectors of several data files, one after the other in one file beside the data."""
    name = uuid.uuid4()
    content, descriptors = bytearray([1]), []
    path = table / folder / f"deletion_vector_{name}.bin"
    for rows in row_sets:
        data = vector(rows)
        descriptors.append(
            {
                "storageType": "p" if absolute else "u",
                "pathOrInlineDv": path.as_uri() if absolute else folder + z85(name.bytes),
                "offset": len(content),
                "sizeInBytes": len(data),
                "cardinality": len(rows),
            }
        )
        content += struct.pack(">i", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return descriptors


def add_file(table, name, first, count, deleted=None, row_group=100):
    """Writes rows `first..first+count` and returns the action that adds them."""
    rows = pa.table(
        {
            "id": pa.array(range(first, first + count), pa.int64()),
            "text": [f"row {n}" for n in range(first, first + count)],
        }
    )
    pyarrow.parquet.write_table(rows, table / name, row_group_size=row_group)
    stats = {
        "numRecords": count,
        "tightBounds": deleted is None,
        "minValues": {"id": first},
        "maxValues": {"id": first + count - 1},
        "nullCount": {"id": 0, "text": 0},
    }
    action = {
        "path": name,
        "partitionValues": {},
        "size": (table / name).stat().st_size,
        "modificationTime": 1_700_000_000_000,
        "dataChange": True,
        "stats": json.dumps(stats),
    }
    return {"add": action | ({"deletionVector": deleted} if deleted else {})}


def remove(add):
    """The action that takes away what `add` added, named as replay knows it: by path and vector."""
    kept = {key: add["add"][key] for key in ("path", "partitionValues", "size", "deletionVector") if key in add["add"]}
    return {"remove": kept | {"deletionTimestamp": 1_700_000_000_001, "dataChange": True, "extendedFileMetadata": True}}


def with_vector(add, descriptor):
    """`add` with other rows deleted."""
    stats = json.loads(add["add"]["stats"]) | {"tightBounds": False}
    return {"add": add["add"] | {"deletionVector": descriptor, "stats": json.dumps(stats)}}


def head(reader_features=("deletionVectors",), writer_features=("deletionVectors",), **configuration):
    """The first two actions of a table of two columns."""
    field = {"nullable": True, "metadata": {}}
    schema = {
        "type": "struct",
        "fields": [{"name": "id", "type": "long"} | field, {"name": "text", "type": "string"} | field],
    }
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    protocol |= {"readerFeatures": list(reader_features), "writerFeatures": list(writer_features)}
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps(schema),
        "partitionColumns": [],
        "configuration": configuration,
        "createdTime": 1_700_000_000_000,
    }
    return [{"protocol": protocol}, {"metaData": metadata}]


def commit(table, version, *actions):
    log = table / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    info = {"commitInfo": {"timestamp": 1_700_000_000_000 + version, "operation": "WRITE", "operationParameters": {}}}
    lines = "".join(json.dumps(action) + "\n" for action in [info, *actions])
    (log / f"{version:020}.json").write_text(lines)


VECTORS = {"delta.enableDeletionVectors": "true"}


def table_with_vectors(table):
    """A table of 1,000 rows in three files of ten, four and one row groups: rows deleted one by one, a whole row group
    and more, and none; vectors in files, inline and twice replaced. Returns the ids that are left."""
    table.mkdir()
    scattered, run, later = set(range(3, 500, 7)), set(range(50, 250)), {0, 199}
    a = add_file(table, "a.parquet", 0, 500, row_group=50)
    b = add_file(table, "b.parquet", 500, 300)
    c = add_file(table, "c.parquet", 800, 200, row_group=200)
    commit(table, 0, *head(**VECTORS), a, b, c)
    [for_a, for_b] = in_files(table, scattered, run, folder="ab")
    a1, b1 = with_vector(a, for_a), with_vector(b, for_b)
    commit(table, 1, remove(a), remove(b), a1, b1)
    c1 = with_vector(c, inline({5}))
    commit(table, 2, remove(c), c1)
    commit(table, 3, remove(c1), with_vector(c, inline(later)))
    gone = scattered | {500 + n for n in run} | {800 + n for n in later}
    return [n for n in range(1_000) if n not in gone]
