"""How a workflow ended."""

from langgraph.runtime import Runtime

from core.context import Context
from core.errors import StepFailed
from nodes.deps import Node
from nodes.workflow.execution import Plan
from nodes.workflow.moment import Moment
from nodes.workflow.state import StrandState, WorkflowOutput
from workflows.failures import blocking, causes
from workflows.outline import referred_steps
from workflows.templates import Template


def finish(plan: Plan) -> Node[StrandState, WorkflowOutput]:
    """Node: say how it ended, and its result."""
    definition = plan.definition
    template = Template(definition.result)
    referred = referred_steps(("result", path) for path in template.paths())

    async def finish(state: StrandState, *, runtime: Runtime[Context]) -> WorkflowOutput:
        here = Moment.of(plan, state, runtime).here
        if stopped := causes(plan.outline, blocking(plan.outline, here.results)):
            error = f"{stopped[0]}: {here.results[stopped[0]]['error']}"
            return WorkflowOutput(status="failed", result=None, error=error, failed=stopped)
        try:
            result = (
                here.output(definition.steps[-1])
                if definition.result is None
                else template.render(here.context(referred, ()))
            )
        except StepFailed as error:
            return WorkflowOutput(status="failed", result=None, error=f"result: {error.message}", failed=[])
        return WorkflowOutput(status="succeeded", result=result, error="", failed=[])

    return finish


async def stop(state: StrandState) -> StrandState:  # noqa: ARG001 - a node's signature
    """Node: a strand inside the workflow failed."""
    return StrandState(stopped=True)
