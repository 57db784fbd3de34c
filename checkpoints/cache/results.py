"""The cache as LangGraph sees it: never in a run's way, whatever it is kept in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

from langgraph.cache.base import BaseCache, FullKey, Namespace

from checkpoints.cache.plain import NotPlainError, Writes, packed, unpacked
from checkpoints.cache.store import Store
from core.logging import get_logger

# Of one look or one write. A step that is worth keeping takes longer than this to answer from afar.
LIMIT_SECONDS = 0.25
# For how long a store that failed is left alone.
REST_SECONDS = 30.0
# Of one result; nothing that is cached comes near it.
MOST_BYTES = 64 * 1024

T = TypeVar("T")
# Whether what a node wrote may be given again: the node's name and its writes by channel.
WorthKeeping: TypeAlias = Callable[[str, Mapping[str, Any]], bool]

log = get_logger(__name__)


class ResultCache(BaseCache[Writes]):
    """Looks and writes are bounded in time; a store that fails is as good as empty, and rests.

    Args:
        store: Where results are.
        seconds: How long a result may be given again.
        edition: Of the service: a result of another one may write what this one's graphs do not read.
        worth_keeping: Says no to results that came about in an emergency.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        *,
        seconds: int,
        edition: str,
        worth_keeping: WorthKeeping,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._store = store
        self._seconds = seconds
        self._edition = edition
        self._worth_keeping = worth_keeping
        self._clock = clock
        self._faults: tuple[type[Exception], ...] = (*store.faults, OSError, TimeoutError)
        self._rests_until = 0.0
        self._is_away = False

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Writes]:
        """The results that are there; what cannot be read counts as not there."""
        names = {self._name(*key): key for key in keys}
        found = await self._bounded(partial(self._store.read, list(names))) if names else None
        results: dict[FullKey, Writes] = {}
        for name, data in (found or {}).items():
            try:
                results[names[name]] = unpacked(name, data)
            except NotPlainError as error:
                log.warning("cached_result_not_readable", key=name, reason=str(error))
        return results

    async def aset(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> None:
        """Keep what is plain and worth it; a policy's own ``ttl`` goes before the cache's."""
        for (namespace, key), (writes, ttl) in pairs.items():
            if not self._worth_keeping(namespace[-1] if namespace else "", dict(writes)):
                continue
            await self._keep(self._name(namespace, key), writes, ttl or self._seconds)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Drop the results of these namespaces, or all."""
        prefixes = [f"{self._edition}:"] if namespaces is None else [self._name(ns, "") for ns in namespaces]
        for prefix in prefixes:
            await self._bounded(partial(self._store.clear, prefix))

    def get(self, keys: Sequence[FullKey]) -> NoReturn:
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("the cache is asynchronous; await aget instead")

    def set(self, pairs: Mapping[FullKey, tuple[Writes, int | None]]) -> NoReturn:
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("the cache is asynchronous; await aset instead")

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> NoReturn:
        """Refuse: the service is asynchronous."""
        raise NotImplementedError("the cache is asynchronous; await aclear instead")

    def _name(self, namespace: Namespace, key: str) -> str:
        return ":".join((self._edition, *namespace, key))

    async def _keep(self, name: str, writes: Writes, seconds: int) -> None:
        try:
            data = packed(name, writes)
        except NotPlainError as error:
            log.debug("result_not_cached", key=name, reason=str(error))
            return
        if len(data) <= MOST_BYTES:
            await self._bounded(partial(self._store.write, {name: data}, seconds))

    async def _bounded(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """What the call gives; ``None`` while the store is away, which is logged once."""
        if self._clock() < self._rests_until:
            return None
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                given = await call()
        except self._faults as error:
            self._rests_until = self._clock() + REST_SECONDS
            if not self._is_away:
                self._is_away = True
                log.warning("cache_away", reason=_reason(error), rest_seconds=REST_SECONDS)
            return None
        if self._is_away:
            self._is_away = False
            log.info("cache_back")
        return given


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
