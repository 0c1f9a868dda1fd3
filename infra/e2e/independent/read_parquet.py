#!/usr/bin/env python3
"""Reads a Parquet export of Contrail with pyarrow and with DuckDB, and holds it against a JSONL export of the same events.

    pip install duckdb pyarrow pytz
    read_parquet.py AUDIT.parquet AUDIT.jsonl

Exit code 0 if both readers find the right types and the same events, 5 if not.
"""

import datetime
import hashlib
import json
import sys
import uuid

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

TYPES = {
    "position": (pa.int64(), "BIGINT"),
    "leaf": (pa.binary(32), "BLOB"),
    "event_id": (None, "UUID"),  # pyarrow has a type of its own for these since its version 21.
    "type": (pa.string(), "VARCHAR"),
    "aggregate_type": (pa.string(), "VARCHAR"),
    "aggregate_id": (pa.string(), "VARCHAR"),
    "version": (pa.int64(), "BIGINT"),
    "time": (pa.timestamp("us", tz="UTC"), "TIMESTAMP WITH TIME ZONE"),
    "actor": (pa.string(), "VARCHAR"),
    "correlation_id": (pa.string(), "VARCHAR"),
    "causation_id": (pa.string(), "VARCHAR"),
    "trace_id": (pa.string(), "VARCHAR"),
    "bytes": (pa.binary(), "BLOB"),
}


def fail(what):
    print(f"no: {what}")
    sys.exit(5)


def time(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def expect(what, found, right):
    if found != right:
        fail(f"{what} is {found!r}, and not {right!r}")


def check_row(row, line):
    event = json.loads(line)
    at = f"position {row['position']}: "
    expect(at + "bytes", row["bytes"], line)
    expect(at + "leaf", row["leaf"], hashlib.sha256(b"\0" + line).digest())
    expect(at + "event_id", uuid.UUID(str(row["event_id"])), uuid.UUID(event["id"]))
    expect(at + "type", row["type"], event["type"])
    expect(at + "aggregate_id", row["aggregate_id"], event["subject"])
    expect(at + "version", row["version"], int(event["sequence"]))
    expect(at + "time", row["time"].astimezone(datetime.timezone.utc), time(event["time"]))
    expect(at + "actor", row["actor"], event.get("actor"))
    expect(at + "correlation_id", row["correlation_id"], event["correlationid"])
    expect(at + "causation_id", row["causation_id"], event.get("causationid"))


def main():
    parquet, jsonl = sys.argv[1:]
    file = pq.ParquetFile(parquet)
    expect("pyarrow's columns", file.schema_arrow.names, list(TYPES))
    for name, (right, _) in TYPES.items():
        if right is not None:
            expect(f"pyarrow's type of {name}", file.schema_arrow.field(name).type, right)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [parquet]).fetchall()
    expect("DuckDB's types", [(name, kind) for name, kind, *_ in described], [(name, kind) for name, (_, kind) in TYPES.items()])
    count = connection.execute("SELECT count(*), count(DISTINCT position) FROM read_parquet(?)", [parquet]).fetchone()

    lines = 0
    rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
    with open(jsonl, "rb") as file_of_lines:
        for line in file_of_lines:
            lines += 1
            row = next(rows, None)
            if row is None:
                fail(f"pyarrow has {lines - 1} rows, and there are more lines")
            check_row(row, line.rstrip(b"\n"))
    if next(rows, None) is not None:
        fail(f"pyarrow has more rows than the {lines} lines")
    expect("DuckDB's counts", count, (lines, lines))
    columns = ", ".join(TYPES)
    with open(jsonl, "rb") as file_of_lines:
        cursor = connection.execute(f"SELECT {columns} FROM read_parquet(?) ORDER BY position", [parquet])
        for line in file_of_lines:
            check_row(dict(zip(TYPES, cursor.fetchone())), line.rstrip(b"\n"))
    print(f"yes: {lines} events, the same in pyarrow {pa.__version__}, DuckDB {duckdb.__version__} and the lines")


if __name__ == "__main__":
    main()
