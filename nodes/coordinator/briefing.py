"""What an agent is told beside the message: how it works, and what is known already."""

from langchain_core.messages import HumanMessage

from agents.spec import AgentSpec
from core.texts import storable
from nodes.coordinator.state import Attempt, CoordinatorState, Dispatched, SpecialistInput
from nodes.history import spoken
from nodes.texts import cut, fenced

# Of the conversation; what is older is in the checkpoints.
HISTORY_MESSAGES = 20
_MESSAGE_CHARACTERS = 1_500
_CUSTOMER_CHARACTERS = 8_000
_BEST_CHARACTERS = 4_000


def brief(state: CoordinatorState, chosen: Dispatched) -> SpecialistInput:
    """What the agent's task is sent."""
    return SpecialistInput(
        agent=chosen["agent"],
        task=chosen["part"],
        contact_id=state["contact_id"],
        background=_background(state, chosen),
    )


def instruction(spec: AgentSpec) -> str:
    """How the agent works: its prompt, and when a person has to take over."""
    if not spec.escalation:
        return spec.prompt
    rules = [f"- {rule.when} (team: {rule.team})" for rule in spec.escalation]
    return "\n".join([spec.prompt, "", "A person has to take over in these cases:", *rules])


def _background(state: CoordinatorState, chosen: Dispatched) -> str:
    parts = [
        fenced("customer", cut(state["customer"], _CUSTOMER_CHARACTERS)) if state["customer"] else "",
        conversation(state),
        fenced("whole_message", state["message"]) if chosen["part"] != state["message"] else "",
        *(_left_by(attempt) for attempt in state["attempts"]),
    ]
    return storable("\n\n".join(filter(None, parts)))


def conversation(state: CoordinatorState) -> str:
    """What was said before this message; empty when nothing was."""
    earlier = [message for message in state["messages"] if message.id != state["turn"]]
    lines = [
        f"{'customer' if isinstance(said, HumanMessage) else 'we'}: {cut(said.text, _MESSAGE_CHARACTERS)}"
        for said in spoken(earlier, HISTORY_MESSAGES)
    ]
    return fenced("conversation", "\n".join(lines)) if lines else ""


def _left_by(attempt: Attempt) -> str:
    """What the next agent must know of one that did not get there."""
    actions = ", ".join(attempt["actions"])
    did = f" It had used: {actions}; do not do that again." if actions else ""
    best = attempt["response"].strip()
    found = "\n" + fenced("found", cut(best, _BEST_CHARACTERS)) if best else ""
    return f"{attempt['agent']} could not answer: {attempt['reason']}.{did}{found}"
