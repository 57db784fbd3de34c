"""Kinds of runs that must not delay each other: each has its own concurrency slots and time limit."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.concurrency import FairSemaphore, SlotUnavailable
from core.errors import TooManyRuns
from core.settings import RunSettings, WorkflowSettings

Lane: TypeAlias = Literal["runs", "workflows"]

# The part of all slots that one of several tenants may hold: a run that has begun is not taken back.
_TENANT_SHARE = 4 / 5


@dataclass(frozen=True, slots=True)
class RunLane:
    """Limits of one kind of run.

    Attributes:
        slots: Its concurrency slots, shared fairly between tenants.
        timeout_seconds: Time limit of a run.
    """

    slots: FairSemaphore
    timeout_seconds: float

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Hold a concurrency slot for a tenant's run, waiting for it if necessary.

        Raises:
            TooManyRuns: No slot came free in time, or too many runs of the tenant wait already.
        """
        try:
            await self.slots.acquire(tenant)
        except SlotUnavailable:
            running = self.slots.held_by(tenant)
            raise TooManyRuns(
                f"{running} runs of this tenant are in progress and no slot came free; try again in a moment",
                details={
                    "running": running,
                    "limit": self.slots.limit,
                    "limit_per_tenant": self.slots.owner_limit,
                },
                retry_after=1,
            ) from None
        try:
            yield
        finally:
            self.slots.release(tenant)


def run_lanes(runs: RunSettings, workflows: WorkflowSettings, *, shared: bool) -> Mapping[Lane, RunLane]:
    """Build the lanes that the settings describe.

    Args:
        runs: Limits of runs.
        workflows: Limits of workflows, where they differ.
        shared: Whether several tenants share the slots, so that none may hold all of them.
    """
    # A limit per tenant that is set for runs does not apply to workflows.
    own = {"max_concurrent": workflows.max_concurrent, "max_concurrent_per_tenant": None}
    return {
        "runs": RunLane(_run_slots(runs, shared=shared), runs.timeout_seconds),
        "workflows": RunLane(
            _run_slots(runs.model_copy(update=own), shared=shared), workflows.timeout_seconds
        ),
    }


def _run_slots(settings: RunSettings, *, shared: bool) -> FairSemaphore:
    limit = settings.max_concurrent
    return FairSemaphore(
        limit,
        owner_limit=settings.max_concurrent_per_tenant
        or (max(1, int(limit * _TENANT_SHARE)) if shared else limit),
        timeout=settings.queue_seconds,
        queue_length=settings.queue_length,
    )
