"""Model calls: bounded in time, retried, and handed to the fallback if the model stays unavailable."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from pydantic import BaseModel
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from core import deadline
from core.circuit import CircuitBreaker, CircuitState
from core.deadline import StopAtDeadline
from core.errors import ModelMisconfigured, ModelUnavailable, StartupError
from core.logging import get_logger
from core.models.faults import ProviderFaults, TransientError
from core.models.prompt_cache import Prompt, PromptCache
from core.models.replies import StructuredReply, stream_reply, stream_structured
from core.models.steps import OUTPUT_TOKENS, Role
from core.models.usage import Quota, estimate_tokens, meter_call

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R", bound=AIMessage | StructuredReply[Any])

# Callers may name models, so the number of clients that are kept must be bounded.
_MOST_MODELS = 64
# In multiples of the first pause.
_LONGEST_PAUSE = 20
# For callers, if the provider does not say when to retry.
_RETRY_AFTER_SECONDS = 15.0
# Failed calls in a row, each with all its attempts, after which a model is not called for a while.
_MAX_FAILURES = 3
# A model that was given less time than this, because a deadline was near, has not failed.
_FAIR_SECONDS = 5.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The model that a factory builds.

    Attributes:
        name: ``provider:model``.
        temperature: Sampling temperature.
        thinking: Whether it thinks before it replies.
        max_output_tokens: Most tokens of a reply, within the setting. ``None``: the setting itself.
    """

    name: str
    temperature: float
    thinking: bool
    max_output_tokens: int | None = None


ModelFactory: TypeAlias = Callable[[ModelSpec], BaseChatModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The models in use and the reason, for the startup message, ``/info`` and response metadata.

    Attributes:
        model: Answers.
        reasoning_model: Plans, thinks and judges.
        fallback_model: Answers while another one is unavailable.
        is_language_model: False for the offline model.
        why: Why this model.
        prompts: Version of the prompts they are sent; empty: not known here.
    """

    model: str
    reasoning_model: str
    fallback_model: str | None
    is_language_model: bool
    why: str
    prompts: str = ""


class ChatModels:
    """The chat models of the service, by role.

    Args:
        info: The models' names, and a description for people.
        factory: Builds a LangChain chat model from a spec; called once per spec.
        timeout: Seconds that one attempt may take.
        max_attempts: Attempts per model before the fallback is called.
        thinking: Whether the reasoning role asks for thinking.
        first_pause: Seconds before the second attempt; later pauses grow, with jitter.
        prompts: Caches beginnings of prompts with the provider. ``None``: every call sends the whole prompt.
        quota: Creates the quota of a model when it is first called.
        rest_seconds: How long a model is not called after it was unavailable in several calls in a row.
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
        prompts: PromptCache | None = None,
        quota: Callable[[], Quota] = Quota,
        rest_seconds: float = 15,
    ) -> None:
        self.info = info
        self._factory = factory
        self._timeout = timeout
        self._max_attempts = max_attempts
        self._thinking = thinking
        self._longest_pause = first_pause * _LONGEST_PAUSE
        self._backoff = wait_exponential_jitter(
            initial=first_pause, max=self._longest_pause, jitter=first_pause
        )
        self._built: dict[ModelSpec, BaseChatModel] = {}
        self._building = Lock()
        self._prompts = prompts
        self._quota = quota
        self._quotas: dict[str, Quota] = {}
        self._rest_seconds = rest_seconds
        self._circuits: dict[str, CircuitBreaker] = {}

    @property
    def circuits(self) -> Mapping[str, CircuitState]:
        """The circuit of each model that was called, by its name."""
        return {name: circuit.state for name, circuit in self._circuits.items()}

    async def reply(
        self,
        messages: Sequence[BaseMessage],
        *,
        temperature: float,
        tools: Sequence[BaseTool] = (),
        role: Role = "chat",
        model: str | None = None,
    ) -> AIMessage:
        """Return the model's reply to a conversation.

        Args:
            messages: The conversation, system message first.
            temperature: Sampling temperature of this call.
            tools: Tools that the model may call.
            role: The kind of the call: which of the service's models, and how long its reply may be.
            model: ``provider:model`` to call instead of the role's.

        Raises:
            ModelUnavailable: All attempts failed, those of the fallback too.
            ModelMisconfigured: The provider rejects the key, the name or the request.
            ModelRefused: The provider blocked the prompt or the reply.
        """

        async def ask(prompt: Prompt, name: str) -> AIMessage:
            # The tools of a cached prompt are not in the prompt.
            return await stream_reply(
                prompt.bind_tools(), prompt.messages, model=name, may_call_tools=bool(tools)
            )

        return await self._ask(ask, messages, tools=tools, temperature=temperature, role=role, model=model)

    async def reply_structured(
        self,
        messages: Sequence[BaseMessage],
        schema: type[T],
        *,
        temperature: float,
        role: Role = "reasoning",
        model: str | None = None,
    ) -> StructuredReply[T]:
        """Return the model's reply as a value of ``schema``, or why it could not be parsed.

        Raises:
            ModelUnavailable: All attempts failed, those of the fallback too.
            ModelMisconfigured: The provider rejects the key, the name or the request.
            ModelRefused: The provider blocked the prompt or the reply.
        """

        async def ask(prompt: Prompt, name: str) -> StructuredReply[T]:
            return await stream_structured(prompt.chat, prompt.messages, schema, model=name)

        return await self._ask(ask, messages, temperature=temperature, role=role, model=model)

    async def aclose(self) -> None:
        """Close the connections of all models that were built."""
        if self._prompts is not None:
            await self._prompts.aclose()
        built, self._built = self._built, {}
        for chat in built.values():
            close: Callable[[], Awaitable[None]] | None = getattr(chat, "aclose", None)
            if close is not None:
                await close()

    async def _ask(
        self,
        ask: Callable[[Prompt, str], Awaitable[R]],
        messages: Sequence[BaseMessage],
        *,
        temperature: float,
        tools: Sequence[BaseTool] = (),
        role: Role,
        model: str | None,
    ) -> R:
        """Call the model, then the fallback."""
        role_model = self.info.reasoning_model if role == "reasoning" else self.info.model
        thinking = role == "reasoning" and self._thinking
        names = dict.fromkeys(name for name in (model or role_model, self.info.fallback_model) if name)
        faults: dict[str, TransientError] = {}
        for name in names:
            chat = await self._chat(
                ModelSpec(
                    name=name,
                    temperature=temperature,
                    thinking=thinking,
                    max_output_tokens=OUTPUT_TOKENS[role],
                )
            )
            try:
                return await self._attempts(ask, Prompt(chat=chat, messages=messages, tools=tools), name)
            except TransientError as fault:
                faults[name] = fault
        raise self._unavailable(faults) from faults[name]

    async def _attempts(self, ask: Callable[[Prompt, str], Awaitable[R]], prompt: Prompt, name: str) -> R:
        quota, expected = self._quota_of(name), estimate_tokens(prompt.messages)

        async def ask_in_time() -> R:
            seconds = deadline.limit(self._timeout)
            try:
                with ProviderFaults(name):
                    async with asyncio.timeout(seconds):
                        if self._prompts is None:
                            reply = await ask(prompt, name)
                        else:
                            reply = await self._prompts.ask(prompt, name, lambda sent: ask(sent, name))
            except TransientError as fault:
                fault.is_outage = fault.is_outage and seconds >= min(self._timeout, _FAIR_SECONDS)
                raise
            quota.settle(_tokens(reply), expected=expected)
            return reply

        async def attempt() -> R:
            await _wait_for_turn(quota, expected)
            return await meter_call(name, ask_in_time())

        def log(state: RetryCallState) -> None:
            _log.warning(
                "model_attempt_failed", model=name, attempt=state.attempt_number, reason=str(_fault(state))
            )

        with self._circuit_of(name).call() as is_trial:
            retrying = AsyncRetrying(
                stop=stop_after_attempt(1 if is_trial else self._max_attempts) | StopAtDeadline(),
                wait=self._pause,
                retry=retry_if_exception_type(TransientError),
                after=log,
                reraise=True,
            )
            try:
                return await retrying(attempt)
            except TransientError as fault:
                fault.attempts = retrying.statistics["attempt_number"]
                raise

    def _pause(self, state: RetryCallState) -> float:
        """Return seconds of exponential back-off, or as long as the provider asks.

        Without a deadline, which ends the attempts where they would wait beyond it, there is a bound.
        """
        fault = _fault(state)
        requested = (fault.retry_after if isinstance(fault, TransientError) else None) or 0.0
        if deadline.remaining() is None:
            requested = min(requested, self._longest_pause)
        return max(self._backoff(state), requested)

    def _unavailable(self, faults: dict[str, TransientError]) -> ModelUnavailable:
        (name, fault), *others = faults.items()
        attempts = sum(each.attempts for each in faults.values())
        details = {"model": name, "attempts": attempts, "reason": fault.reason}
        if others:
            details["fallback"] = {"model": others[0][0], "reason": others[0][1].reason}
        waits = [each.retry_after for each in faults.values() if each.retry_after is not None]
        return ModelUnavailable(
            f"The model {name!r} does not answer ({fault.reason}); try again later",
            details=details,
            retry_after=min(waits, default=_RETRY_AFTER_SECONDS),
        )

    def _quota_of(self, name: str) -> Quota:
        if name not in self._quotas:
            if len(self._quotas) >= _MOST_MODELS:
                del self._quotas[next(iter(self._quotas))]
            self._quotas[name] = self._quota()
        return self._quotas[name]

    def _circuit_of(self, name: str) -> CircuitBreaker:
        # By model and not by provider: one that is overloaded must not keep its fallback from answering.
        if name not in self._circuits:
            if len(self._circuits) >= _MOST_MODELS:
                del self._circuits[next(iter(self._circuits))]
            self._circuits[name] = CircuitBreaker(
                name,
                self._rest_seconds,
                is_failure=lambda error: isinstance(error, TransientError) and error.is_outage,
                refuse=lambda seconds: TransientError(
                    "it was unavailable and is not called for the moment", retry_after=seconds
                ),
                max_failures=_MAX_FAILURES,
            )
        return self._circuits[name]

    async def _chat(self, spec: ModelSpec) -> BaseChatModel:
        # A provider's client reads certificates from disk, which must not block the event loop.
        if spec in self._built:
            return self._built[spec]
        return await asyncio.to_thread(self._build, spec)

    def _build(self, spec: ModelSpec) -> BaseChatModel:
        with self._building:
            if spec not in self._built:
                try:
                    chat = self._factory(spec)
                except StartupError as error:  # a model that the caller chose
                    raise ModelMisconfigured(error.message, details={"model": spec.name}) from error
                if len(self._built) >= _MOST_MODELS:
                    del self._built[next(iter(self._built))]
                self._built[spec] = chat
            return self._built[spec]


async def _wait_for_turn(quota: Quota, tokens: float) -> None:
    """Wait for our own quota, outside of the attempt's time limit but within the deadline."""
    try:
        async with asyncio.timeout(deadline.remaining()):
            await quota.wait_for_turn(tokens)
    except TimeoutError:
        raise TransientError("its quota leaves it no time to answer") from None
    if deadline.is_over():
        raise TransientError("no time is left for its answer")


def _tokens(reply: AIMessage | StructuredReply[Any]) -> int | None:
    """Return the tokens that the provider counted, or ``None`` if it did not count."""
    usage = (reply.raw if isinstance(reply, StructuredReply) else reply).usage_metadata
    return usage["total_tokens"] if usage else None


def _fault(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
