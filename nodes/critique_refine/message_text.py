"""The text of a message: taken out of a model's reply, and checked for what no customer should read.

Placeholders that were not filled in are recognised by their form, in English and Portuguese, and where the
form is not enough, by the words in or beside them.
"""

import re
from collections.abc import Iterator
from re import Match
from typing import Final

from core.texts import make_storable

_FLAGS: Final = re.IGNORECASE
# "Sure! Here is the revised message:", on a line of its own.
_PREAMBLE: Final = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|claro|certo|com certeza|pronto)\b[^\n\w]{0,3})?"
    r"(?:here(?:['\u2019]s| is| are)|below is|this is|aqui (?:está|vai)|segue(?: abaixo)?|abaixo está)\b"
    r"[^\n:]{0,60}\b(?:message|draft|version|text|mensagem|rascunho|versão|texto)\b[^\n:]{0,60}:"
    r"[*_]{0,2}[ \t]*\n",
    _FLAGS,
)
# Messages go out by chat, which has no subject.
_SUBJECT: Final = re.compile(
    r"[#*_ \t]{0,6}(?:subject|assunto)[*_ \t]{0,3}:[^\n]*(?:\n|\Z)",
    _FLAGS,
)
_LABEL: Final = re.compile(r"[#*_ \t]{0,6}(?:message|mensagem|body|corpo)[*_ \t]{0,3}:[*_]{0,2}", _FLAGS)
_FENCE: Final = re.compile(r"(?P<mark>`{3,}|~{3,})[^\n`~]*\n(?P<inside>.*)(?P=mark)", re.DOTALL)
_QUOTES: Final = {'"': '"', "'": "'", "“": "”", "„": "“", "\u2018": "\u2019", "«": "»"}


def extract_message(reply: str) -> str:
    """Return the message in a model's reply, as it would be sent.

    Removes, as often as they occur: a line that announces the message, a code fence or a pair of quotation
    marks around it, and a subject line (``Subject:``, ``Assunto:``) or a label (``Message:``, ``Mensagem:``)
    before it. Quotation marks stay if there are more of them inside, as they may belong to different
    quotations.

    Returns:
        The message, without white space around it; empty if the reply holds none.
    """
    text = make_storable(reply).strip()
    while (inner := _unwrap(text)) != text:
        text = inner
    return text


def _unwrap(text: str) -> str:
    for prefix in (_PREAMBLE, _SUBJECT, _LABEL):
        if found := prefix.match(text):
            return text[found.end() :].strip()
    fence = _FENCE.fullmatch(text)
    # A fence inside belongs to a block of the message itself.
    if fence and fence["mark"] not in fence["inside"]:
        return fence["inside"].strip()
    return _unquote(text)


def _unquote(text: str) -> str:
    closing = _QUOTES.get(text[:1])
    inside = text[1:-1]
    if closing is None or len(text) < 2 or text[-1] != closing:  # noqa: PLR2004 - a pair
        return text
    if text[0] in inside or closing in inside:
        return text
    return inside.strip()


# Anything shorter is a greeting and no message.
MIN_CHARACTERS = 20
# WhatsApp's limit for one text message, the tightest of the channels for long texts.
MAX_CHARACTERS = 4_096

# A model that speaks of itself.
_SELF_REFERENCE: Final = re.compile(
    r"\bas an? (?:ai|large)? ?language model\b|\bas an ai (?:assistant|model)\b"
    r"|\bi(?:['\u2019]m| am) an? (?:ai\b|(?:large )?language model)|\blanguage model is configured\b"
    r"|\b(?:como|sou) um modelo de linguagem\b|\bsou uma (?:ia|inteligência artificial)\b"
    r"|\bmodelo de linguagem está configurado\b",
    re.IGNORECASE,
)


def find_issues(text: str) -> list[str]:
    """Return what must be fixed before the text can be sent, in words the refiner can act on."""
    issues = [
        f"Fill in or leave out the placeholder {placeholder!r}." for placeholder in find_placeholders(text)
    ]
    if len(text) < MIN_CHARACTERS:
        issues.append(f"The message is too short: {len(text)} characters of at least {MIN_CHARACTERS}.")
    if len(text) > MAX_CHARACTERS:
        issues.append(f"The message is too long: {len(text)} characters of at most {MAX_CHARACTERS}.")
    if found := _SELF_REFERENCE.search(text):
        issues.append(f"The message speaks of the model that wrote it ({found.group()!r}): leave that out.")
    return issues


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


def _blank(match: Match[str]) -> str:
    """Return as many blanks as were matched, so that lines and positions stay."""
    return re.sub(r"[^\n]", " ", match.group())


# {{name}}, {% if name %}: used in templates only, so they count inside a link too.
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
