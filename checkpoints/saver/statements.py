"""The one statement a group of writes is: rows as binary arrays, unnested into the saver's tables.

An array a column keeps the number of parameters fixed, so that the statement is prepared once whatever it
carries, and Postgres reads binary values without parsing them. One statement is one transaction and one
round trip, and leaves no state in the session.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

Table: TypeAlias = Literal["checkpoint_blobs", "checkpoints", "checkpoint_writes", "replaced_writes"]
# A row is one cell a column; a cell is a value as it stands in a binary array, its length before it.
Row: TypeAlias = tuple[bytes, ...]

_LENGTH = struct.Struct("!i")
_ARRAY = struct.Struct("!iiIii")
NULL = _LENGTH.pack(-1)

# PostgreSQL, catalog/pg_type.dat.
_OIDS = {"text": 25, "bytea": 17, "jsonb": 3802, "int4": 23}


class _Insert(NamedTuple):
    columns: tuple[tuple[str, str], ...]
    sql: str


_KEYS = (("thread_id", "text"), ("checkpoint_ns", "text"))
_WRITE = (
    *_KEYS,
    ("checkpoint_id", "text"),
    ("task_id", "text"),
    ("task_path", "text"),
    ("idx", "int4"),
    ("channel", "text"),
    ("type", "text"),
    ("blob", "bytea"),
)
_ON_WRITE = "ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)"


def _insert(table: str, columns: tuple[tuple[str, str], ...], conflict: str) -> _Insert:
    names = ", ".join(name for name, _ in columns)
    # In the select list, and not in FROM: there Postgres would write the rows to a temporary store first.
    values = ", ".join(f"unnest(%b::{kind}[])" for _, kind in columns)
    return _Insert(columns, f"INSERT INTO {table} ({names}) SELECT {values} {conflict}")


# The meaning of each conflict is the stock saver's.
_INSERTS: dict[Table, _Insert] = {
    "checkpoint_blobs": _insert(
        "checkpoint_blobs",
        (*_KEYS, ("channel", "text"), ("version", "text"), ("type", "text"), ("blob", "bytea")),
        "ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING",
    ),
    "checkpoints": _insert(
        "checkpoints",
        (
            *_KEYS,
            ("checkpoint_id", "text"),
            ("parent_checkpoint_id", "text"),
            ("checkpoint", "jsonb"),
            ("metadata", "jsonb"),
        ),
        "ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) "
        "DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata",
    ),
    "checkpoint_writes": _insert("checkpoint_writes", _WRITE, f"{_ON_WRITE} DO NOTHING"),
    "replaced_writes": _insert(
        "checkpoint_writes",
        _WRITE,
        f"{_ON_WRITE} DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob",
    ),
}


class BinaryArray(bytes):
    """A whole array parameter in Postgres's binary format."""

    __slots__ = ()


class BinaryArrayDumper(Dumper):
    """Hands a :class:`BinaryArray` over as it is; the cast in the statement says its type."""

    format = Format.BINARY
    oid = 0

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)

    def dump(self, obj: bytes) -> bytes:
        """The bytes themselves."""
        return obj


def text(value: str) -> bytes:
    """A cell of a ``text`` column."""
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def blob(value: bytes) -> bytes:
    """A cell of a ``bytea`` column."""
    return _LENGTH.pack(len(value)) + value


def jsonb(document: bytes) -> bytes:
    """A cell of a ``jsonb`` column: the version of the format, then JSON text."""
    return _LENGTH.pack(len(document) + 1) + b"\x01" + document


def int4(value: int) -> bytes:
    """A cell of an ``integer`` column."""
    return b"\x00\x00\x00\x04" + _LENGTH.pack(value)


def group(rows: Mapping[Table, Sequence[Row]]) -> tuple[bytes, list[BinaryArray]]:
    """The statement that writes these rows, and its parameters.

    Args:
        rows: Rows by table; tables without rows are left out of the statement.
    """
    tables = tuple(table for table in _INSERTS if rows.get(table))
    parameters = [
        _array(kind, column)
        for table in tables
        for (_, kind), column in zip(_INSERTS[table].columns, zip(*rows[table], strict=True), strict=True)
    ]
    return _statement(tables), parameters


@cache
def _statement(tables: tuple[Table, ...]) -> bytes:
    """Several inserts as one statement: all but the last stand in ``WITH``."""
    *first, last = (_INSERTS[table].sql for table in tables)
    parts = ", ".join(f"part_{number} AS ({sql})" for number, sql in enumerate(first))
    return (f"WITH {parts} {last}" if parts else last).encode()


def _array(kind: str, cells: Iterable[bytes]) -> BinaryArray:
    listed = tuple(cells)
    # One dimension, which may hold nulls, counted from 1.
    header = _ARRAY.pack(1, 1, _OIDS[kind], len(listed), 1)
    return BinaryArray(header + b"".join(listed))
