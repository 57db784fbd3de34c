"""Several answers, made one."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import ModelError
from core.logging import get_logger
from nodes.deps import Deps, Node, get_run_context
from nodes.parallel.gather import answered
from nodes.parallel.state import Branch, ParallelState
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_text

log = get_logger(__name__)

# It words what others found: enough freedom for one text, too little to add to it.
TEMPERATURE = 0.3


def merge(deps: Deps) -> Node[ParallelState, dict[str, Any]]:
    """Node: merge the good answers. Where the model cannot, they stand side by side."""
    system = load_prompt("parallel_merge")
    template = load_prompt("parallel_answers")

    async def merge(state: ParallelState, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        messages: list[AnyMessage] = [
            SystemMessage(add_locale(system, context.locale)),
            HumanMessage(state["question"]),
            HumanMessage(template.format(answers=_listed(state["branches"]))),
        ]
        try:
            merged = await ask_text(deps.models, messages, temperature=TEMPERATURE, model=context.model)
        except ModelError as error:
            log.warning("answers_not_merged", reason=error.message)
            merged = ""
        good = answered(state["branches"])
        return {
            "success": bool(merged),
            "answer": merged or "\n\n".join(f"{each['name']}: {each['answer']}" for each in good),
            "answered_by": [each["name"] for each in good],
            "reason": "merged" if merged else "not_merged",
        }

    return merge


def _listed(branches: Sequence[Branch]) -> str:
    """The answers by number and agent; the lines after an answer's first are set in."""
    lines = []
    for number, branch in enumerate(branches, start=1):
        good = branch["status"] == "answered"
        said = branch["answer"].strip().replace("\n", "\n   ") if good else branch["reason"]
        lines.append(f"{number}. lookup({branch['name']}){'' if good else ' failed'}: {said}")
    return "\n".join(lines)
