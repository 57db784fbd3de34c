"""The nodes of the registry's graph ``workflow``, which runs a definition inside a step of its own."""

from collections.abc import Callable
from io import StringIO
from typing import Annotated, Any, Final, TypeAlias
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import Field, JsonValue, field_validator
from typing_extensions import TypedDict

from core.context import Context
from core.errors import InvalidRequest
from nodes.deps import get_run_context, get_thread_id
from nodes.shared.channels import Messages
from nodes.workflow.state import ParentContext, SubgraphContext, WorkflowStatus
from workflows.faults import find_size_fault
from workflows.json_values import check_size
from workflows.loader import SafeYAML, load_request
from workflows.outline import iter_steps
from workflows.requests import WorkflowRequest
from workflows.schema import Definition
from workflows.steps import Wait
from workflows.validation import read_input

CompileWorkflow: TypeAlias = Callable[[Definition], CompiledStateGraph[Any, Any, Any, Any]]

# Of a result in the thread's messages; the output holds all of it.
_MAX_SHOWN_LENGTH: Final = 2_000
_MAX_NAMED: Final = 10


def _check_document(definition: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # The checkpoint holds the input as it was given.
    if fault := find_size_fault(definition):
        raise ValueError(fault.message)
    check_size(definition)
    return definition


class RunWorkflowInput(WorkflowRequest):
    """A workflow to run."""

    _check_definition = field_validator("definition")(_check_document)


class RunWorkflowState(TypedDict, total=False):
    """State of the thread; ``name``, ``definition`` and ``input`` are those of the run in progress."""

    messages: Messages
    name: str
    definition: dict[str, JsonValue]
    input: dict[str, JsonValue]
    status: WorkflowStatus
    result: JsonValue
    error: str
    failed: list[str]


class RunWorkflowOutput(TypedDict):
    """The outcome of the run."""

    status: Annotated[WorkflowStatus, Field(description="Whether the workflow succeeded")]
    result: Annotated[JsonValue, Field(description="The result of the definition; null if it failed")]
    error: Annotated[str, Field(description="The step that stopped it, and why; empty: none did")]
    failed: Annotated[list[str], Field(description="The steps that stopped it")]
    messages: Annotated[list[AnyMessage], Field(description="The thread's conversation")]


class RunWorkflowNodes:
    """The nodes of the graph.

    Args:
        compile_workflow: Compiles a definition, without a checkpointer of its own.
    """

    def __init__(self, compile_workflow: CompileWorkflow) -> None:
        self._compile = compile_workflow

    async def prepare(self, state: RunWorkflowState) -> RunWorkflowState:
        """Node: read the definition and its input.

        Raises:
            NotFound: The library has no workflow of that name.
            InvalidDefinition: The definition or its input has faults.
            InvalidRequest: The definition has waits.
        """
        fields = RunWorkflowInput.model_fields.keys() & state.keys()
        given = RunWorkflowInput.model_validate(
            {name: value for name, value in state.items() if name in fields}
        )
        definition = load_request(given)
        _check_no_waits(definition)
        return RunWorkflowState(
            messages=[HumanMessage(f"Run {definition.name}.", id=str(uuid4()))],
            definition=definition.to_json(),
            input=read_input(definition, given.input),
            status="running",
            result=None,
            error="",
            failed=[],
        )

    async def run(self, state: RunWorkflowState, *, runtime: Runtime[Context]) -> RunWorkflowState:
        """Node: run the workflow as a subgraph, on this thread and with checkpoints of its own."""
        definition = Definition.model_validate(state["definition"])
        task = runtime.execution_info.task_id if runtime.execution_info else ""
        # A thread may run a workflow more than once, and each run has effects of its own.
        parent = ParentContext(workflow_id=f"{get_thread_id(runtime)}:{task}", input=state["input"])
        output = await self._compile(definition).ainvoke(
            {"input": state["input"]}, context=SubgraphContext.build(get_run_context(runtime), parent)
        )
        return RunWorkflowState(
            messages=[AIMessage(_summarize(definition, output), id=str(uuid4()))],
            status=output["status"],
            result=output["result"],
            error=output["error"],
            failed=output["failed"],
        )


def _check_no_waits(definition: Definition) -> None:
    """Raise if the definition waits: no worker wakes a thread of this graph."""
    waits = [entry.step.id for entry in iter_steps(definition) if isinstance(entry.step, Wait)]
    if waits:
        raise InvalidRequest(
            f"the graph 'workflow' cannot wait ({', '.join(waits[:_MAX_NAMED])}); run it at /v1/workflows",
            details={"steps": waits},
        )


def _summarize(definition: Definition, output: Any) -> str:
    if output["status"] != "succeeded":
        return f"{definition.name} failed at {output['error']}"
    writer, text = SafeYAML(), StringIO()
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None
    writer.dump(output["result"], text)
    return f"{definition.name} is done.\n\n{text.getvalue()[:_MAX_SHOWN_LENGTH]}"
