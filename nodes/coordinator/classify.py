"""Who is to answer: by the agents' example messages, and by a model where those are close."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from langgraph.runtime import Runtime
from langgraph.types import Command

from agents.spec import AgentSpec
from core.context import Context
from core.errors import EmbeddingError
from core.logging import get_logger
from nodes.coordinator.choice import by_default
from nodes.coordinator.classifier import Routing
from nodes.coordinator.decisions import select_agent
from nodes.coordinator.handing_over import called
from nodes.coordinator.router import GENERAL
from nodes.coordinator.state import Alternative, CoordinatorState, Dispatch, Handoff, SelectionReason
from nodes.deps import Deps, Node, get_run_context

log = get_logger(__name__)

# A message for more would get an answer nobody reads.
MOST_PARTS = 2
# Of an unclear message: from here on it is likelier to be for some agent than for none, so that asking back
# is worth the customer's time.
WORTH_ASKING = 0.25

Next: TypeAlias = Command[Literal["clarify", "assemble", "hand_over"]]


def classify(deps: Deps) -> Node[CoordinatorState, Next]:
    """Node: dispatch the message to its agent, or to two where it is about two things."""
    registry = deps.agents

    async def classify(state: CoordinatorState, *, runtime: Runtime[Context]) -> Next:
        if handoff := _asked_for(state, registry.specs):
            return Command(goto="hand_over", update={"handoff": handoff, "unclear_message": ""})
        try:
            parts = await registry.router.route_parts(_text(state))
        except EmbeddingError as error:
            log.warning("message_not_routed", reason=error.message)
            return _go(state, registry.specs, [by_default(registry, state["message"])], [])
        if len(parts) > 1:
            chosen = [_dispatched(registry.specs, each, "sure", part) for part, each in parts[:MOST_PARTS]]
            return _go(state, registry.specs, chosen, [each for _, each in parts[MOST_PARTS:]])
        routing = parts[0][1]
        if _worth_asking(state, routing):
            return _ask_back(state, registry.specs, routing)
        agent, chosen_by = await select_agent(deps, state, routing, get_run_context(runtime))
        one = _dispatched(registry.specs, routing, chosen_by, state["message"], agent=agent)
        return _go(state, registry.specs, [one], [routing])

    return classify


def _asked_for(state: CoordinatorState, agents: Mapping[str, AgentSpec]) -> Handoff | None:
    """Whether it is a person they want, by the rules that hold before anybody is chosen."""
    standing = [agents[name] for name in (state["last_agent"], GENERAL) if name in agents]
    return next(filter(None, (_escalation(spec, state["message"]) for spec in standing)), None)


def _escalation(spec: AgentSpec, message: str) -> Handoff | None:
    rule = spec.find_escalation(message)
    return called(rule.team or spec.team, rule.when) if rule else None


def _text(state: CoordinatorState) -> str:
    """The message, with the one it explains."""
    return f"{state['unclear_message']}\n{state['message']}" if state["unclear_message"] else state["message"]


def _worth_asking(state: CoordinatorState, routing: Routing) -> bool:
    """Whether an unclear message may well be for one of a few agents.

    Nobody is asked back twice in a row, nor in a conversation an agent has begun to lead.
    """
    return (
        routing.verdict == "unknown"
        and not state["last_agent"]
        and not state["unclear_message"]
        and routing.route != GENERAL
        and routing.familiarity >= WORTH_ASKING
    )


def _ask_back(state: CoordinatorState, agents: Mapping[str, AgentSpec], routing: Routing) -> Next:
    update = {"alternatives": _alternatives(agents, [routing], taken=()), "unclear_message": state["message"]}
    return Command(goto="clarify", update=update)


def _go(
    state: CoordinatorState,
    agents: Mapping[str, AgentSpec],
    chosen: Sequence[Dispatch],
    routings: Sequence[Routing],
) -> Next:
    taken = [each["agent"] for each in chosen]
    update: dict[str, Any] = {
        "dispatched": list(chosen),
        "alternatives": _alternatives(agents, routings, taken=taken),
        "unclear_message": "",
    }
    for name in taken:
        if handoff := _escalation(agents[name], state["message"]):
            return Command(goto="hand_over", update={**update, "handoff": handoff})
    return Command(goto="assemble", update=update)


def _dispatched(
    agents: Mapping[str, AgentSpec], routing: Routing, chosen: SelectionReason, part: str, *, agent: str = ""
) -> Dispatch:
    name = agent or routing.route
    return Dispatch(
        agent=name,
        category=agents[name].category,
        confidence=_confidence(routing, name),
        chosen=chosen,
        part=part,
    )


def _confidence(routing: Routing, agent: str) -> float:
    """The router's for this agent; 0 for one it did not think of."""
    if agent == routing.route:
        return routing.confidence
    return next((each.confidence for each in routing.alternatives if each.route == agent), 0.0)


def _alternatives(
    agents: Mapping[str, AgentSpec], routings: Sequence[Routing], *, taken: Sequence[str]
) -> list[Alternative]:
    found = {
        name: confidence
        for routing in routings
        for name, confidence in [
            (routing.route, routing.confidence),
            *((each.route, each.confidence) for each in routing.alternatives),
        ]
        if name not in taken
    }
    return [
        Alternative(agent=name, category=agents[name].category, confidence=confidence)
        for name, confidence in found.items()
    ]
