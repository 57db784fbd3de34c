"""The kinds of model calls: which model they use, whether it thinks, and how long a reply may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

# ``reasoning``: plans, judgements and thoughts of agents, with thinking. ``chat``: texts, written once
# what they say is known. ``reading``: a choice or a form, where thinking would only cost time.
Role: TypeAlias = Literal["reasoning", "chat", "reading"]

# Most tokens of a reply, thinking included, within MODEL_MAX_OUTPUT_TOKENS. ``None``: all of the setting,
# because a plan that was cut is worth nothing.
OUTPUT_TOKENS: Final[Mapping[Role, int | None]] = {"reasoning": None, "chat": 4_096, "reading": 2_048}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStep:
    """A step that calls a model, with what it asks for.

    Attributes:
        role: Kind of the call.
        temperature: Sampling temperature.
    """

    role: Role
    temperature: float
