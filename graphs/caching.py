"""Cache policies: which nodes may be answered from the cache, by what key, and which results may be reused.

A node is cached if it has no side effect, its key covers everything it reads, a result some minutes old is as
good as a new one, the same input recurs, and no client listens to its tokens (a cached node streams none). Of
all graphs, only the coordinator's ``classify`` qualifies.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar
from uuid import uuid4

from langgraph.types import CachePolicy

from core.context import Context, current_context
from nodes.coordinator.specialists import format_conversation
from nodes.coordinator.state import CoordinatorState, SelectionReason
from nodes.deps import Deps

StateT = TypeVar("StateT")

# How an agent is chosen when nothing has failed. ``likely`` and ``default`` may also mean that a model was
# unavailable, and such a choice must not answer the next message.
_RELIABLE: frozenset[SelectionReason] = frozenset({"sure", "model", "conversation"})


def make_key_func(node: str, read: Callable[[StateT, Context], Sequence[object]]) -> Callable[[StateT], str]:
    """Return a key function whose keys no other node and no other tenant shares.

    LangGraph adds the node's name to a key but not the graph's, and its hash is not cryptographic. The key is
    therefore hashed here, so that nobody can craft a text that collides with another one's key. Outside a run
    (Studio, a drawn graph) there is no tenant: every key is new, and finds nothing.

    Args:
        node: The node's name, unique among all graphs.
        read: Returns everything the node reads from its state and context, as JSON values.
    """

    def key(state: StateT) -> str:
        run = current_context()
        if run is None:
            return uuid4().hex
        return sha256(json.dumps([node, run.tenant, read(state, run)]).encode()).hexdigest()

    return key


def classify_cache_policy(deps: Deps) -> CachePolicy[Callable[[CoordinatorState], str]]:
    """Return the policy of ``classify``: the same words in the same conversation go to the same agent.

    The locale and the contact are not in the key, because the decision depends on neither.
    """

    @cache
    def digest_of_choices() -> str:
        """Hash what is the same for every message: the agents, and the models that choose among them."""
        info = deps.models.info
        agents = sorted(deps.agents.specs.items())
        models = [deps.agents.router.model, info.model, info.fallback_model]
        return sha256(repr([agents, models]).encode()).hexdigest()

    def read(state: CoordinatorState, run: Context) -> Sequence[object]:
        return [
            digest_of_choices(),
            run.model,
            state["message"],
            state["unclear_message"],
            state["last_agent"],
            state.get("agent", ""),
            format_conversation(state),
        ]

    return CachePolicy(key_func=make_key_func("coordinator.classify", read))


def is_cacheable(node: str, writes: Mapping[str, Any]) -> bool:
    """Return whether a node's result may be reused. A result made while a model was unavailable may not.

    Args:
        node: The node's name.
        writes: What the node wrote, by channel.
    """
    if node != "classify":
        return True
    return all(dispatched["chosen"] in _RELIABLE for dispatched in writes.get("dispatched", ()))
