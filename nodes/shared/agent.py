"""An agent as one step of a larger graph."""

from collections.abc import Sequence
from typing import Protocol

from core.memory import StrategyName
from nodes.react.state import ReactOutput


class Agent(Protocol):
    """Carries out a task with tools, as a subgraph of the run that calls it.

    Called from a node, it shares the run's thread, checkpointer, stream and cancellation; a resumed run goes
    on inside it. Call it at most once in a task of a node: the task is its checkpoint namespace.
    """

    async def __call__(
        self,
        task: str,
        *,
        contact_id: str,
        instruction: str = "",
        background: str = "",
        tools: Sequence[str] = (),
        max_iterations: int = 6,
        temperature: float = 0.2,
        retrieval: StrategyName = "general",
    ) -> ReactOutput:
        """Carry out a task.

        Args:
            task: What to do, and nothing else: a model may quote it to the customer.
            contact_id: The contact it is about.
            instruction: How to go about it; the model reads it beside its own rules.
            background: What is known already; the model reads it as information.
            tools: Names of the tools it may use; none named: all.
            max_iterations: Most rounds of thought.
            temperature: Of its thoughts.
            retrieval: The strategy its tools search with.

        Raises:
            ModelError: The model failed for good.
        """
        ...
