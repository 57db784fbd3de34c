"""What a tool is told by the run, and the model neither sees nor writes."""

from dataclasses import dataclass
from uuid import UUID, uuid5

from core.memory import Scope, StrategyName

_NAMESPACE = UUID("6f2c1f0e-8d0b-4c57-9a57-1d0a6b6b9f51")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Identity and key of one tool call.

    Attributes:
        contact_id: The contact the run is about. A tool acts on this contact and on no other.
        idempotency_key: The same each time this call is made again after a crash or a retry.
        tenant: Whose data the run may touch.
        strategy: How what is searched is weighed: the calling agent's retrieval strategy.
        agent: Who calls; notes are written in its name.
    """

    contact_id: str
    idempotency_key: str
    tenant: str = "default"
    strategy: StrategyName = "general"
    agent: str = "agent"

    @property
    def scope(self) -> Scope:
        """Whose memory the call may read and write."""
        return Scope(self.tenant, self.contact_id)


def idempotency_key(thread_id: str, message_id: str, call_id: str) -> str:
    """Key of an effect: the thread, the step (the message that asked for it) and the call in it.

    All three are in the checkpoint before the effect is tried, so a resumed run derives the same key.
    """
    return str(uuid5(_NAMESPACE, f"{thread_id}\n{message_id}\n{call_id}"))
