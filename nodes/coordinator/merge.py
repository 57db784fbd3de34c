"""Two agents' answers to the parts of one message, made one."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import ModelError
from core.logging import get_logger
from core.texts import fence
from nodes.coordinator.state import Attempt, CoordinatorState
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_text, has_language_model

log = get_logger(__name__)

# It words what others found: enough freedom for one text, too little to add to it.
TEMPERATURE = 0.3


def merge(deps: Deps) -> Node[CoordinatorState, dict[str, Any]]:
    """Node: merge the answers. Where the model cannot, they stand below each other."""
    system = load_prompt("coordinator_merge")

    async def merge(state: CoordinatorState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        good = _in_order(state)
        answers = "\n\n".join(fence("answer", each["response"]) for each in good)
        messages: list[AnyMessage] = [
            SystemMessage(add_locale(system, context.locale)),
            HumanMessage(f"{state['message']}\n\n[Answers]\n{answers}"),
        ]
        merged = ""
        if has_language_model(deps.models, context.model):
            try:
                merged = await ask_text(deps.models, messages, temperature=TEMPERATURE, model=context.model)
            except ModelError as error:
                log.warning("answers_not_merged", reason=error.message)
        return {
            "response": merged or "\n\n".join(each["response"] for each in good),
            "path": "merged",
        }

    return merge


def _in_order(state: CoordinatorState) -> Sequence[Attempt]:
    """The answers as the parts stand in the message, not as they came."""
    order = [each["agent"] for each in state["dispatched"]]
    good = [attempt for attempt in state["attempts"] if attempt["outcome"] == "answered"]
    return sorted(good, key=lambda attempt: order.index(attempt["agent"]))
