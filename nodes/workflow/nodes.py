"""The nodes of a compiled workflow: what its steps and patterns do, and where each leads."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from pydantic import JsonValue

from core.context import Context
from core.errors import StepFailed
from nodes.workflow.execution import Plan, StepContext, execute_step
from nodes.workflow.fan_out import (
    FanOut,
    build_next_wave,
    describe_failures,
    format_item_key,
    is_for_each,
    list_branches,
    list_parallel_steps,
    name_join_node,
)
from nodes.workflow.state import BranchInput, SubgraphState, WorkflowOutput
from workflows.conditions import is_met
from workflows.outline import collect_step_ids
from workflows.results import (
    Record,
    RecordStatus,
    describe_last_failure,
    find_blocking_failures,
    find_root_causes,
    is_done,
)
from workflows.schema import Conditional, Loop, Pattern, Sequential
from workflows.steps import WorkingStep
from workflows.templates import Template

BranchName: TypeAlias = Literal["then", "otherwise"]
Subgraph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
# The destinations depend on the definition, so that the graph declares them with ``destinations=``.
StepNode: TypeAlias = Callable[..., Awaitable[Command[Any]]]
_Decide: TypeAlias = Callable[[StepContext, SubgraphState], Command[Any]]


@dataclass(frozen=True, slots=True)
class Targets:
    """Where a step leads.

    Attributes:
        next: The node after it.
        on_failure: The node to go to when it failed and may not.
    """

    next: str
    on_failure: str


class WorkflowNodes:
    """Builds the nodes of one workflow; every method returns the node function of a step.

    Args:
        plan: The plan of the workflow.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def run_step(self, step: WorkingStep, targets: Targets) -> StepNode:
        """Node: execute a working step and go on."""

        async def run_step(state: SubgraphState, *, runtime: Runtime[Context]) -> Command[Any]:
            context = StepContext.build(self._plan, state, runtime)
            record = await execute_step(step, context)
            if record is None:
                return Command(goto=targets.next)
            goto = targets.on_failure if record["status"] == "failed" else targets.next
            return Command(update={"results": {context.location.format_key(step.id): record}}, goto=goto)

        return run_step

    def enter_sequence(self, sequence: Sequential, first: str, targets: Targets) -> StepNode:
        """Node: enter a sequence, or go past it."""

        def decide(context: StepContext, _: SubgraphState) -> Command[Any]:
            return _bypass(context, sequence, targets) or Command(goto=first)

        return self._build_decision(sequence, targets, decide)

    def choose_branch(
        self, conditional: Conditional, first: Mapping[BranchName, str], targets: Targets
    ) -> StepNode:
        """Node: take the branch that the condition chooses, or chose when the node ran before.

        Args:
            conditional: The pattern.
            first: The first node of each branch.
            targets: Where the pattern leads.
        """

        def decide(context: StepContext, _: SubgraphState) -> Command[Any]:
            record = _find_record(context, conditional)
            if record and record["status"] != "skipped" and isinstance(record["output"], dict):
                return Command(
                    goto=first["then" if record["output"].get("branch") == "then" else "otherwise"]
                )
            if past := _bypass(context, conditional, targets):
                return past
            values = context.build_expression_context(conditional.id, "condition")
            branch: BranchName = "then" if is_met(conditional.condition, values) else "otherwise"
            return _record(context, conditional, "succeeded", first[branch], output={"branch": branch})

        return self._build_decision(conditional, targets, decide)

    def enter_loop(self, loop: Loop, first: str, targets: Targets) -> StepNode:
        """Node: start the first iteration, or go past the loop."""

        def decide(context: StepContext, state: SubgraphState) -> Command[Any]:
            if is_done(_find_record(context, loop)):
                return Command(goto=targets.next)
            if past := _bypass(context, loop, targets):
                return past
            return Command(update={"iterations": {**_read_iterations(state), loop.id: 1}}, goto=first)

        return self._build_decision(loop, targets, decide)

    def next_iteration(self, loop: Loop, first: str, targets: Targets) -> StepNode:
        """Node: start the next iteration, or end the loop at its limit or by its break condition."""

        def decide(context: StepContext, state: SubgraphState) -> Command[Any]:
            iterations = _read_iterations(state)
            current = iterations[loop.id]
            breaks = loop.break_condition is not None and is_met(
                loop.break_condition, context.build_expression_context(loop.id, "break_condition")
            )
            if not breaks and current < loop.max_iterations:
                return Command(update={"iterations": {**iterations, loop.id: current + 1}}, goto=first)
            remaining = {loop_id: count for loop_id, count in iterations.items() if loop_id != loop.id}
            output: JsonValue = {"iterations": current}
            return _record(context, loop, "succeeded", targets.next, output=output, iterations=remaining)

        return self._build_decision(loop, targets, decide)

    def start_fan_out(self, fan_out: FanOut, targets: Targets, after: str) -> StepNode:
        """Node: send the first wave of branches.

        Args:
            fan_out: The pattern.
            targets: Where the pattern leads.
            after: What follows the join: the first fan-in step, if there is one.
        """

        def decide(context: StepContext, _: SubgraphState) -> Command[Any]:
            record = _find_record(context, fan_out)
            if record and record["status"] == "succeeded":
                return Command(goto=after)
            if past := _bypass(context, fan_out, targets):
                return past
            branches = list_branches(context, fan_out)
            output: JsonValue = {"items": len(branches)} if is_for_each(fan_out) else None
            goto = build_next_wave(context, branches) or name_join_node(fan_out)
            return _record(context, fan_out, "running", goto, output=output)

        return self._build_decision(fan_out, targets, decide)

    def join_branches(self, fan_out: FanOut, targets: Targets) -> StepNode:
        """Node: send the next wave of branches, or record the outcome when all have run."""

        def decide(context: StepContext, _: SubgraphState) -> Command[Any]:
            branches = list_branches(context, fan_out)
            if wave := build_next_wave(context, branches):
                return Command(goto=wave)
            results, key = context.location.results, context.location.format_key(fan_out.id)
            failed = [branch.key for branch in branches if results[branch.key]["status"] == "failed"]
            return _record(
                context,
                fan_out,
                "failed" if failed else "succeeded",
                targets.on_failure if failed else targets.next,
                output=results[key]["output"],
                error=describe_failures(context, failed),
            )

        return self._build_decision(fan_out, targets, decide)

    def run_branch(self, fan_out: FanOut) -> StepNode:
        """Node: execute the single working step of a branch."""
        steps = {step.id: step for step in list_parallel_steps(fan_out)}
        only = list_parallel_steps(fan_out)[0]

        async def run_branch(state: BranchInput, *, runtime: Runtime[Context]) -> Command[Any]:
            context = StepContext.build_for_branch(self._plan, fan_out.id, state, runtime)
            step = cast("WorkingStep", steps[state["child"]] if state["child"] else only)
            record = await execute_step(step, context)
            return _leave_branch(
                fan_out, state, {context.location.format_key(step.id): record} if record else {}
            )

        return run_branch

    def run_subgraph(self, fan_out: FanOut, graph: Subgraph) -> StepNode:
        """Node: run a branch of several steps as a graph of its own.

        It does not wait for other branches at each super-step, so that a question to a person in one branch
        delays no other. The subgraph shares the thread, has a checkpoint namespace of its own and resumes
        from its own checkpoints; when it ends, its records become the parent's.
        """

        async def run_subgraph(state: BranchInput, *, runtime: Runtime[Context]) -> Command[Any]:
            context = StepContext.build_for_branch(self._plan, fan_out.id, state, runtime)
            output = await graph.ainvoke({"iterations": {}}, context=context.build_subgraph_context())
            results: dict[str, Record] = dict(output.get("results") or {})
            child = state["child"]
            key = (
                context.location.format_key(child)
                if child
                else format_item_key(context, fan_out, state["index"])
            )
            if output.get("stopped"):
                before = results[key]["output"] if key in results else None
                error = describe_last_failure(results)
                results[key] = _build_record(context, key, "failed", output=before, error=error)
            elif key not in results:
                results[key] = _build_record(context, key, "succeeded")
            return _leave_branch(fan_out, state, results)

        return run_subgraph

    def rescue(self, pattern: Pattern, targets: Targets) -> StepNode:
        """Node: record why a pattern with ``on_error: skip`` failed, leave the loops in it, and go on."""
        inner_loops = {
            step_id
            for step_id, entry in self._plan.outline.items()
            if step_id == pattern.id or pattern.id in dict(entry.ancestors)
        }

        def decide(context: StepContext, state: SubgraphState) -> Command[Any]:
            iterations = _read_iterations(state)
            record = _find_record(context, pattern)
            output: JsonValue = record["output"] if record else None
            if isinstance(pattern, Loop):
                output = {"iterations": iterations.get(pattern.id, 0)}
            remaining = {loop: count for loop, count in iterations.items() if loop not in inner_loops}
            return _record(
                context,
                pattern,
                "skipped",
                targets.next,
                output=output,
                error=describe_last_failure(context.location.results),
                iterations=remaining,
            )

        return self._build_decision(pattern, targets, decide)

    def finish(self) -> Callable[..., Awaitable[WorkflowOutput]]:
        """Node: write the outcome of the workflow and its result."""
        definition, outline = self._plan.definition, self._plan.outline
        template = Template(definition.result)
        read_steps = collect_step_ids(("result", path) for path in template.list_paths())

        async def finish(state: SubgraphState, *, runtime: Runtime[Context]) -> WorkflowOutput:
            location = StepContext.build(self._plan, state, runtime).location
            failures = find_blocking_failures(outline, location.results)
            if failed := find_root_causes(outline, failures):
                error = f"{failed[0]}: {location.results[failed[0]]['error']}"
                return WorkflowOutput(status="failed", result=None, error=error, failed=failed)
            try:
                result = (
                    location.read_output(definition.steps[-1])
                    if definition.result is None
                    else template.render(location.build_context(read_steps, ()))
                )
            except StepFailed as fault:
                error = f"result: {fault.message}"
                return WorkflowOutput(status="failed", result=None, error=error, failed=[])
            return WorkflowOutput(status="succeeded", result=result, error="", failed=[])

        return finish

    @staticmethod
    async def stop(state: SubgraphState) -> SubgraphState:  # noqa: ARG004 - a node's signature
        """Node: end a subgraph because a step in it failed."""
        return SubgraphState(stopped=True)

    def _build_decision(self, pattern: Pattern, targets: Targets, decide: _Decide) -> StepNode:
        """Build a node that decides where a pattern leads; an expression that fails is its failure."""

        async def decision(state: SubgraphState, *, runtime: Runtime[Context]) -> Command[Any]:
            context = StepContext.build(self._plan, state, runtime)
            try:
                return decide(context, state)
            except StepFailed as error:
                return _record(context, pattern, "failed", targets.on_failure, error=error.message)

        return decision


def _bypass(context: StepContext, pattern: Pattern, targets: Targets) -> Command[Any] | None:
    """Return the way past a pattern that was skipped or whose ``when`` is not met; None: enter it."""
    record = _find_record(context, pattern)
    if record is not None and record["status"] == "skipped":
        return Command(goto=targets.next)
    if not is_met(pattern.when, context.build_expression_context(pattern.id, "when")):
        return _record(context, pattern, "skipped", targets.next)
    return None


def _find_record(context: StepContext, pattern: Pattern) -> Record | None:
    return context.location.results.get(context.location.format_key(pattern.id))


def _record(
    context: StepContext,
    pattern: Pattern,
    status: RecordStatus,
    goto: Any,
    *,
    output: JsonValue = None,
    error: str = "",
    iterations: Mapping[str, int] | None = None,
) -> Command[Any]:
    """Return a command that records the state of a pattern, and the loops in progress, and goes on."""
    key = context.location.format_key(pattern.id)
    record = _build_record(context, key, status, output=output, error=error)
    loops = {} if iterations is None else {"iterations": iterations}
    return Command(update={"results": {key: record}, **loops}, goto=goto)


def _build_record(
    context: StepContext, key: str, status: RecordStatus, *, output: JsonValue = None, error: str = ""
) -> Record:
    """Return the record of a pattern, which started when its previous record says, or now."""
    now = context.plan.engine.clock()
    before = context.location.results.get(key)
    started = before["started"] if before else now
    return Record(
        status=status,
        output=output,
        error=error,
        started=started,
        finished=now,
        seconds=round(now - started, 6),
        attempts=0,
    )


def _leave_branch(fan_out: FanOut, branch: BranchInput, results: dict[str, Record]) -> Command[Any]:
    # One branch leads on for all, which saves a database row for each of the others.
    return Command(update={"results": results}, goto=name_join_node(fan_out) if branch["last"] else ())


def _read_iterations(state: SubgraphState) -> dict[str, int]:
    return state.get("iterations") or {}
