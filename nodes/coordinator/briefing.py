"""What an agent is told beside the message: how it works, and what is known already."""

from collections.abc import Sequence

from langchain_core.messages import AnyMessage

from agents.spec import AgentSpec
from core.memory import Fact, Hit
from core.packing import Item, Section, build_fact_items, build_memory_items
from core.texts import cut, fence
from nodes.coordinator.state import Attempt, CoordinatorState, Dispatch
from nodes.shared.conversation import build_turn_items, format_turn, select_unsummarised

# Of the conversation, for who only chooses.
_LAST_TURNS = 20
_BEST_CHARACTERS = 4_000


def instruction(spec: AgentSpec) -> str:
    """How the agent works: its prompt, and when a person has to take over."""
    rules = [f"- {rule.when} (team: {rule.team or spec.team})" for rule in spec.escalation_rules]
    return "\n".join([spec.prompt, "", "A person has to take over in these cases:", *rules])


def sections(
    state: CoordinatorState,
    spec: AgentSpec,
    chosen: Dispatch,
    *,
    hits: Sequence[Hit],
    facts: Sequence[Fact],
    shares: tuple[int, int],
) -> list[Section]:
    """Everything there is to tell an agent, to be packed.

    Args:
        state: The session's.
        spec: The agent.
        chosen: What of the message it answers.
        hits: What memory has on that.
        facts: What is believed of the customer.
        shares: Most tokens of the conversation, and of memories.
    """
    conversation_share, memory_share = shares
    said = _earlier(state)
    known = {state["turn"], *(message.id for message in said if message.id)}
    whole = state["message"] if chosen["part"] != state["message"] else ""
    return [
        Section(name="system", items=(Item(spec.name, instruction(spec)),), placed="fixed"),
        Section(name="customer", items=_one("profile", state["customer"])),
        Section(name="facts", items=build_fact_items(facts)),
        Section(name="summary", items=_one("session", state.get("summary", ""))),
        Section(name="conversation", items=build_turn_items(said), first_in="end", share=conversation_share),
        Section(name="memories", items=build_memory_items(hits, known=known), share=memory_share),
        Section(name="message", items=_one(state["turn"], whole)),
        Section(
            name="attempts",
            items=tuple(Item(attempt["agent"], _left_by(attempt)) for attempt in state["attempts"]),
        ),
    ]


def conversation(state: CoordinatorState) -> str:
    """What was said before this message; empty when nothing was."""
    lines = [format_turn(message) for message in _earlier(state)[-_LAST_TURNS:]]
    parts = [
        fence("summary", state["summary"]) if state.get("summary") else "",
        fence("conversation", "\n".join(lines)) if lines else "",
    ]
    return "\n\n".join(filter(None, parts))


def _earlier(state: CoordinatorState) -> list[AnyMessage]:
    return select_unsummarised(
        state["messages"], turn=state["turn"], summarised_to=state.get("summarised_to", "")
    )


def _one(name: str, text: str) -> tuple[Item, ...]:
    return (Item(name, text),) if text else ()


def _left_by(attempt: Attempt) -> str:
    """What the next agent must know of one that did not get there."""
    actions = ", ".join(attempt["actions"])
    did = f" It had used: {actions}; do not do that again." if actions else ""
    best = attempt["response"].strip()
    found = "\n" + fence("found", cut(best, _BEST_CHARACTERS)) if best else ""
    return f"{attempt['agent']} could not answer: {attempt['reason']}.{did}{found}"
