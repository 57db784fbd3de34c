"""Explicit prompt caching: the part of a prompt that stays the same is sent to the provider once.

Gemini keeps a system instruction with its tools under a name for five minutes, and a call then sends the
name instead (https://ai.google.dev/gemini-api/docs/caching). A call with such a name may have no system
instruction and no tools of its own, so the two go together or not at all. Other providers are asked as
always.
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

PROVIDER = "google_genai:"
SECONDS = 300.0
# A name is not used in its last seconds: it must hold until the request has been read.
_MARGIN_SECONDS = 15.0
# About 1,024 tokens, of which no Gemini model caches fewer; some cache no fewer than four times as many.
_FEWEST_CHARACTERS = 4_000
# A refusal is of the prompt's size or of the model, neither of which changes soon.
_REFUSED_SECONDS = 3_600.0
_CREATE_SECONDS = 20.0
_MOST_PROMPTS = 64

R = TypeVar("R")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked.

    Attributes:
        chat: The model, with nothing bound.
        messages: The conversation, system message first.
        tools: What the model may call.
    """

    chat: BaseChatModel
    messages: Sequence[BaseMessage]
    tools: Sequence[BaseTool] = ()

    def bound(self) -> Any:
        """The model with its tools."""
        return self.chat.bind_tools(self.tools) if self.tools else self.chat


@dataclass(slots=True)
class _Entry:
    seen: float
    name: str = ""
    until: float = 0.0
    rests_until: float = 0.0
    creating: asyncio.Task[None] | None = None


class PromptCache:
    """Beginnings of prompts that a provider keeps, each for one tenant and one model.

    A beginning that comes again within five minutes is worth keeping. It is sent to be kept beside the call
    that noticed it, so that no call waits; calls are shortened once it is there. What the provider refuses
    is asked in full, now and for an hour.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._creating: set[asyncio.Task[None]] = set()

    async def ask(self, prompt: Prompt, model: str, ask: Callable[[Prompt], Awaitable[R]]) -> R:
        """Ask with as much of the prompt as must be sent.

        Args:
            prompt: The whole prompt.
            model: ``provider:model`` that is asked.
            ask: Asks; once more, with the whole prompt, where the provider refuses the name.
        """
        key = _key_of(prompt, model)
        entry = self._seen(key, prompt, model) if key else None
        if entry is None or not entry.name:
            return await ask(prompt)
        cut = replace(
            prompt,
            chat=prompt.chat.model_copy(update={"cached_content": entry.name}),
            messages=prompt.messages[1:],
            tools=(),
        )
        try:
            with ProviderFaults(model):
                return await ask(cut)
        except ModelMisconfigured as refusal:
            # Expired early, or deleted by someone else. If the fault lies elsewhere, the next call says so.
            entry.name = ""
            entry.rests_until = self._clock() + SECONDS
            _log.warning("cached_prompt_refused", model=model, reason=refusal.message)
        return await ask(prompt)

    async def aclose(self) -> None:
        """End what is being sent. What the provider keeps it forgets by itself."""
        creating = list(self._creating)
        for task in creating:
            task.cancel()
        await asyncio.gather(*creating, return_exceptions=True)

    def _seen(self, key: str, prompt: Prompt, model: str) -> _Entry:
        """The entry; its name is empty while nothing is kept."""
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
        if not entry.name and self._is_worth_keeping(entry, now):
            entry.creating = asyncio.create_task(self._create(entry, prompt, model))
            self._creating.add(entry.creating)
            entry.creating.add_done_callback(self._creating.discard)
        entry.seen = now
        return entry

    @staticmethod
    def _is_worth_keeping(entry: _Entry, now: float) -> bool:
        is_idle = entry.creating is None or entry.creating.done()
        return is_idle and now >= entry.rests_until and now - entry.seen < SECONDS

    async def _create(self, entry: _Entry, prompt: Prompt, model: str) -> None:
        """Have the provider keep the prompt's beginning."""
        asked_at = self._clock()
        try:
            with ProviderFaults(model):
                async with asyncio.timeout(_CREATE_SECONDS):
                    entry.name = await _kept_by_gemini(prompt)
        except TransientError as fault:
            entry.rests_until = asked_at + SECONDS
            _log.warning("prompt_not_cached", model=model, reason=fault.reason)
        except ModelMisconfigured as refusal:
            entry.rests_until = asked_at + _REFUSED_SECONDS
            _log.info("prompt_not_cached", model=model, reason=refusal.message)
        else:
            entry.until = asked_at + SECONDS - _MARGIN_SECONDS
            _log.info("prompt_cached", model=model, seconds=SECONDS)


def _key_of(prompt: Prompt, model: str) -> str:
    """The beginning, whose it is and which model reads it; empty where it is not to be kept.

    Without a run there is no tenant, and nothing is kept.
    """
    run = current_context()
    first, *others = prompt.messages
    if not model.startswith(PROVIDER) or run is None or not others:
        return ""
    if not isinstance(first, SystemMessage) or any(isinstance(each, SystemMessage) for each in others):
        return ""
    tools = prompt.bound().kwargs if prompt.tools else {}
    beginning = json.dumps([first.content, tools], sort_keys=True, default=repr)
    if len(beginning) < _FEWEST_CHARACTERS:
        return ""
    return sha256(json.dumps([run.tenant, model, beginning]).encode()).hexdigest()


async def _kept_by_gemini(prompt: Prompt) -> str:
    """Send the beginning, as the adapter would send it with a call, and give its name."""
    chat: Any = prompt.chat
    tools = prompt.bound().kwargs if prompt.tools else {}
    # The adapter offers no other way from messages and tools to what is sent. The question is left out.
    sent = [prompt.messages[0], HumanMessage("?")]
    config = chat._prepare_request(sent, **tools)["config"]  # noqa: SLF001
    kept = await chat.async_client.caches.create(
        model=chat.model,
        config={
            "system_instruction": config.system_instruction,
            "tools": config.tools,
            "tool_config": config.tool_config,
            "ttl": f"{SECONDS:.0f}s",
            "display_name": "ventros-agents",
        },
    )
    return str(kept.name)
