"""The coordinator's decisions: which agent answers, when to ask back, and when a person takes over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel, Field, create_model

from core.context import Context
from core.errors import ModelError
from core.logging import get_logger
from core.teams import format_handed_over, name_team
from core.texts import Language, normalise_text
from nodes.coordinator.classifier import Routing
from nodes.coordinator.router import GENERAL, AgentRegistry
from nodes.coordinator.specialists import format_conversation
from nodes.coordinator.state import (
    NO_HANDOFF,
    Alternative,
    Attempt,
    CoordinatorState,
    Dispatch,
    Handoff,
    SelectionReason,
)
from nodes.deps import Deps
from nodes.shared.prompts import build_system_prompt, load_prompt
from nodes.shared.steps import CHOOSE
from nodes.shared.structured import ask_structured, has_language_model

log = get_logger(__name__)

NO_AGENT = "none_of_these"
# From this familiarity on, an unclear message is more likely for some agent than for none, and a question is
# worth the customer's time.
MIN_FAMILIARITY = 0.25
# The team that takes over where the agent is unknown.
DEFAULT_TEAM = "support"

_GOODBYES: Final = frozenset(
    """
bye
bye bye
goodbye
good bye
see you
thanks bye
thank you bye
thanks goodbye
thank you goodbye
have a nice day
tchau
ate logo
ate mais
adeus
obrigado tchau
obrigada tchau
tenha um bom dia
adios
chau
hasta luego
hasta pronto
nos vemos
gracias adios
muchas gracias adios
gracias hasta luego
que tenga un buen dia
""".strip().splitlines()
)
# Room for punctuation; reading all of a long letter would take milliseconds.
_MAX_GOODBYE_CHARACTERS: Final = 2 * max(map(len, _GOODBYES))
# Asked where the model cannot write a question.
QUESTION: Mapping[Language, str] = {
    "en": "I want to get this right: could you tell me a little more about what you need?",
    "pt": "Quero ajudar do jeito certo: pode me contar um pouco mais sobre o que você precisa?",
    "es": "Quiero ayudarle bien: ¿puede contarme un poco más sobre lo que necesita?",
}
_HANDOFF_NOT_RECORDED: Mapping[Language, str] = {
    "en": "A person from our {team} team has to take over from here. I could not reach them just now, so "
    "please write again in a few minutes if nobody has answered you.",
    "pt": "Uma pessoa da nossa equipe de {team} precisa assumir daqui em diante. Não consegui falar com ela "
    "agora, então escreva de novo em alguns minutos se ninguém tiver respondido.",
    "es": "Una persona de nuestro equipo de {team} tiene que continuar a partir de aquí. No he podido "
    "avisarle ahora, así que escríbanos de nuevo en unos minutos si nadie le ha respondido.",
}
_APOLOGY: Mapping[Language, str] = {
    "en": "I am sorry, I could not answer this myself. ",
    "pt": "Desculpe, não consegui responder a isso. ",
    "es": "Lo siento, no he podido responder a esto. ",
}


async def select_agent(
    deps: Deps, state: CoordinatorState, routing: Routing, context: Context
) -> tuple[str, SelectionReason]:
    """Return the agent that answers, and why it.

    The agent the customer talks with continues if the message is for no other agent, or if it is among the
    likely ones itself: "yes, please" refers to what was said before. Otherwise the router decides where it is
    sure, and the model where it is not.
    """
    likely = [routing.route, *(each.route for each in routing.alternatives)]
    last = state["last_agent"]
    if last in deps.agents.specs and _continues(routing, is_likely=last in likely):
        return last, "conversation"
    if routing.verdict == "sure":
        return routing.route, "sure"
    if routing.verdict == "unknown":
        return GENERAL, "default"
    try:
        selected = await _ask_model(deps, state, likely, context)
    except ModelError as error:
        log.warning("agent_not_selected_by_model", reason=error.message)
        selected = None
    if selected is None:
        return routing.route, "likely"
    return (GENERAL, "default") if selected == NO_AGENT else (selected, "model")


def _continues(routing: Routing, *, is_likely: bool) -> bool:
    return (
        routing.verdict == "unknown" or routing.route == GENERAL or (routing.verdict == "close" and is_likely)
    )


class _Selection(BaseModel):
    agent: str


async def _ask_model(deps: Deps, state: CoordinatorState, likely: list[str], context: Context) -> str | None:
    """Return an agent or :data:`NO_AGENT`; None if the model cannot decide."""
    if not has_language_model(deps.models, context.model):
        # The offline model would match words, which the examples do better.
        return None
    specs = deps.agents.specs
    listed = "\n".join(f"- {name}: {specs[name].description}" for name in likely)
    conversation = format_conversation(state)
    messages = [
        # Without the contact's time zone: what is decided here is cached for all contacts.
        SystemMessage(build_system_prompt(load_prompt("coordinator_choose"), locale=None)),
        HumanMessage(f"{conversation}\n\n[Message]\n{state['message']}\n\n[Agents]\n{listed}".strip()),
    ]
    names: Any = Literal[(*likely, NO_AGENT)]
    field = Field(description="Who is to answer the message")
    schema = create_model("Choice", __base__=_Selection, agent=(names, field))
    selection = await ask_structured(
        deps.models,
        messages,
        schema,
        step=CHOOSE,
        model=context.model,
    )
    return None if selection is None else selection.agent


def build_dispatch(
    registry: AgentRegistry, routing: Routing, reason: SelectionReason, part: str, *, agent: str = ""
) -> Dispatch:
    """Dispatch a part of the message to an agent; without one, to the router's."""
    name = agent or routing.route
    confidences = {each.route: each.confidence for each in routing.alternatives}
    confidences[routing.route] = routing.confidence
    return Dispatch(
        agent=name,
        category=registry.specs[name].category,
        confidence=confidences.get(name, 0.0),
        chosen=reason,
        part=part,
    )


def build_general_dispatch(
    registry: AgentRegistry, message: str, reason: SelectionReason = "default", confidence: float = 0.0
) -> Dispatch:
    """Dispatch the whole message to the general agent."""
    category = registry.specs[GENERAL].category
    return Dispatch(agent=GENERAL, category=category, confidence=confidence, chosen=reason, part=message)


def build_named_dispatch(registry: AgentRegistry, agent: str, message: str) -> Dispatch:
    """Dispatch the whole message to the agent that the request names."""
    category = registry.specs[agent].category
    return Dispatch(agent=agent, category=category, confidence=1.0, chosen="caller", part=message)


def list_alternatives(
    registry: AgentRegistry, routings: Sequence[Routing], *, selected: Sequence[str]
) -> list[Alternative]:
    """Return the agents that could have answered instead of the selected ones."""
    confidences = {
        name: confidence
        for routing in routings
        for name, confidence in [
            (routing.route, routing.confidence),
            *((each.route, each.confidence) for each in routing.alternatives),
        ]
        if name not in selected
    }
    return [
        Alternative(agent=name, category=registry.specs[name].category, confidence=confidence)
        for name, confidence in confidences.items()
    ]


def should_ask_back(state: CoordinatorState, routing: Routing) -> bool:
    """Return whether to ask the customer what an unclear message is about.

    Nobody is asked twice in a row, nor in a conversation that an agent has begun.
    """
    return (
        routing.verdict == "unknown"
        and not state["last_agent"]
        and not state["unclear_message"]
        and routing.route != GENERAL
        and routing.familiarity >= MIN_FAMILIARITY
    )


@dataclass(frozen=True, slots=True)
class Escalation:
    """A hand-off that a rule calls for.

    Attributes:
        handoff: The hand-off, which the CRM does not have yet.
        agent_answers: The agent answers too, as a person may take a while.
    """

    handoff: Handoff
    agent_answers: bool


def find_escalation(deps: Deps, names: Sequence[str], message: str, context: Context) -> Escalation | None:
    """Return what the first matching escalation rule of these agents calls for.

    Without a language model no agent answers a complaint.
    """
    specs = [deps.agents.specs[name] for name in names if name in deps.agents.specs]
    for spec in specs:
        if rule := spec.find_escalation(message):
            agent_answers = rule.agent_answers and has_language_model(deps.models, context.model)
            return Escalation(build_handoff(rule.team or spec.team, rule.when), agent_answers)
    return None


def decide_handoff(registry: AgentRegistry, state: CoordinatorState) -> Handoff:
    """Return the hand-off after the attempts: by a rule, by an agent, recommended after failures, or none."""
    if state["handoff"]["recorded"]:
        return state["handoff"]
    for attempt in state["attempts"]:
        if call := attempt["called"]:
            return {**build_handoff(call["team"], call["reason"]), "recorded": True}
    if state["handoff"]["recommended"]:
        return state["handoff"]
    for attempt in state["attempts"]:
        name = attempt["agent"]
        if registry.health.recommends_escalation(name):
            failures = registry.health.count_failures(name)
            return build_handoff(find_team(registry, state), f"{name} failed {failures} times in a row")
    if failed := describe_failures(state):
        return build_handoff(find_team(registry, state), f"not all of it was answered: {failed}")
    return NO_HANDOFF


def build_handoff(team: str, reason: str) -> Handoff:
    """Return a hand-off that the CRM does not have yet."""
    return Handoff(recommended=True, recorded=False, team=team, reason=reason)


def find_team(registry: AgentRegistry, state: CoordinatorState) -> str:
    """Return the team of the first agent that was asked."""
    spec = registry.specs.get(state["dispatched"][0]["agent"])
    return spec.team if spec else DEFAULT_TEAM


def describe_failures(state: CoordinatorState) -> str:
    """Return the agents that failed with their reasons; empty if none did."""
    return "; ".join(
        f"{attempt['agent']}: {attempt['reason']}"
        for attempt in state["attempts"]
        if attempt["outcome"] != "answered"
    )


def build_answer_update(state: CoordinatorState, attempt: Attempt) -> dict[str, Any]:
    """Return the update that takes an agent's answer."""
    dispatch = next(each for each in state["dispatched"] if each["agent"] == attempt["agent"])
    is_fallback = attempt["agent"] == GENERAL and len(state["attempts"]) > 1
    return {
        "success": True,
        "response": attempt["response"],
        "agent_used": attempt["agent"],
        "category": dispatch["category"],
        "confidence": dispatch["confidence"],
        "path": "general" if is_fallback else "agent",
        "citations": attempt["citations"],
        "unsupported": attempt["unsupported"],
    }


def list_answers(state: CoordinatorState) -> list[Attempt]:
    """Return the successful attempts in the order of the message's parts."""
    order = [dispatch["agent"] for dispatch in state["dispatched"]]
    answered = [attempt for attempt in state["attempts"] if attempt["outcome"] == "answered"]
    return sorted(answered, key=lambda attempt: order.index(attempt["agent"]))


def format_handoff(language: Language, handoff: Handoff, *, by_rule: bool) -> str:
    """Return what the customer is told about a hand-off.

    Args:
        language: The customer's language.
        handoff: The team, and whether the CRM has recorded the hand-off.
        by_rule: Whether a rule led to it, such as the customer's wish, and not a failure of the agents.
    """
    team = handoff["team"]
    if handoff["recorded"]:
        sentence = format_handed_over(team, language)
    else:
        sentence = _HANDOFF_NOT_RECORDED[language].format(team=name_team(team, language))
    return ("" if by_rule else _APOLOGY[language]) + sentence


def is_notice(state: CoordinatorState) -> bool:
    """Return whether the answer only says that it failed or that a person takes over."""
    return not state["success"] or state["path"] == "handoff" or state["handoff"]["recorded"]


def is_goodbye(message: str) -> bool:
    """Return whether the whole message is a farewell in one of our languages; thanks alone are not."""
    if len(message) > _MAX_GOODBYE_CHARACTERS:
        return False
    words = "".join(c if c.isalnum() else " " for c in normalise_text(message))
    return " ".join(words.split()) in _GOODBYES
