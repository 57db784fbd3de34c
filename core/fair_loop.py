"""An event loop whose time is shared fairly between tenants.

A run is a chain of callbacks of the event loop. Called in the order of their arrival, the callbacks of sixty
runs get sixty times the time of those of a single run, however fairly the runs' slots were handed out. While
several tenants have callbacks, these therefore wait in a queue for each tenant, and start-time fair queueing
(Goyal, Vin and Cheng 1997) says whose is next: that of the tenant that has used the least time. While a run
waits for a model, the database or a reader, it has no callback and takes no turns.

A callback's tenant stands in its :class:`contextvars.Context`, see :func:`core.context.set_context`. What
belongs to no tenant (input and output, timers, the writer of checkpoints) is called between time slices.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final, TypeVarTuple

import uvloop

from core.context import RUN_CONTEXT

Ts = TypeVarTuple("Ts")

# How long tenants' callbacks are called before the loop looks after everything else. None is cut off.
SLICE_SECONDS: Final = 0.001
# A tenant has the loop to itself when it has used so much without a callback of another one.
ALONE_AFTER_SECONDS: Final = 1.0
# Tenants without callbacks whose use is remembered, beside as many as have some.
_REMEMBERED: Final = 64


@dataclass(slots=True, eq=False)
class _Tenant:
    """A tenant's callbacks.

    Attributes:
        used: The virtual time at which the next callback starts, in seconds.
        is_waiting: Whether it waits for a turn, or has one.
        handles: The callbacks, in the order of their arrival.
    """

    used: float = 0.0
    is_waiting: bool = False
    handles: deque[asyncio.Handle] = field(default_factory=deque)


class FairLoop(uvloop.Loop):
    """The service's event loop.

    The order of a tenant's callbacks stays that of their arrival. While one tenant alone has callbacks, they
    are passed on to uvloop, for the price of a look at their context.

    Args:
        clock: Seconds of computing time of the thread, as nobody is charged for what others take from it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.thread_time) -> None:
        super().__init__()
        self._clock = clock
        self._call_directly: Callable[..., asyncio.Handle] = super().call_soon
        self._tenants: dict[str, _Tenant] = {}
        self._turns: list[tuple[float, int, _Tenant]] = []
        self._arrivals = count()
        self._virtual_time = 0.0
        self._is_scheduled = False
        # Who has the loop to itself, whose callback came last, and since when all have been that tenant's.
        self._alone: str | None = None
        self._latest: str | None = None
        self._latest_since = 0.0

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in the turn of the tenant that the context names."""
        run = RUN_CONTEXT.get() if context is None else context.get(RUN_CONTEXT)
        if run is None or run.tenant == self._alone:
            return self._call_directly(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, copy_context() if context is None else context)
        self._add(run.tenant, handle)
        return handle

    def _add(self, name: str, handle: asyncio.Handle) -> None:
        if name != self._latest:
            self._alone, self._latest, self._latest_since = None, name, self._clock()
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant()
        tenant.handles.append(handle)
        if not tenant.is_waiting:
            # Who had nothing to do is not owed that time.
            tenant.used = max(tenant.used, self._virtual_time)
            self._wait_for_turn(tenant)
        if not self._is_scheduled:
            self._schedule()

    def _wait_for_turn(self, tenant: _Tenant) -> None:
        tenant.is_waiting = True
        heappush(self._turns, (tenant.used, next(self._arrivals), tenant))

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._call_directly(self._run_turns, context=_NOBODY)

    def _run_turns(self) -> None:
        """Call back for a time slice; a turn is one callback."""
        now = self._clock()
        ends = now + SLICE_SECONDS
        try:
            while self._turns and now < ends:
                self._virtual_time, _, tenant = heappop(self._turns)
                handle = tenant.handles.popleft()
                try:
                    _call(handle)
                finally:
                    # Also after KeyboardInterrupt and SystemExit, which leave the loop.
                    started, now = now, self._clock()
                    tenant.used += now - started
                    tenant.is_waiting = False
                    if tenant.handles:
                        self._wait_for_turn(tenant)
        finally:
            self._is_scheduled = False
            self._end_slice(now)

    def _end_slice(self, now: float) -> None:
        if len(self._turns) <= 1 and now - self._latest_since > ALONE_AFTER_SECONDS:
            self._alone = self._latest
            for _, _, tenant in self._turns:
                for handle in tenant.handles:
                    self._call_directly(_call, handle, context=_NOBODY)
            self._turns.clear()
        if self._turns:
            self._schedule()
            self._forget_idle_tenants()
        else:
            # Nobody waits for anybody.
            self._tenants.clear()
            self._virtual_time = 0.0

    def _forget_idle_tenants(self) -> None:
        if len(self._tenants) > 2 * len(self._turns) + _REMEMBERED:
            for name, tenant in list(self._tenants.items()):
                if not tenant.is_waiting and tenant.used <= self._virtual_time:
                    del self._tenants[name]


def _call(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        # What asyncio's own loop calls; it reports exceptions to the loop's exception handler.
        handle._run()  # noqa: SLF001


_NOBODY: Final = Context()
