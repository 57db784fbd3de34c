"""Execution of working steps: what a step sees, its concurrency slot, its time limit and its retries."""

import asyncio
import time
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace

from langgraph.checkpoint.base.id import UUID
from langgraph.config import get_config
from langgraph.pregel._read import ChannelRead  # LangGraph's conditional edges use it; there is no public one
from langgraph.runtime import Runtime
from pydantic import JsonValue

from core.context import Context
from core.errors import DatabaseUnavailable, ServiceError, StepFailed
from nodes.deps import get_run_context, get_thread_id
from nodes.workflow.state import BranchInput, ParentContext, SubgraphContext, SubgraphState
from workflows.conditions import is_met
from workflows.context import StepLocation
from workflows.outline import (
    Outline,
    OutlineEntry,
    build_outline,
    collect_step_ids,
    find_repeaters,
    list_references,
)
from workflows.ports import Engine, StepCall
from workflows.results import Record, RecordStatus, is_done
from workflows.schema import Definition
from workflows.steps import Retry, WorkingStep

MAX_BACKOFF_SECONDS = 3_600
# Ticks of 100 ns from 1582-10-15, where the time of a version 6 UUID starts (RFC 9562), to the epoch.
_TICKS_TO_EPOCH = 0x01B21DD213814000
_TICKS_PER_SECOND = 10_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """A definition with what its nodes need; create it with :meth:`build`.

    Attributes:
        definition: The valid definition.
        outline: Its outline.
        engine: Executes its working steps.
    """

    definition: Definition
    outline: Outline
    engine: Engine
    _read_steps: Mapping[str, Mapping[str, frozenset[str]]]

    @classmethod
    def build(cls, definition: Definition, engine: Engine) -> "Plan":
        """Return the plan of a definition."""
        outline = build_outline(definition)
        read_steps = {step_id: _find_read_steps(entry) for step_id, entry in outline.items()}
        return cls(definition, outline, engine, read_steps)

    def find_read_steps(self, step_id: str, field: str = "") -> frozenset[str]:
        """Return the ids of the steps that a step reads, in one field or, with an empty field, in all."""
        return self._read_steps[step_id].get(field, frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What a node knows about its place in the run.

    Attributes:
        plan: The plan of the workflow.
        location: What expressions see.
        parameters: The parameters of the run.
        workflow_id: The prefix of the idempotency keys.
        started_at: When the super-step started, in seconds since the epoch; the same when it runs again.
    """

    plan: Plan
    location: StepLocation
    parameters: Context
    workflow_id: str
    started_at: float

    @classmethod
    def build(cls, plan: Plan, state: SubgraphState, runtime: Runtime[Context]) -> "StepContext":
        """Return the context of a node that gets its graph's state."""
        parameters = get_run_context(runtime)
        parent = parameters.parent if isinstance(parameters, SubgraphContext) else None
        if parent is None:
            parent = ParentContext(workflow_id=get_thread_id(runtime), input=state.get("input") or {})
        location = StepLocation(
            outline=plan.outline,
            input=parent.input,
            results=ChainMap(state.get("results") or {}, parent.results),  # type: ignore[arg-type]  # read only
            indices={**parent.indices, **(state.get("iterations") or {})},
            item=parent.item,
            index=parent.index,
        )
        return cls(
            plan=plan,
            location=location,
            parameters=parameters,
            workflow_id=parent.workflow_id,
            started_at=_read_start(runtime),
        )

    @classmethod
    def build_for_branch(
        cls, plan: Plan, fan_out: str, branch: BranchInput, runtime: Runtime[Context]
    ) -> "StepContext":
        """Return the context of a branch, which gets its own input and reads the state of its super-step.

        Sending the state along would write it into the checkpoint once for each of thousands of branches.
        """
        state: SubgraphState = ChannelRead.do_read(get_config(), select=["input", "results", "iterations"])
        context = cls.build(plan, state, runtime)
        if branch["child"]:
            return context
        location = replace(
            context.location,
            indices={**context.location.indices, fan_out: branch["index"]},
            item=branch["item"],
            index=branch["index"],
        )
        return replace(context, location=location)

    def build_expression_context(self, step_id: str, field: str = "") -> dict[str, JsonValue]:
        """Return what a step's expressions see, those of one field or, with an empty field, all of them."""
        repeaters = find_repeaters(self.plan.outline[step_id], field)
        return self.location.build_context(self.plan.find_read_steps(step_id, field), repeaters)

    def build_subgraph_context(self) -> SubgraphContext:
        """Return the context of a subgraph that is run from here."""
        parent = ParentContext(
            workflow_id=self.workflow_id,
            input=self.location.input,
            results=self.location.results,
            indices=self.location.indices,
            item=self.location.item,
            index=self.location.index,
        )
        return SubgraphContext.build(self.parameters, parent)


async def execute_step(step: WorkingStep, context: StepContext) -> Record | None:
    """Execute a step, unless it is done.

    Typed errors become the step's record; any other exception is a bug and ends the run. An unavailable
    database of our own is no failure of the step: the run stays to be resumed. Attempts are counted in this
    process: after a restart they begin again, with the same idempotency key.

    Returns:
        The record to store; None: the step was done before.

    Raises:
        DatabaseUnavailable: The effects of the step cannot be recorded now.
    """
    if is_done(context.location.results.get(context.location.format_key(step.id))):
        return None
    execution = _StepExecution(step, context, started=context.plan.engine.clock())
    try:
        if not is_met(step.when, context.build_expression_context(step.id, "when")):
            return execution.build_record("skipped")
        output = await execution.attempt_with_retries()
    except DatabaseUnavailable:
        raise
    except (ServiceError, TimeoutError) as error:
        outcome = step.on_error.then if isinstance(step.on_error, Retry) else step.on_error
        status: RecordStatus = "skipped" if outcome == "skip" else "failed"
        return execution.build_record(status, error=_describe(step, error))
    return execution.build_record("succeeded", output=output)


@dataclass(slots=True)
class _StepExecution:
    """The attempts at one step so far."""

    step: WorkingStep
    context: StepContext
    started: float
    attempts: int = 0
    seconds: float = 0.0

    async def attempt_with_retries(self) -> JsonValue:
        """Attempt the step until it succeeds or its retries are used up; return its output."""
        engine = self.context.plan.engine
        retry = self.step.on_error if isinstance(self.step.on_error, Retry) else None
        while True:
            try:
                return await self._attempt()
            except DatabaseUnavailable:
                raise
            except (ServiceError, TimeoutError) as error:
                retryable = not isinstance(error, StepFailed) or error.retryable
                if retry is None or self.attempts > retry.retry or not retryable:
                    raise
            # The pause is outside of the slot, so that other steps can run meanwhile.
            backoff = min(retry.backoff_seconds * 2 ** (self.attempts - 1), MAX_BACKOFF_SECONDS)
            await engine.pause(backoff * engine.jitter())

    def build_record(self, status: RecordStatus, *, output: JsonValue = None, error: str = "") -> Record:
        """Return the record of the step."""
        return Record(
            status=status,
            output=output,
            error=error,
            started=self.started,
            finished=self.context.plan.engine.clock(),
            seconds=round(self.seconds, 6),
            attempts=self.attempts,
        )

    async def _attempt(self) -> JsonValue:
        context, step = self.context, self.step
        definition, engine = context.plan.definition, context.plan.engine
        call = StepCall(
            context=context.build_expression_context(step.id),
            idempotency_key=f"{context.workflow_id}:{context.location.format_key(step.id)}",
            step_id=step.id,
            started_at=context.started_at,
        )
        step_type: str = step.type  # type: ignore[attr-defined]  # every working step has one
        if step_type not in engine.executors:
            raise StepFailed(f"{step_type} steps cannot be run here")
        async with engine.slots.slot(
            context.workflow_id, priority=definition.priority, owner_limit=definition.limits.max_parallel
        ):
            attempt_started = engine.clock()
            if not self.attempts:
                self.started = attempt_started
            self.attempts += 1
            try:
                async with asyncio.timeout(step.max_seconds):
                    output: JsonValue = await engine.executors[step_type](step, call)
            finally:
                self.seconds += engine.clock() - attempt_started
        return output


def _find_read_steps(entry: OutlineEntry) -> dict[str, frozenset[str]]:
    """Return the ids of the steps that a step reads, by field and, under the empty field, all of them."""
    references = list_references(entry.step)
    fields = {"", *(name for name, _ in references)}
    return {name: collect_step_ids(one for one in references if name in {"", one[0]}) for name in fields}


def _describe(step: WorkingStep, error: ServiceError | TimeoutError) -> str:
    if isinstance(error, ServiceError):
        return error.message
    return f"it took longer than {step.max_seconds:g} seconds"


def _read_start(runtime: Runtime[Context]) -> float:
    """Return when the checkpoint was made that the super-step runs on, which the checkpoint's id tells."""
    info = runtime.execution_info
    if info is None:
        return time.time()
    return (UUID(info.checkpoint_id).time - _TICKS_TO_EPOCH) / _TICKS_PER_SECOND
