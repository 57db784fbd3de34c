"""How people say what they are, have and use, in English and Portuguese: the rules of the fact extractor.

They are for sentences with their contractions spelled out (``we are``). In a rule, group ``o`` is the value,
and where group ``us`` matches it is said of the company. ``{NAME}``, ``{PLACE}`` and so on stand for values,
``{NOW}`` for words of no weight. Rules are in the first person: what others do is not the writer's.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final, Literal, TypeAlias

from core.offline.conversation import Conversation
from core.offline.repair import repair_text
from core.offline.schemas import Schema, fits, resolve_schema, type_of
from core.offline.words import sentences
from core.texts import normalise_word

Kind: TypeAlias = Literal["states", "changes", "corrects", "ends"]

_PARTS: Final = {
    "NAME": r"(?:(?i:the|o|a)\s+)?(?P<o>[A-ZÀ-Ý0-9][\w'+-]*(?:\.\w+)*(?:\s+[A-ZÀ-Ý0-9][\w'+-]*(?:\.\w+)*)*)",
    "PLACE": r"(?P<o>[A-ZÀ-Ý][\w'-]+(?:\s+(?:d[aeo]s?\s+)?[A-ZÀ-Ý][\w'-]+)*)",
    "COUNT": r"(?P<o>\d{1,3}(?:[.,]\d{3})+|\d+)",
    "EMAIL": r"(?P<o>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)",
    "PHONE": r"(?P<o>\+?\d[\d ()-]{5,}\d)",
    "MONEY": r"(?P<o>(?:[$€£]|R\$)?\s?\d[\d.,]*\s?(?:k\b|[$€£]|(?i:euros?|reais|dollars))?)",
    "PLAN": r"(?P<o>[A-ZÀ-Ý]\w*)",
    "CHANNEL": r"(?P<o>(?i:e-?mail|phone|telefone|whatsapp|sms|telegram))\b",
    "PEOPLE": r"(?i:people|employees|persons|staff|of us|pessoas|funcion[aá]rios|colaboradores|empregados)\b",
    "NOW": r"(?:\s+(?:have|now|currently|already|recently|just|also|only|about|around|over|some|today|back"
    r"|agora|hoje|j[aá]|atualmente|cerca de|quase|uns|umas|tamb[eé]m))*",
    "MY": r"(?:my|o meu|meu|(?P<us>our|o nosso|nosso))(?:\s+(?:new|novo))?",
    "ROLE": r"(?P<o>C[EFIMOT]O\b|(?i:(?:head of|diretora? d[eoa]|gerente d[eoa]) \w+"
    r"|\w+ (?:manager|director)|owner|founder|accountant|don[oa]|contabilista)\b)",
    "SWITCHED": r"(?:we|i){NOW} (?:switched|migrated|moved) from|troc[aá]mos|mud[aá]mos d[oa]",
    "TO": r"(?i:to|pelo|pela|para [oa])",
    "IS": r"(?:\s+(?:is|changed to|é|passou a ser|mudou para)|:)",
}

_PART: Final = re.compile(r"\{([A-Z]+)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A phrase and the fact it states; without a subject it is about the writer, or their company."""

    predicate: str
    form: re.Pattern[str]
    subject: str
    kind: Kind


def _rule(predicate: str, words: str, value: str, *, subject: str = "", kind: Kind = "states") -> Rule:
    """Make a rule's words match in any case, but keep the case of its value."""
    return Rule(predicate, re.compile(_spell_rule(rf"(?<!\w)(?i:{words})\s+{value}")), subject, kind)


def _spell_rule(form: str) -> str:
    """Return the form with its parts inserted recursively."""
    while _PART.search(form):
        form = _PART.sub(lambda found: _PARTS[found[1]], form)
    return form


RULES: Final = (
    _rule(
        "company_size",
        r"we (?:are|have|employ|grew to|have grown to){NOW}|our (?:team|company) (?:is|has){NOW}"
        r"|(?:somos|temos|estamos com|crescemos para|pass[aá]mos a ser){NOW}",
        r"{COUNT}\s+{PEOPLE}",
        subject="company",
    ),
    _rule(
        "city",
        r"(?:i|(?P<us>we)){NOW} (?:moved|relocated){NOW} to"
        r"|(?:me\s+)?mudei(?:-me)?{NOW} (?:para|pra)(?: [oa])?"
        r"|(?P<us2>(?:nos\s+)?mud[aá]mo(?:s|-nos)){NOW} (?:para|pra)(?: [oa])?",
        r"{PLACE}(?!\s+(?i:plan|tier|team|version|department))",
        kind="changes",
    ),
    _rule(
        "city",
        r"(?:i|(?P<us>we)){NOW} live{NOW} in|(?:i am|(?P<us2>we are)){NOW} based in"
        r"|(?<!não )(?<!nao )(?:moro|vivo|estou a viver|estou a morar){NOW} (?:em|no|na)",
        "{PLACE}",
    ),
    _rule(
        "city",
        r"i (?:no longer|do not) live in|j[aá] n[aã]o (?:moro|vivo) (?:em|no|na)",
        "{PLACE}",
        kind="ends",
    ),
    _rule("email", r"{MY} e-?mail(?: address)?{IS}{NOW}", "{EMAIL}"),
    _rule(
        "phone",
        r"{MY} (?:(?:phone|mobile)(?: number)?|number|telefone|telem[oó]vel|celular|n[uú]mero){IS}{NOW}",
        "{PHONE}",
    ),
    _rule(
        "preferred_channel",
        r"i prefer(?: to be (?:contacted|reached) (?:by|on|via))?|prefiro(?: ser contactad[oa] por)?",
        "{CHANNEL}",
        subject="contact",
    ),
    _rule(
        "name", r"my name is|i am called|(?:o )?meu nome é|chamo-me|me chamo", "{PLACE}", subject="contact"
    ),
    _rule(
        "employer",
        r"i{NOW} work{NOW} (?:at|for)|(?:i|and){NOW} joined"
        r"|(?<!não )(?<!nao )trabalho{NOW} (?:na|no|para(?: [oa])?)",
        "{NAME}",
        subject="contact",
    ),
    _rule(
        "employer",
        r"i{NOW} left|i no longer work (?:at|for)|sa[ií] d[ao]|j[aá] n[aã]o trabalho (?:na|no)",
        "{NAME}",
        subject="contact",
        kind="ends",
    ),
    _rule("role", r"(?:i am|sou){NOW} (?:the|o|a)(?: new)?", "{ROLE}", subject="contact"),
    _rule("plan", r"(?:we are|i am|estamos|estou){NOW} (?:on the|no plano)", r"{PLAN}\b", subject="company"),
    _rule(
        "plan",
        r"(?:we|i){NOW} (?:upgraded|downgraded|switched|moved|changed) to the",
        r"{PLAN}\s+(?i:plan)\b",
        subject="company",
        kind="changes",
    ),
    _rule(
        "plan",
        r"(?:mud[aá]mos|mudei|pass[aá]mos|passei) para o plano",
        "{PLAN}",
        subject="company",
        kind="changes",
    ),
    _rule(
        "budget",
        r"(?:our|my|o nosso|nosso|o meu) (?:budget|orçamento) (?:is|é){NOW}(?: de)?",
        "{MONEY}",
        subject="company",
    ),
    _rule(
        "uses",
        r"(?:we|i){NOW} (?:use|started using)|come[cç][aá]mos a usar|(?<!não )(?<!nao )usamos{NOW}",
        r"{NAME}(?!.*(?i:any ?more))",
        subject="company",
    ),
    _rule(
        "uses",
        r"(?:we|i){NOW} (?:no longer use|stopped using)"
        r"|j[aá] n[aã]o usamos|deix[aá]mos de usar|n[aã]o usamos mais",
        "{NAME}",
        subject="company",
        kind="ends",
    ),
    _rule(
        "uses",
        r"(?:we|i) do not use",
        r"{NAME}\s+(?i:any ?more|any longer)",
        subject="company",
        kind="ends",
    ),
    _rule("uses", "{SWITCHED}", r"{NAME}(?=\s+{TO}\s+[A-ZÀ-Ý0-9])", subject="company", kind="ends"),
    _rule("uses", "{SWITCHED}", r"[^,.;]+?\s+{TO}\s+{NAME}", subject="company", kind="changes"),
)


_MOST: Final = 10
_TRIPLE: Final = frozenset({"subject", "predicate", "object"})


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: ``subject`` has ``object`` as its ``predicate``."""

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


def extract_statements(schema: Schema, conversation: Conversation) -> dict[str, Any] | None:
    """The answer to a schema that asks for a list of subject, predicate and object; None for any other."""
    found = _list_of_triples(schema)
    if found is None:
        return None
    name, inner = found
    items = [_item(inner, schema, statement) for statement in statements(conversation)]
    most = resolve_schema(schema["properties"][name], schema).get("maxItems", _MOST)
    value = {name: items[:most]}
    return value if fits(value, schema, schema) else None


def statements(conversation: Conversation) -> list[Statement]:
    """Return what the task's writer states of themselves, at most ten, each once."""
    header, _, body = conversation.task.partition("\n\n")
    dated = _DAY.search(header) if body else None
    said_on = date.fromisoformat(dated.group()) if dated else None
    found = list(dict.fromkeys(_find_statements(body if dated else conversation.task, said_on)))
    if not found:
        found = list(_find_corrections(body or conversation.task, conversation.earlier))
    return found[:_MOST]


def _find_statements(text: str, said_on: date | None) -> Iterator[Statement]:
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
        valid_from=_find_start_date(sentence, said_on),
    )
    if rule.kind != "states":
        return statement
    negated = _DENIED.search(sentence[match.end() :])
    if negated and _alike(negated["y"], statement.object):
        return replace(statement, kind="corrects", instead_of=_value_of(negated["y"], statement.object))
    said = normalise_word(sentence)
    kind: Kind = "changes" if _CHANGED.search(said) else "corrects" if _CORRECTS.search(said) else "states"
    return replace(statement, kind=kind)


def _find_corrections(text: str, earlier: Sequence[str]) -> Iterator[Statement]:
    """``It is X, not Y``: of what was said before, that which has the value Y."""
    before = [each for said in earlier for each in _find_statements(said, None)]
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
    """Return whether the phrase can be a value of that kind: a number for a number, a name for a name."""
    return text[:1].isupper() or "@" in text or (value[:1].isdigit() and text[:1].isdigit())


def _spelled_out(text: str) -> str:
    for short, long in (*_CONTRACTIONS, ("it's", "it is"), ("It's", "It is")):
        text = text.replace(short, long)
    return text


def _value_of(text: str, like: str) -> str:
    """Return the value within a phrase: its number, where a number is looked for."""
    number = re.search(r"\d[\d.,]*\d|\d", text) if like[:1].isdigit() and "@" not in text else None
    return number.group() if number else text.strip(" .,'\"")


def _find_start_date(sentence: str, said_on: date | None) -> str:
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
    """Return the year of the last month of that name, or none where today is not known."""
    return said_on.year - (month > said_on.month) if said_on else None


def _list_of_triples(schema: Schema) -> tuple[str, Schema] | None:
    for name, inner in schema.get("properties", {}).items():
        whole = resolve_schema(inner, schema)
        items = resolve_schema(whole.get("items", {}), schema) if type_of(whole) == "array" else {}
        if items.get("properties", {}).keys() >= _TRIPLE:
            return name, items
    return None


def _item(schema: Schema, root: Schema, statement: Statement) -> dict[str, Any]:
    item = {}
    for name, inner in schema["properties"].items():
        known = getattr(statement, name, None)
        if known is not None:
            whole = resolve_schema(inner, root)
            item[name] = known if fits(known, whole, root) else repair_text(known, whole)
    return item
