"""What can be told of a message without a model: placeholders, length, a model that speaks of itself."""

import re
from typing import Final

from nodes.critique_refine.placeholders import placeholders

# Less is a greeting, and no message.
SHORTEST_CHARACTERS = 20
# WhatsApp's limit for one text message, the tightest among the channels a CRM sends long texts by.
LONGEST_CHARACTERS = 4_096

# Told to the operator or to nobody, but not to a customer.
_OWN_VOICE: Final = re.compile(
    r"\bas an? (?:ai|large)? ?language model\b|\bas an ai (?:assistant|model)\b"
    r"|\bi(?:['\u2019]m| am) an? (?:ai\b|(?:large )?language model)|\blanguage model is configured\b"
    r"|\b(?:como|sou) um modelo de linguagem\b|\bsou uma (?:ia|inteligência artificial)\b"
    r"|\bmodelo de linguagem está configurado\b",
    re.IGNORECASE,
)


def issues_in(text: str) -> list[str]:
    """What must be mended before the text can be sent, in words the refiner can act on; none: empty."""
    issues = [f"Fill in or leave out the placeholder {found!r}." for found in placeholders(text)]
    if len(text) < SHORTEST_CHARACTERS:
        issues.append(f"The message is too short: {len(text)} characters of at least {SHORTEST_CHARACTERS}.")
    if len(text) > LONGEST_CHARACTERS:
        issues.append(f"The message is too long: {len(text)} characters of at most {LONGEST_CHARACTERS}.")
    if found := _OWN_VOICE.search(text):
        issues.append(f"The message speaks of the model that wrote it ({found.group()!r}): leave that out.")
    return issues
