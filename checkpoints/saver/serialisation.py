"""From LangGraph's checkpoints and writes to rows: the stock saver's format, byte for byte where it matters.

Values are msgpack in a blob, except that ``None``, numbers, booleans and texts stand in the checkpoint's own
JSON. A text or number JSON cannot say (NUL, half a surrogate pair, infinity) goes to a blob too, where the
stock saver would fail; it reads them back from there like any other.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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

from checkpoints.saver.statements import NULL, Row, Table, blob, int4, jsonb, text

# Below this, a hop to a worker thread costs more than the serialisation it takes off the loop.
LARGE_BYTES = 256 * 1024
# A message has about so many bytes beside its content.
_OBJECT_BYTES = 400
# And a row beside its blob: ids, names, versions.
_ROW_BYTES = 250


class Rows(NamedTuple):
    """What one call writes.

    Attributes:
        tables: Rows by table.
        size: About how many bytes they are.
    """

    tables: dict[Table, list[Row]]
    size: int


def checkpoint_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Rows:
    """The rows of ``aput``: the checkpoint, and a blob for each channel that changed."""
    configurable = config["configurable"]
    keys = (text(str(configurable["thread_id"])), text(configurable["checkpoint_ns"]))
    inline: dict[str, Any] = {}
    blobs: list[Row] = []
    for channel, value in checkpoint["channel_values"].items():
        if _fits_json(value):
            inline[channel] = value
            continue
        if isinstance(value, _DeltaSnapshot):
            # The marker by which a reader knows that there is a snapshot.
            inline[channel] = True
        if channel in new_versions:
            kind, data = serde.dumps_typed(value)
            blobs.append((*keys, text(channel), text(str(new_versions[channel])), text(kind), blob(data)))
    parent = configurable.get("checkpoint_id")
    document = _json({**checkpoint, "channel_values": inline})
    row = (
        *keys,
        text(checkpoint["id"]),
        NULL if parent is None else text(parent),
        jsonb(document),
        jsonb(_json(get_serializable_checkpoint_metadata(config, metadata))),
    )
    size = len(document) + sum([len(cells[-1]) for cells in blobs]) + _ROW_BYTES
    return Rows({"checkpoints": [row], "checkpoint_blobs": blobs}, size)


def writes_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> Rows:
    """The rows of ``aput_writes``. Writes of the special channels alone replace earlier ones."""
    configurable = config["configurable"]
    keys = (
        text(str(configurable["thread_id"])),
        text(configurable["checkpoint_ns"]),
        text(configurable["checkpoint_id"]),
        text(task_id),
        text(task_path),
    )
    rows: list[Row] = []
    for index, (channel, value) in enumerate(writes):
        kind, data = serde.dumps_typed(value)
        rows.append((*keys, int4(WRITES_IDX_MAP.get(channel, index)), text(channel), text(kind), blob(data)))
    replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
    size = sum([len(cells[-1]) + _ROW_BYTES for cells in rows])
    return Rows({"replaced_writes" if replaces else "checkpoint_writes": rows}, size)


def is_large(values: Iterable[object]) -> bool:
    """Whether these are worth a worker thread: a guess from lengths, without a full walk."""
    return sum([_weight(value, 4) for value in values]) > LARGE_BYTES


def _weight(value: object, depth: int) -> int:
    # Never by an attribute that may be missing: pydantic is slow to say no, and this runs for every value.
    if isinstance(value, (str, bytes)):
        return len(value)
    if value is None or not depth or isinstance(value, (int, float)):
        return 8
    if isinstance(value, dict):
        return sum([_weight(entry, depth - 1) for entry in value.values()])
    if isinstance(value, (list, tuple)):
        # Its last, where a conversation's newest message is, stands for the rest.
        return len(value) * _weight(value[-1], depth - 1) if value else 8
    inside = value.arg if isinstance(value, Send) else getattr(value, "__dict__", {}).get("content")
    return _OBJECT_BYTES + _weight(inside, depth - 1)


def _fits_json(value: object) -> bool:
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


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        # Integers beyond 64 bits, keys that are numbers: what the stock saver's encoder takes.
        return json.dumps(document).encode()
