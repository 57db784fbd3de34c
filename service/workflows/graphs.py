"""Compiled definitions, the requests that run them, and the progress of runs as checkpoints show it."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from langgraph.types import Interrupt
from pydantic import JsonValue, ValidationError

from core.context import Context
from core.errors import WorkflowFailed
from graphs.workflow import RECURSION_LIMIT
from nodes.workflow.recovery import extract_records, find_running_steps
from service.auth.principal import Identity
from service.runs.output import interrupt_to_dict
from service.runs.preconditions import is_answered_elsewhere
from service.runs.request import GRAPH_KEY, TENANT_KEY, USER_KEY, CompiledGraph, OnStart, RunRequest
from workflows.outline import Outline, build_outline
from workflows.progress import Progress, StepProgress, compute_progress
from workflows.results import Record
from workflows.schema import Definition
from workflows.store import Run

# The graph that threads of /v1/workflows name, whatever their definition. The registry's graph "workflow" is
# another one: it runs a definition inside a step, and its threads are resumed like those of any graph.
WORKFLOW: Final = "workflows"
_MAX_CACHED: Final = 256


class WorkflowGraphs:
    """Compiles definitions, and caches those used last.

    Args:
        compile_definition: Compiles a definition with the checkpointer.
    """

    def __init__(self, compile_definition: Callable[[Definition], CompiledGraph]) -> None:
        self._compile = compile_definition
        self._cache: OrderedDict[bytes, tuple[Definition, CompiledGraph]] = OrderedDict()

    def compile(self, definition: Mapping[str, JsonValue]) -> CompiledGraph:
        """Return the graph of a definition.

        Raises:
            WorkflowFailed: The definition is not valid any more, after an upgrade of the service.
        """
        return self._get(definition)[1]

    def parse(self, definition: Mapping[str, JsonValue]) -> Definition:
        """Return the parsed definition; raises as :meth:`compile`."""
        return self._get(definition)[0]

    def _get(self, definition: Mapping[str, JsonValue]) -> tuple[Definition, CompiledGraph]:
        key = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).digest()
        if key not in self._cache:
            try:
                parsed = Definition.model_validate(definition)
            except ValidationError as error:
                raise WorkflowFailed(
                    f"the definition is not valid any more: {error.error_count()} fault(s); start a new run"
                ) from error
            self._cache[key] = (parsed, self._compile(parsed))
        self._cache.move_to_end(key)
        while len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return self._cache[key]


def build_request(
    graph: CompiledGraph,
    run: Run,
    graph_input: Any = None,
    *,
    decided_by: Identity | None = None,
    skip_checks: bool = False,
    on_start: OnStart | None = None,
) -> RunRequest:
    """Return the request that runs a stretch of a workflow on its thread.

    Args:
        graph: The compiled definition.
        run: The run to start or to continue.
        graph_input: An input, a command, or None to resume.
        decided_by: Who answers a question of the run; None: it continues on behalf of who started it.
        skip_checks: Whether steps beside an open question resume, which the checks of a thread would refuse.
        on_start: Called when the stretch begins.
    """
    return RunRequest(
        graph=graph,
        input=graph_input,
        identity=decided_by or Identity(tenant=run.tenant, user=run.user_id),
        config={
            "configurable": {"thread_id": run.id},
            "recursion_limit": RECURSION_LIMIT,
            "metadata": {
                GRAPH_KEY: WORKFLOW,
                TENANT_KEY: run.tenant,
                USER_KEY: run.user_id,
                "workflow": run.name,
            },
            "run_name": WORKFLOW,
        },
        # The thread's state needs no checks when there is none, or when the job, which is the only one of the
        # run, has looked at it.
        fresh=isinstance(graph_input, dict) or skip_checks,
        context=Context(tenant=run.tenant, user=run.user_id),
        # A step is in the checkpoint before the next one starts.
        durability="sync",
        # Nobody listens to the stream: progress is read from the checkpoints.
        modes=("custom",),
        on_start=on_start,
        queue="workflows",
        # A job continues the workflow, which knows more than one stretch of it.
        is_recoverable=False,
    )


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with what its checkpoints say of its steps.

    Attributes:
        run: Its row in the table of runs.
        definition: Its definition.
        outline: The outline of the definition.
        values: The values of its thread's latest state.
        interrupts: What it waits for.
        records: The records of its steps so far.
        progress: The progress that the records amount to.
    """

    run: Run
    definition: Definition
    outline: Outline
    values: Mapping[str, Any]
    interrupts: Sequence[Interrupt]
    records: Mapping[str, Record]
    progress: Progress

    @classmethod
    async def read(cls, graphs: WorkflowGraphs, run: Run) -> "RunView":
        """Read the present state of a run."""
        definition = graphs.parse(run.definition)
        outline = build_outline(definition)
        if run.status == "queued" and run.started_at is None:
            return cls(run, definition, outline, {}, (), {}, compute_progress(definition, outline, {}))
        config: Any = {"configurable": {"thread_id": run.id}}
        snapshot = await graphs.compile(run.definition).aget_state(config, subgraphs=True)
        records = extract_records(snapshot)
        # A run that was stopped has tasks left, but none of them is running.
        running = frozenset() if run.is_final else find_running_steps(snapshot, outline)
        progress = compute_progress(definition, outline, records, running)
        return cls(run, definition, outline, snapshot.values, snapshot.interrupts, records, progress)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a watched run.

    Attributes:
        name: ``step``: a step started, ended or failed. ``workflow``: the run's status or the number of its
            finished steps changed.
        data: What it is now, as JSON.
        time: When a step ended, in seconds since the epoch; 0: it has no time.
    """

    name: Literal["step", "workflow"]
    data: dict[str, Any]
    time: float = 0


class ChangeDetector:
    """Compares a run with what it was when it was last looked at.

    Args:
        since: The time of the last change that is known; 0: none.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._steps: dict[str, StepProgress] = {}
        self._run: dict[str, Any] = {}

    def detect(self, view: RunView) -> Iterator[Change]:
        """Yield what changed, steps in the order of their times."""
        steps, progress = view.progress.steps, view.progress
        changed = [step_id for step_id, step in steps.items() if step != self._steps.get(step_id)]
        for step_id in sorted(changed, key=lambda one: _change_time(steps[one])):
            step, changed_at = steps[step_id], _change_time(steps[step_id])
            if step.state != "pending" and not 0 < changed_at <= self._since:
                yield Change("step", {"id": step_id, **asdict(step)}, changed_at)
        self._steps = dict(steps)
        run = {"id": view.run.id, "status": view.run.status, "done": progress.done, "total": progress.total}
        if run != self._run:
            self._run = run
            yield Change("workflow", run)
        # Only the first look may find changes that the caller knows.
        self._since = 0


def _change_time(step: StepProgress) -> float:
    return round(max(step.started, step.finished), 6)


async def list_questions(graph: CompiledGraph, thread_id: str) -> list[dict[str, Any]]:
    """Return the pending questions of a thread that a person of the company decides."""
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    return [
        interrupt_to_dict(pending) for pending in state.interrupts if not is_answered_elsewhere(pending.value)
    ]
