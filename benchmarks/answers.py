"""Run scripted conversations against a service and check what customers are told.

``python -m benchmarks.answers`` starts a service of its own (embedded database, development CRM, the model of
the settings); ``--url`` uses a running one with the development CRM. ``--only ID`` runs some of them.
Assertions are deterministic, so the same file measures any model. Prints each failure and how many passed.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
from httpx_sse import aconnect_sse
from ruamel.yaml import YAML

from core.logging import configure_logging
from core.settings import LogSettings, ServerSettings, Settings
from service.cli.serve import open_server

CONVERSATIONS: Final = Path(__file__).with_name("answers.yaml")
SEED: Final = Path(__file__).resolve().parents[1] / "dev_crm" / "seed"
TIMEOUT_SECONDS: Final = 120

# What no customer may ever read, whatever the model.
NEVER: Final[Mapping[str, re.Pattern[str]]] = {
    "text for operators": re.compile(
        r"GOOGLE_API_KEY|language model is configured|modelo de linguagem|offline model|\bMODEL\b"
        r"|traceback|exception",
        re.IGNORECASE,
    ),
    "a tool's name": re.compile(r"\b(?:search|get|create|schedule|send|hand_over)_[a-z_]+\b"),
    "an internal id": re.compile(
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE
    ),
    "a tag of a prompt": re.compile(
        r"</?(?:answer|customer|summary|conversation|found)>|\[(?:Background|Review)"
    ),
}
_FOLLOW_UP: Final = re.compile(
    r"a (?:person|colleague) (?:will|takes)|colleague will|uma pessoa vai|una persona le"
    r"|our \w+ team to take over",
    re.IGNORECASE,
)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SMALL_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "en": _word_set("the of and to is that for it with are this be my i you what how can"),
    "pt": _word_set(
        "o os um uma de do da que em nao por no na ao mais como seu sua ja voce de nada ola ate ecom"
    ),
    "es": _word_set("el los un una de del que en no por la al mas como su ya usted hola su con para es le"),
}


@dataclass(slots=True)
class Reply:
    """What came back for one message."""

    answer: dict[str, Any]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return what the customer reads."""
        return str(self.answer.get("response", ""))


@dataclass(slots=True)
class Result:
    """One conversation's failures, by message; empty when all held."""

    name: str
    failures: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


async def run_conversation(
    http: httpx.AsyncClient, script: Mapping[str, Any], contacts: Mapping[str, str]
) -> Result:
    """Hold one conversation and check each answer."""
    result = Result(script["id"])
    contact, session = contacts[script["contact"]], None
    if "graph" in script:
        await _run_journey(http, script, contact, result)
        return result
    for turn in script["turns"]:
        reply = await _send(
            http, contact, turn["say"], session, channel=f"eval-{uuid4().hex[:8]}" if not session else None
        )
        session = reply.answer.get("session_id", session)
        _check(turn, reply, result, contact)
    return result


async def _send(
    http: httpx.AsyncClient, contact: str, message: str, session: str | None, *, channel: str | None
) -> Reply:
    body: dict[str, Any] = {"contact_id": contact, "message": message}
    body |= {"session_id": session} if session else {"channel_id": channel}
    calls: list[tuple[str, dict[str, Any]]] = []
    async with aconnect_sse(http, "POST", "/v1/messages", json=body) as stream:
        async for event in stream.aiter_sse():
            data = json.loads(event.data)
            if event.event == "thought":
                calls += [(action["tool"], action["args"]) for action in data["actions"]]
            elif event.event in {"done", "error"}:
                return Reply(data, calls)
    return Reply({"error": "the stream ended without an answer"}, calls)


async def _run_journey(
    http: httpx.AsyncClient, script: Mapping[str, Any], contact: str, result: Result
) -> None:
    thread = str(uuid4())
    for at, turn in enumerate(script["turns"]):
        given: dict[str, Any] = {"contact_id": contact}
        if script["graph"] == "sales":
            given |= {"opportunity_id": script["opportunity"], "message": turn["say"]}
        elif at:
            given = {"resume": turn["say"]}
        body = {"input": given, "config": {"configurable": {"thread_id": thread}}}
        answered = await http.post(f"/{script['graph']}/invoke", json=body)
        output = answered.json().get("output") or answered.json()
        asked = [str(pending["value"].get("text", "")) for pending in output.get("interrupts", [])]
        text = "\n".join([str(output.get(key, "")) for key in ("response", "reply", "message")] + asked)
        _check(
            turn,
            Reply({"response": text, **({} if answered.is_success else {"error": text})}),
            result,
            contact,
        )


def _check(turn: Mapping[str, Any], reply: Reply, result: Result, contact: str) -> None:
    say, text = turn["say"], reply.text
    failures, violations = result.failures, result.violations
    if "error" in reply.answer:
        failures.append(f"{say!r}: {reply.answer}")
        return
    recorded = bool((reply.answer.get("handoff") or {}).get("recorded"))
    violations += [f"{say!r}: {what}: {text!r}" for what, pattern in NEVER.items() if pattern.search(text)]
    violations += [
        f"{say!r}: data of another contact: {word!r}"
        for word in _foreign(contact)
        if word in text and word not in say
    ]
    if _FOLLOW_UP.search(text) and not recorded:
        violations.append(f"{say!r}: promises a person, and none was told: {text!r}")
    folded = _fold(text)
    if "agent" in turn and reply.answer.get("agent_used") not in turn["agent"]:
        failures.append(f"{say!r}: answered by {reply.answer.get('agent_used')!r}, not {turn['agent']}")
    for wanted in turn.get("has", ()):
        if not any(_fold(each) in folded for each in wanted.split("|")):
            failures.append(f"{say!r}: lacks {wanted!r}: {text!r}")
    failures += [
        f"{say!r}: has {each!r}: {text!r}" for each in turn.get("lacks", ()) if _fold(each) in folded
    ]
    names = {name for name, _ in reply.calls}
    failures += [
        f"{say!r}: no call of {tool!r}, but {sorted(names)}"
        for tool in turn.get("tools", ())
        if tool not in names
    ]
    if "handoff" in turn and recorded is not turn["handoff"]:
        failures.append(f"{say!r}: hand-off recorded: {recorded}: {text!r}")
    if "success" in turn and reply.answer.get("success") is not turn["success"]:
        failures.append(f"{say!r}: success is {reply.answer.get('success')}: {text!r}")
    if "language" in turn and text.strip() and not _is_in(text, turn["language"]):
        failures.append(f"{say!r}: not in {turn['language']!r}: {text!r}")


def _foreign(contact: str) -> list[str]:
    """Return numbers, names and addresses of other contacts in the development CRM."""
    words = []
    for kind, keys in (
        ("contacts", ("name", "email")),
        ("invoices", ("number",)),
        ("orders", ("id", "tracking")),
    ):
        for record in json.loads((SEED / f"{kind}.json").read_text(encoding="utf-8")):
            if contact not in (record.get("contact_id"), record["id"]):
                words += [record[key] for key in keys if record.get(key)]
    return words


def _is_in(text: str, language: str) -> bool:
    words = re.findall(r"[a-z]+", _fold(text))
    scores = {name: sum(word in small for word in words) for name, small in _SMALL_WORDS.items()}
    return scores[language] == max(scores.values())


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


async def evaluate(
    url: str, scripts: Sequence[Mapping[str, Any]], contacts: Mapping[str, str]
) -> list[Result]:
    """Run all conversations, four at a time."""
    places = asyncio.Semaphore(4)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS) as http:

        async def run(script: Mapping[str, Any]) -> Result:
            async with places:
                return await run_conversation(http, script, contacts)

        return list(await asyncio.gather(*map(run, scripts)))


@asynccontextmanager
async def _service(url: str | None) -> AsyncIterator[str]:
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="ventros-answers-") as folder:
        settings = Settings.load(server=ServerSettings(port=0, data_dir=Path(folder)))
        async with open_server(settings) as up:
            await up.service.warming
            yield up.url


async def main() -> int:
    """Print the report.

    Returns:
        The exit code: 0 when at least nine of ten passed and nothing forbidden was said.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running service with the development CRM")
    parser.add_argument("--only", action="append", help="id of a conversation; may be repeated")
    parser.add_argument("--file", type=Path, default=CONVERSATIONS)
    arguments = parser.parse_args()
    configure_logging(LogSettings(level="error"))
    content = YAML(typ="safe").load(arguments.file.read_text(encoding="utf-8"))
    scripts = [
        each for each in content["conversations"] if not arguments.only or each["id"] in arguments.only
    ]
    began = time.perf_counter()
    async with _service(arguments.url) as url:
        results = await evaluate(url, scripts, content["contacts"])
    for result in results:
        for line in result.violations:
            print(f"NEVER {result.name}: {line}")
        for line in result.failures:
            print(f"fail  {result.name}: {line}")
    passed = sum(not result.failures and not result.violations for result in results)
    violated = sum(bool(result.violations) for result in results)
    print(
        f"{passed} of {len(results)} conversations passed ({passed / len(results):.1%}), "
        f"{violated} said what must never be said, in {time.perf_counter() - began:.0f} s"
    )
    return 0 if passed >= 0.9 * len(results) and not violated else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
