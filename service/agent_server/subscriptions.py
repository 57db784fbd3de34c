"""Which events of a thread a client of the streaming protocol has subscribed to."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

CHANNELS: Final = frozenset(
    {"values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"}
)
# A channel of custom events of one name.
_CUSTOM: Final = "custom:"
_MAX: Final = 100


class Subscription(BaseModel):
    """The events that a client wants.

    A prefix matches a namespace whose first segments are the same; a segment without an id (``agent``)
    matches that of any task (``agent:1b9f``).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    channels: list[str] = Field(
        min_length=1, max_length=_MAX, description=f"{', '.join(sorted(CHANNELS))}, or custom:<name>"
    )
    namespaces: list[list[str]] | None = Field(
        None, max_length=_MAX, description="Prefixes of the namespaces; null: any"
    )
    depth: int | None = Field(None, ge=0, description="Most segments below a prefix; null: any number")
    since: int | None = Field(None, ge=0, description="The seq of the last event that the client has")

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[str]) -> list[str]:
        for channel in channels:
            if channel not in CHANNELS and not (channel.startswith(_CUSTOM) and channel != _CUSTOM):
                raise ValueError(f"there is no channel {channel[:50]!r}")
        return channels

    def wants(self, channel: str, namespace: Sequence[str]) -> bool:
        """Return whether events of a channel and a namespace are to be sent."""
        is_subscribed = channel in self.channels or (
            channel.startswith(_CUSTOM) and "custom" in self.channels
        )
        return is_subscribed and self._covers(namespace)

    def _covers(self, namespace: Sequence[str]) -> bool:
        if not self.namespaces:
            return True
        return any(
            _is_prefix(prefix, namespace)
            and (self.depth is None or len(namespace) - len(prefix) <= self.depth)
            for prefix in self.namespaces
        )


def name_custom_channel(data: Any) -> str:
    """Return the channel of what a node streamed: ``custom:<name>`` where it has a name."""
    name = data.get("name") if isinstance(data, dict) else None
    return f"{_CUSTOM}{name}" if name else "custom"


def _is_prefix(prefix: Sequence[str], namespace: Sequence[str]) -> bool:
    return len(prefix) <= len(namespace) and all(
        part in {segment, segment.partition(":")[0]} for part, segment in zip(prefix, namespace, strict=False)
    )
