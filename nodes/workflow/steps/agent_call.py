"""``agent``: a graph as a step."""

from typing import cast

from pydantic import JsonValue

from core.errors import StepFailed
from workflows.ports import Executor, GraphCaller, StepCall
from workflows.steps.agent_call import AgentCall
from workflows.templates import Template


def agent_call(graphs: GraphCaller) -> Executor[AgentCall]:
    """The executor."""

    async def run(step: AgentCall, call: StepCall) -> JsonValue:
        if step.graph not in graphs.names:
            raise StepFailed(f"there is no graph {step.graph!r}; there are {', '.join(graphs.names)}")
        given = {name: Template(value).render(call.context) for name, value in step.input.items()}
        return cast("JsonValue", await graphs.call(step.graph, given))

    return run
