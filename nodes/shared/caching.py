"""Which steps may be answered from the cache, by what key, and which answers are kept.

A step is cached when it has no effect, when all it reads of its state is in its key, when an answer some
minutes old is as good as a new one, when the same input does come again, and when no client hears it speak: a
step that is not run streams no tokens. Of all graphs that is the coordinator's ``classify``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar
from uuid import uuid4

from langgraph.types import CachePolicy

from core.context import Context, running
from nodes.coordinator.briefing import conversation
from nodes.coordinator.state import Chosen, CoordinatorState
from nodes.deps import Deps

StateT = TypeVar("StateT")

# How an agent was found where nothing had failed. ``likely`` and ``default`` also stand for a model or an
# embedding model that was away: the next message must not be answered by that.
_FOUND: frozenset[Chosen] = frozenset({"sure", "model", "conversation"})


def keyed(step: str, read: Callable[[StateT, Context], Sequence[object]]) -> Callable[[StateT], str]:
    """A key function whose keys no other step and no other tenant has.

    LangGraph adds a node's name but not its graph's, and hashes the key with a hash that is no cryptographic
    one: this one is digested before, so that no text can be made that has another's key. Where no run is in
    progress (Studio, a graph that is drawn) there is no tenant: each key is a new one, and finds nothing.

    Args:
        step: Names the step among those of all graphs.
        read: Gives all the step reads of its state and of the run's parameters, as JSON takes it.
    """

    def key(state: StateT) -> str:
        run = running()
        if run is None:
            return uuid4().hex
        return sha256(json.dumps([step, run.tenant, read(state, run)]).encode()).hexdigest()

    return key


def routing_policy(deps: Deps) -> CachePolicy[Callable[[CoordinatorState], str]]:
    """Of ``classify``: the same words at the same place of the same conversation go to the same agent.

    The locale is not in the key, as nothing of the decision is worded; nor is the contact, whom it does not
    look at.
    """

    @cache
    def fixed() -> str:
        """All that is the same for each message: who there is to choose from, and what chooses."""
        info = deps.models.info
        agents = sorted(deps.roster.agents.items())
        models = [deps.roster.router.model, info.model, info.fallback_model]
        return sha256(repr([agents, models]).encode()).hexdigest()

    def read(state: CoordinatorState, run: Context) -> Sequence[object]:
        return [
            fixed(),
            run.model,
            state["message"],
            state["asked_about"],
            state["last_agent"],
            conversation(state),
        ]

    return CachePolicy(key_func=keyed("coordinator.classify", read))


def worth_keeping(node: str, written: Mapping[str, Any]) -> bool:
    """Whether a step's result may be given again; one that came about because something was away may not.

    Args:
        node: The node's name.
        written: What it wrote, by channel.
    """
    if node != "classify":
        return True
    return all(each["chosen"] in _FOUND for each in written.get("dispatched", ()))
