"""Chat models: which one answers, and how a call is bounded, retried and falls back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from core.settings import FeatureSettings, ModelSettings

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


class ChatModels:
    """The models of the service, by role.

    Args:
        info: Names to use and what to tell people about them.
        factory: Builds a LangChain chat model from a spec; called once per distinct spec.
        timeout: Seconds one attempt may take.
        max_attempts: Attempts per model before the fallback is asked.
        thinking: Whether the reasoning role asks for thinking.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
    """

    def __init__(
        self,
        info: ModelInfo,
        factory: ModelFactory,
        *,
        timeout: float = 60,
        max_attempts: int = 3,
        thinking: bool = True,
        first_pause: float = 0.5,
    ) -> None:
        raise NotImplementedError

    async def reply(
        self,
        messages: Sequence[BaseMessage],
        *,
        temperature: float,
        tools: Sequence[BaseTool] = (),
        role: Role = "chat",
        model: str | None = None,
    ) -> AIMessage:
        """Ask for the next message, with tools bound.

        Args:
            messages: The conversation, system message first.
            temperature: The step's own.
            tools: What the model may call.
            role: Which of the service's models.
            model: ``provider:model`` that stands instead of the role's.

        Raises:
            ModelUnavailable: Through all attempts, of the fallback too.
            ModelMisconfigured: The provider refuses the key, the name or the request.
            ModelRefused: The provider blocked the prompt or the reply.
        """
        raise NotImplementedError

    async def structured(
        self,
        messages: Sequence[BaseMessage],
        schema: type[T],
        *,
        temperature: float,
        role: Role = "reasoning",
        model: str | None = None,
    ) -> StructuredReply[T]:
        """Ask for a value of ``schema``; a reply that does not parse is returned, not raised.

        Raises:
            ModelUnavailable: Through all attempts, of the fallback too.
            ModelMisconfigured: The provider refuses the key, the name or the request.
            ModelRefused: The provider blocked the prompt or the reply.
        """
        raise NotImplementedError


def chat_models(settings: ModelSettings, features: FeatureSettings) -> ChatModels:
    """The service's models from its settings."""
    raise NotImplementedError
