"""The message alone, out of a reply that may have wrapped it."""

import re
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


def message_text(reply: str) -> str:
    """The message in a model's reply, as it would be sent.

    Taken off, as often as they are there: a line that announces the message, a code fence around it, a pair
    of quotation marks around it, a subject line (``Subject:``, ``Assunto:``) and a label (``Message:``,
    ``Mensagem:``) before it. Quotation marks stay where the text has more of them inside, as they may then
    belong to different quotations.

    Returns:
        The message, without white space around it; empty where the reply holds none.
    """
    text = make_storable(reply).strip()
    while (inner := _unwrapped(text)) != text:
        text = inner
    return text


def _unwrapped(text: str) -> str:
    for prefix in (_PREAMBLE, _SUBJECT, _LABEL):
        if found := prefix.match(text):
            return text[found.end() :].strip()
    fence = _FENCE.fullmatch(text)
    # Marks within are of blocks of the message's own.
    if fence and fence["mark"] not in fence["inside"]:
        return fence["inside"].strip()
    return _unquoted(text)


def _unquoted(text: str) -> str:
    closing = _QUOTES.get(text[:1])
    inside = text[1:-1]
    if closing is None or len(text) < 2 or text[-1] != closing:  # noqa: PLR2004 - a pair
        return text
    if text[0] in inside or closing in inside:
        return text
    return inside.strip()
