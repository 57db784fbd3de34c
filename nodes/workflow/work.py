"""Do one working step: in a slot, within its time, tried again as it says."""

import asyncio
from dataclasses import dataclass, field

from pydantic import JsonValue

from core.errors import DatabaseUnavailable, ServiceError, StepFailed
from nodes.workflow.moment import Moment
from workflows.conditions import holds
from workflows.definition.base import Retry, StepBase
from workflows.ports import StepCall
from workflows.results import Record, Status, is_done

LONGEST_BACKOFF_SECONDS = 3_600


@dataclass(slots=True)
class _Work:
    """A step's attempts so far."""

    started: float
    attempts: int = 0
    seconds: float = field(default=0.0)


async def work(step: StepBase, moment: Moment) -> Record | None:
    """Do a step, unless that is done.

    What it may fail with is typed and becomes its record; anything else is a bug and ends the run. That our
    own database is away says nothing of the step: the run is left to be gone on with. The
    attempts are counted in this process: after a restart they begin again, with the same idempotency key.

    Returns:
        What to keep; None: the step was done before.

    Raises:
        DatabaseUnavailable: What the step does cannot be recorded now.
    """
    engine = moment.plan.engine
    if is_done(moment.here.results.get(moment.here.key(step.id))):
        return None
    done = _Work(started=engine.clock())
    try:
        if not holds(step.when, moment.context(step.id, "when")):
            return _record(moment, done, "skipped")
        return _record(moment, done, "succeeded", output=await _tried(step, moment, done))
    except DatabaseUnavailable:
        raise
    except (ServiceError, TimeoutError) as error:
        last = step.on_error.then if isinstance(step.on_error, Retry) else step.on_error
        return _record(moment, done, "skipped" if last == "skip" else "failed", error=_reason(step, error))


async def _tried(step: StepBase, moment: Moment, done: _Work) -> JsonValue:
    engine = moment.plan.engine
    retry = step.on_error if isinstance(step.on_error, Retry) else None
    while True:
        try:
            return await _attempt(step, moment, done)
        except DatabaseUnavailable:
            raise
        except (ServiceError, TimeoutError) as error:
            if retry is None or done.attempts > retry.retry or not _may_help(error):
                raise
        # Without a slot: others work meanwhile.
        backoff = min(retry.backoff_seconds * 2 ** (done.attempts - 1), LONGEST_BACKOFF_SECONDS)
        await engine.pause(backoff * engine.jitter())


async def _attempt(step: StepBase, moment: Moment, done: _Work) -> JsonValue:
    definition, engine = moment.plan.definition, moment.plan.engine
    call = StepCall(
        context=moment.context(step.id),
        idempotency_key=f"{moment.workflow_id}:{moment.here.key(step.id)}",
        tenant=moment.parameters.tenant,
        user=moment.parameters.user,
        workflow_id=moment.workflow_id,
        step_id=step.id,
        since=moment.since,
        attempt=done.attempts + 1,
    )
    kind: str = step.type  # type: ignore[attr-defined]  # every working step has one
    if kind not in engine.executors:
        raise StepFailed(f"{kind} steps cannot be run here")
    executor = engine.executors[kind]
    async with engine.slots.slot(
        moment.workflow_id, priority=definition.priority, owner_limit=definition.limits.max_parallel
    ):
        began = engine.clock()
        if not done.attempts:
            done.started = began
        done.attempts += 1
        try:
            async with asyncio.timeout(step.bound_seconds):
                output: JsonValue = await executor(step, call)
        finally:
            done.seconds += engine.clock() - began
    return output


def _may_help(error: ServiceError | TimeoutError) -> bool:
    return not isinstance(error, StepFailed) or error.retryable


def _reason(step: StepBase, error: ServiceError | TimeoutError) -> str:
    if isinstance(error, ServiceError):
        return error.message
    return f"it took longer than {step.bound_seconds:g} seconds"


def _record(
    moment: Moment, done: _Work, status: Status, *, output: JsonValue = None, error: str = ""
) -> Record:
    return Record(
        status=status,
        output=output,
        error=error,
        started=done.started,
        finished=moment.plan.engine.clock(),
        seconds=round(done.seconds, 6),
        attempts=done.attempts,
    )
