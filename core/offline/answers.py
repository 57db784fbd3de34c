"""Answers from what tools returned: the matching record, the facts asked for, or the best passage."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from core.offline.conversation import Call, Conversation
from core.offline.words import FACTS, PHRASES, STATUSES, VAGUE, find_concepts, translate
from core.texts import Language, detect_language, format_date, name_month

# A string longer than this is prose, not a value.
_PROSE: Final = 160
_MOST_LISTED: Final = 6
_PASSAGE_SENTENCES: Final = 5
_PASSAGE_CHARACTERS: Final = 650
_LABEL_KEYS: Final = ("item", "title", "name")
_NUMBER_KEYS: Final = ("number", "id", "order_id", "code")
_NOT_SHOWN: Final = {*_LABEL_KEYS, *_NUMBER_KEYS, "contact_id", "currency", "language", "severity",
                     "description", "source", "status"}  # fmt: skip
# What these tools return are notes on a customer, which no customer reads.
_INTERNAL: Final = re.compile("ticket|opportunit|recall")
# The date by which people name a record: that of its beginning.
_FIRST_DATES: Final = ("issued_at", "placed_at", "created_at", "date")
_DONE: Final = {"delivered", "cancelled", "paid", "refunded"}
_CODE_SCORE: Final = 20.0
_MONTH_SCORE: Final = 8.0
_STATUS_SCORE: Final = 3.0
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What can be said, and how well it fits.

    Attributes:
        text: For the customer.
        score: Higher is better; an answer below 1 is none.
    """

    text: str
    score: float


def find_answer(conversation: Conversation) -> Answer | None:
    """Return the best answer from all results and from the passages of the prompt; ``None`` without one."""
    calls = [call for call in conversation.calls if not call.failure and not _INTERNAL.search(call.tool)]
    found = [*_select_records(conversation, calls), _state_facts(conversation, calls)]
    found.append(_quote_passage(conversation, calls))
    return max((each for each in found if each.score >= 1), key=lambda each: each.score, default=None)


# Records: the dictionaries of a list, without prose.


def _select_records(conversation: Conversation, calls: Sequence[Call]) -> list[Answer]:
    """Return the records of the message; where it names none, those of the only list that was read."""
    lists = {call.tool: records for call in calls if (records := _read_records(call.result))}
    return [_select(conversation, tool, lists[tool], is_only=len(lists) == 1) for tool in lists]


def _read_records(result: Any) -> list[Mapping[str, Any]]:
    if isinstance(result, Mapping) and len(result) <= 2:  # noqa: PLR2004 - a list in an envelope
        result = next((value for value in result.values() if isinstance(value, list)), [])
    records = result if isinstance(result, list) else []
    return [each for each in records if isinstance(each, Mapping) and not any(map(_is_prose, each.values()))]


def _is_prose(value: Any) -> bool:
    return isinstance(value, str) and len(value) > _PROSE


def _select(
    conversation: Conversation, tool: str, records: Sequence[Mapping[str, Any]], *, is_only: bool
) -> Answer:
    """Choose the records the message is about, by number, month, status or item."""
    phrases, language = PHRASES[conversation.language], conversation.language
    scores = [_score_record(record, conversation) for record in records]
    best = max(scores)
    base = 3.0 * len(conversation.concepts & set(find_concepts(tool)))
    base += 1.0 * is_only - 6.0 * conversation.matches("how_to")
    chosen = [describe(each, language) for each, score in zip(records, scores, strict=True) if score == best]
    lines = "\n- ".join(chosen[:_MOST_LISTED])
    named = next((code for code in conversation.codes if "-" in code), "")
    if named and best < _CODE_SCORE:
        return Answer(phrases["not_found"].format(code=named), base)
    if conversation.months and best < _MONTH_SCORE:
        month = name_month(conversation.months[0], language)
        return Answer(f"{phrases['none_in_month'].format(month=month)}\n- {lines}", base)
    return Answer(chosen[0] if len(chosen) == 1 else f"{phrases['which']}\n- {lines}", base + best)


def _score_record(record: Mapping[str, Any], conversation: Conversation) -> float:
    values = {str(value).lower() for value in record.values() if isinstance(value, str | int)}
    months = [
        _MONTH_SCORE + 2.0 * (key in _FIRST_DATES)
        for key, value in record.items()
        if (time := _parse_time(value)) and time.month in conversation.months
    ]
    status = STATUSES.get(str(record.get("status", "")))
    label = find_concepts(" ".join(str(record.get(key, "")) for key in _LABEL_KEYS))
    return (
        _CODE_SCORE * any(code.lower() in values for code in conversation.codes)
        + max(months, default=0.0)
        + _STATUS_SCORE * bool(status and status.search(conversation.folded_task))
        + 2.0 * len(conversation.concepts & set(label) - {"order", "invoice"})
    )


def describe(record: Mapping[str, Any], language: Language) -> str:
    """Put a record into a sentence: its name and number, its status, then its dates and values."""
    label = next((str(record[key]) for key in _LABEL_KEYS if record.get(key)), "")
    numbers = (str(record[key]) for key in _NUMBER_KEYS if record.get(key))
    number = next((each for each in numbers if not _UUID.fullmatch(each)), "")
    name = f"{label} ({number})" if label and number else label or number
    status = str(record.get("status", ""))
    parts = [f"{name}: {translate(status, language)}" if status else name]
    for key, value in record.items():
        shown = "" if key in _NOT_SHOWN else _format_value(key, value, record, language)
        parts += [f"{translate(key, language)} {shown}"] if shown else []
    expected = _parse_time(record.get("expected_at"))
    is_late = status not in _DONE and expected and expected < datetime.now(UTC)
    return f"{', '.join(filter(None, parts))}." + (f" {PHRASES[language]['late']}" if is_late else "")


def _format_value(key: str, value: Any, record: Mapping[str, Any], language: Language) -> str:
    if value in (None, "") or isinstance(value, bool | list | Mapping) or _UUID.fullmatch(str(value)):
        return ""
    if time := _parse_time(value):
        return format_date(time, language)
    if key in {"amount", "value", "monthly_amount"}:
        return f"{_format_number(value, language)} {record.get('currency', '')}".strip()
    return _format_number(value, language) if isinstance(value, int) else translate(str(value), language)


def _format_number(value: Any, language: Language) -> str:
    try:
        text = f"{float(value):,.2f}" if "." in str(value) else f"{int(value):,}"
    except ValueError:
        return str(value)
    return text if language == "en" else text.translate(str.maketrans(",.", ".,"))


def _parse_time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) and value[4:5] == "-" else None
    except ValueError:
        return None
    return time.replace(tzinfo=time.tzinfo or UTC) if time else None


# Facts: the values of one dictionary, such as a subscription.


def _state_facts(conversation: Conversation, calls: Sequence[Call]) -> Answer:
    """State values where one is asked for, of the customer's own: how plans differ is for the articles."""
    is_own = conversation.matches("own") and conversation.matches("asks_value")
    lines = [
        _state_fact(key, value, holder, conversation)
        for call in calls
        for key, value, holder in _walk(call.result)
        if FACTS[key] & conversation.concepts and (is_own or key == "components")
    ]
    lines = list(dict.fromkeys(filter(None, lines)))
    score = 2.0 * len(lines) - 4.0 * conversation.matches("how_to")
    return Answer(" ".join(lines), score if lines else 0.0)


def _walk(holder: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for key, value in holder.items() if isinstance(holder, Mapping) else ():
        if key in FACTS and not isinstance(value, list):
            yield key, value, holder
        else:
            yield from _walk(value)


def _state_fact(key: str, value: Any, holder: Mapping[str, Any], conversation: Conversation) -> str:
    language = conversation.language
    name = translate(key, language)
    if key == "components" and isinstance(value, Mapping):
        named = [each for each in value if conversation.concepts & set(find_concepts(each))]
        states = [f"{each}: {translate(str(value[each]), language)}." for each in named or value]
        return " ".join(states[:_MOST_LISTED])
    if isinstance(value, Mapping):
        used, limit = (_format_number(value.get(each), language) for each in ("used", "limit"))
        shown = PHRASES[language]["of"].format(used=used, limit=limit) if value.get("limit") else used
        return f"{name.capitalize()}: {shown}." if "used" in value else ""
    if key == "renews_on" and holder.get("status") == "trialing":
        name = translate("trial_ends", language)
    shown = "" if key == "status" and "plan" not in holder else _format_value(key, value, holder, language)
    return f"{name.capitalize()}: {shown}." if shown else ""


# Passages: prose with a title.


class _Document(NamedTuple):
    title: str
    text: str
    is_ranked: bool = True  # by what it means, and not by the words that it shares


def _quote_passage(conversation: Conversation, calls: Sequence[Call]) -> Answer:
    """Quote the best document; one in another language than the customer's is announced as such."""
    documents = [each for call in calls for each in _read_documents(call.result)]
    if not documents:
        lines = [line for note in conversation.notes for line in note.splitlines()]
        quoted = (re.match(r"\d+\. \w+\([^)]*\): ([^.]+)\. (.{60,})", line) for line in lines)
        documents = [_Document(match[1], match[2]) for match in quoted if match]
    scores = [_score_document(rank, each, conversation) for rank, each in enumerate(documents)]
    best = max(scores, default=0.0)
    if best < 1:
        return Answer("", 0.0)
    document, language = documents[scores.index(best)], conversation.language
    passage = find_best_passage(document.text, conversation.concepts)
    if not document.title:
        return Answer(passage, best)
    written_in = detect_language(passage, default=language)
    phrase = PHRASES[language]["article" if written_in == language else "foreign_article"]
    name = PHRASES[language][f"language_{written_in}"]
    return Answer(phrase.format(title=document.title, passage=passage, language=name), best)


def _read_documents(value: Any) -> Iterator[_Document]:
    if isinstance(value, list):
        for each in value:
            yield from _read_documents(each)
    elif isinstance(value, Mapping):
        title = next((str(value[key]) for key in _LABEL_KEYS if value.get(key)), "")
        is_ranked = value.get("found_by") != "words"
        yield from (_Document(title, text, is_ranked) for text in value.values() if _is_prose(text))
        yield from _read_documents([each for each in value.values() if isinstance(each, list | Mapping)])


def _score_document(rank: int, document: _Document, conversation: Conversation) -> float:
    """Weigh shared concepts, those of the title more, and the rank that the search gave.

    A search that knows meanings is right more often than not, so that one shared concept is enough for the
    first document that answers a question. What was found by words must share more. Concepts that do not say
    what a message is about, such as "error", are no reason to quote anything.
    """
    wanted = conversation.concepts
    in_title, in_text = (wanted & set(find_concepts(text)) for text in document[:2])
    about, shared = wanted - VAGUE, (in_title | in_text) - VAGUE
    explains = conversation.needs_explanation
    least = 2 if in_title - VAGUE else 3
    if (about and about <= in_title) or (
        document.is_ranked and not rank and (explains or "?" in conversation.task)
    ):
        least = 1
    if len(shared) < max(least, 0.25 * len(about)):
        return 0.0
    in_language = detect_language(document.text, default=conversation.language) == conversation.language
    closeness = 2.0 * len(in_title) + len(in_text) + max(0.0, 2.0 - rank)
    return 1.0 + closeness + 0.5 * in_language + 5.0 * explains


def find_best_passage(text: str, wanted: set[str]) -> str:
    """Return up to five sentences around the one that shares most concepts with the question."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-ZÀ-Ý¿¡\d])", " ".join(text.split()))
    shares = [len(set(find_concepts(sentence)) & wanted) for sentence in sentences]
    # The sentence before often names what the best one is about.
    start = max(0, min(shares.index(max(shares)) - 1, len(sentences) - _PASSAGE_SENTENCES))
    passage = ""
    for sentence in sentences[start : start + _PASSAGE_SENTENCES]:
        if passage and len(passage) + len(sentence) > _PASSAGE_CHARACTERS:
            break
        passage = f"{passage} {sentence}".strip()
    return passage
