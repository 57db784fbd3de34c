"""Placeholders that were left in a text: recognised by their form, in English and Portuguese.

Where the form is not enough, the words in or beside them decide.
"""

import re
from collections.abc import Iterator
from re import Match
from typing import Final

# Text that only looks like a placeholder.
_LOOKALIKE: Final = re.compile(
    r"""
      ```.*?```                                                # code
    | `(?=[^`\n]*[/=().:;"'$])[^`\n]*`                         # code within a line, told by its signs
    | !?\[[^\[\]\n]{0,300}\]\((?=[^()\s]*[./\#:@])[^()\s]*(?:\s+"[^"\n]*")?\)  # [text](address)
    | \[[^\[\]\n]{1,300}\]\[\d{1,3}\]                          # [text][1]
    | https?://\[[0-9a-f:.]+\][^\s<>]*                         # an IPv6 address
    | (?:https?://|www\.)[^\s<>\[\]{}?]*(?:\?[^\s<>{}]*)?      # any other: brackets in its query only
    | (?<![\w.+%'-])[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}  # e-mail
    | (?<!\S)(?:[-*+]|\d{1,3}[.)])[ \t]{1,9}\[[ x]\]            # a check box
    | ^[ \t]*_{3,}[ \t]*$                                      # a rule
    | (?<!\w)(?:[x*]{4}[ -]?){1,4}\d{3,4}(?!\w)                # XXXX-1234, a card
    | (?<!\w)[x*]{3}\.\d{3}\.\d{3}-[\dx*]{2}(?!\w)             # XXX.456.789-XX, a CPF
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE | re.DOTALL,
)

_INLINE_CODE: Final = re.compile(r"`[^`\n]+`")


def _blank(match: Match[str]) -> str:
    """Return as many blanks as were matched, so that lines and positions stay."""
    return re.sub(r"[^\n]", " ", match.group())


# {{name}}, {% if name %}: used in templates only, so they count inside a link too.
_TEMPLATE: Final = re.compile(r"\{\{[^{}\n]{1,200}\}\}|\{%[^{}\n]{1,200}%\}")
_FIELD_FORMS: Final = (
    re.compile(r"\$?\{ ?[^\W\d][\w .'-]{0,100}\}"),  # {name}
    re.compile(r"(?<![\w%])%[A-Z][A-Z_]{2,40}%(?![\w%])"),  # %NAME%
)
_FORMS: Final = (
    *_FIELD_FORMS,
    re.compile(r"(?<!\w)_{3,}(?!\w)"),  # ____
    re.compile(r"(?<!\w)x{2,}(?:[.,:/-]x{2,})+(?!\w)|(?<!\w)x{3,}(?!\w)", re.IGNORECASE),  # XX/XX, XXX
    re.compile(r"(?<!\w)x{2,}(?= ?%)|(?:R\$|[$€£]) ?x+(?!\w)", re.IGNORECASE),  # XX%, R$ X
    re.compile(r"\bFIXME\b|(?i:\blorem ipsum\b)"),
)
_BRACKETS: Final = re.compile(r"\[([^\[\]\n]{1,200})\]")
# No blank or sign at the edges, because "from <R$ 50 to >R$ 20" are comparisons.
_ANGLES: Final = re.compile(r"<([^\W\d](?:[^<>\n=\"/:]{0,100}[^<>\n=\"/:\s])?)>")
_TODO: Final = re.compile(r"\bTODO\b")
_CLAUSE_END: Final = re.compile(r"[.,:;!?()\n]")
_NAME: Final = (
    r"(?P<name>(?:customer|client|contact|company|first|last|your)(?:['\u2019]s)? name"
    r"|your (?:company|title|position)|nome d[ao] (?:cliente|contato|empresa)|(?:primeiro|seu) nome"
    r"|seu cargo|sua empresa)"
)
# Dear Customer Name,
_GREETED: Final = re.compile(
    r"\b(?:dear|hi|hello|hey|prezad[oa]|car[oa]|olá|ola|oi|bom dia|boa tarde|boa noite)[, ]{1,2}"
    rf"{_NAME}(?=\s*(?:[,!.:]|$))",
    re.IGNORECASE | re.MULTILINE,
)
# Best regards,
# Your Name
_SIGNED: Final = re.compile(
    r"\b(?:regards|sincerely|best|thanks|cheers|atenciosamente|abraços?|cordialmente|att|obrigad[oa])"
    rf"[,.!]?[ \t]*\n\s{{0,4}}{_NAME}[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words of templates. Brackets with a digit are a reference, unless they hold one of these too.
_TEMPLATE_WORDS: Final = _words(
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
# "TODO" may be Portuguese for "all", in capitals for emphasis: the words beside it tell.
_BEFORE_ALL: Final = _words("o do no ao pelo um em por de para com como sobre quase e")
_AFTER_ALL: Final = _words(
    """
    o a os as esse este aquele isso seu sua meu nosso mundo dia mês ano cliente tipo lugar tempo período e
    mais brasil país
    """
)


def find_placeholders(text: str) -> list[str]:
    """Return the placeholders left in the text, each once, in order.

    ``[Customer Name]``, ``{{nome}}``, ``{name}``, ``<data>``, ``%NAME%``, ``____``, ``XXX``, ``R$ XX,XX``,
    ``TODO``, ``Dear Customer Name,`` and the like. Brackets that hold a digit (``[TKT-2031]``, ``[1]``)
    count only if they also hold a word of templates.
    """
    visible = _LOOKALIKE.sub(_blank, _TEMPLATE.sub(_blank, text))
    matches = [*_TEMPLATE.finditer(text), *_match_forms(visible), *_match_words(visible)]
    matches.sort(key=lambda match: match.start())
    return list(dict.fromkeys(match.groupdict().get("name") or match.group() for match in matches))


def find_template_fields(text: str) -> list[str]:
    """Return the fields of templates, each once: ``{{name}}``, ``{% if %}``, ``{name}``, ``%NAME%``.

    Unlike :func:`find_placeholders`, which reads a message that was drafted, this takes square brackets and
    blanks for what they are in an explanation, and ignores code.
    """
    if "{" not in text and "%" not in text:
        return []
    visible = _LOOKALIKE.sub(_blank, _INLINE_CODE.sub(_blank, text))
    matches = [match for form in (_TEMPLATE, *_FIELD_FORMS) for match in form.finditer(visible)]
    return list(dict.fromkeys(match.group() for match in matches))


def _match_forms(text: str) -> Iterator[Match[str]]:
    for form in _FORMS:
        yield from form.finditer(text)


def _match_words(text: str) -> Iterator[Match[str]]:
    yield from (match for match in _BRACKETS.finditer(text) if _is_placeholder(match.group(1), _REMARKS))
    yield from (match for match in _ANGLES.finditer(text) if _is_placeholder(match.group(1), _TAGS))
    yield from (match for match in _TODO.finditer(text) if not _means_all(match))
    yield from _GREETED.finditer(text)
    yield from _SIGNED.finditer(text)


def _is_placeholder(inside: str, allowed: frozenset[str]) -> bool:
    """Whether the text between the brackets is to be filled in."""
    if not any(character.isalpha() for character in inside):
        return "__" in inside
    if inside.strip().lower() in allowed:
        return False
    words = set(re.findall(r"[^\W\d_]+", inside.lower()))
    return bool(words & _TEMPLATE_WORDS) or not any(character.isdigit() for character in inside)


def _means_all(todo: Match[str]) -> bool:
    before = _CLAUSE_END.split(todo.string[max(todo.start() - 60, 0) : todo.start()])[-1]
    after = _CLAUSE_END.split(todo.string[todo.end() : todo.end() + 60])[0]
    words_before, words_after = set(before.lower().split()[-2:]), set(after.lower().split()[:1])
    return bool(_BEFORE_ALL & words_before or _AFTER_ALL & words_after)
