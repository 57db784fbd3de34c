"""What passes over the broker, and who handles it; known without the client of the broker."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class BrokerMeter(Protocol):
    """Counts messages, as :class:`service.observability.metrics.ServiceMetrics` does."""

    def record_broker(self, outcome: str, count: int = 1) -> None:
        """Count events that were ``published``, and commands ``taken``, ``dead`` or ``returned``."""
        ...


class MessageCommand(BaseModel):
    """A ``message.received`` command: the body of ``POST /v1/messages``, and whose it is.

    Attributes:
        tenant: One of AMQP_TENANTS.
        message_id: Required here: it has a command that is delivered twice answered once. The handler
            validates the rest, as the route does.
    """

    model_config = ConfigDict(extra="allow")

    tenant: str
    message_id: str = Field(min_length=1, max_length=200)

    def to_request(self) -> dict[str, JsonValue]:
        """Return the body of the request."""
        return {"message_id": self.message_id, **(self.model_extra or {})}


class CommandRefused(Exception):
    """Raise when a command cannot be used, however often it is tried.

    Args:
        code: What is wrong, in a word.
        message: What is wrong, for whoever sent it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# Handles a command; calls the function once the command need not be delivered again.
Handle: TypeAlias = Callable[[MessageCommand, Callable[[], Awaitable[None]]], Awaitable[None]]
