"""The text of a message: taken out of a model's reply, and checked for what no customer should read."""

import re
from typing import Final

from core.customer_text import find_customer_text_fault
from core.placeholders import find_placeholders
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
    r"|\bi(?:['\u2019]m| am) an? (?:ai\b|(?:large )?language model)"
    r"|\b(?:como|sou) um modelo de linguagem\b|\bsou uma (?:ia|inteligência artificial)\b",
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
    if not issues and (fault := find_customer_text_fault(text)):
        issues.append(f"No customer may read this: {fault}.")
    if found := _SELF_REFERENCE.search(text):
        issues.append(f"The message speaks of the model that wrote it ({found.group()!r}): leave that out.")
    return issues
