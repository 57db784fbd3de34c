"""Extract facts about a contact from their messages, and have memory learn them.

The facts come as structured output and are checked before memory stores them. What the company's own agents
say is no evidence about the contact; it is only context.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from core.customer_text import find_customer_text_fault
from core.errors import ModelRefused
from core.logging import get_logger
from core.memory import Memory, Message, NewFact, Scope
from core.memory.values import Role
from core.memory.vocabulary import MULTI_VALUED, SINGLE_VALUED, normalise_predicate
from core.models import ChatModels
from core.texts import fence, make_storable
from nodes.shared.prompts import load_prompt
from nodes.shared.structured import ask_structured, has_language_model

log = get_logger(__name__)

# Newest messages of a session that are read.
MAX_MESSAGES: Final = 100
# Facts taken from one message.
MAX_FACTS: Final = 10
# Messages that are evidence, and characters of all messages, in one model call.
BATCH_MESSAGES: Final = 20
BATCH_CHARACTERS: Final = 12_000
MAX_TEXT_CHARACTERS: Final = 4_000
# Messages before a batch that the model sees as context.
MAX_CONTEXT_MESSAGES: Final = 6
_FIRST_YEAR: Final = 1900
# An agreement may begin in the future, within reason.
_MAX_FUTURE: Final = timedelta(days=3 * 366)

# Confidence in a statement, by who makes it. A model's own estimate is not calibrated.
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


class NumberedFact(ExtractedFact):
    """A statement about the contact in one of several messages."""

    message: Annotated[int, Field(description="Number of the message that says it")]


class Extraction(BaseModel):
    """Everything a message says about the contact."""

    facts: Annotated[list[ExtractedFact], Field(description="None where it says nothing that lasts")]


class BatchExtraction(BaseModel):
    """Everything several messages say about the contact."""

    facts: Annotated[list[NumberedFact], Field(description="None where they say nothing that lasts")]


async def learn_facts(models: ChatModels, memory: Memory, scope: Scope, messages: Sequence[Message]) -> int:
    """Have memory learn the facts stated in a session.

    Learning the same session again changes nothing, because memory knows a fact by its source message.
    Without a language model no facts are learnt: a rule that reads "my brother moved" as a move would put
    something false into memory for good.

    Args:
        models: The chat models.
        memory: The memory service, which has the messages already.
        scope: The tenant and contact.
        messages: The session's messages, oldest first; the newest :data:`MAX_MESSAGES` are read.

    Returns:
        The number of facts that were stated.

    Raises:
        ModelError: The model failed permanently. A message that it refuses is skipped.
        MemoryUnavailable: Memory cannot be reached.
    """
    if not has_language_model(models, None):
        return 0
    newest = messages[-MAX_MESSAGES:]
    count = 0
    for start, end in _split_batches(newest):
        facts = await _extract_or_halve(models, newest[:start], newest[start:end])
        # A message at a time, oldest first, as a later fact replaces an earlier one.
        for message in newest[start:end]:
            if stated := [fact for fact in facts if fact.source_message_id == message.id]:
                await memory.upsert_facts(scope, stated)
        count += len(facts)
    return count


async def extract_facts(
    models: ChatModels, messages: Sequence[Message], *, context: Sequence[Message] = ()
) -> list[NewFact] | None:
    """Return the facts that messages state, at most :data:`MAX_FACTS` of each, with one model call.

    Args:
        models: The chat models.
        messages: The messages to read, oldest first.
        context: The messages before them, which tell what a short answer is about.

    Returns:
        The facts; None if the model's reply could not be read.

    Raises:
        ModelError: The model failed permanently.
    """
    evidence = [message for message in messages if _is_evidence(message)]
    if not evidence:
        return []
    single = len(evidence) == 1
    if single:
        # What follows the only evidence says nothing about it, what comes before it does.
        before = [*context, *messages[: messages.index(evidence[0])]]
        content = _format_dated(evidence[0])
    else:
        before, content = list(context), _format_batch(messages, evidence)
    request = _build_request(before, content)
    schema: type[Extraction | BatchExtraction] = Extraction if single else BatchExtraction
    extraction = await ask_structured(models, request, schema, temperature=0, role="chat")
    if extraction is None:
        return None
    facts: list[NewFact] = []
    for number, message in enumerate(evidence, 1):
        extracted = [fact for fact in extraction.facts if getattr(fact, "message", 1) == number]
        checked = (_check_fact(fact, message) for fact in extracted)
        facts += list(dict.fromkeys(fact for fact in checked if fact))[:MAX_FACTS]
    return facts


def _is_evidence(message: Message) -> bool:
    return message.role in _CONFIDENCE and bool(message.text.strip())


def _split_batches(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Yield start and end of batches with at most :data:`BATCH_MESSAGES` messages that are evidence."""
    start, evidence, characters = 0, 0, 0
    for index, message in enumerate(messages):
        length = min(len(message.text), MAX_TEXT_CHARACTERS)
        full = evidence + _is_evidence(message) > BATCH_MESSAGES or characters + length > BATCH_CHARACTERS
        if full and index > start:
            yield start, index
            start, evidence, characters = index, 0, 0
        evidence, characters = evidence + _is_evidence(message), characters + length
    if messages:
        yield start, len(messages)


async def _extract_or_halve(
    models: ChatModels, context: Sequence[Message], batch: Sequence[Message]
) -> list[NewFact]:
    """Extract the facts of a batch, without the messages that the model refuses or cannot read."""
    try:
        facts, reason = await extract_facts(models, batch, context=context), "the reply could not be read"
    except ModelRefused as refusal:
        facts, reason = None, refusal.message
    if facts is not None:
        return facts
    evidence = [index for index, message in enumerate(batch) if _is_evidence(message)]
    if len(evidence) == 1:
        log.warning("facts_not_extracted", message_id=batch[evidence[0]].id, reason=reason)
        return []
    half = evidence[len(evidence) // 2]
    first = await _extract_or_halve(models, context, batch[:half])
    return [*first, *await _extract_or_halve(models, [*context, *batch[:half]], batch[half:])]


def _build_request(before: Sequence[Message], content: str) -> list[BaseMessage]:
    vocabulary = "\n".join(
        f"  - {name}: {meaning}" for name, meaning in {**SINGLE_VALUED, **MULTI_VALUED}.items()
    )
    system = load_prompt("memory_extract").format(vocabulary=vocabulary)
    context: list[BaseMessage] = []
    for message in before[-MAX_CONTEXT_MESSAGES:]:
        if message.text.strip():
            kind = AIMessage if message.role == "agent" else HumanMessage
            context.append(kind(message.text[:MAX_TEXT_CHARACTERS]))
    return [SystemMessage(system), *context, HumanMessage(content)]


def _format_dated(message: Message) -> str:
    day = message.at.astimezone(UTC).strftime("%A, %Y-%m-%d")
    return f"Message of {day}, by the {message.role}:\n\n{message.text[:MAX_TEXT_CHARACTERS]}"


def _format_batch(messages: Sequence[Message], evidence: Sequence[Message]) -> str:
    """Number the messages that are evidence, with the agents' messages between them as context."""
    numbers = {message.id: number for number, message in enumerate(evidence, 1)}
    return "\n\n".join(
        fence("message", f"[{numbers[message.id]}] {_format_dated(message)}")
        if message.id in numbers
        else fence("agent", message.text[:MAX_TEXT_CHARACTERS])
        for message in messages
        if message.text.strip()
    )


def _check_fact(extracted: ExtractedFact, message: Message) -> NewFact | None:
    """Return the fact in the form memory stores, or None if it is none."""
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
    # Punctuation alone is no value, nor is text of our own that the model repeats.
    if not fits or not any(character.isalnum() for character in value) or find_customer_text_fault(value):
        return None
    return NewFact(
        subject=subject if any(character.isalnum() for character in subject) else "contact",
        predicate=name,
        object=value,
        scope_key=scope,
        confidence=_CONFIDENCE[message.role],
        source_message_id=message.id,
        valid_from=_parse_start(extracted.valid_from, message.at),
        correction=extracted.kind == "corrects",
        instead_of=instead_of[:500] if extracted.kind == "corrects" else "",
        ended=extracted.kind == "ends",
    )


def _parse_start(text: str, said_at: datetime) -> datetime | None:
    """Return the beginning of the day; None for an unlikely day, or for the day of the message itself."""
    try:
        day = date.fromisoformat(text.strip()[:10])
    except ValueError:
        return None
    said_on = said_at.astimezone(UTC)
    likely = day.year >= _FIRST_YEAR and day <= (said_on + _MAX_FUTURE).date()
    if not likely or day == said_on.date():
        return None
    return datetime.combine(day, time(), UTC)
