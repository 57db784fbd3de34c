"""The words of model calls: roles, specs, what is told to people, structured replies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from pydantic import BaseModel

Role: TypeAlias = Literal["chat", "reasoning"]
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a factory is asked to build: a model by name, at a temperature, thinking or not."""

    name: str
    temperature: float
    thinking: bool


ModelFactory: TypeAlias = Callable[[ModelSpec], BaseChatModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Which model answers and why, for banners, /info and response metadata."""

    model: str
    reasoning_model: str
    fallback_model: str | None
    is_language_model: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredReply(Generic[T]):
    """A structured-output reply: ``value`` when it parsed, else ``error`` says why not."""

    value: T | None
    error: str | None
    raw: AIMessage
