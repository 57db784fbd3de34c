"""Placeholders that were not filled in, found without a model, in English and Portuguese.

They are told by their form, and where the form is not enough, by the words in or beside them.
"""

import re
from collections.abc import Iterator
from re import Match
from typing import Final

from nodes.critique_refine.lookalikes import blanked, without_lookalikes

# {{name}}, {% if name %}: of templates and of nothing else, so that within an address they count too.
_TEMPLATE: Final = re.compile(r"\{\{[^{}\n]{1,200}\}\}|\{%[^{}\n]{1,200}%\}")
_FORMS: Final = (
    re.compile(r"\$?\{ ?[^\W\d][\w .'-]{0,100}\}"),  # {name}
    re.compile(r"(?<![\w%])%[A-Z][A-Z_]{2,40}%(?![\w%])"),  # %NAME%
    re.compile(r"(?<!\w)_{3,}(?!\w)"),  # ____
    re.compile(r"(?<!\w)x{2,}(?:[.,:/-]x{2,})+(?!\w)|(?<!\w)x{3,}(?!\w)", re.IGNORECASE),  # XX/XX, XXX
    re.compile(r"(?<!\w)x{2,}(?= ?%)|(?:R\$|[$€£]) ?x+(?!\w)", re.IGNORECASE),  # XX%, R$ X
    re.compile(r"\bFIXME\b|(?i:\blorem ipsum\b)"),
)
_BRACKETS: Final = re.compile(r"\[([^\[\]\n]{1,200})\]")
# With nothing loose at the edges: "from <R$ 50 to >R$ 20" are comparisons.
_ANGLES: Final = re.compile(r"<([^\W\d](?:[^<>\n=\"/:]{0,100}[^<>\n=\"/:\s])?)>")
_TODO: Final = re.compile(r"\bTODO\b")
_CLAUSE_END: Final = re.compile(r"[.,:;!?()\n]")
_WHO: Final = (
    r"(?P<who>(?:customer|client|contact|company|first|last|your)(?:['\u2019]s)? name"
    r"|your (?:company|title|position)|nome d[ao] (?:cliente|contato|empresa)|(?:primeiro|seu) nome"
    r"|seu cargo|sua empresa)"
)
# Dear Customer Name,
_GREETED: Final = re.compile(
    r"\b(?:dear|hi|hello|hey|prezad[oa]|car[oa]|olá|ola|oi|bom dia|boa tarde|boa noite)[, ]{1,2}"
    rf"{_WHO}(?=\s*(?:[,!.:]|$))",
    re.IGNORECASE | re.MULTILINE,
)
# Best regards,
# Your Name
_SIGNED: Final = re.compile(
    r"\b(?:regards|sincerely|best|thanks|cheers|atenciosamente|abraços?|cordialmente|att|obrigad[oa])"
    rf"[,.!]?[ \t]*\n\s{{0,4}}{_WHO}[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of templates: with one of them, a digit does not make a reference of a placeholder.
_TELLING: Final = _words(
    """
    name nome customer client cliente company empresa contact contato your seu sua insert inserir insira add
    fill preencher preencha date data day dia time hora amount value valor price preço plan plano product
    produto link url phone telefone email title cargo address endereço city cidade discount desconto
    """
)
_REMARKS: Final = _words("sic pdf")
_TAGS: Final = _words(
    """
    a b i u s p br em strong ul ol li span div hr h1 h2 h3 h4 h5 h6 table tr td th code pre small sub sup
    blockquote
    """
)
# "Todo" is Portuguese for "all", in capitals for emphasis: told by the small words beside it.
_BEFORE_ALL: Final = _words("o do no ao pelo um em por de para com como sobre quase e")
_AFTER_ALL: Final = _words(
    """
    o a os as esse este aquele isso seu sua meu nosso mundo dia mês ano cliente tipo lugar tempo período e
    mais brasil país
    """
)


def placeholders(text: str) -> list[str]:
    """What is left of a template in the text, each once, in order.

    ``[Customer Name]``, ``{{nome}}``, ``{name}``, ``<data>``, ``%NAME%``, ``____``, ``XXX``, ``R$ XX,XX``,
    ``TODO``, ``Dear Customer Name,`` and their like. Of brackets that hold a digit (``[TKT-2031]``,
    ``[1]``) only those that also hold a template's word.
    """
    visible = without_lookalikes(_TEMPLATE.sub(blanked, text))
    found = [*_TEMPLATE.finditer(text), *_by_form(visible), *_by_words(visible)]
    found.sort(key=lambda each: each.start())
    return list(dict.fromkeys(each.groupdict().get("who") or each.group() for each in found))


def _by_form(text: str) -> Iterator[Match[str]]:
    for form in _FORMS:
        yield from form.finditer(text)


def _by_words(text: str) -> Iterator[Match[str]]:
    yield from (each for each in _BRACKETS.finditer(text) if _is_open(each.group(1), _REMARKS))
    yield from (each for each in _ANGLES.finditer(text) if _is_open(each.group(1), _TAGS))
    yield from (each for each in _TODO.finditer(text) if not _says_all(each))
    yield from _GREETED.finditer(text)
    yield from _SIGNED.finditer(text)


def _is_open(inside: str, innocent: frozenset[str]) -> bool:
    """Whether what stands between the marks is to be filled in."""
    if not any(character.isalpha() for character in inside):
        return "__" in inside
    if inside.strip().lower() in innocent:
        return False
    words = set(re.findall(r"[^\W\d_]+", inside.lower()))
    return bool(words & _TELLING) or not any(character.isdigit() for character in inside)


def _says_all(todo: Match[str]) -> bool:
    before = _CLAUSE_END.split(todo.string[max(todo.start() - 60, 0) : todo.start()])[-1]
    after = _CLAUSE_END.split(todo.string[todo.end() : todo.end() + 60])[0]
    beside = set(before.lower().split()[-2:]), set(after.lower().split()[:1])
    return bool(_BEFORE_ALL & beside[0] or _AFTER_ALL & beside[1])
