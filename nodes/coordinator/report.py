"""A plan's results, worded for the customer."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage

from agents.spec import AgentSpec
from core.context import Context
from core.errors import ModelError
from core.texts import fence
from nodes.coordinator.briefing import instruction
from nodes.coordinator.patterns import Answer
from nodes.coordinator.state import SpecialistInput
from nodes.deps import Deps
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_text

Report: TypeAlias = Callable[[AgentSpec, SpecialistInput, Answer, Context], Awaitable[Answer]]


def reporting(deps: Deps) -> Report:
    """Words an answer that was reached. Where the model cannot, the report stands as it is."""
    house = load_prompt("coordinator_answer")

    async def report(spec: AgentSpec, sent: SpecialistInput, answer: Answer, context: Context) -> Answer:
        if not answer["success"]:
            return answer
        messages: list[AnyMessage] = [
            SystemMessage(add_locale(f"{house}\n\n{instruction(spec)}", context.locale)),
            HumanMessage(sent["task"]),
            HumanMessage(f"[What was done]\n{fence('report', answer['response'])}"),
        ]
        try:
            said = await ask_text(deps.models, messages, temperature=spec.temperature, model=context.model)
        except ModelError:
            # It was done; that must not look as if it had failed.
            said = ""
        return {**answer, "response": said or answer["response"]}

    return report
