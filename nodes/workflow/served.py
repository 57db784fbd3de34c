"""A workflow as a graph of the registry: what it is given and answers, and its two steps."""

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias
from uuid import uuid4

import yaml
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from core.context import Context
from core.errors import InvalidRequest, NotFound
from nodes.deps import Node, get_run_context, get_thread_id
from nodes.shared.channels import Messages
from nodes.workflow.state import StrandContext, Surroundings, WorkflowStatus
from workflows.definition.workflow import Definition
from workflows.loader import LIBRARY, read_text
from workflows.outline import places
from workflows.steps.wait import Wait
from workflows.validation.reading import read_input

Compile: TypeAlias = Callable[[Definition], CompiledStateGraph[Any, Any, Any, Any]]

# Of a result in the thread's conversation; the output has all of it.
_SHOWN = 2_000


class RunWorkflowInput(BaseModel):
    """A workflow to run."""

    # Said, so that a misspelt field is no default.
    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(
        min_length=1,
        max_length=1_000_000,
        description="Name of a workflow of the library, or a definition in YAML or JSON",
    )
    values: str = Field("{}", max_length=1_000_000, description="The workflow's input, a JSON object")


class RunWorkflowState(TypedDict, total=False):
    """What a thread keeps. ``definition`` and ``given`` are those of the run in progress."""

    messages: Messages
    definition: dict[str, JsonValue]
    given: dict[str, JsonValue]
    status: WorkflowStatus
    result: JsonValue
    error: str
    failed: list[str]


class RunWorkflowOutput(TypedDict):
    """What became of the run."""

    status: Annotated[WorkflowStatus, Field(description="Whether it came to its end")]
    result: Annotated[JsonValue, Field(description="As its definition says; null where it failed")]
    error: Annotated[str, Field(description="The step that stopped it, and why; empty: none")]
    failed: Annotated[list[str], Field(description="The steps that stopped it")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


async def prepare(state: RunWorkflowInput) -> RunWorkflowState:
    """Node: read the definition and its input.

    Raises:
        NotFound: The library has none of the name.
        InvalidDefinition: The definition or its input has faults.
        InvalidRequest: The input is no JSON object, or the definition has waits.
    """
    definition = _definition(state.workflow)
    _require_no_waits(definition)
    return RunWorkflowState(
        messages=[HumanMessage(f"Run {definition.name}.", id=str(uuid4()))],
        definition=definition.model_dump(mode="json", exclude_unset=True),
        given=read_input(definition, _object(state.values)),
        status="running",
        result=None,
        error="",
        failed=[],
    )


def run(compiled: Compile) -> Node[RunWorkflowState, RunWorkflowState]:
    """Node: run it as a graph inside this step, on this thread, with checkpoints of its own."""

    async def run(state: RunWorkflowState, *, runtime: Runtime[Context]) -> RunWorkflowState:
        definition = Definition.model_validate(state["definition"])
        graph, parameters = compiled(definition), get_run_context(runtime)
        task = runtime.execution_info.task_id if runtime.execution_info else ""
        # A thread may run a workflow more than once, and each has effects of its own.
        around = Surroundings(workflow_id=f"{get_thread_id(runtime)}:{task}", given=state["given"])
        ended = await graph.ainvoke({"input": state["given"]}, context=StrandContext.of(parameters, around))
        return RunWorkflowState(
            messages=[AIMessage(_said(definition, ended), id=str(uuid4()))],
            status=ended["status"],
            result=ended["result"],
            error=ended["error"],
            failed=ended["failed"],
        )

    return run


def _definition(named: str) -> Definition:
    if named in LIBRARY:
        return LIBRARY[named]
    if "\n" in named or named.lstrip().startswith("{"):
        return read_text(named)
    names = sorted(LIBRARY)
    message = f"there is no workflow {named[:100]!r}; there are {', '.join(names)}"
    raise NotFound(message, details={"names": names})


def _require_no_waits(definition: Definition) -> None:
    """Nobody wakes a thread of this graph when a time is over or a signal comes."""
    waits = [place.step.id for place in places(definition) if isinstance(place.step, Wait)]
    if waits:
        raise InvalidRequest(
            f"the graph 'workflow' cannot wait ({', '.join(waits[:10])}); run it at /v1/workflows",
            details={"steps": waits},
        )


def _object(text: str) -> dict[str, JsonValue]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"values: is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidRequest('values: must be a JSON object, e.g. {"contacts": []}')
    return values


def _said(definition: Definition, ended: Any) -> str:
    if ended["status"] != "succeeded":
        return f"{definition.name} failed at {ended['error']}"
    result = yaml.safe_dump(ended["result"], allow_unicode=True, sort_keys=False)
    return f"{definition.name} is done.\n\n{result[:_SHOWN]}"
