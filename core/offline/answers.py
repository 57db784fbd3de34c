"""Answers from what tools returned: the matching record, the facts asked for, or the best passage."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from core.offline.conversation import Conversation
from core.offline.words import PHRASES, find_concepts, translate
from core.texts import Language, detect_language, format_date, name_month, normalise_text

# A string longer than this is prose, not a value.
_PROSE: Final = 160
_MOST_LISTED: Final = 6
_PASSAGE_SENTENCES: Final = 5
_PASSAGE_CHARACTERS: Final = 650
_LABEL_KEYS: Final = ("item", "title", "name")
_NUMBER_KEYS: Final = ("number", "id", "order_id", "code")
_HIDDEN_KEYS: Final = frozenset({"contact_id", "currency", "language", "severity", "description", "source"})
# What these tools return are notes on a customer, which no customer reads.
_INTERNAL: Final = ("ticket", "opportunit", "recall")
_FIRST_DATES: Final = ("issued_at", "placed_at", "created_at", "date")
_CODE_SCORE: Final = 20.0
# What the first and the second article of a search have before the third.
_RANK_SCORES: Final[Mapping[int, float]] = {0: 2.0, 1: 1.0}
_MONTH_SCORE: Final = 8.0
_STATUS_SCORE: Final = 3.0
# "Where is", "cómo va" and "how many" ask for a state, not for a way. "Como" also means "as", but not at the
# beginning of a clause.
_HOW_TO: Final = re.compile(
    r"(?:^|[.,;:!?¿\n]\s*|\b(?:e|y|and|or|saber|know|explain|explic\w+|me|but|mas|pero)\s+)"
    r"(?:how|where|como|c[oó]mo|a?onde|d[oó]nde)\s+"
    r"(?!(?:is|are|was|were|much|many|long|far|about|come|est[aáã]o?|est[aá]n|andam?|v[aã]i?|v[aã]o|van)\b)\w"
    r"|\bwhy\b|\bpor ?qu[eê]\b|\bwhat is (?:our|the|my) limit|\bwhat happens (?:if|when)\b"
    r"|\bo que (?:acontece|eu fa[cç]o|fa[cç]o)|\bqu[eé] (?:pasa|hago)\b",
    re.IGNORECASE,
)
_PROBLEM: Final = re.compile(
    r"\b(?:can(?:no|['\u2019])t|unable|does(?: not|n['\u2019]t)|won['\u2019]t|stopped|lost|forgot|blocked"
    r"|n[aã]o (?:consigo|conseguimos|funciona|deixa|abre|chega)|parou|perdi|esqueci|bloquead[oa]"
    r"|no (?:puedo|podemos|funciona|deja|abre|llega)|perd[ií]|olvid[eé])\b",
    re.IGNORECASE,
)
# Facts are stated where a value is asked for, and they are the customer's own: a question about plans in
# general is for the articles.
_ASKS_VALUE: Final = re.compile(
    r"\b(?:which|what|when|how (?:many|much)|is|are|qua\w+|qu[eé]|cu[aá]\w+|until|até|hasta)\b",
    re.IGNORECASE,
)
_OWN: Final = re.compile(
    r"\b(?:my|mine|our|ours|i|we|me|us|meus?|minhas?|nossos?|nossas?|eu|mis?|nuestr[oa]s?|estou|tenho|temos|tengo|tenemos)\b",
    re.IGNORECASE,
)
_OWED: Final = (
    "unpaid", "outstanding", "owe", "to pay", "em aberto", "sem pagar", "devo", "devemos", "por pagar",
    "pendent", "pendiente", "debo", "debemos", "deud",
)  # fmt: skip
_STATUS_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "overdue": ("overdue", "vencid", "atrasad", *_OWED), "open": _OWED,
    "refunded": ("refund", "reembols"), "delayed": ("late", "delay", "atrasad", "retrasad"),
    "cancelled": ("cancel",), "delivered": ("delivered", "entreg"), "shipped": ("shipped", "enviad"),
}  # fmt: skip
_FACT_CONCEPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "plan": ("plan",), "status": ("plan",), "renews_on": ("plan",), "contacts": ("contact", "limit"),
    "messages_this_month": ("message", "mensagen", "mensaje"),
    "automations": ("automation", "automacao", "automacoe"),
    "seats": ("seat", "user", "usuario"), "product_version": ("version", "versao"),
    "components": ("incident",), "recent_incidents": ("incident",),
}  # fmt: skip
_OWN_FACTS: Final = frozenset(_FACT_CONCEPTS) - {"components", "recent_incidents"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What can be said, and how well it fits.

    Attributes:
        text: For the customer.
        score: Higher is better; an answer below 1 is none.
    """

    text: str
    score: float


def is_how_to(text: str) -> bool:
    """Return whether the text asks how something is done, not about a record."""
    return bool(_HOW_TO.search(text))


def needs_explanation(conversation: Conversation) -> bool:
    """Return whether the message asks how something is done, or reports what does not work."""
    is_problem = "error" in conversation.concepts or bool(_PROBLEM.search(conversation.task))
    return is_problem or is_how_to(conversation.task)


def find_answer(conversation: Conversation) -> Answer | None:
    """Return the best answer from all results and from the passages of the prompt; ``None`` without one."""
    found = [_from_records(conversation), _from_facts(conversation), _from_passages(conversation)]
    answers = [answer for answer in found if answer is not None and answer.score >= 1]
    return max(answers, key=lambda answer: answer.score, default=None)


# Records: the dictionaries of a list, without prose.


def _from_records(conversation: Conversation) -> Answer | None:
    """Return the records of the message; where it names none, those of the only list that was read."""
    lists = {
        call.tool: records
        for call in conversation.calls
        if not any(word in call.tool for word in _INTERNAL) and (records := _records(call.result))
    }
    answers = [
        _select(conversation, tool, records, is_only=len(lists) == 1) for tool, records in lists.items()
    ]
    return max(answers, key=lambda answer: answer.score, default=None)


def _records(result: Any) -> list[Mapping[str, Any]]:
    if isinstance(result, Mapping):
        lists = [value for value in result.values() if isinstance(value, list)]
        result = lists[0] if len(lists) == 1 and len(result) <= 2 else []  # noqa: PLR2004 - a list in an envelope
    if not isinstance(result, list):
        return []
    records = [each for each in result if isinstance(each, Mapping)]
    return [
        each for each in records if not any(isinstance(v, str) and len(v) > _PROSE for v in each.values())
    ]


def _select(
    conversation: Conversation, tool: str, records: Sequence[Mapping[str, Any]], *, is_only: bool
) -> Answer:
    """Choose the records the message is about, by number, month, status or item."""
    phrases, language = PHRASES[conversation.language], conversation.language
    base = 3.0 * len(set(find_concepts(tool.replace("_", " "))) & set(conversation.concepts))
    scores = [_record_score(record, conversation) for record in records]
    best = max(scores)
    base += 1.0 * is_only - 6.0 * is_how_to(conversation.task)
    chosen = [record for record, score in zip(records, scores, strict=True) if score == best]
    if conversation.codes and best < _CODE_SCORE and any("-" in code for code in conversation.codes):
        missing = next(code for code in conversation.codes if "-" in code)
        return Answer(phrases["not_found"].format(code=missing), base)
    lines = "\n".join(f"- {describe(record, language)}" for record in chosen[:_MOST_LISTED])
    if conversation.months and best < _MONTH_SCORE:
        heading = phrases["none_in_month"].format(month=name_month(conversation.months[0], language))
        return Answer(f"{heading}\n{lines}", base)
    if len(chosen) == 1:
        return Answer(describe(chosen[0], language), base + best)
    return Answer(f"{phrases['which']}\n{lines}", base + best)


def _record_score(record: Mapping[str, Any], conversation: Conversation) -> float:
    values = [str(value).lower() for value in record.values() if isinstance(value, str | int)]
    score = 0.0
    if any(code.lower() in values for code in conversation.codes):
        score += _CODE_SCORE
    score += max((_month_score(key, record[key], conversation.months) for key in record), default=0.0)
    text = normalise_text(conversation.task)
    status = str(record.get("status", ""))
    score += _STATUS_SCORE * any(word in text for word in _STATUS_WORDS.get(status, ()))
    label = " ".join(str(record.get(key, "")) for key in _LABEL_KEYS)
    return score + 2.0 * len(set(find_concepts(label)) & set(conversation.concepts) - {"order", "invoice"})


def _month_score(key: str, value: Any, months: Sequence[int]) -> float:
    moment = _moment(value)
    if moment is None or moment.month not in months:
        return 0.0
    return _MONTH_SCORE + (2.0 if key in _FIRST_DATES else 0.0)


def describe(record: Mapping[str, Any], language: Language) -> str:
    """Put a record into a sentence: its name and number, its status, then its dates and values."""
    label = next((str(record[key]) for key in _LABEL_KEYS if record.get(key)), "")
    number = next(
        (str(record[key]) for key in _NUMBER_KEYS if record.get(key) and not _is_uuid(record[key])), ""
    )
    name = f"{label} ({number})" if label and number else label or number
    status = str(record.get("status", ""))
    parts = [f"{name}: {translate(status, language)}" if status else name]
    for key, value in record.items():
        shown = _format_value(key, value, record, language)
        if shown and key not in {*_LABEL_KEYS, *_NUMBER_KEYS, *_HIDDEN_KEYS, "status"}:
            parts.append(f"{translate(key, language)} {shown}")
    late = status not in {"delivered", "cancelled", "paid", "refunded"} and _has_passed(
        record.get("expected_at")
    )
    sentence = ", ".join(part for part in parts if part) + "."
    return f"{sentence} {PHRASES[language]['late']}" if late else sentence


def _format_value(key: str, value: Any, record: Mapping[str, Any], language: Language) -> str:
    if value is None or isinstance(value, bool | list | Mapping) or value == "" or _is_uuid(value):
        return ""
    if (moment := _moment(value)) is not None:
        return format_date(moment, language)
    if key in {"amount", "value", "monthly_amount"}:
        return f"{_format_number(value, language)} {record.get('currency', '')}".strip()
    return _format_number(value, language) if isinstance(value, int) else translate(str(value), language)


def _format_number(value: Any, language: Language) -> str:
    try:
        text = f"{float(value):,.2f}" if "." in str(value) else f"{int(value):,}"
    except ValueError:
        return str(value)
    return text if language == "en" else text.translate(str.maketrans(",.", ".,"))


def _moment(value: Any) -> datetime | date | None:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _has_passed(value: Any) -> bool:
    moment = _moment(value)
    return isinstance(moment, datetime) and moment.replace(tzinfo=moment.tzinfo or UTC) < datetime.now(UTC)


def _is_uuid(value: Any) -> bool:
    try:
        return bool(UUID(str(value)))
    except ValueError:
        return False


# Facts: the values of one dictionary, such as a subscription.


def _from_facts(conversation: Conversation) -> Answer | None:
    wanted = set(conversation.concepts)
    lines: list[str] = []
    score = -4.0 * is_how_to(conversation.task)
    is_own = bool(_OWN.search(conversation.task) and _ASKS_VALUE.search(conversation.task))
    for key, value, holder in _facts(conversation):
        is_about = is_own or key not in _OWN_FACTS
        matches = wanted & set(_FACT_CONCEPTS.get(key, ())) if is_about else None
        line = _fact_line(key, value, holder, conversation) if matches else ""
        if line and line not in lines:
            lines.append(line)
            score += 2.0
    return Answer(" ".join(lines), score) if lines else None


def _facts(conversation: Conversation) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for call in conversation.calls:
        if isinstance(call.result, Mapping):
            yield from _walk(call.result)


def _walk(holder: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    for key, value in holder.items():
        if key in _FACT_CONCEPTS and not isinstance(value, list):
            yield key, value, holder
        elif isinstance(value, Mapping) and depth < 3:  # noqa: PLR2004 - deeper than any record of the CRM
            yield from _walk(value, depth + 1)


def _fact_line(key: str, value: Any, holder: Mapping[str, Any], conversation: Conversation) -> str:
    language = conversation.language
    name = translate(key, language)
    if key == "components" and isinstance(value, Mapping):
        return _component_line(value, conversation)
    if isinstance(value, Mapping):
        if "used" not in value:
            return ""
        used = _format_number(value["used"], language)
        if not value.get("limit"):
            return f"{name.capitalize()}: {used}."
        limit = _format_number(value["limit"], language)
        return f"{name.capitalize()}: {PHRASES[language]['of'].format(used=used, limit=limit)}."
    if key == "renews_on" and holder.get("status") == "trialing":
        name = translate("trial_ends", language)
    if key == "status" and "plan" not in holder:
        return ""
    shown = _format_value(key, value, holder, language)
    return f"{name.capitalize()}: {shown}." if shown else ""


def _component_line(components: Mapping[str, Any], conversation: Conversation) -> str:
    wanted = set(conversation.concepts)
    named = [name for name in components if set(find_concepts(name)) & wanted] or list(components)
    return " ".join(
        f"{name}: {translate(str(components[name]), conversation.language)}." for name in named[:_MOST_LISTED]
    )


# Passages: prose with a title.


def _from_passages(conversation: Conversation) -> Answer | None:
    ranked = [
        (_passage_score(rank, title, text, conversation), title, text)
        for rank, (title, text) in enumerate(_documents(conversation))
    ]
    score, title, text = max(ranked, default=(0.0, "", ""))
    if score < 1:
        return None
    return Answer(_quote(title, best_passage(text, conversation.concepts), conversation.language), score)


def _quote(title: str, passage: str, language: Language) -> str:
    """Quote a passage with its title; one in another language than the customer's is announced as such."""
    phrases, written_in = PHRASES[language], detect_language(passage, default=language)
    if not title:
        return passage
    if written_in == language:
        return phrases["article"].format(title=title, passage=passage)
    name = phrases[f"language_{written_in}"]
    return phrases["foreign_article"].format(title=title, passage=passage, language=name)


def _documents(conversation: Conversation) -> list[tuple[str, str]]:
    """Return title and text of what searches found, best first, else of what the notes quote."""
    found = [
        document
        for call in conversation.calls
        if not call.failure and not any(word in call.tool for word in _INTERNAL)
        for document in _prose(call.result)
    ]
    lines = [line for note in conversation.notes for line in note.splitlines()]
    quoted = (re.match(r"\d+\. \w+\([^)]*\): ([^.]+)\. (.{60,})", line) for line in lines)
    return found or [(match[1], match[2]) for match in quoted if match]


def _prose(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _prose(each)
    elif isinstance(value, Mapping):
        texts = [text for text in value.values() if isinstance(text, str) and len(text) > _PROSE]
        title = next((str(value[key]) for key in _LABEL_KEYS if value.get(key)), "")
        yield from ((title, text) for text in texts)
        for each in value.values():
            if isinstance(each, list | Mapping):
                yield from _prose(each)


def _passage_score(rank: int, title: str, text: str, conversation: Conversation) -> float:
    """Weigh shared concepts, those of the title more, and the rank that the search gave.

    A search knows meanings, so that one shared concept is enough for the first article that answers a
    question. Too few shared ones are no answer.
    """
    wanted = set(conversation.concepts)
    in_title, in_text = wanted & set(find_concepts(title)), wanted & set(find_concepts(text))
    shared = in_title | in_text
    explains = needs_explanation(conversation)
    least = 2 if in_title else 3
    fits = len(shared) >= max(least, 0.25 * len(wanted))
    if not (fits or (shared and not rank and (explains or "?" in conversation.task))):
        return 0.0
    in_language = detect_language(text, default=conversation.language) == conversation.language
    closeness = 2.0 * len(in_title) + len(in_text) + _RANK_SCORES.get(rank, 0.0)
    return 1.0 + closeness + 0.5 * in_language + 5.0 * explains


def best_passage(text: str, wanted: Sequence[str]) -> str:
    """Return up to five sentences around the one that shares most concepts with the question."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-ZÀ-Ý¿¡\d])", " ".join(text.split()))
    shares = [len(set(find_concepts(sentence)) & set(wanted)) for sentence in sentences]
    # The sentence before often names what the best one is about.
    start = max(0, shares.index(max(shares)) - 1)
    start = min(start, max(0, len(sentences) - _PASSAGE_SENTENCES))
    passage = ""
    for sentence in sentences[start : start + _PASSAGE_SENTENCES]:
        if passage and len(passage) + len(sentence) > _PASSAGE_CHARACTERS:
            break
        passage = f"{passage} {sentence}".strip()
    return passage
