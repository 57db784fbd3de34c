"""What a message says about the contact, as facts: structured output, checked before anyone believes it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from core.logging import get_logger
from core.memory import Message, NewFact
from core.memory.values import Role
from core.memory.vocabulary import MULTI_VALUED, SINGLE_VALUED, normalise_predicate
from core.models import ChatModels
from core.texts import make_storable
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured

log = get_logger(__name__)

MAX_FACTS: Final = 10
MAX_TEXT_CHARACTERS: Final = 4_000
MAX_BEFORE: Final = 6
_FIRST_YEAR: Final = 1900
# What is agreed upon now may begin later, within reason.
_LATEST: Final = timedelta(days=3 * 366)

# How sure one statement makes. A model's own figure is not calibrated; who speaks is known.
_CONFIDENCE: Final[dict[Role, float]] = {"customer": 0.8, "note": 0.9, "human": 0.7}

Kind = Literal["states", "changes", "corrects", "ends"]


class ExtractedFact(BaseModel):
    """A statement about the contact."""

    subject: Annotated[str, Field(description="contact, company, or a name")] = "contact"
    predicate: Annotated[str, Field(description="Which property, in lower case")]
    object: Annotated[str, Field(description="The value alone")]
    scope: Annotated[str, Field(description="What the value is for, where there is one for each")] = ""
    valid_from: Annotated[str, Field(description="YYYY-MM-DD, or empty")] = ""
    kind: Annotated[Kind, Field(description="How it stands to what was known")] = "states"
    instead_of: Annotated[str, Field(description="The earlier value, where it is named")] = ""


class Extraction(BaseModel):
    """Everything a message says about the contact."""

    facts: Annotated[list[ExtractedFact], Field(description="None where it says nothing that lasts")]


async def extract_facts(
    models: ChatModels, message: Message, *, before: Sequence[Message] = (), model: str | None = None
) -> list[NewFact]:
    """The facts a message states, checked, at most :data:`MAX_FACTS`.

    What the company's own agents say is no evidence about the contact and is not read. Whose facts they are
    is not the model's to say: they are of the scope in which the caller keeps them.

    Args:
        models: The chat models.
        message: The message to read.
        before: What was said before it, oldest first: it tells what a short answer is about.
        model: ``provider:model`` that stands instead.

    Returns:
        None where the model's reply could not be read, which is logged.

    Raises:
        ModelError: The model failed for good.
    """
    if message.role not in _CONFIDENCE or not message.text.strip():
        return []
    found = await ask_structured(
        models, _asked(message, before), Extraction, temperature=0, role="chat", model=model
    )
    if found is None:
        log.warning("memory_extraction_unreadable", message_id=message.id)
        return []
    facts = (_new_fact(each, message) for each in found.facts)
    return list(dict.fromkeys(fact for fact in facts if fact))[:MAX_FACTS]


def _asked(message: Message, before: Sequence[Message]) -> list[BaseMessage]:
    vocabulary = "\n".join(
        f"  - {name}: {meaning}" for name, meaning in {**SINGLE_VALUED, **MULTI_VALUED}.items()
    )
    system = load_prompt("memory_extract").format(vocabulary=vocabulary)
    spoken = [_spoken(each) for each in before[-MAX_BEFORE:] if each.text.strip()]
    day = message.at.astimezone(UTC).strftime("%A, %Y-%m-%d")
    kept = message.text[:MAX_TEXT_CHARACTERS]
    asked = HumanMessage(f"Message of {day}, by the {message.role}:\n\n{kept}")
    return [SystemMessage(system), *spoken, asked]


def _spoken(message: Message) -> BaseMessage:
    kind = AIMessage if message.role == "agent" else HumanMessage
    return kind(message.text[:MAX_TEXT_CHARACTERS])


def _new_fact(extracted: ExtractedFact, message: Message) -> NewFact | None:
    """The fact as memory takes it, or None where it is none."""
    subject, predicate, value, scope, instead_of = (
        " ".join(make_storable(text).split())
        for text in (
            extracted.subject,
            extracted.predicate,
            extracted.object,
            extracted.scope,
            extracted.instead_of,
        )
    )
    name = normalise_predicate(predicate)
    fits = len(subject) <= 100 and 0 < len(name) <= 60 and len(value) <= 500 and len(scope) <= 100  # noqa: PLR2004
    # A value of marks alone is none.
    if not fits or not any(character.isalnum() for character in value):
        return None
    return NewFact(
        subject=subject if any(character.isalnum() for character in subject) else "contact",
        predicate=name,
        object=value,
        scope_key=scope,
        confidence=_CONFIDENCE[message.role],
        source_message_id=message.id,
        valid_from=_since(extracted.valid_from, message.at),
        correction=extracted.kind == "corrects",
        instead_of=instead_of[:500] if extracted.kind == "corrects" else "",
        ended=extracted.kind == "ends",
    )


def _since(text: str, said_at: datetime) -> datetime | None:
    """The beginning of the day; None where the message's own time is better or the text is no likely day."""
    try:
        day = date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None
    said_on = said_at.astimezone(UTC)
    likely = day.year >= _FIRST_YEAR and day <= (said_on + _LATEST).date()
    if not likely or day == said_on.date():
        return None
    return datetime.combine(day, time(), UTC)
