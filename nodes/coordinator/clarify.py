"""Ask the customer back, when their message may be for several agents."""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import ModelError
from core.logging import get_logger
from core.texts import Language, detect_language
from nodes.coordinator.state import CoordinatorState
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_text, has_language_model

log = get_logger(__name__)

TEMPERATURE = 0.3
# Where the model cannot ask.
_QUESTION: Mapping[Language, str] = {
    "en": "I want to get this right: could you tell me a little more about what you need?",
    "pt": "Quero ajudar do jeito certo: pode me contar um pouco mais sobre o que você precisa?",
}


def clarify(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: one question. The customer's reply is read together with what they had asked."""
    system = load_prompt("coordinator_clarify")

    async def clarify(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        likely = [deps.agents.specs[each["agent"]] for each in state["alternatives"]]
        listed = "\n".join(f"- {spec.description}" for spec in likely)
        messages: list[AnyMessage] = [
            SystemMessage(add_locale(system, context.locale)),
            HumanMessage(f"{state['message']}\n\n[It may be about]\n{listed}"),
        ]
        question = ""
        if has_language_model(deps.models, context.model):
            try:
                question = await ask_text(deps.models, messages, temperature=TEMPERATURE, model=context.model)
            except ModelError as error:
                log.warning("question_not_worded", reason=error.message)
        language = detect_language(state["message"], context.locale)
        return {
            "response": question or _QUESTION[language],
            "path": "clarification",
            "success": True,
            "category": state["alternatives"][0]["category"],
            "confidence": state["alternatives"][0]["confidence"],
        }

    return clarify
