"""A run of a workflow, as :class:`service.runs.executor.Runs` is asked for one."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from core.context import Context
from core.errors import WorkflowFailed
from graphs.workflow import RECURSION_LIMIT
from service.auth.principal import Identity
from service.runs.compiled import CompiledGraph
from service.runs.ownership import TENANT_KEY, USER_KEY
from service.runs.preconditions import GRAPH_KEY
from service.runs.request import RunRequest
from workflows.definition.workflow import Definition
from workflows.store import Run

# The graph that the threads of /v1/workflows name: every compiled definition. The registry's own graph
# "workflow" runs one inside its step, on a thread that is gone on with like any other graph's.
WORKFLOW: Final = "workflows"
_KEPT: Final = 256


class WorkflowGraphs:
    """Compiled definitions, the latest used of which are kept.

    Args:
        compiled: Compiles one, with the checkpointer.
    """

    def __init__(self, compiled: Callable[[Definition], CompiledGraph]) -> None:
        self._compile = compiled
        self._kept: OrderedDict[bytes, tuple[Definition, CompiledGraph]] = OrderedDict()

    def of(self, definition: Mapping[str, JsonValue]) -> CompiledGraph:
        """The graph of a definition.

        Raises:
            WorkflowFailed: It was valid once and is not any more, after an upgrade of the service.
        """
        return self._entry(definition)[1]

    def definition(self, definition: Mapping[str, JsonValue]) -> Definition:
        """The definition, read. Raises as :meth:`of`."""
        return self._entry(definition)[0]

    def _entry(self, definition: Mapping[str, JsonValue]) -> tuple[Definition, CompiledGraph]:
        key = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).digest()
        if key not in self._kept:
            try:
                read = Definition.model_validate(definition)
            except ValidationError as error:
                raise WorkflowFailed(
                    f"the definition is not valid any more: {error.error_count()} fault(s); begin it anew"
                ) from error
            self._kept[key] = (read, self._compile(read))
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def workflow_request(
    graph: CompiledGraph,
    run: Run,
    given: Any = None,
    *,
    by: Identity | None = None,
    going_on: bool = False,
) -> RunRequest:
    """The request: the thread is the run's, its steps are kept before the next ones begin.

    Args:
        graph: The compiled definition.
        run: What is to go on.
        given: An input, a command, or None to continue.
        by: Who answers a question of it; None: it goes on by itself, for whoever began it.
        going_on: Steps are to be gone on with beside a question that stays open.
    """
    return RunRequest(
        graph=graph,
        input=given,
        identity=by or Identity(tenant=run.tenant, user=run.user_id),
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
        # The thread's state is not looked at: there is none, or the keeper, which holds the run, has done so.
        # Admission would have a question answered before anything beside it goes on.
        fresh=isinstance(given, dict) or going_on,
        context=Context(tenant=run.tenant, user=run.user_id),
        durability="sync",
        # Nobody listens: what a run has done is read from its checkpoints.
        modes=("custom",),
        lane="workflows",
    )
