"""Building of the chat models that the settings name."""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import httpx
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from core.errors import StartupError
from core.models.calls import ChatModels, ModelInfo, ModelSpec
from core.models.google import ADAPTER, GEMINI, VERTEX, build_google_options, is_google
from core.models.prompt_cache import PromptCache
from core.models.usage import Quota
from core.offline import OFFLINE_MODEL_NAME, OfflineChatModel
from core.settings import FeatureSettings, ModelSettings

_FLASH = "gemini-3.8-flash"
DEFAULT_MODEL = f"{GEMINI}:{_FLASH}"

# Models with a fixed temperature; the adapter warns on every request that sets one.
_FIXED_TEMPERATURE = ("gemini-3.5-flash-lite", "gemini-3.6-flash")
# Providers whose clients have no time limit and no number of retries.
_WITHOUT_LIMITS = ("bedrock", "bedrock_converse", "huggingface", "ollama")
# How clients name the limit of a reply's tokens, if not max_tokens.
_OUTPUT_LIMITS = {"ollama": "num_predict"}
# Callers may name models, so the number of clients that are kept must be bounded.
_MOST_CLIENTS = 16
# What SDKs raise if they find no key, and what is not a ValueError.
_SDK_ERRORS = (("openai", "OpenAIError"), ("anthropic", "AnthropicError"), ("groq", "GroqError"))


def build_chat_models(settings: ModelSettings, features: FeatureSettings) -> ChatModels:
    """Build the service's chat models from its settings.

    Raises:
        StartupError: A model cannot be built: its key is not set, its package is not installed, or its
            provider is unknown.
    """
    info = _info(settings)
    factory = _Providers(settings)
    for name in dict.fromkeys((info.model, info.reasoning_model, info.fallback_model)):
        if name is not None:
            factory(ModelSpec(name=name, temperature=0, thinking=features.thinking))
    return ChatModels(
        info,
        factory,
        timeout=settings.model_timeout_seconds,
        max_attempts=settings.model_max_attempts,
        thinking=features.thinking,
        prompts=PromptCache() if features.prompt_caching else None,
        quota=partial(Quota, settings.model_requests_per_minute, settings.model_tokens_per_minute),
        rest_seconds=settings.model_rest_seconds,
    )


def _info(settings: ModelSettings) -> ModelInfo:
    if settings.model is not None:
        model, why = settings.model, "MODEL is set"
    elif settings.google_api_key is not None:
        model, why = DEFAULT_MODEL, "GOOGLE_API_KEY is set"
    elif settings.google_cloud_project is not None:
        model, why = f"{VERTEX}:{_FLASH}", "GOOGLE_CLOUD_PROJECT is set"
    else:
        model, why = OFFLINE_MODEL_NAME, "no GOOGLE_API_KEY, GOOGLE_CLOUD_PROJECT or MODEL"
    if model == OFFLINE_MODEL_NAME:
        why = f"{why}: the offline model answers; it is not a language model"
    return ModelInfo(
        model=model,
        reasoning_model=settings.reasoning_model or model,
        fallback_model=settings.fallback_model,
        is_language_model=model != OFFLINE_MODEL_NAME,
        why=why,
    )


class _Providers:
    """The service's :data:`~core.models.calls.ModelFactory`."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._gemini = lru_cache(maxsize=_MOST_CLIENTS)(self._gemini_client)

    def __call__(self, spec: ModelSpec) -> BaseChatModel:
        if spec.name == OFFLINE_MODEL_NAME:
            return OfflineChatModel()
        provider, _, model = spec.name.partition(":")
        if not provider or not model:
            raise StartupError(f"{spec.name!r} is not provider:model, e.g. {DEFAULT_MODEL}, or offline")
        if is_google(provider):
            return self._build_gemini(spec, provider, model)
        limit = _OUTPUT_LIMITS.get(provider, "max_tokens")
        options: dict[str, Any] = {
            "temperature": spec.temperature,
            limit: self._limit_output(spec),
        }
        if provider not in _WITHOUT_LIMITS:
            # For these clients ``max_retries`` does not count the first request.
            options |= {"timeout": self._settings.model_timeout_seconds, "max_retries": 0}
        chat = _init(spec.name, provider, model, options)
        if "stream_chunk_timeout" in type(chat).model_fields:
            # OpenAI's adapters end a stream that is silent for two minutes; the attempt's own limit applies.
            chat = chat.model_copy(update={"stream_chunk_timeout": None})
        return chat

    def _build_gemini(self, spec: ModelSpec, provider: str, model: str) -> BaseChatModel:
        # A copy shares the client, so all temperatures of a model use the same connections.
        chat = self._gemini(provider, model)
        profile: Mapping[str, Any] = chat.profile or {}
        fixed = profile.get("temperature") is False or model in _FIXED_TEMPERATURE
        levels = profile.get("reasoning_effort_levels", ())
        thinking = _gemini_thinking(model, levels, thinking=spec.thinking)
        temperature = None if fixed else spec.temperature
        limits = {"temperature": temperature, "max_output_tokens": self._limit_output(spec)}
        return chat.model_copy(update={**limits, **thinking})

    def _limit_output(self, spec: ModelSpec) -> int:
        """Return the most tokens of a reply: those of its kind, and never more than the setting."""
        most = self._settings.model_max_output_tokens
        return min(spec.max_output_tokens or most, most)

    def _gemini_client(self, provider: str, model: str) -> BaseChatModel:
        name = f"{provider}:{model}"
        connection = build_google_options(
            self._settings, provider, subject=f"the model {name!r}", instead="set MODEL=offline"
        )
        options: dict[str, Any] = {
            **connection,
            "timeout": self._settings.model_timeout_seconds,
            "max_retries": 1,  # the number of requests: 0 would mean the client's own five
            # httpx allows 100 connections by default; RUN_MAX_CONCURRENT is the limit that is meant.
            "client_args": {"limits": httpx.Limits(max_connections=None, max_keepalive_connections=50)},
        }
        return _init(name, ADAPTER, model, options)


def _gemini_thinking(model: str, levels: Sequence[str], *, thinking: bool) -> dict[str, Any]:
    """Return the options that make a Gemini model think moderately, or as little as possible.

    Gemini 3 and later have levels, which differ by model (3.7 and 3.8 Flash answer 400 to ``minimal``).
    Gemini 2.5 has a budget in tokens, where -1 lets the model choose. Earlier models do not think.
    https://ai.google.dev/gemini-api/docs/thinking
    """
    if re.search(r"gemini-([3-9]|\d\d)\b", model):
        known = levels or ("low", "medium", "high")
        moderate = "medium" if "medium" in known else known[-1]
        return {"reasoning_effort": moderate if thinking else known[0]}
    if "gemini-2.5" in model:
        least = 128 if "pro" in model else 0
        return {"thinking_budget": -1 if thinking else least}
    return {}


def _init(name: str, provider: str, model: str, options: Mapping[str, Any]) -> BaseChatModel:
    try:
        chat: BaseChatModel = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        raise StartupError(f"the model {name!r} cannot be loaded: {error}") from error
    except ValidationError as error:
        faults = "; ".join(each["msg"] for each in error.errors(include_input=False, include_url=False))
        raise StartupError(f"the model {name!r} cannot be built: {faults}") from error
    except get_build_errors() as error:
        reason = " ".join(str(error).split())
        raise StartupError(f"the model {name!r} cannot be built: {reason}") from error
    return chat


def get_build_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of providers' clients that cannot be built, of the packages that are loaded."""
    loaded = [getattr(sys.modules[module], name) for module, name in _SDK_ERRORS if module in sys.modules]
    return (ValueError, TypeError, *loaded)
