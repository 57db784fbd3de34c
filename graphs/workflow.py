"""Declarative workflows: a definition compiled to a graph of its own.

A compiled definition is the root graph of its thread, so that history, forks, interrupts and resumption are
LangGraph's. In each graph, either one step runs at a time, or a fan-out does. Sequences, conditionals and
loops, however nested, are nodes and edges of the graph they are in. A branch of a fan-out is a task if it is
a single working step, and a subgraph if it has several: the steps of one graph wait for each other at each
super-step (Malewicz et al. 2010, "Pregel"), so that a slow branch, or one that asks a person, would delay
the other branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from core.context import Context
from graphs.spec import GraphSpec
from nodes.deps import Deps
from nodes.workflow.execution import Plan
from nodes.workflow.fan_out import (
    FanOut,
    is_for_each,
    list_parallel_steps,
    name_branch_node,
    name_join_node,
    name_subgraph_node,
)
from nodes.workflow.nodes import Subgraph, Targets, WorkflowNodes
from nodes.workflow.registry_graph import (
    RunWorkflowInput,
    RunWorkflowNodes,
    RunWorkflowOutput,
    RunWorkflowState,
)
from nodes.workflow.state import (
    BranchInput,
    SubgraphContext,
    SubgraphState,
    WorkflowInput,
    WorkflowOutput,
    WorkflowState,
)
from workflows.conditions import AlwaysTrue
from workflows.outline import is_pattern
from workflows.ports import Engine
from workflows.schema import Conditional, Definition, FanOutFanIn, Loop, Parallel, Pattern, Sequential, Step
from workflows.steps import WorkingStep

# Each iteration, wave and step takes one or two super-steps; this is more than a definition's bounds allow.
RECURSION_LIMIT: Final = 10_000_000

Graph: TypeAlias = StateGraph[Any, Any, Any, Any]


def compile_workflow(
    definition: Definition, engine: Engine, checkpointer: Checkpointer = None
) -> CompiledStateGraph[WorkflowState, Context, WorkflowInput, WorkflowOutput]:
    """Compile a definition.

    Args:
        definition: A definition that :func:`workflows.validation.read_definition` returned.
        engine: Executes its working steps.
        checkpointer: The checkpointer of a root graph; None: that of the graph it runs in.
    """
    plan = Plan.build(definition, engine)
    nodes = WorkflowNodes(plan)
    graph = StateGraph(WorkflowState, Context, input_schema=WorkflowInput, output_schema=WorkflowOutput)
    graph.add_node("finish", nodes.finish())
    first = _GraphBuilder(nodes, graph).add_steps(definition.steps, Targets("finish", on_failure="finish"))
    graph.add_edge(START, first)
    graph.add_edge("finish", END)
    compiled = graph.compile(checkpointer=checkpointer, name=definition.name)
    return compiled.with_config({"recursion_limit": RECURSION_LIMIT})


def _compile_subgraph(nodes: WorkflowNodes, steps: Sequence[Step]) -> Subgraph:
    """Compile the steps of a branch to a graph of their own."""
    graph = StateGraph(SubgraphState, SubgraphContext)
    graph.add_node("stop", nodes.stop)
    first = _GraphBuilder(nodes, graph).add_steps(steps, Targets(END, on_failure="stop"))
    graph.add_edge(START, first)
    graph.add_edge("stop", END)
    return graph.compile()


@dataclass(frozen=True, slots=True)
class _GraphBuilder:
    """Adds the nodes of steps to a graph; every method returns the node where what it added begins."""

    nodes: WorkflowNodes
    graph: Graph

    def add_steps(self, steps: Sequence[Step], targets: Targets) -> str:
        """Add steps that run one after the other."""
        for step in reversed(steps):
            targets = Targets(self.add_step(step, targets), targets.on_failure)
        return targets.next

    def add_step(self, step: Step, targets: Targets) -> str:
        """Add one step."""
        if not is_pattern(step):
            node = self.nodes.run_step(cast("WorkingStep", step), targets)
            return self._add_node(step.id, node, targets.next, targets.on_failure)
        inner = targets
        if step.on_error == "skip":
            rescue = self.nodes.rescue(cast("Pattern", step), targets)
            inner = Targets(targets.next, self._add_node(f"{step.id}.rescue", rescue, targets.next))
        match step:
            case Sequential():
                return self._add_sequence(step, inner)
            case Conditional():
                return self._add_conditional(step, inner)
            case Loop():
                return self._add_loop(step, inner)
            case Parallel() | FanOutFanIn():
                return self._add_fan_out(step, inner)
        raise AssertionError(step)

    def _add_sequence(self, step: Sequential, targets: Targets) -> str:
        first = self.add_steps(step.steps, targets)
        if isinstance(step.when, AlwaysTrue) and step.on_error == "fail":
            return first
        node = self.nodes.enter_sequence(step, first, targets)
        return self._add_node(step.id, node, first, targets.next, targets.on_failure)

    def _add_conditional(self, step: Conditional, targets: Targets) -> str:
        then = self.add_steps(step.then, targets)
        otherwise = self.add_steps(step.otherwise, targets)
        node = self.nodes.choose_branch(step, {"then": then, "otherwise": otherwise}, targets)
        return self._add_node(step.id, node, then, otherwise, targets.next, targets.on_failure)

    def _add_loop(self, step: Loop, targets: Targets) -> str:
        again = f"{step.id}.next"
        first = self.add_steps(step.steps, Targets(again, targets.on_failure))
        destinations = (first, targets.next, targets.on_failure)
        self._add_node(again, self.nodes.next_iteration(step, first, targets), *destinations)
        return self._add_node(step.id, self.nodes.enter_loop(step, first, targets), *destinations)

    def _add_fan_out(self, step: FanOut, targets: Targets) -> str:
        after = self.add_steps(step.fan_in_steps, targets) if isinstance(step, FanOutFanIn) else targets.next
        branches = self._add_branches(step)
        join = self.nodes.join_branches(step, Targets(after, targets.on_failure))
        self._add_node(name_join_node(step), join, *branches, after, targets.on_failure)
        start = self.nodes.start_fan_out(step, targets, after)
        return self._add_node(
            step.id, start, *branches, name_join_node(step), after, targets.next, targets.on_failure
        )

    def _add_branches(self, step: FanOut) -> list[str]:
        """Add the nodes that the branches run in, and return all of them."""
        children = list_parallel_steps(step)
        if is_for_each(step) and (len(children) > 1 or is_pattern(children[0])):
            return [self._add_subgraph(step, None, children)]
        names = [self._add_subgraph(step, child, [child]) for child in children if is_pattern(child)]
        if len(names) < len(children):
            # One node runs all of them, and its input names the step: LangGraph visits every channel of a
            # graph in each super-step, and there may be thousands of steps.
            names.append(self._add_branch_node(step, name_branch_node(step), self.nodes.run_branch(step)))
        return names

    def _add_subgraph(self, step: FanOut, child: Step | None, steps: Sequence[Step]) -> str:
        subgraph = _compile_subgraph(self.nodes, steps)
        return self._add_branch_node(
            step, name_subgraph_node(step, child), self.nodes.run_subgraph(step, subgraph)
        )

    def _add_branch_node(self, step: FanOut, name: str, node: Any) -> str:
        self.graph.add_node(name, node, input_schema=BranchInput, destinations=(name_join_node(step),))
        return name

    def _add_node(self, name: str, node: Any, *destinations: str) -> str:
        self.graph.add_node(name, node, destinations=tuple(dict.fromkeys(destinations)))
        return name


def build_workflow(deps: Deps) -> StateGraph[RunWorkflowState, Context, RunWorkflowInput, RunWorkflowOutput]:
    """Build the registry's graph, which reads a definition and runs the graph it compiles to."""
    nodes = RunWorkflowNodes(lambda definition: compile_workflow(definition, deps.workflows))
    graph = StateGraph(
        RunWorkflowState, Context, input_schema=RunWorkflowInput, output_schema=RunWorkflowOutput
    )
    graph.add_node("prepare", nodes.prepare)
    graph.add_node("run", nodes.run)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "run")
    graph.add_edge("run", END)
    return graph


SPEC = GraphSpec(
    name="workflow",
    description="Runs a workflow, from the library or a definition in the request, and returns its result.",
    kind="workflow",
    suits="Steps that are known beforehand and run the same way each time.",
    build=build_workflow,
    input_schema=RunWorkflowInput,
    output_schema=RunWorkflowOutput,
    # Its steps have effects outside.
    durability="sync",
    # Two super-steps; the workflow that runs in the second has a limit of its own.
    recursion_limit=10,
    example={
        "name": "reengage_quiet_customers",
        "input": {"contacts": ["550e8400-e29b-41d4-a716-446655440000"], "since": "2026-11-21"},
    },
)
