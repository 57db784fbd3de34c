"""Pruning of a thread: selects the checkpoints that are needed, and deletes the others with their data."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from checkpoints.migrations import SQL_FOLDER
from core.postgres import Connection, read_queries

_QUERIES: Final = read_queries(SQL_FOLDER / "pruning.sql")
DELETE_SQL: Final = (
    # The checkpoints, and the writes of their steps.
    """DELETE FROM checkpoint_writes
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)""",
    """DELETE FROM checkpoints
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND checkpoint_id = ANY(%(deleted)s)""",
    # The subgraph calls they made.
    "DELETE FROM checkpoint_writes WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoint_blobs WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    "DELETE FROM checkpoints WHERE thread_id = %(thread)s AND checkpoint_ns = ANY(%(calls)s)",
    # A checkpoint whose parent was deleted becomes the first of the thread.
    """UPDATE checkpoints SET parent_checkpoint_id = NULL
    WHERE thread_id = %(thread)s AND checkpoint_ns = '' AND parent_checkpoint_id = ANY(%(deleted)s)
      AND checkpoint_id <> ALL(%(deleted)s)""",
)


@dataclass(frozen=True, slots=True)
class Lineage:
    """A checkpoint, its parent, and the delta channels that are rebuilt from its ancestors."""

    checkpoint_id: str
    parent_id: str | None
    replayed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is deleted together with some checkpoints of a thread.

    Attributes:
        thread_id: The thread.
        checkpoints: Ids of the checkpoints.
        calls: Namespaces of the subgraph calls they made.
        values: Versions of values that no other checkpoint refers to, by channel.
        bytes: The size of all of it.
    """

    thread_id: str
    checkpoints: Sequence[str]
    calls: Sequence[str]
    values: dict[str, list[str]]
    bytes: int


async def list_lineage(connection: Connection, thread_id: str) -> list[Lineage]:
    """Return a thread's checkpoints, newest first."""
    cursor = await connection.execute(_QUERIES["list_lineage"], {"thread": thread_id})
    return [Lineage(**row) for row in await cursor.fetchall()]


def select_retained(checkpoints: Sequence[Lineage], keep: int) -> set[str]:
    """Return the ids of the ``keep`` newest checkpoints and of all that they are rebuilt from.

    Args:
        checkpoints: Newest first.
        keep: At least 1, because a run continues from the latest checkpoint.
    """
    by_id = {checkpoint.checkpoint_id: checkpoint for checkpoint in checkpoints}
    retained: set[str] = set()
    for checkpoint in checkpoints[:keep]:
        retained.add(checkpoint.checkpoint_id)
        for channel in checkpoint.replayed:
            retained.update(_iterate_ancestors(by_id, checkpoint, channel))
    return retained


def _iterate_ancestors(by_id: Mapping[str, Lineage], checkpoint: Lineage, channel: str) -> Iterator[str]:
    """Yield ancestors up to and including the nearest one that holds the channel's value."""
    parent = by_id.get(checkpoint.parent_id or "")
    while parent:
        yield parent.checkpoint_id
        if channel not in parent.replayed:
            return
        parent = by_id.get(parent.parent_id or "")


async def collect_garbage(connection: Connection, thread_id: str, checkpoints: Sequence[str]) -> Garbage:
    """Find what would be deleted together with these checkpoints, without changing anything."""
    parameters = {"thread": thread_id, "deleted": list(checkpoints)}
    rows = await (await connection.execute(_QUERIES["list_calls"], parameters)).fetchall()
    calls = [row["checkpoint_ns"] for row in rows]
    # Not prepared: a generic plan searches the whole array for every row.
    cursor = await connection.execute(_QUERIES["measure"], {**parameters, "calls": calls}, prepare=False)
    row = await cursor.fetchone()
    size = int(row["bytes"]) if row else 0
    values: dict[str, list[str]] = defaultdict(list)
    for value in await (
        await connection.execute(_QUERIES["list_unused_values"], parameters, prepare=False)
    ).fetchall():
        values[value["channel"]].append(value["version"])
        size += value["bytes"]
    return Garbage(thread_id, checkpoints, calls, values, size)


async def delete_garbage(connection: Connection, garbage: Garbage) -> None:
    """Delete it, within the caller's transaction."""
    parameters = {
        "thread": garbage.thread_id,
        "deleted": list(garbage.checkpoints),
        "calls": list(garbage.calls),
    }
    for statement in DELETE_SQL:
        await connection.execute(statement, parameters, prepare=False)
    for channel, versions in garbage.values.items():
        await connection.execute(
            _QUERIES["delete_values"],
            {"thread": garbage.thread_id, "channel": channel, "versions": versions},
            prepare=False,
        )
