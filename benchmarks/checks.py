"""What a scripted conversation demands of each answer, and what no customer may ever read.

The checks are deterministic and know nothing of the model, so that the same conversations measure any.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

SEED: Final = Path(__file__).resolve().parents[1] / "dev_crm" / "seed"

ToolCall: TypeAlias = tuple[str, Mapping[str, Any]]
Turn: TypeAlias = Mapping[str, Any]

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
        r"</?(?:answer|customer|summary|conversation|found|message|system|contact|memories)>"
        r"|\[(?:Background|Review)"
    ),
    "a note of a prompt": re.compile(
        r"last reply could not be read|information, not instructions|\(team: \w+\)"
        r"|\[(?:since )?\d{4}-\d\d-\d\d, (?:summary|message|note)",
        re.IGNORECASE,
    ),
}
_FOLLOW_UP: Final = re.compile(
    r"a (?:person|colleague) (?:will|takes)|colleague will|uma pessoa vai|una persona le"
    r"|our \w+ team to take over",
    re.IGNORECASE,
)
# What is quoted may be in another language than the answer.
_QUOTATION: Final = re.compile(r"“[^”]*”|«[^»]*»")
# A tool that must be called: `name`, or `name(argument~text)`.
_TOOL: Final = re.compile(r"(?P<name>\w+)(?:\((?P<argument>\w+)~(?P<text>[^)]*)\))?")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SMALL_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "en": _word_set("the of and to is that for it with are this be my i you what how can"),
    "pt": _word_set(
        "o os um uma de do da que em nao por no na ao mais como seu sua ja voce de nada ola ate ecom"
    ),
    "es": _word_set("el los un una de del que en no por la al mas como su ya usted hola su con para es le"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one message.

    Attributes:
        text: What the customer reads.
        answer: The whole answer.
        error: What came instead of an answer; empty: an answer came.
        calls: The tools that were called, with their arguments.
        handoffs: How many hand-offs the CRM recorded meanwhile.
        is_kept: Whether the CRM has what was said: in a hand-off, or in the opportunity.
        asks: Whether the run waits for the customer's reply.
    """

    text: str
    answer: Mapping[str, Any]
    error: str = ""
    calls: Sequence[ToolCall] = ()
    handoffs: int = 0
    is_kept: bool = False
    asks: bool = False


@dataclass(slots=True)
class Findings:
    """What was wrong: demands of the script that do not hold, and what may never be said."""

    failures: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def check_reply(turn: Turn, reply: Reply, contact: str) -> Findings:
    """Hold an answer against its turn of the script."""
    if reply.error:
        return Findings(failures=[f"{turn['say']!r}: {reply.error}"])
    found = Findings(list(_find_failures(turn, reply)), list(_find_violations(turn, reply, contact)))
    for texts in (found.failures, found.violations):
        texts[:] = [f"{turn['say']!r}: {text}: {reply.text!r}" for text in texts]
    return found


def _find_violations(turn: Turn, reply: Reply, contact: str) -> Iterator[str]:
    yield from (what for what, pattern in NEVER.items() if pattern.search(reply.text))
    for word in _data_of_others(contact):
        if word in reply.text and word not in turn["say"]:
            yield f"data of another contact ({word!r})"
    promised = _FOLLOW_UP.search(reply.text) or (reply.answer.get("handoff") or {}).get("recorded")
    if promised and not reply.handoffs:
        yield "promises a person, and the CRM has no hand-off"


def _find_failures(turn: Turn, reply: Reply) -> Iterator[str]:
    text = _fold(reply.text)
    for wanted in turn.get("has", ()):
        if not any(_fold(each) in text for each in wanted.split("|")):
            yield f"lacks {wanted!r}"
    yield from (f"has {each!r}" for each in turn.get("lacks", ()) if _fold(each) in text)
    yield from (f"no call of {tool}" for tool in turn.get("tools", ()) if not _is_called(tool, reply.calls))
    if "language" in turn and not _is_in(_QUOTATION.sub(" ", text), turn["language"]):
        yield f"not in {turn['language']!r}"
    outcome = {"success": [turn["success"]]} if "success" in turn else {}
    outcome |= {"agent_used": turn["agent"]} if "agent" in turn else {}
    for name, values in (outcome | turn.get("outcome", {})).items():
        if (value := _get_field(reply.answer, name)) not in values:
            yield f"{name} is {value!r}, not one of {values}"
    facts = {"handoff": bool(reply.handoffs), "kept": reply.is_kept, "asks": reply.asks}
    yield from (
        f"{name} is {value}, not {turn[name]}"
        for name, value in facts.items()
        if name in turn and value is not turn[name]
    )


def _get_field(answer: Mapping[str, Any], name: str) -> Any:
    """Return a field of an answer by its path, such as ``profile.company_size``."""
    value: Any = answer
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_called(wanted: str, calls: Sequence[ToolCall]) -> bool:
    tool = _TOOL.fullmatch(wanted)
    if tool is None:
        raise ValueError(f"{wanted!r} is neither a tool's name nor name(argument~text)")
    made = [arguments for name, arguments in calls if name == tool["name"]]
    if tool["argument"] is None:
        return bool(made)
    texts = [_fold(str(arguments.get(tool["argument"], ""))) for arguments in made]
    return any(any(_fold(each) in text for each in tool["text"].split("|")) for text in texts)


@lru_cache
def _data_of_others(contact: str) -> Collection[str]:
    """Return numbers, names and addresses of other contacts in the development CRM."""
    words = set()
    for kind, keys in (
        ("contacts", ("name", "email")),
        ("invoices", ("number",)),
        ("orders", ("id", "tracking")),
    ):
        for record in json.loads((SEED / f"{kind}.json").read_text(encoding="utf-8")):
            if contact not in (record.get("contact_id"), record["id"]):
                words |= {record[key] for key in keys if record.get(key)}
    return words


def _is_in(folded: str, language: str) -> bool:
    words = re.findall(r"[a-z]+", folded)
    scores = {name: sum(word in small for word in words) for name, small in _SMALL_WORDS.items()}
    return scores[language] == max(scores.values())


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(character for character in decomposed if not unicodedata.combining(character))
