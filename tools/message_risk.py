"""How risky a message to a customer is, by rules a person can read."""

import re
from typing import Literal, TypeAlias

Risk: TypeAlias = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")

# What commits the company: money, law, an end to the contract, the loss of data. English and
# Portuguese, the languages the company writes.
_HIGH = re.compile(
    r"""\b(
        refund\w* | reimburs\w* | compensat\w* | discount\w* | waive\w* | free\s+of\s+charge | goodwill
      | reembols\w* | estorn\w* | ressarc\w* | indeniza\w* | descont\w* | gratuit\w* | cortesia
      | lawsuit | legal\s+action | liab(le|ility) | breach
      | processo\s+judicial | a[cç][aã]o\s+judicial | multa
      | (cancel|terminat|delet)\w*\s+(your|the)\s+(account|contract|subscription|data)
      | (cancel|rescis|exclu|apag)\w*\s+(d?[ao]s?|sua|seu)\s+(conta|contrato|assinatura|dados)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
# What promises: a date, a guarantee, a page elsewhere.
_MEDIUM = re.compile(
    r"""\b(
        guarantee\w* | promis\w* | garant\w* | promet\w*
      | by\s+(tomorrow|monday|tuesday|wednesday|thursday|friday|tonight) | within\s+\d+\s+(hours?|days?)
      | at[eé]\s+(amanh[aã]|segunda|ter[cç]a|quarta|quinta|sexta) | em\s+\d+\s+(horas?|dias?)
      | https?://\S+
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# Longer than a person reads before sending it on.
_LONG_CHARACTERS = 4_000


def message_risk(text: str) -> Risk:
    """``high`` when it commits the company, ``medium`` when it promises or is long, else ``low``."""
    if _HIGH.search(text):
        return "high"
    if _MEDIUM.search(text) or len(text) > _LONG_CHARACTERS:
        return "medium"
    return "low"
