"""An agent as a subgraph of a larger graph, and the tools it may use."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime

from core.context import Context
from core.errors import InvalidRequest
from core.memory import StrategyName
from nodes.react.state import ReactOutput

# LangGraph joins the checkpoint namespaces of a graph and of its subgraph with it.
_NAMESPACE_SEPARATOR: Final = "|"


class Agent(Protocol):
    """Carries out a task with tools, as a subgraph of the run that calls it.

    Called from a node, it shares the run's thread, checkpointer, stream and cancellation, and a resumed run
    continues inside it. Call it at most once per node task: the task is its checkpoint namespace.
    """

    async def __call__(
        self,
        task: str,
        *,
        contact_id: str,
        instruction: str = "",
        background: str = "",
        expected_outcome: str = "",
        time_zone: str = "",
        tools: Sequence[str] = (),
        max_iterations: int = 6,
        temperature: float = 0.2,
        retrieval: StrategyName = "general",
        agent: str = "agent",
    ) -> ReactOutput:
        """Carry out a task.

        Args:
            task: What to do, and nothing else: a model may quote it to the customer.
            contact_id: The contact the task is about.
            instruction: How to do it; appended to the agent's system prompt.
            background: What is already known; the model reads it as information.
            expected_outcome: What is known or done when the task has succeeded; empty: the task says it.
            time_zone: IANA name of the contact's time zone; empty: unknown.
            tools: Names of the tools it may use; empty: all.
            max_iterations: Maximum number of thoughts.
            temperature: Sampling temperature of the thoughts.
            retrieval: The strategy its tools search with.
            agent: Its name, under which it writes notes.

        Raises:
            ModelError: The model failed permanently.
        """
        ...


def route_by_caller(
    state: Any,  # noqa: ARG001 - LangGraph passes it to every edge
    runtime: Runtime[Context],
) -> Literal["embedded", "standalone"]:
    """Edge: ``embedded`` where the graph is a subgraph, whose caller passes the context it needs."""
    info = runtime.execution_info
    return "embedded" if info and _NAMESPACE_SEPARATOR in info.checkpoint_ns else "standalone"


def select_tools(tools: Mapping[str, BaseTool], names: Sequence[str]) -> Mapping[str, BaseTool]:
    """Return the named tools, in the order of ``tools``; all of them if no name is given."""
    return {name: tool for name, tool in tools.items() if name in names} if names else tools


def check_tool_names(tools: Mapping[str, BaseTool], names: Sequence[str]) -> None:
    """Check that every name is a tool's.

    Raises:
        InvalidRequest: Some are not; the message lists the tools there are.
    """
    unknown = [name for name in names if name not in tools]
    if unknown:
        raise InvalidRequest(
            f"tools: there is no {', '.join(map(repr, unknown))}; there are: {', '.join(tools)}",
            details={"unknown": unknown, "tools": list(tools)},
        )
