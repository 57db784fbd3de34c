"""Fields: what a property of a schema is for, told from its name and description."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from core.offline.conversation import Conversation
from core.offline.lexicon import AFFIRMING_WORDS, FAILING_WORDS, SCALE, SEVERE_WORDS, word_set
from core.offline.observations import Fact
from core.offline.words import concept_of, concepts, is_content, is_general, stem, tokens
from core.texts import normalise_word

Kind: TypeAlias = Literal[
    "query", "headline", "message", "description", "reason", "next", "request", "expression",
    "identifier", "email", "url", "phone", "date", "name", "other",
]  # fmt: skip

_NAMES: Final[dict[Kind, str]] = {
    "query": "query q search question term terms keyword keywords topic busca consulta pergunta phrase",
    "headline": "title subject summary headline label titulo assunto resumo heading",
    "message": (
        "message solution content text answer reply response body comment note output result mensagem "
        "resposta solucao conteudo texto draft conclusion"
    ),
    "description": (
        "description details detail context problem notes evidence descricao detalhes findings issue"
    ),
    "reason": (
        "reasoning reason rationale why analysis explanation justification thought thoughts feedback "
        "critique observation motivo justificativa analise"
    ),
    "next": "action step suggestion recommendation acao passo",
    "request": "task request input instruction goal objective prompt tarefa pedido objetivo",
    "expression": "expression formula calculation expressao",
    "identifier": "id identifier key code number ref reference uuid sku codigo numero",
    "email": "email mail recipient recipients to cc",
    "url": "url uri link href website",
    "phone": "phone telephone mobile telefone celular",
    "date": "date day datetime time timestamp deadline data dia hora when",
    "name": "name city company country place location person owner assignee nome cidade empresa",
}
_KINDS: Final[dict[str, Kind]] = {word: kind for kind, words in _NAMES.items() for word in words.split()}
_FORMATS: Final[dict[str, Kind]] = {
    "email": "email",
    "uri": "url",
    "url": "url",
    "uuid": "identifier",
    "date": "date",
    "date-time": "date",
    "time": "date",
}
_DESCRIBED: Final[tuple[tuple[str, Kind], ...]] = (
    (r"\b(?:keywords?|search for|words to|to look up|palavras)\b", "query"),
    (r"\b(?:message|answer|reply|solution|text|resposta|mensagem)\b", "message"),
    (r"\b(?:why|reason|because|por que|motivo)\b", "reason"),
    (r"\b(?:title|short|headline|one line)\b", "headline"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a schema to fill.

    Attributes:
        name: The property's name; a list's items have the list's.
        description: What the schema says about it.
        required: Whether it must be there.
        format: The schema's ``format``.
        pattern: The schema's ``pattern``.
        item: Position among a list's items; ``None`` outside lists.
        parent: Name of the object's own field.
    """

    name: str = ""
    description: str = ""
    required: bool = True
    format: str = ""
    pattern: str = ""
    item: int | None = None
    parent: str = ""

    @property
    def words(self) -> list[str]:
        """The name's words."""
        return tokens(self.name)

    @property
    def kind(self) -> Kind:
        """The field's purpose, by its format, else the last known word of its name, else its description."""
        if self.format in _FORMATS:
            return _FORMATS[self.format]
        words = self.words
        if "next" in words:
            return "next"
        named = next((_KINDS[word] for word in reversed(words) if word in _KINDS), None)
        if named:
            return named
        return next(
            (kind for pattern, kind in _DESCRIBED if re.search(pattern, self.description.lower())), "other"
        )


_MAX_SEARCHED: Final = 100_000
_FORMS: Final[dict[str, str]] = {
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "url": r"https?://[^\s\"'<>)\]]+",
    "phone": r"\+?\d[\d ()-]{6,}\d",
    "date": r"\b\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?",
}
_EXPRESSION: Final = r"(?<![\w.])\(*-?\d[\d.,]*(?:\s*(?:\*\*|[-+*/%^()])+\s*\(*-?\d[\d.,]*\)*)+"
_UUID: Final = r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
_CODE: Final = r"\b(?=[\w-]*\d)[A-Za-z]{1,12}[-_][\w-]*\w\b"
_VALUE: Final = r"[`\"']?([\w@][\w@.:/+-]*)"
_NUMBER: Final = r"(?<![\w.,])-?\d+(?:[.,]\d+)*(?![\w])"
_PROPER: Final = r"[A-ZÀ-Ý][^\W\d_]+(?:['-][^\W\d_]+)*"
_NAME: Final = rf"(?<![.!?:]\s)(?<!^)\b{_PROPER}(?:\s+(?:d[aeo]s?\s+)?{_PROPER})*(?![\w-])"
_PLACED: Final = r"\b(?:in|at|for|with|called|named|em|na|no|com|chamad[oa])\s+([^\W\d_]{3,})"
_LISTED: Final = (
    r"(?m)^\s*[-*•]\s*[`*]*([A-Za-z]\w*(?:[_-]\w+)*)[`*]*(?:\([^)\n]*\))?\s*[:\u2014\u2013-]\s+(.+)$"
)
_EVERYONE: Final = re.compile(
    r"\b(?:all|every|todos|todas)\b(?: the| os| as)? (?:users?|customers?|usuarios|clientes)\b"
)
_GENERIC: Final = frozenset({"id", "identifier", "key", "code", "number", "ref", "reference", "uuid", "name"})
_CONTROLS: Final = word_set(
    "limit top k n max min maximum page offset size batch chunk results count per timeout"
)
_DENIED: Final = re.compile(r"\b(?:no|not|never|cannot|nao|nunca|nem)\b|n['\u2019]t\b")
_CODED: Final = re.compile(r"(?i:\b(?:errors?|erros?|code|código|http|status)|#)\s*[:#]?\s*\d+")
_CATCH_ALL: Final = word_set("general other others none unknown misc default chat geral outro nenhum")
_SCALE_STEPS: Final = 4


def value_for(field: Field, conversation: Conversation) -> str | None:
    """Return the conversation's value for a field that is not prose, or ``None``."""
    text = conversation.everything[:_MAX_SEARCHED]
    if field.format == "uuid":
        return _first(_UUID, text)
    named = _fact_named(field, conversation) or _find_labelled(field, text)
    if named and _plausible(field, named):
        return named
    if field.kind in _FORMS:
        return _first(_FORMS[field.kind], text)
    if field.kind == "identifier":
        return _identifier(field, conversation, text)
    finders = {
        "name": lambda: _first(_NAME, conversation.task) or _find_place(conversation.task),
        "expression": lambda: _expression(text),
    }
    return finders[field.kind]() if field.kind in finders else None


def _expression(text: str) -> str | None:
    """Return the first arithmetic expression in the text that is not a date or a telephone number."""
    sums = (found.group().strip().rstrip(".,") for found in re.finditer(_EXPRESSION, text))
    return next((each for each in sums if not re.fullmatch(r"[\d-]+", each)), None)


def number_for(
    field: Field, conversation: Conversation, low: float | None, high: float | None
) -> float | None:
    """Return the number beside the field's name in the task, else its only number within bounds."""
    text = conversation.everything[:_MAX_SEARCHED]
    named = _fact_named(field, conversation) or _find_labelled(field, text) or _number_beside(field, text)
    if named and (number := as_number(named)) is not None:
        return number
    if not field.required or _is_control(field):
        return None
    found = [as_number(number) for number in re.findall(_NUMBER, _CODED.sub(" ", conversation.task))]
    within = [
        number
        for number in found
        if number is not None and (low is None or number >= low) and (high is None or number <= high)
    ]
    return within[0] if len(within) == 1 else None


def _is_control(field: Field) -> bool:
    """Return whether the field controls a call (``limit``, ``page_size``) rather than holding a value."""
    controls = _CONTROLS & set(field.words)
    return bool(controls) and not (controls == {"size"} and len(field.words) > 1)


def as_number(text: str) -> float | None:
    """Return a number as people write it: ``1,200.50``, ``1.200,50``, ``48,500``."""
    digits = text.strip().strip("`\"'")
    if not re.fullmatch(_NUMBER, digits) or len(digits) > 40:  # noqa: PLR2004 - longer is no amount
        return None
    last = max(digits.rfind("."), digits.rfind(","))
    decimals = len(digits) - last - 1 if last >= 0 else 0
    several = len(re.findall("[.,]", digits)) > 1
    mark = digits[last] if last >= 0 else ""
    is_decimal = last >= 0 and decimals != 3 and not (several and digits.count(mark) > 1)  # noqa: PLR2004
    bare = re.sub("[.,]", "", digits)
    number = float(f"{bare[:-decimals]}.{bare[-decimals:]}") if is_decimal else float(bare)
    return int(number) if number.is_integer() else number


def choice_for(field: Field, options: Sequence[Any], conversation: Conversation) -> int | None:
    """The option that the conversation mentions most; on a scale of severity, the one that fits its words."""
    scale = [SCALE.get(normalise_word(str(option))) for option in options]
    if len(options) > 1 and None not in scale:
        return _on_scale([step for step in scale if step is not None], conversation.topic)
    if (polar := _polar(options, conversation.task)) is not None:
        return polar
    asked = _option_scores(options, conversation.topic, f"{field.description}\n{conversation.system}")
    if "?" in conversation.task:
        asked = [
            score + (concept_of(str(option)) == "question")
            for score, option in zip(asked, options, strict=True)
        ]
    best = max(range(len(options)), key=lambda at: asked[at])
    if asked[best] > 0:
        return best
    return next((at for at, option in enumerate(options) if set(tokens(str(option))) & _CATCH_ALL), None)


def listed_choice(text: str, asked: str) -> str | None:
    """Return the name in a list of ``- name: purpose`` lines that matches the question best."""
    words = set(concepts(asked))
    listed = [found.groups() for found in re.finditer(_LISTED, text[:_MAX_SEARCHED])]
    scored = [(len(words & set(concepts(f"{name} {purpose}"))), name) for name, purpose in listed]
    best = max(scored, key=lambda pair: pair[0], default=(0, ""))
    return best[1] if best[0] else None


def _option_scores(options: Sequence[Any], asked: str, guide: str) -> list[float]:
    """Shared concepts of each option with what is asked; words the guide puts beside an option count less."""
    words = set(concepts(asked))
    named = [{concept_of(word) for word in tokens(str(option))} for option in options]
    scores = [2.0 * len(names & words) for names in named]
    for line in guide.splitlines()[:400]:
        mentioned = [at for at, option in enumerate(options) if _stands_in(str(option), line)]
        if len(mentioned) == 1:
            scores[mentioned[0]] += min(len(set(concepts(line)) & words), 3)
    return scores


def _polar(options: Sequence[Any], text: str) -> int | None:
    """Return the option ``yes`` or ``no`` that a text expresses; a question expresses neither."""
    named = [normalise_word(str(option)) for option in options]
    if not {"yes", "no"} <= set(named) or "?" in text:
        return None
    if _DENIED.search(normalise_word(text)) or {stem(word) for word in tokens(text)} & {
        stem(word) for word in FAILING_WORDS
    }:
        return named.index("no")
    return named.index("yes") if set(tokens(text)) & AFFIRMING_WORDS else None


def _stands_in(option: str, line: str) -> bool:
    return (
        bool(option)
        and re.search(rf"(?<!\w){re.escape(normalise_word(option))}(?!\w)", normalise_word(line)) is not None
    )


def _on_scale(steps: list[int], text: str) -> int:
    words = {stem(word) for word in tokens(text)}
    if _EVERYONE.search(normalise_word(text)) or words & {stem(word) for word in SEVERE_WORDS}:
        wanted = _SCALE_STEPS
    else:
        wanted = 3 if words & {stem(word) for word in FAILING_WORDS} else 2
    return min(range(len(steps)), key=lambda at: (abs(steps[at] - wanted), steps[at]))


def _first(form: str, text: str) -> str | None:
    found = re.search(form, text)
    return found.group().strip().rstrip(".,;") if found else None


def _find_place(text: str) -> str | None:
    """Return the word after a preposition that usually precedes names."""
    words = (found.group(1) for found in re.finditer(_PLACED, text))
    return next(
        (word for word in words if is_content(normalise_word(word)) and not is_general(concept_of(word))),
        None,
    )


def _fact_named(field: Field, conversation: Conversation) -> str | None:
    wanted = [name for name in (_name_words(field), field.words) if name]
    facts = [fact for observation in conversation.observations for fact in observation.facts]
    for words in wanted:
        found = next((fact for fact in facts if _is_called(fact, words)), None)
        if found is not None:
            return str(found.value)
    return None


def _name_words(field: Field) -> list[str]:
    owner = [word for word in field.words if word in _GENERIC] == field.words
    return [*tokens(field.parent), *field.words] if owner and field.parent else field.words


def _is_called(fact: Fact, words: list[str]) -> bool:
    path = [word for key in fact.keys for word in tokens(key)]
    return path[-len(words) :] == words and (len(words) > 1 or not set(words) <= _GENERIC)


def _find_labelled(field: Field, text: str) -> str | None:
    """Return what follows the field's name and a colon or equals sign."""
    if not field.words or (len(field.words) == 1 and field.words[0] in _GENERIC - {"name"}):
        return None
    label = r"[ _-]?".join(map(re.escape, field.words))
    found = re.search(rf"(?i:\b{label})[`\"']?\s*(?:[:=]|\bis\b|\bé\b)\s*{_VALUE}", text)
    return found.group(1).rstrip(".,:") if found else None


def _number_beside(field: Field, text: str) -> str | None:
    """Return the number directly after the field's name: ``amount of 1,500``."""
    if not field.words:
        return None
    label = r"[ _-]?".join(map(re.escape, field.words))
    found = re.search(rf"(?i:\b{label}\s+(?:of\s+|to\s+|de\s+)?[$€£]?\s?)({_NUMBER})", text)
    return found.group(1) if found else None


def _plausible(field: Field, value: str) -> bool:
    form = _FORMS.get(field.kind) if field.kind in {"email", "url"} else None
    return form is None or re.fullmatch(form, value) is not None


def _identifier(field: Field, conversation: Conversation, text: str) -> str | None:
    """Return the code beside the identifier's noun (``order 1234``), else the only code there is."""
    nouns = {concept_of(word) for word in field.words if word not in _GENERIC}
    if nouns:
        for found in re.finditer(
            r"\b(\w+)\s+(?:id|number|no\.?|nº|número|code)?\s*[#:]?\s*([\w-]*\d[\w-]*)", text
        ):
            if concept_of(found.group(1)) in nouns:
                return found.group(2)
    codes = list(dict.fromkeys(re.findall(_UUID, conversation.everything[:_MAX_SEARCHED])))
    codes += [code for code in dict.fromkeys(re.findall(_CODE, conversation.task)) if code not in codes]
    prefixed = [code for code in codes if any(normalise_word(code).startswith(noun[:3]) for noun in nouns)]
    if prefixed:
        return str(prefixed[0])
    return str(codes[0]) if len(codes) == 1 else None
