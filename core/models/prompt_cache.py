"""Explicit prompt caching: the part of a prompt that stays the same is sent to the provider once.

Gemini, at its own API and at Vertex AI, stores a system instruction with its tools under a name for five
minutes, and a call then sends the name instead (https://ai.google.dev/gemini-api/docs/caching). A call with
such a name may have no system instruction and no tools of its own, so the two are cached together. Calls of
other providers do not change.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool

from core.context import current_context
from core.errors import ModelMisconfigured
from core.logging import get_logger
from core.models.faults import ProviderFaults, TransientError
from core.models.google import GEMINI, VERTEX

PROVIDERS = (f"{GEMINI}:", f"{VERTEX}:")
SECONDS = 300.0
# A name is not used in its last seconds, because it must be valid until the request has been read.
_MARGIN_SECONDS = 15.0
# About 1,024 tokens, the least that any Gemini model caches; some require four times as many.
_FEWEST_CHARACTERS = 4_000
# The reason for a rejection is the prompt's size or the model, and neither changes soon.
_REJECTED_SECONDS = 3_600.0
_CREATE_SECONDS = 20.0
_MOST_PROMPTS = 64

R = TypeVar("R")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The input of a model call.

    Attributes:
        chat: The model, without bound tools.
        messages: The conversation, system message first.
        tools: Tools that the model may call.
    """

    chat: BaseChatModel
    messages: Sequence[BaseMessage]
    tools: Sequence[BaseTool] = ()

    def bind_tools(self) -> Any:
        """Return the model with its tools bound."""
        return self.chat.bind_tools(self.tools) if self.tools else self.chat


@dataclass(slots=True)
class _Entry:
    seen: float
    name: str = ""
    until: float = 0.0
    rests_until: float = 0.0
    creating: asyncio.Task[None] | None = None


class PromptCache:
    """Caches beginnings of prompts with the provider, separately for each tenant and model.

    A beginning is cached when it is used again within five minutes. It is sent in the background, so that no
    call waits; later calls send its name instead. If the provider refuses to cache it, calls send the whole
    prompt, and caching is not tried again for an hour.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._creating: set[asyncio.Task[None]] = set()

    async def ask(self, prompt: Prompt, model: str, ask: Callable[[Prompt], Awaitable[R]]) -> R:
        """Make a model call, with the name of the prompt's beginning if it is cached.

        Args:
            prompt: The whole prompt.
            model: ``provider:model`` to call.
            ask: Makes the call. It is called again with the whole prompt if the provider rejects the name.
        """
        key = _key_of(prompt, model)
        entry = self._touch(key, prompt, model) if key else None
        if entry is None or not entry.name:
            return await ask(prompt)
        shortened = replace(
            prompt,
            chat=prompt.chat.model_copy(update={"cached_content": entry.name}),
            messages=prompt.messages[1:],
            tools=(),
        )
        try:
            with ProviderFaults(model):
                return await ask(shortened)
        except ModelMisconfigured as refusal:
            # The name expired early or was deleted. If something else is wrong, the next call raises.
            entry.name = ""
            entry.rests_until = self._clock() + SECONDS
            _log.warning("cached_prompt_refused", model=model, reason=refusal.message)
        return await ask(prompt)

    async def aclose(self) -> None:
        """Cancel what is being sent. The provider deletes cached prompts by itself."""
        creating = list(self._creating)
        for task in creating:
            task.cancel()
        await asyncio.gather(*creating, return_exceptions=True)

    def _touch(self, key: str, prompt: Prompt, model: str) -> _Entry:
        """Return the entry of a beginning and cache it if it is used again; its name is empty until then."""
        now = self._clock()
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(seen=now)
            if len(self._entries) > _MOST_PROMPTS:
                self._entries.popitem(last=False)
            return entry
        self._entries.move_to_end(key)
        if now >= entry.until:
            entry.name = ""
        if not entry.name and self._is_due(entry, now):
            entry.creating = asyncio.create_task(self._create(entry, prompt, model))
            self._creating.add(entry.creating)
            entry.creating.add_done_callback(self._creating.discard)
        entry.seen = now
        return entry

    @staticmethod
    def _is_due(entry: _Entry, now: float) -> bool:
        is_idle = entry.creating is None or entry.creating.done()
        return is_idle and now >= entry.rests_until and now - entry.seen < SECONDS

    async def _create(self, entry: _Entry, prompt: Prompt, model: str) -> None:
        """Cache the prompt's beginning with the provider."""
        started_at = self._clock()
        try:
            with ProviderFaults(model):
                async with asyncio.timeout(_CREATE_SECONDS):
                    entry.name = await _create_gemini_cache(prompt)
        except TransientError as fault:
            entry.rests_until = started_at + SECONDS
            _log.warning("prompt_not_cached", model=model, reason=fault.reason)
        except ModelMisconfigured as refusal:
            entry.rests_until = started_at + _REJECTED_SECONDS
            _log.info("prompt_not_cached", model=model, reason=refusal.message)
        else:
            entry.until = started_at + SECONDS - _MARGIN_SECONDS
            _log.info("prompt_cached", model=model, seconds=SECONDS)


def _key_of(prompt: Prompt, model: str) -> str:
    """Return a hash of the beginning, its tenant and its model, or an empty text if it must not be cached.

    Outside of runs there is no tenant, and nothing is cached.
    """
    run = current_context()
    first, *others = prompt.messages
    if not model.startswith(PROVIDERS) or run is None or not others:
        return ""
    if not isinstance(first, SystemMessage) or any(isinstance(each, SystemMessage) for each in others):
        return ""
    tools = prompt.bind_tools().kwargs if prompt.tools else {}
    beginning = json.dumps([first.content, tools], sort_keys=True, default=repr)
    if len(beginning) < _FEWEST_CHARACTERS:
        return ""
    return sha256(json.dumps([run.tenant, model, beginning]).encode()).hexdigest()


async def _create_gemini_cache(prompt: Prompt) -> str:
    """Send the beginning as the adapter would send it with a call, and return its name."""
    chat: Any = prompt.chat
    tools = prompt.bind_tools().kwargs if prompt.tools else {}
    # The adapter has no public function from messages and tools to a request. The question is not cached.
    messages = [prompt.messages[0], HumanMessage("?")]
    config = chat._prepare_request(messages, **tools)["config"]  # noqa: SLF001
    cached = await chat.async_client.caches.create(
        model=chat.model,
        config={
            "system_instruction": config.system_instruction,
            "tools": config.tools,
            "tool_config": config.tool_config,
            "ttl": f"{SECONDS:.0f}s",
            "display_name": "ventros-agents",
        },
    )
    return str(cached.name)
