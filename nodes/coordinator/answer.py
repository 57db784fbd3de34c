"""An agent that answers at once: one model call, no tools."""

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from agents.spec import AgentSpec
from core.context import Context
from nodes.coordinator.briefing import instruction
from nodes.coordinator.patterns import Answer, Specialist
from nodes.coordinator.state import SpecialistInput
from nodes.deps import Deps
from nodes.shared.background import background
from nodes.shared.prompts import in_locale, prompt
from nodes.shared.wording import worded


def answering(deps: Deps) -> Specialist:
    """The pattern ``answer``."""
    house = prompt("coordinator_answer")

    async def answer(spec: AgentSpec, sent: SpecialistInput, context: Context) -> Answer:
        system = in_locale(f"{house}\n\n{instruction(spec)}", context.locale)
        messages: list[AnyMessage] = [
            SystemMessage(system),
            HumanMessage(sent["task"]),
            *background(sent["background"]),
        ]
        said = await worded(deps.models, messages, temperature=spec.temperature, model=context.model)
        reason = "" if said else "the model's replies could not be read"
        return Answer(success=bool(said), response=said, reason=reason, actions=[], called=None)

    return answer
