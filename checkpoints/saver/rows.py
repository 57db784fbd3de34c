"""From LangGraph's checkpoints and writes to the statement that inserts a group of them.

Rows have the stock saver's format, byte for byte where it matters. Values are msgpack in a blob, except that
``None``, numbers, booleans and texts are inlined in the checkpoint's own JSON. A text or number that JSON
cannot represent (NUL, half a surrogate pair, infinity) also goes to a blob, where the stock saver would fail;
the stock saver reads it from there like any other value.

A group of writes is one statement: its rows are binary arrays, unnested into the saver's tables. One array
per column keeps the number of parameters fixed, so that the statement is prepared once whatever it carries,
and Postgres reads binary values without parsing them. One statement is one transaction and one round trip,
and leaves no state in the session.
"""

import json
import math
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

Table: TypeAlias = Literal["checkpoint_blobs", "checkpoints", "checkpoint_writes", "replaced_writes"]
# A row has one cell per column. A cell is a value as it stands in a binary array, preceded by its length.
Row: TypeAlias = tuple[bytes, ...]
# A run and its attempt, the fencing token.
Claim: TypeAlias = tuple[str, int]

_LENGTH = struct.Struct("!i")
_ARRAY = struct.Struct("!iiIii")
NULL = _LENGTH.pack(-1)

# PostgreSQL, catalog/pg_type.dat.
_OIDS = {"text": 25, "bytea": 17, "jsonb": 3802, "int4": 23, "uuid": 2950}


class _Insert(NamedTuple):
    columns: tuple[tuple[str, str], ...]
    select: str
    conflict: str


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
    # In the select list, because Postgres would first write the rows of a FROM clause to a temporary store.
    values = ", ".join(f"unnest(%b::{kind}[])" for _, kind in columns)
    return _Insert(columns, f"INSERT INTO {table} ({names}) SELECT {values}", conflict)


# Conflicts are resolved as the stock saver resolves them.
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


# Below this size, handing over to a worker thread costs more than the serialisation itself.
LARGE_BYTES = 256 * 1024
# Estimated bytes of a message besides its content.
_OBJECT_BYTES = 400
# Estimated bytes of a row besides its blob: ids, names, versions.
_ROW_BYTES = 250


class Rows(NamedTuple):
    """The rows that one call writes.

    Attributes:
        tables: Rows by table.
        size: Their approximate size in bytes.
    """

    tables: dict[Table, list[Row]]
    size: int


class BinaryArray(bytes):
    """A whole array parameter in Postgres's binary format."""

    __slots__ = ()


class BinaryArrayDumper(Dumper):
    """Passes a :class:`BinaryArray` on unchanged; the statement casts it to its type."""

    format = Format.BINARY
    oid = 0

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)

    def dump(self, obj: bytes) -> bytes:
        """Return the bytes unchanged."""
        return obj


def build_checkpoint_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Rows:
    """Return the rows of ``aput``: the checkpoint, and a blob for each channel that changed."""
    configurable = config["configurable"]
    keys = (_text_cell(str(configurable["thread_id"])), _text_cell(configurable["checkpoint_ns"]))
    inline: dict[str, Any] = {}
    blobs: list[Row] = []
    for channel, value in checkpoint["channel_values"].items():
        if _is_inlined(value):
            inline[channel] = value
            continue
        if isinstance(value, _DeltaSnapshot):
            # Marks for readers that the channel has a snapshot.
            inline[channel] = True
        if channel in new_versions:
            kind, data = serde.dumps_typed(value)
            blobs.append(
                (
                    *keys,
                    _text_cell(channel),
                    _text_cell(str(new_versions[channel])),
                    _text_cell(kind),
                    _blob_cell(data),
                )
            )
    parent = configurable.get("checkpoint_id")
    document = _encode_json({**checkpoint, "channel_values": inline})
    row = (
        *keys,
        _text_cell(checkpoint["id"]),
        NULL if parent is None else _text_cell(parent),
        _jsonb_cell(document),
        _jsonb_cell(_encode_json(get_serializable_checkpoint_metadata(config, metadata))),
    )
    size = len(document) + sum([len(cells[-1]) for cells in blobs]) + _ROW_BYTES
    return Rows({"checkpoints": [row], "checkpoint_blobs": blobs}, size)


def build_write_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Rows:
    """Return the rows of ``aput_writes``. Only writes to the special channels replace earlier ones."""
    configurable = config["configurable"]
    keys = (
        _text_cell(str(configurable["thread_id"])),
        _text_cell(configurable["checkpoint_ns"]),
        _text_cell(configurable["checkpoint_id"]),
        _text_cell(task_id),
        _text_cell(task_path),
    )
    rows: list[Row] = []
    for index, (channel, value) in enumerate(writes):
        kind, data = serde.dumps_typed(value)
        rows.append(
            (
                *keys,
                _int4_cell(WRITES_IDX_MAP.get(channel, index)),
                _text_cell(channel),
                _text_cell(kind),
                _blob_cell(data),
            )
        )
    size = sum([len(cells[-1]) + _ROW_BYTES for cells in rows])
    return Rows({"replaced_writes" if is_replacing(writes) else "checkpoint_writes": rows}, size)


def is_replacing(writes: Sequence[tuple[str, Any]]) -> bool:
    """Return whether writes go to the special channels alone, such as those of errors and interrupts."""
    return all(channel in WRITES_IDX_MAP for channel, _ in writes)


def is_large(values: Iterable[object]) -> bool:
    """Return whether values are worth a worker thread, estimated from a sample of their lengths."""
    return sum([_estimate_bytes(value, 4) for value in values]) > LARGE_BYTES


def _estimate_bytes(value: object, depth: int) -> int:
    # Attributes that may be missing are not tried: pydantic is slow to refuse, and this runs for every value.
    if isinstance(value, (str, bytes)):
        return len(value)
    if value is None or not depth or isinstance(value, (int, float)):
        return 8
    if isinstance(value, dict):
        return sum([_estimate_bytes(entry, depth - 1) for entry in value.values()])
    if isinstance(value, (list, tuple)):
        # The last element, in a conversation the newest message, stands for the rest.
        return len(value) * _estimate_bytes(value[-1], depth - 1) if value else 8
    inside = value.arg if isinstance(value, Send) else getattr(value, "__dict__", {}).get("content")
    return _OBJECT_BYTES + _estimate_bytes(inside, depth - 1)


def _is_inlined(value: object) -> bool:
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or _is_unicode(value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode_json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        # Integers beyond 64 bits and numeric keys, which the stock saver's encoder accepts.
        return json.dumps(document).encode()


def join_rows(parts: Iterable[Rows]) -> Rows:
    """Return the rows of several calls as those of one."""
    tables: dict[Table, list[Row]] = {}
    size = 0
    for part in parts:
        size += part.size
        for table, rows in part.tables.items():
            tables.setdefault(table, []).extend(rows)
    return Rows(tables, size)


def merge_rows(parts: Iterable[Rows]) -> dict[Table, list[Row]]:
    """Merge the rows of all writes; where a statement may touch a key only once, the last row counts."""
    merged = join_rows(parts).tables
    if "checkpoints" in merged:
        merged["checkpoints"] = _deduplicate(merged["checkpoints"], range(3))
    if "replaced_writes" in merged:
        merged["replaced_writes"] = _deduplicate(merged["replaced_writes"], (0, 1, 2, 3, 5))
        replaced = {_select_columns(row, (0, 1, 2, 3, 5)) for row in merged["replaced_writes"]}
        others = merged.get("checkpoint_writes", [])
        merged["checkpoint_writes"] = [
            row for row in others if _select_columns(row, (0, 1, 2, 3, 5)) not in replaced
        ]
    return {table: rows for table, rows in merged.items() if rows}


def _select_columns(row: Row, columns: Iterable[int]) -> Row:
    return tuple(row[column] for column in columns)


def _deduplicate(rows: list[Row], columns: Iterable[int]) -> list[Row]:
    return list({_select_columns(row, columns): row for row in rows}.values())


def build_insert(
    rows: Mapping[Table, Sequence[Row]], claims: Collection[Claim] = ()
) -> tuple[bytes, list[BinaryArray]]:
    """Return the statement that inserts these rows, and its parameters.

    Args:
        rows: Rows by table; the statement leaves tables without rows out.
        claims: The runs that write them. The statement fails with :data:`core.postgres.CLAIM_LOST` if one of
            them has lost its claim.
    """
    tables = tuple(table for table in _INSERTS if rows.get(table))
    parameters = [
        _build_array(kind, column)
        for table in tables
        for (_, kind), column in zip(_INSERTS[table].columns, zip(*rows[table], strict=True), strict=True)
    ]
    if claims:
        ids, attempts = zip(*claims, strict=True)
        guard = [_build_array("uuid", map(_uuid_cell, ids)), _build_array("int4", map(_int4_cell, attempts))]
        parameters = [*guard, *parameters]
    return _build_statement(tables, is_guarded=bool(claims)), parameters


@cache
def _build_statement(tables: tuple[Table, ...], *, is_guarded: bool) -> bytes:
    """Combine the inserts of these tables into one statement; all but the last stand in ``WITH``.

    A guard stands before them. The last insert asks for its result, and if it fails, all of them do.
    """
    *first, last = (_INSERTS[table] for table in tables)
    parts = [f"part_{number} AS ({part.select} {part.conflict})" for number, part in enumerate(first)]
    condition = ""
    if is_guarded:
        parts.insert(0, "held AS MATERIALIZED (SELECT runs.require_claims(%b::uuid[], %b::int4[]) AS claims)")
        condition = "WHERE (SELECT claims FROM held) > 0 "
    final = f"{last.select} {condition}{last.conflict}"
    return (f"WITH {', '.join(parts)} {final}" if parts else final).encode()


def _build_array(kind: str, cells: Iterable[bytes]) -> BinaryArray:
    values = tuple(cells)
    # One dimension, which may contain nulls and starts at 1.
    header = _ARRAY.pack(1, 1, _OIDS[kind], len(values), 1)
    return BinaryArray(header + b"".join(values))


def _text_cell(value: str) -> bytes:
    """Return a cell of a ``text`` column."""
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _blob_cell(value: bytes) -> bytes:
    """Return a cell of a ``bytea`` column."""
    return _LENGTH.pack(len(value)) + value


def _jsonb_cell(document: bytes) -> bytes:
    """Return a cell of a ``jsonb`` column: the version of the format, then JSON text."""
    return _LENGTH.pack(len(document) + 1) + b"\x01" + document


@lru_cache(maxsize=1_000)
def _uuid_cell(value: str) -> bytes:
    """Return a cell of a ``uuid`` column; a run asks for its own with each write."""
    return b"\x00\x00\x00\x10" + UUID(value).bytes


def _int4_cell(value: int) -> bytes:
    """Return a cell of an ``integer`` column."""
    return b"\x00\x00\x00\x04" + _LENGTH.pack(value)
