"""The live things a compiled workflow closes over."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.concurrency import FairSemaphore
from workflows.definition.workflow import Definition
from workflows.outline import Outline, Place, outline, referred_steps, step_references
from workflows.ports import Executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs working steps, for all workflows of the process.

    Attributes:
        executors: By the ``type`` of a step.
        slots: How many run at once, and who is next.
        clock: Seconds since the epoch.
        pause: Waits for some seconds.
        jitter: The share of a backoff that is waited for.
        wave: Most tasks of one super-step: LangGraph's cost of one grows with how many there are.
    """

    executors: Mapping[str, Executor[Any]]
    slots: FairSemaphore
    clock: Callable[[], float] = time.time
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.5, 1))  # noqa: S311 - no secret
    wave: int = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """A definition with what its nodes need; make it with :meth:`of`.

    Attributes:
        definition: Valid.
        outline: Of it.
        engine: Runs its working steps.
    """

    definition: Definition
    outline: Outline
    engine: Engine
    _referred: Mapping[str, Mapping[str, frozenset[str]]]

    @classmethod
    def of(cls, definition: Definition, engine: Engine) -> "Plan":
        """The plan of a definition."""
        places = outline(definition)
        return cls(definition, places, engine, {name: _fields(place) for name, place in places.items()})

    def referred(self, step_id: str, field: str = "") -> frozenset[str]:
        """Ids of the steps that a step refers to, in one field or, where none is named, in all."""
        return self._referred[step_id].get(field, frozenset())


def _fields(place: Place) -> dict[str, frozenset[str]]:
    found = step_references(place.step)
    fields = {"", *(name for name, _ in found)}
    return {name: referred_steps(one for one in found if name in {"", one[0]}) for name in fields}
