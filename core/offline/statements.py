"""Statements about the writer, found by rules: what the offline model answers where facts are asked for.

It is not understanding. It knows a few dozen turns of phrase in English and Portuguese, said by the writer of
themselves or their company ("I moved to Lisbon", "somos agora 50 pessoas"), and passes over everything else,
as well as over questions and what is supposed, wished or planned: a fact that is missed can be told again,
one that was never said misleads.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

from core.offline.conversation import Conversation
from core.offline.mending import mended_text
from core.offline.phrasings import RULES, Kind, Rule
from core.offline.schemas import Schema, fits, resolved, type_of
from core.offline.sentences import sentences
from core.texts import normalise_word

_MOST: Final = 10
_TRIPLE: Final = frozenset({"subject", "predicate", "object"})


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said: ``subject`` has ``object`` as its ``predicate``."""

    subject: str
    predicate: str
    object: str
    kind: Kind = "states"
    valid_from: str = ""
    instead_of: str = ""


_UNSURE: Final = re.compile(
    r"\b(?:if|whether|when|might|may|could|would|should|maybe|perhaps|probably|thinking|considering|planning"
    r"|plan to|want|wish|hope|wonder|unless|imagine|suppose|until|before|se|quando|talvez|poderiamos|poderia"
    r"|pensamos|pensando|quero|queremos|gostaria|gostariamos|caso|espero|tencionamos|antes)\b"
)
_FOR_A_WHILE: Final = re.compile(
    r"\b(?:temporarily|temporariamente|(?:for|por) (?:a|the|uma?|two|duas|\d+) "
    r"(?:days?|weeks?|weekend|months?|dias?|semanas?|mes(?:es)?|fim de semana))\b"
)
_CHANGED: Final = re.compile(
    r"\b(?:now|new|no longer|changed|moved|grew|grown|switched|upgraded|joined"
    r"|agora|novo|nova|mudou|crescemos|passamos)\b"
)
_CORRECTS: Final = re.compile(
    r"\b(?:actually|correction|i meant|typo|na verdade|afinal|correcao|quis dizer|enganei)\b"
)
_NOT: Final = r"(?i:and not|not|e não|não|nao)"
_VALUE: Final = r"[^\s,.;!?][^,;!?\n]{0,60}?"
_DENIED: Final = re.compile(rf"^[\w ]{{0,20}}?,?\s*{_NOT}\s+(?P<y>{_VALUE})(?:[.,;!?]*(?:\s|$))")
_BARE: Final = re.compile(
    r"\b(?i:it is|they are|we are|i meant|é|são|somos|queria dizer|quis dizer)\s+"
    rf"(?P<o>{_VALUE}),?\s+{_NOT}\s+(?P<y>{_VALUE})(?:[.,;!?]|$)"
)
_CONTRACTIONS: Final = (("\u2019", "'"), ("n't", " not"), ("'re", " are"), ("'m", " am"), ("'ve", " have"))
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january janeiro",
            "february fevereiro",
            "march marco",
            "april abril",
            "may maio",
            "june junho",
            "july julho",
            "august agosto",
            "september setembro",
            "october outubro",
            "november novembro",
            "december dezembro",
        ),
        start=1,
    )
    for name in names.split()
}
_SINCE: Final = re.compile(
    r"\b(?:since|desde|in|em)\s+(?:(?P<iso>\d{4}-\d{2}-\d{2})"
    rf"|(?P<month>{'|'.join(_MONTHS)})(?:\s+(?:de\s+)?(?P<of>\d{{4}}))?|(?P<year>(?:19|20)\d\d))\b"
)
_YESTERDAY: Final = re.compile(r"\b(?:yesterday|ontem)\b")
_DAY: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


def stated_value(schema: Schema, conversation: Conversation) -> dict[str, Any] | None:
    """The answer to a schema that asks for a list of subject, predicate and object; None for any other."""
    found = _list_of_triples(schema)
    if found is None:
        return None
    name, inner = found
    items = [_item(inner, schema, statement) for statement in statements(conversation)]
    most = resolved(schema["properties"][name], schema).get("maxItems", _MOST)
    value = {name: items[:most]}
    return value if fits(value, schema, schema) else None


def statements(conversation: Conversation) -> list[Statement]:
    """What the task's writer states of themselves, at most ten, each once."""
    header, _, body = conversation.task.partition("\n\n")
    dated = _DAY.search(header) if body else None
    said_on = date.fromisoformat(dated.group()) if dated else None
    found = list(dict.fromkeys(_stated(body if dated else conversation.task, said_on)))
    if not found:
        found = list(_corrected(body or conversation.task, conversation.earlier))
    return found[:_MOST]


def _stated(text: str, said_on: date | None) -> Iterator[Statement]:
    for sentence in sentences(_spelled_out(text)):
        if not sentence.rstrip().endswith("?"):
            yield from _in_sentence(sentence, said_on)


def _in_sentence(sentence: str, said_on: date | None) -> Iterator[Statement]:
    for rule in RULES:
        for match in rule.form.finditer(sentence):
            clause = normalise_word(sentence[_clause_start(sentence, match.start()) : match.end()])
            after = sentence[match.end() :]
            if _UNSURE.search(clause) or _FOR_A_WHILE.search(normalise_word(after[:40])):
                continue
            yield _statement(rule, match, sentence, said_on)


def _clause_start(sentence: str, at: int) -> int:
    return max(sentence.rfind(mark, 0, at) for mark in ".;:!") + 1


def _statement(rule: Rule, match: re.Match[str], sentence: str, said_on: date | None) -> Statement:
    groups = match.groupdict()
    ours = groups.get("us") or groups.get("us2")
    statement = Statement(
        subject=rule.subject or ("company" if ours else "contact"),
        predicate=rule.predicate,
        object=groups["o"].strip(" .,'"),
        kind=rule.kind,
        valid_from=_since(sentence, said_on),
    )
    if rule.kind != "states":
        return statement
    negated = _DENIED.search(sentence[match.end() :])
    if negated and _alike(negated["y"], statement.object):
        return replace(statement, kind="corrects", instead_of=_value_of(negated["y"], statement.object))
    said = normalise_word(sentence)
    kind: Kind = "changes" if _CHANGED.search(said) else "corrects" if _CORRECTS.search(said) else "states"
    return replace(statement, kind=kind)


def _corrected(text: str, earlier: Sequence[str]) -> Iterator[Statement]:
    """``It is X, not Y``: of what was said before, that which has the value Y."""
    before = [each for said in earlier for each in _stated(said, None)]
    for sentence in sentences(_spelled_out(text)):
        found = _BARE.search(sentence)
        if not found:
            continue
        meant = [
            each
            for each in before
            if normalise_word(_value_of(found["y"], each.object)) == normalise_word(each.object)
        ]
        if meant:
            value = _value_of(found["o"], meant[-1].object)
            wrong = meant[-1].object
            yield replace(meant[-1], object=value, kind="corrects", instead_of=wrong, valid_from="")


def _alike(text: str, value: str) -> bool:
    """Whether the phrase can be a value of that kind: a number for a number, a name for a name."""
    return text[:1].isupper() or "@" in text or (value[:1].isdigit() and text[:1].isdigit())


def _spelled_out(text: str) -> str:
    for short, long in (*_CONTRACTIONS, ("it's", "it is"), ("It's", "It is")):
        text = text.replace(short, long)
    return text


def _value_of(text: str, like: str) -> str:
    """The value within a phrase: its number, where a number is looked for."""
    number = re.search(r"\d[\d.,]*\d|\d", text) if like[:1].isdigit() and "@" not in text else None
    return number.group() if number else text.strip(" .,'\"")


def _since(sentence: str, said_on: date | None) -> str:
    said = normalise_word(sentence)
    if said_on and _YESTERDAY.search(said):
        return (said_on - timedelta(days=1)).isoformat()
    found = _SINCE.search(said)
    if not found:
        return ""
    if found["iso"]:
        return str(found["iso"])
    if found["year"]:
        return f"{found['year']}-01-01"
    month = _MONTHS[found["month"]]
    year = int(found["of"]) if found["of"] else _latest_year(month, said_on)
    return f"{year:04d}-{month:02d}-01" if year else ""


def _latest_year(month: int, said_on: date | None) -> int | None:
    """The year of the last month of that name, or none where today is not known."""
    return said_on.year - (month > said_on.month) if said_on else None


def _list_of_triples(schema: Schema) -> tuple[str, Schema] | None:
    for name, inner in schema.get("properties", {}).items():
        whole = resolved(inner, schema)
        items = resolved(whole.get("items", {}), schema) if type_of(whole) == "array" else {}
        if items.get("properties", {}).keys() >= _TRIPLE:
            return name, items
    return None


def _item(schema: Schema, root: Schema, statement: Statement) -> dict[str, Any]:
    item = {}
    for name, inner in schema["properties"].items():
        known = getattr(statement, name, None)
        if known is not None:
            whole = resolved(inner, root)
            item[name] = known if fits(known, whole, root) else mended_text(known, whole)
    return item
