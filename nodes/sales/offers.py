"""What is offered to the customer, and when a person must approve it first."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nodes.sales.evidence import find_amounts, names_value
from nodes.sales.state import LONG_CHARACTERS, DealReading, long
from tools.approval import assess_message_risk
from tools.crm.models import Opportunity

# What gives money away, beside what makes a message one of high risk.
_GIVES_AWAY = re.compile(
    r"%|\b(per\s?cent|off|free|rebate|credit|cashback|bonus|cheaper|reduc\w+|gr[aá]tis|abatimento|por\s+cento)\b",
    re.IGNORECASE,
)


class Offer(BaseModel):
    """Proposal, terms and value of a deal as they would be recorded."""

    model_config = ConfigDict(extra="forbid")

    proposal: str = Field("", max_length=LONG_CHARACTERS, description="The proposal; empty: as it is")
    terms: str = Field("", max_length=LONG_CHARACTERS, description="The terms; empty: as they are")
    value: float = Field(ge=0, le=1e9, allow_inf_nan=False, description="The deal's worth in its currency")
    discount_percent: float = Field(0, ge=0, le=100, description="What is taken off the price, in percent")

    def changes(self, before: Opportunity) -> dict[str, Any]:
        """The fields of the opportunity that are new."""
        given = {"proposal": self.proposal, "terms": self.terms, "value": round(self.value, 2)}
        return {
            name: value
            for name, value in given.items()
            if value != getattr(before, name) and (name == "value" or value)
        }


def offer_in(before: Opportunity, reading: DealReading) -> Offer | None:
    """The offer a reading makes of the deal; ``None`` when it leaves proposal, terms and value as they are.

    The value is the one the CRM holds, unless the proposal or the terms name the new one.
    """
    offer = Offer(
        proposal=_new(before.proposal, reading.proposal),
        terms=_new(before.terms, reading.terms),
        value=before.value,
        discount_percent=reading.discount_percent,
    )
    texts = f"{offer.proposal or before.proposal or ''}\n{offer.terms or before.terms or ''}"
    if reading.value is not None and names_value(texts, reading.value, before.currency):
        offer.value = round(reading.value, 2)
    return offer if offer.changes(before) else None


def concession(before: Opportunity, offer: Offer) -> str | None:
    """Why a person must approve the offer: it gives, or may give, money away. ``None`` when it does not."""
    return "; ".join(_concessions(before, offer)) or None


def _concessions(before: Opportunity, offer: Offer) -> Iterator[str]:
    new = f"{offer.proposal}\n{offer.terms}"
    if offer.discount_percent:
        yield f"it takes {offer.discount_percent:g} % off"
    if offer.value < before.value:
        yield f"the value falls from {before.value:,.2f} to {offer.value:,.2f} {before.currency}"
    if offer.value != before.value and not before.value:
        yield "the CRM holds no value to compare it with"
    if find_amounts(new, before.currency) and not names_value(new, offer.value, before.currency):
        yield f"none of its amounts is the deal's value of {offer.value:,.2f} {before.currency}"
    if _GIVES_AWAY.search(new) or assess_message_risk(new) == "high":
        yield "its words speak of money given away or of a commitment"


def _new(known: str | None, read: str) -> str:
    text = long(read)
    return "" if text == known else text
