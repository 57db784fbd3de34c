"""Hold scripted conversations with a service over HTTP, as the CRM does."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
from httpx_sse import aconnect_sse
from ruamel.yaml import YAML

from benchmarks.checks import Findings, Reply, ToolCall, check_reply

SCRIPTS: Final = Path(__file__).with_name("answers.yaml")
# Longer than a run may take by default.
_TIMEOUT_SECONDS: Final = 330


@dataclass(frozen=True, slots=True)
class Script:
    """One conversation of ``answers.yaml``, which describes the fields of its turns."""

    id: str
    contact: str
    turns: Sequence[Mapping[str, Any]]
    graph: str = ""
    opportunity: str = ""
    held_out: bool = False


@dataclass(slots=True)
class Result:
    """How one conversation went.

    Attributes:
        script: What was held.
        findings: What was wrong, of all turns.
        seconds: How long each answer took.
    """

    script: Script
    findings: Findings = field(default_factory=Findings)
    seconds: list[float] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        """Return whether everything held."""
        return not self.findings.failures and not self.findings.violations


def load_scripts(path: Path = SCRIPTS) -> list[Script]:
    """Return the conversations of a file."""
    content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    contacts = content["contacts"]
    return [Script(**{**each, "contact": contacts[each["contact"]]}) for each in content["conversations"]]


async def hold_conversations(url: str, crm_key: str, scripts: Sequence[Script], at_once: int) -> list[Result]:
    """Hold all conversations, some at once, those of a contact one after the other."""
    slots = asyncio.Semaphore(at_once)
    contacts: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS) as http:
        customer = _Customer(http, crm_key)

        async def hold(script: Script) -> Result:
            async with contacts[script.contact], slots:
                return await customer.hold(script)

        return list(await asyncio.gather(*map(hold, scripts)))


@dataclass(frozen=True, slots=True)
class _Customer:
    """Writes the messages of a script, and reads what comes back and what the CRM recorded."""

    http: httpx.AsyncClient
    crm_key: str

    async def hold(self, script: Script) -> Result:
        result, conversation = Result(script), str(uuid4())
        for number, turn in enumerate(script.turns):
            handoffs, version = await self._read_crm(script)
            began = time.perf_counter()
            try:
                if script.graph:
                    reply = await self._continue_journey(script, conversation, number)
                else:
                    reply = await self._send(script.contact, conversation, turn["say"])
            except (httpx.HTTPError, ValueError) as error:
                reply = _error(f"{type(error).__name__}: {error}")
            result.seconds.append(time.perf_counter() - began)
            handoffs_after, version_after = await self._read_crm(script)
            new = len(handoffs_after - handoffs)
            is_kept = bool(new) or version_after > version
            found = check_reply(turn, replace(reply, handoffs=new, is_kept=is_kept), script.contact)
            result.findings.failures += found.failures
            result.findings.violations += found.violations
        return result

    async def _send(self, contact: str, channel: str, message: str) -> Reply:
        """Send a message on a channel of its own, which keeps the session."""
        body = {"contact_id": contact, "channel_id": channel, "message": message}
        calls: list[ToolCall] = []
        async with aconnect_sse(self.http, "POST", "/v1/messages", json=body) as stream:
            if stream.response.is_error:
                return _error((await stream.response.aread()).decode())
            async for event in stream.aiter_sse():
                data = json.loads(event.data)
                if event.event == "thought":
                    calls += [(action["tool"], action["args"]) for action in data["actions"]]
                elif event.event == "error":
                    return _error(event.data)
                elif event.event == "done":
                    return Reply(text=data["response"], answer=data, calls=calls)
        return _error("the stream ended without an answer")

    async def _continue_journey(self, script: Script, thread: str, number: int) -> Reply:
        """Run a journey's graph, or answer the question with which it waits."""
        say = script.turns[number]["say"]
        given = {"contact_id": script.contact, "message": say}
        if script.opportunity:
            given["opportunity_id"] = script.opportunity
        elif number:
            given = {"resume": say}
        body = {"input": given, "config": {"configurable": {"thread_id": thread}}}
        response = await self.http.post(f"/{script.graph}/invoke", json=body)
        if response.is_error:
            return _error(response.text)
        output = response.json()["output"]
        kinds = [pending["value"].get("kind") for pending in output["interrupts"]]
        # A customer reads the last message of an onboarding. A deal's messages are for those who sell.
        text = "" if script.opportunity else output["messages"][-1]["content"]
        return Reply(text=text, answer=output, asks="question" in kinds)

    async def _read_crm(self, script: Script) -> tuple[set[str], int]:
        """Return the ids of the contact's hand-offs, and the version of the deal (0: none)."""
        path = f"/contacts/{script.contact}"
        handoffs = {str(each["id"]) for each in (await self._get(f"{path}/handoffs"))["handoffs"]}
        if not script.opportunity:
            return handoffs, 0
        return handoffs, (await self._get(f"{path}/opportunities/{script.opportunity}"))["version"]

    async def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.crm_key}"}
        return (await self.http.get(f"/crm/api/v1{path}", headers=headers)).raise_for_status().json()


def _error(text: str) -> Reply:
    return Reply(text="", answer={}, error=text)
