"""What everybody who works on a deal is told: the deal and the contact in the CRM, and the talk."""

import json
from string import Template
from typing import Any

from core.texts import cut, fence, join_lines
from nodes.sales.state import SalesState
from nodes.shared.conversation import select_spoken
from nodes.shared.prompts import load_prompt

HISTORY_MESSAGES = 20
# Together below what a background may have.
_DEAL_CHARACTERS = 12_000
_CONTACT_CHARACTERS = 5_000
_TALK_CHARACTERS = 9_000
_KNOWN_CHARACTERS = 10_000
_SAID_CHARACTERS = 1_500
_BOOKKEEPING = frozenset({"version", "created_at", "updated_at", "contact_id"})


def background(state: SalesState) -> str:
    """The background of a run's work."""
    deal = Template(load_prompt("sales_background")).substitute(
        today=state["today"],
        deal=deal_text(state),
        contact=fence("contact", cut(_json(state["contact"]), _CONTACT_CHARACTERS)),
        talk=fence("talk", _talk(state)),
    )
    return "\n\n".join(filter(None, (deal, cut(state["background"], _KNOWN_CHARACTERS))))


def deal_text(state: SalesState) -> str:
    """The opportunity as a model reads it: what is not known is not there."""
    held = state["opportunity"] or {}
    known = {name: value for name, value in held.items() if value and name not in _BOOKKEEPING}
    return fence("deal", cut(_json(known), _DEAL_CHARACTERS))


def _talk(state: SalesState) -> str:
    """What was said on the thread, the latest last."""
    lines = [
        f"{'customer' if message.type == 'human' else 'company'}: "
        f"{cut(join_lines(message.text), _SAID_CHARACTERS)}"
        for message in select_spoken(state["messages"], HISTORY_MESSAGES)
    ]
    return "\n".join(lines)[-_TALK_CHARACTERS:]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
