"""Ask for a plan, or for what remains of one, and have it checked."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from langchain_core.messages import AnyMessage
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import BaseModel

from core.context import Context
from core.errors import ModelError
from nodes.deps import Deps, Node, get_run_context
from nodes.planning_monitor.endings import ended, ended_without_model
from nodes.planning_monitor.state import PlanningState
from nodes.shared.prompts import add_locale
from nodes.shared.structured import ask_structured

Next: TypeAlias = Command[Literal["validate", "finish"]]


def drafting(
    deps: Deps,
    schema: type[BaseModel],
    *,
    system: str,
    shown: Callable[[PlanningState, str], Sequence[AnyMessage]],
    temperature: float,
    unreadable: str,
) -> Node[PlanningState, Next]:
    """A node that asks for a draft, or for it again with its faults told.

    Args:
        deps: For the model.
        schema: What the draft must be.
        system: The system prompt.
        shown: Gives the messages from the state and the system prompt.
        temperature: The step's own.
        unreadable: Said of a draft that could not be read twice; it ends the run.
    """

    async def draft(state: PlanningState, *, runtime: Runtime[Context]) -> Next:
        context = get_run_context(runtime)
        try:
            written = await ask_structured(
                deps.models,
                shown(state, add_locale(system, context.locale)),
                schema,
                temperature=temperature,
                model=context.model,
            )
        except ModelError as error:
            return ended_without_model(state, error)
        if written is None:
            return Command(goto="finish", update=ended("plan_invalid", unreadable))
        return Command(goto="validate", update={"draft": written.model_dump()})

    return draft
