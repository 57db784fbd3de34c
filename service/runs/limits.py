"""Limit how many runs of each queue execute at once, in this process and for a tenant in the deployment."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.concurrency import FairSemaphore, SlotUnavailable
from core.errors import TooManyRuns
from core.settings import RunSettings, WorkflowSettings
from service.runs.request import QueueName

# The part of all slots that one of several tenants may hold: a run that has begun is not taken back.
_TENANT_SHARE = 4 / 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueue:
    """Limits of one kind of run.

    Attributes:
        slots: The concurrency slots of this process, shared fairly between tenants.
        places: Runs of one tenant that may execute at once over all replicas; ``None``: as the slots allow.
        queue_length: Runs of one tenant that may wait, over all replicas.
        timeout_seconds: Time limit of a run.
    """

    slots: FairSemaphore
    places: int | None
    queue_length: int
    timeout_seconds: float

    async def acquire(self, tenant: str) -> None:
        """Take a concurrency slot for a tenant's run, waiting for it if necessary.

        Raises:
            TooManyRuns: No slot came free in time, or too many runs of the tenant wait already.
        """
        try:
            await self.slots.acquire(tenant)
        except SlotUnavailable:
            raise self.build_refusal(tenant) from None

    def build_refusal(self, tenant: str) -> TooManyRuns:
        """Return the error for a run that can neither begin nor wait."""
        running = self.slots.held_by(tenant)
        return TooManyRuns(
            f"{running} runs of this tenant are in progress and no slot came free; try again in a moment",
            details={
                "running": running,
                "limit": self.slots.limit,
                "limit_per_tenant": self.slots.owner_limit,
            },
            retry_after=1,
        )


def build_queues(
    runs: RunSettings, workflows: WorkflowSettings, *, shared: bool
) -> Mapping[QueueName, RunQueue]:
    """Build the queues that the settings describe.

    Args:
        runs: Limits of runs.
        workflows: Limits of workflows, where they differ.
        shared: Whether several tenants share the slots, so that none may hold all of them.
    """
    # A limit per tenant that is set for runs does not apply to workflows.
    own = {"max_concurrent": workflows.max_concurrent, "max_concurrent_per_tenant": None}
    return {
        "runs": _build_queue(runs, runs.timeout_seconds, shared=shared),
        "workflows": _build_queue(runs.model_copy(update=own), workflows.timeout_seconds, shared=shared),
    }


def _build_queue(settings: RunSettings, timeout_seconds: float, *, shared: bool) -> RunQueue:
    limit = settings.max_concurrent
    return RunQueue(
        slots=FairSemaphore(
            limit,
            owner_limit=settings.max_concurrent_per_tenant
            or (max(1, int(limit * _TENANT_SHARE)) if shared else limit),
            timeout=settings.queue_seconds,
            queue_length=settings.queue_length,
        ),
        places=settings.max_concurrent_per_tenant,
        queue_length=settings.queue_length,
        timeout_seconds=timeout_seconds,
    )
