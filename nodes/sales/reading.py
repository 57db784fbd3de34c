"""What the model reads out of the customer's words and the sub-agents' results."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from core.texts import make_storable

# Bounds of the CRM's texts and lists.
SHORT_CHARACTERS = 2_000
LONG_CHARACTERS = 20_000
MOST_LISTED = 50
_MOST_VALUE = 1e9

PersonNeeded: TypeAlias = Literal["no", "customer_asks", "legal", "security", "beyond_product"]


class ObjectionReading(BaseModel):
    """Something that speaks against buying."""

    text: str = Field(description="The objection; of one that is in the deal already, its exact words")
    answer: str = Field("", description="What answers it; empty while nothing does")


class DealReading(BaseModel):
    """What is new about the deal. Empty stands for: not known, or as it is in the deal already."""

    # First, so that a model reasons before it decides.
    why: str = Field(description="What the results and the customer's words say about the deal, in brief")
    budget: str = Field("", description="The customer's budget")
    authority: str = Field("", description="Who decides at the customer's")
    need: str = Field("", description="What the customer needs it for")
    timeline: str = Field("", description="By when the customer wants it")
    needs: list[str] = Field([], description="Needs that are not in the deal yet, each in a few words")
    solution: str = Field("", description="What the company would deliver for these needs")
    objections: list[ObjectionReading] = Field([], description="Objections that are new, or newly answered")
    proposal: str = Field("", description="The whole proposal, with amounts such as USD 10,800")
    terms: str = Field("", description="The whole terms beside the proposal, with amounts such as USD 10,800")
    value: Annotated[float, Field(ge=0, le=_MOST_VALUE)] | None = Field(
        None, description="The deal's new worth as the proposal or the terms name it; null: as it is"
    )
    discount_percent: float = Field(
        0, ge=0, le=100, description="What the terms take off the price, in percent; 0: nothing"
    )
    agreement: str = Field(
        "", description="The sentence in which the customer agrees to the proposal, copied; empty: none"
    )
    refusal: str = Field(
        "", description="The sentence in which the customer declines for good, copied; empty: none"
    )
    not_ready: bool = Field(default=False, description="Whether the customer asks for time before going on")
    follow_up_on: str = Field("", description="Day to come back to the customer, as YYYY-MM-DD; empty: none")
    needs_person: PersonNeeded = Field("no", description="Why a person must take over; no: nobody needs to")
    next_action: str = Field("", description="What the company does next in this deal, in one sentence")


def short(text: str) -> str:
    """The text as a short field of the CRM can hold it."""
    return make_storable(text).strip()[:SHORT_CHARACTERS].strip()


def long(text: str) -> str:
    """The text as a long field of the CRM can hold it."""
    return make_storable(text).strip()[:LONG_CHARACTERS].strip()
