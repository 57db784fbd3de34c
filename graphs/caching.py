"""Cache policies: which nodes may be answered from the cache, by what key, and which results are cached.

A node is cached when it has no effect, when its key holds everything it reads, when a result some minutes old
is as good as a new one, when the same input is likely to come again, and when it streams no tokens, because a
node that does not run streams none. The coordinator's ``classify`` is the only such node.
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

# How an agent was chosen when nothing had failed. ``likely`` and ``default`` may also mean that a model or
# the embedding model was unavailable, which must not decide where the next message goes.
_RELIABLE: frozenset[Chosen] = frozenset({"sure", "model", "conversation"})


def build_key_function(
    step: str, read: Callable[[StateT, Context], Sequence[object]]
) -> Callable[[StateT], str]:
    """Return a key function whose keys are unique to a step and a tenant.

    LangGraph adds the node's name to the key but not its graph's, and does not hash it cryptographically.
    The SHA-256 digest prevents a crafted text from having another's key. Outside a run (Studio, a graph that
    is drawn) there is no tenant, so every key is new and nothing is found.

    Args:
        step: Names the step among those of all graphs.
        read: Returns everything the step reads of its state and of the run's parameters, as JSON values.
    """

    def build_key(state: StateT) -> str:
        context = running()
        if context is None:
            return uuid4().hex
        return sha256(json.dumps([step, context.tenant, read(state, context)]).encode()).hexdigest()

    return build_key


def routing_policy(deps: Deps) -> CachePolicy[Callable[[CoordinatorState], str]]:
    """Return the policy of ``classify``: the same message in the same conversation goes to the same agent.

    The key holds neither the locale, as no text depends on it, nor the contact, whom the decision ignores.
    """

    @cache
    def digest_choices() -> str:
        """Digest what is the same for every message: the agents and the models that choose."""
        info = deps.models.info
        agents = sorted(deps.agents.agents.items())
        models = [deps.agents.router.model, info.model, info.fallback_model]
        return sha256(repr([agents, models]).encode()).hexdigest()

    def read(state: CoordinatorState, context: Context) -> Sequence[object]:
        return [
            digest_choices(),
            context.model,
            state["message"],
            state["asked_about"],
            state["last_agent"],
            conversation(state),
        ]

    return CachePolicy(key_func=build_key_function("coordinator.classify", read))


def worth_keeping(node: str, writes: Mapping[str, Any]) -> bool:
    """Whether a node's result may be cached; one that came about because of a failure may not.

    Args:
        node: The node's name.
        writes: What it wrote, by channel.
    """
    if node != "classify":
        return True
    return all(each["chosen"] in _RELIABLE for each in writes.get("dispatched", ()))
