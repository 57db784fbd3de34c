"""The notes of the memory as items of the store, below the namespace ``contact_memory``.

``["contact_memory", <contact>, <type>, <agent>]`` holds the notes of a type (``short_term``, ``working``,
``long_term`` or ``shared``) that an agent keeps on a contact. An item's value is ``{"text": ...}``; the key
of a note without one is ``#`` and its id. Labels have no dots: ``%2E`` stands for a dot, and ``%25`` for a
percent sign.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

import numpy as np

from core.embeddings import Embedder
from core.errors import InvalidRequest
from core.memory import Memory, Note, NoteType, Scope
from service.agent_server.items import MEMORY_ROOT, Namespace

TYPES: Final[tuple[NoteType, ...]] = get_args(NoteType)
# Notes of a contact that are looked at, and of these so many, the newest, that a search by meaning compares.
MAX_LISTED: Final = 1_000
MAX_COMPARED: Final = 100
_DEPTH: Final = 4
_ID_MARK: Final = "#"


class _Place(NamedTuple):
    """What a namespace names; a type of ``None`` and an empty agent stand for any."""

    scope: Scope
    type: NoteType | None
    agent: str


class NoteItems:
    """The notes of the memory, with the methods of :class:`service.agent_server.items.ItemStore`.

    Every method raises ``MemoryUnavailable`` if the memory cannot be reached, and ``InvalidRequest`` or
    ``MemoryRefused`` for what notes cannot have.

    Args:
        memory: The memory.
        embedder: Compares notes with a query.
    """

    def __init__(self, memory: Memory, embedder: Embedder) -> None:
        self._memory = memory
        self._embedder = embedder

    async def put(
        self,
        tenant: str,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        *,
        index: Sequence[str] | bool = True,
        ttl: float | None = None,
    ) -> None:
        """Keep a note in place of the one with its namespace and key."""
        place, kind = _find_notes(tenant, namespace)
        if value.keys() != {"text"} or not isinstance(value["text"], str):
            raise InvalidRequest('value: a note is {"text": "..."}')
        if index is not True or ttl is not None:
            raise InvalidRequest(
                "index and ttl: a note's type says how long it is kept, and it is always found"
            )
        if key.startswith(_ID_MARK):
            raise InvalidRequest(f"key: {_ID_MARK!r} begins the keys of notes that were kept without one")
        await self._memory.remember(place.scope, value["text"], type=kind, agent=place.agent, key=key)

    async def get(
        self,
        tenant: str,
        namespace: Namespace,
        key: str,
        *,
        refresh: bool = True,  # noqa: ARG002 - reading does not lengthen what a type says
    ) -> dict[str, Any] | None:
        """Return a note as an item, if there is one."""
        place, kind = _find_notes(tenant, namespace)
        if key.startswith(_ID_MARK):
            found = [note for note in await self._list(place, MAX_LISTED) if _get_key(note) == key]
            note = found[0] if found else None
        else:
            note = await self._memory.get_note(place.scope, key, type=kind, agent=place.agent)
        return _to_item(place.scope, note) if note else None

    async def delete(self, tenant: str, namespace: Namespace, key: str) -> None:
        """Delete a note, if there is one."""
        place, kind = _find_notes(tenant, namespace)
        if key.startswith(_ID_MARK):
            raise InvalidRequest(
                "key: a note without a key of its own expires, or is forgotten with the contact"
            )
        await self._memory.delete_note(place.scope, key, type=kind, agent=place.agent)

    async def search(
        self,
        tenant: str,
        prefix: Namespace,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        query: str = "",
        limit: int = 10,
        offset: int = 0,
        refresh: bool = True,  # noqa: ARG002 - reading does not lengthen what a type says
    ) -> list[dict[str, Any]]:
        """Return a contact's notes: by their meaning if there is a query, else the newest first."""
        place = _parse_namespace(tenant, prefix)
        notes = await self._list(place, MAX_COMPARED if query else MAX_LISTED)
        items = [{**_to_item(place.scope, note), "score": None} for note in notes]
        if filter:
            items = [item for item in items if filter.items() <= item["value"].items()]
        if query and items:
            texts = [item["value"]["text"] for item in items]
            vectors = np.asarray(await self._embedder.embed_documents(texts), np.float32)
            scores = vectors @ np.asarray(await self._embedder.embed_query(query), np.float32)
            order = np.argsort(-scores, kind="stable")
            items = [{**items[index], "score": float(scores[index])} for index in order]
        return items[offset : offset + limit]

    async def list_namespaces(
        self,
        tenant: str,
        *,
        prefix: Namespace | None = None,
        suffix: Namespace | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[list[str]]:
        """Return the namespaces of a contact's notes, cut off at a depth."""
        place = _parse_namespace(tenant, prefix or ())
        named = {tuple(_to_namespace(place.scope, note)) for note in await self._list(place, MAX_LISTED)}
        if suffix:
            named = {namespace for namespace in named if namespace[-len(suffix) :] == tuple(suffix)}
        cut = sorted({namespace[:max_depth] for namespace in named})
        return [list(namespace) for namespace in cut[offset : offset + limit]]

    async def _list(self, place: _Place, limit: int) -> list[Note]:
        return await self._memory.list_notes(place.scope, type=place.type, agent=place.agent, limit=limit)


def is_of_memory(namespace: Namespace | None) -> bool:
    """Return whether a namespace, or a prefix of one, is the memory's."""
    return namespace is not None and tuple(namespace[:1]) == (MEMORY_ROOT,)


def _parse_namespace(tenant: str, namespace: Namespace) -> _Place:
    if not 1 < len(namespace) <= _DEPTH:
        raise InvalidRequest(
            f"namespace: below {MEMORY_ROOT!r} come the contact, the note's type and its agent"
        )
    _, contact, kind, agent = [*map(_decode, namespace), "", "", ""][:_DEPTH]
    if kind and kind not in TYPES:
        raise InvalidRequest(
            f"namespace: the note's type is one of {', '.join(TYPES)}, and not {kind[:50]!r}"
        )
    return _Place(Scope(tenant, contact), kind or None, agent)


def _find_notes(tenant: str, namespace: Namespace) -> tuple[_Place, NoteType]:
    place = _parse_namespace(tenant, namespace)
    if place.type is None or not place.agent:
        raise InvalidRequest(f'namespace: a note is in ["{MEMORY_ROOT}", contact, type, agent]')
    return place, place.type


def _to_namespace(scope: Scope, note: Note) -> list[str]:
    return [MEMORY_ROOT, _encode(scope.contact_id), note.type, _encode(note.agent)]


def _to_item(scope: Scope, note: Note) -> dict[str, Any]:
    return {
        "namespace": _to_namespace(scope, note),
        "key": _get_key(note),
        "value": {"text": note.text},
        "created_at": note.remembered_at,
        "updated_at": note.remembered_at,
    }


def _get_key(note: Note) -> str:
    return note.key or f"{_ID_MARK}{note.id}"


def _encode(label: str) -> str:
    return label.replace("%", "%25").replace(".", "%2E")


def _decode(label: str) -> str:
    return label.replace("%2E", ".").replace("%25", "%")
