"""What only looks like a placeholder: addresses, links, code, check boxes, masked numbers."""

import re
from re import Match
from typing import Final

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


def without_lookalikes(text: str) -> str:
    """The text with blanks in their place; lines and positions stay."""
    return _LOOKALIKE.sub(blanked, text)


def blanked(found: Match[str]) -> str:
    """As many blanks as were matched."""
    return re.sub(r"[^\n]", " ", found.group())
