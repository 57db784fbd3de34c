"""Declarative workflows: a definition compiled to a graph of its own.

A compiled definition is the root graph of its thread, so that history, forks, interrupts and resumption are
LangGraph's and need nothing besides. It is made of strands: a strand is a graph in which at any time one
step runs, or a fan-out. Sequences, conditionals and loops, however nested, are nodes and edges of the strand
they are in. Of a fan-out, a branch of one working step is a task; a branch of several is a strand of its own,
because the steps of one graph wait for each other at each super-step (Malewicz et al. 2010, "Pregel"): a slow
branch, or one that asks a person, would hold the others up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer
from nodes.workflow.execution import Plan

from core.context import Context
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.workflow.branch import branch, strand
from nodes.workflow.choose import choose
from nodes.workflow.control import Ways
from nodes.workflow.fan_out import beside, branch_node, fan_out, is_for_each, join, join_node, strand_node
from nodes.workflow.finish import finish, stop
from nodes.workflow.loop import enter_loop, next_iteration
from nodes.workflow.rescue import rescue
from nodes.workflow.sequence import enter_sequence
from nodes.workflow.served import RunWorkflowInput, RunWorkflowOutput, RunWorkflowState, prepare, run
from nodes.workflow.single import single
from nodes.workflow.state import (
    BranchInput,
    StrandContext,
    StrandState,
    WorkflowInput,
    WorkflowOutput,
    WorkflowState,
)
from workflows.definition.base import StepBase
from workflows.definition.conditions import AlwaysTrue
from workflows.definition.patterns import Conditional, FanOutFanIn, Loop, Parallel, Sequential, Step
from workflows.definition.workflow import Definition
from workflows.outline import is_pattern
from workflows.ports import Engine

# More than the bounds of a definition allow: each iteration, each wave and each step is one or two.
RECURSION_LIMIT = 10_000_000

Graph = StateGraph[Any, Any, Any, Any]


def compile_workflow(
    definition: Definition, engine: Engine, checkpointer: Checkpointer = None
) -> CompiledStateGraph[WorkflowState, Context, WorkflowInput, WorkflowOutput]:
    """Compile a valid definition.

    Args:
        definition: What :func:`workflows.validation.faults` finds nothing in.
        engine: What runs its working steps.
        checkpointer: Where it is a root graph; None: that of the graph it runs in.
    """
    plan = Plan.of(definition, engine)
    graph = StateGraph(WorkflowState, Context, input_schema=WorkflowInput, output_schema=WorkflowOutput)
    graph.add_node("finish", finish(plan))
    first = _Strand(plan, graph).add_all(definition.steps, Ways(on="finish", fail="finish"))
    graph.add_edge(START, first)
    graph.add_edge("finish", END)
    compiled = graph.compile(checkpointer=checkpointer, name=definition.name)
    return compiled.with_config({"recursion_limit": RECURSION_LIMIT})


def _strand_graph(plan: Plan, steps: Sequence[Step]) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Steps of a branch as a graph of their own."""
    graph = StateGraph(StrandState, StrandContext)
    graph.add_node("stop", stop)
    first = _Strand(plan, graph).add_all(steps, Ways(on=END, fail="stop"))
    graph.add_edge(START, first)
    graph.add_edge("stop", END)
    return graph.compile()


@dataclass(frozen=True, slots=True)
class _Strand:
    """Adds the nodes of steps to a graph. Every ``add`` gives the node where the step begins."""

    plan: Plan
    graph: Graph

    def add_all(self, steps: Sequence[Step], ways: Ways) -> str:
        """Steps one after the other."""
        for step in reversed(steps):
            ways = Ways(on=self.add(step, ways), fail=ways.fail)
        return ways.on

    def add(self, step: Step, ways: Ways) -> str:
        """One step."""
        if not is_pattern(step):
            return self._node(step.id, single(self.plan, cast("StepBase", step), ways), ways.on, ways.fail)
        inside = ways
        if step.on_error == "skip":
            rescued = self._node(f"{step.id}.rescue", rescue(self.plan, cast("Any", step), ways), ways.on)
            inside = Ways(on=ways.on, fail=rescued)
        match step:
            case Sequential():
                return self._sequence(step, inside)
            case Conditional():
                return self._conditional(step, inside)
            case Loop():
                return self._loop(step, inside)
            case Parallel() | FanOutFanIn():
                return self._fan(step, inside)
        raise AssertionError(step)

    def _sequence(self, step: Sequential, ways: Ways) -> str:
        first = self.add_all(step.steps, ways)
        if isinstance(step.when, AlwaysTrue) and step.on_error == "fail":
            return first
        return self._node(step.id, enter_sequence(self.plan, step, first, ways), first, ways.on, ways.fail)

    def _conditional(self, step: Conditional, ways: Ways) -> str:
        then = self.add_all(step.then, ways)
        otherwise = self.add_all(step.otherwise, ways)
        node = choose(self.plan, step, {"then": then, "otherwise": otherwise}, ways)
        return self._node(step.id, node, then, otherwise, ways.on, ways.fail)

    def _loop(self, step: Loop, ways: Ways) -> str:
        again = f"{step.id}.next"
        first = self.add_all(step.steps, Ways(on=again, fail=ways.fail))
        self._node(again, next_iteration(self.plan, step, first, ways), first, ways.on, ways.fail)
        return self._node(step.id, enter_loop(self.plan, step, first, ways), first, ways.on, ways.fail)

    def _fan(self, step: Parallel | FanOutFanIn, ways: Ways) -> str:
        after = self.add_all(step.fan_in_steps, ways) if isinstance(step, FanOutFanIn) else ways.on
        sent = self._branches(step)
        joined = Ways(on=after, fail=ways.fail)
        self._node(join_node(step), join(self.plan, step, joined), *sent, after, ways.fail)
        begin = fan_out(self.plan, step, ways, after)
        return self._node(step.id, begin, *sent, join_node(step), after, ways.on, ways.fail)

    def _branches(self, fan: Parallel | FanOutFanIn) -> list[str]:
        """Add what the branches run in."""
        steps = beside(fan)
        if is_for_each(fan) and (len(steps) > 1 or is_pattern(steps[0])):
            return [self._strand_node(fan, None, steps)]
        nodes = [self._strand_node(fan, step, [step]) for step in steps if is_pattern(step)]
        if len(nodes) < len(steps):
            # One node for all, which is told which it is: LangGraph looks at every channel of a graph in
            # each super-step, and there may be thousands.
            self.graph.add_node(
                branch_node(fan),
                branch(self.plan, fan),
                input_schema=BranchInput,
                destinations=(join_node(fan),),
            )
            nodes.append(branch_node(fan))
        return nodes

    def _strand_node(self, fan: Parallel | FanOutFanIn, child: Step | None, steps: Sequence[Step]) -> str:
        name = strand_node(fan, child)
        node = strand(self.plan, fan, _strand_graph(self.plan, steps))
        self.graph.add_node(name, node, input_schema=BranchInput, destinations=(join_node(fan),))
        return name

    def _node(self, name: str, node: Any, *destinations: str) -> str:
        self.graph.add_node(name, node, destinations=tuple(dict.fromkeys(destinations)))
        return name


def build_workflow(deps: Deps) -> StateGraph[RunWorkflowState, Context, RunWorkflowInput, RunWorkflowOutput]:
    """The graph of the registry, uncompiled: it reads a definition and runs what that compiles to."""
    graph = StateGraph(
        RunWorkflowState, Context, input_schema=RunWorkflowInput, output_schema=RunWorkflowOutput
    )
    graph.add_node("prepare", prepare)
    graph.add_node("run", run(lambda definition: compile_workflow(definition, deps.workflows)))
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "run")
    graph.add_edge("run", END)
    return graph


SPEC = GraphSpec(
    name="workflow",
    description="Runs a workflow, one of the library or a definition of yours, and answers with its result.",
    build=build_workflow,
    input_schema=RunWorkflowInput,
    output_schema=RunWorkflowOutput,
    # Steps have effects.
    durability="sync",
    # Two super-steps; the workflow in the second brings its own limit.
    recursion_limit=10,
    example={
        "workflow": "reengage_quiet_customers",
        "values": '{"contacts": ["550e8400-e29b-41d4-a716-446655440000"], "since": "2026-11-21"}',
    },
)
