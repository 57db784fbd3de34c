"""What a model reads from a reply."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, create_model

from core.texts import make_storable
from nodes.onboarding.questions import CONFIRMATIONS, SIZES
from nodes.onboarding.state import Question

_Aside: TypeAlias = Literal["later", "skip", "question", "handover", "unclear"]
OpenIntent: TypeAlias = Literal["information", _Aside]
PolarIntent: TypeAlias = Literal["yes", "no", _Aside]
Intent: TypeAlias = Literal[OpenIntent, PolarIntent]

MAX_SIZE = 10_000_000
# What the CRM keeps of an industry.
MAX_TEXT_CHARACTERS = 200


def _one_line(text: str) -> str:
    return " ".join(make_storable(text).split())[:MAX_TEXT_CHARACTERS].rstrip()


Size: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Words: TypeAlias = Annotated[str, AfterValidator(_one_line)]

TEXTS_READ = ("industry", "use_case", "integration")

_SIZE_OF = (
    "as a whole number: “about fifty” is 50, of a range such as 50-100 the upper end; 0 where it is not said"
)
_FIELDS: Mapping[Question, str] = {
    "company_size": f"How many people work at their company, {_SIZE_OF}",
    "industry": "The industry of their company in a few words; empty where it is not said",
    "use_case": "What they want to do with the product, in one sentence; empty where it is not said",
    "team_size": f"How many people will use the product, {_SIZE_OF}",
    "integration": "The other tools they want to connect, by name; empty where none is named",
}
_COMMON = (
    "later: they want to go on another time, or need more time; skip: they do not want to say; "
    "question: they ask something; handover: they ask for a human; unclear: nothing of this"
)
_INFORMATION = f"information: they say what was asked for, or other things about themselves; {_COMMON}"
_POLAR = f"yes: they agree, it works, it is done; no: they do not agree, it fails; {_COMMON}"


class Reading(BaseModel):
    """What a customer's reply says."""

    intent: Intent
    company_size: Size = 0
    industry: Words = ""
    use_case: Words = ""
    team_size: Size = 0
    integration: Words = ""


def reading_of(question: Question | None) -> type[Reading]:
    """The schema of a reply to the question: what was asked for comes first and must be there.

    No field may be null: what is not said is 0 or empty.
    """
    polar = question in CONFIRMATIONS
    intent = (
        (PolarIntent, Field(description=_POLAR)) if polar else (OpenIntent, Field(description=_INFORMATION))
    )
    fields: dict[str, Any] = {
        "intent": intent,
        **{name: _field(name, required=name == question) for name in _FIELDS},
    }
    return create_model("Reading", __base__=Reading, __doc__=Reading.__doc__, **fields)


def _field(name: Question, *, required: bool) -> tuple[Any, Any]:
    kind: Any = Size if name in SIZES else Words
    described = _FIELDS[name]
    if required:
        return kind, Field(description=described)
    return kind, Field(Reading.model_fields[name].default, description=described)
