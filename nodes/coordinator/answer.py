"""An agent that answers at once: one model call, no tools."""

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from agents.spec import AgentSpec
from core.context import Context
from nodes.coordinator.briefing import instruction
from nodes.coordinator.patterns import Answer, Specialist
from nodes.coordinator.state import SpecialistInput
from nodes.deps import Deps
from nodes.shared.context import build_background_messages
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_text


def answering(deps: Deps) -> Specialist:
    """The pattern ``answer``."""
    house = load_prompt("coordinator_answer")

    async def answer(spec: AgentSpec, sent: SpecialistInput, context: Context) -> Answer:
        system = add_locale(f"{house}\n\n{instruction(spec)}", context.locale)
        messages: list[AnyMessage] = [
            SystemMessage(system),
            HumanMessage(sent["task"]),
            *build_background_messages(sent["background"]),
        ]
        said = await ask_text(deps.models, messages, temperature=spec.temperature, model=context.model)
        reason = "" if said else "the model's replies could not be read"
        return Answer(success=bool(said), response=said, reason=reason, actions=[], called=None)

    return answer
