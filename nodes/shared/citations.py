"""What an answer rests on: the records and articles it takes something from, and what none of them holds.

Pure. The sources of an answer are what the tools of its run returned. A model may claim some of them; others
are found by what the answer shares with them: an id, a name, a number, a date or several words in a row.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from core.quantities import find_quantities, index_quantities
from core.texts import normalise_text

SourceKind: TypeAlias = Literal[
    "article", "order", "invoice", "opportunity", "ticket", "contact", "subscription", "status", "memory",
    "message", "follow_up", "handoff", "other",
]  # fmt: skip

# Shorter runs of words are shared by chance.
_RUN_WORDS: Final = 5
# A name of one word, such as a plan's, has to be long to be more than a word.
_NAME_CHARACTERS: Final = 8
_CODE_CHARACTERS: Final = 4
# Most quantities that are listed; each is short by its form.
_MOST_UNSUPPORTED: Final = 50
_KINDS: Final[Mapping[str, SourceKind]] = {
    "search_knowledge_base": "article",
    "get_orders": "order",
    "get_invoices": "invoice",
    "get_opportunities": "opportunity",
    "search_past_tickets": "ticket",
    "create_engineering_ticket": "ticket",
    "get_contact": "contact",
    "get_product_version": "subscription",
    "check_service_status": "status",
    "recall": "memory",
    "remember": "memory",
    "send_solution_to_customer": "message",
    "schedule_follow_up": "follow_up",
    "hand_over_to_human": "handoff",
}
# The number that people know a record by comes before its id.
_ID_KEYS: Final = ("number", "id", "ticket_id", "message_id", "follow_up_id", "handoff_id")
_NAME_KEYS: Final = ("title", "item", "name")
_TITLE_KEYS: Final = (*_NAME_KEYS, "number", "plan")
_WORD: Final = re.compile(r"\w+(?:[-/.]\w+)*")


class Citation(TypedDict):
    """A record or an article that an answer rests on."""

    id: Annotated[str, Field(description="The CRM's number or id; the tool's name for a record without one")]
    kind: SourceKind
    title: Annotated[str, Field(description="Its title or name; empty: it has none")]
    tool: Annotated[str, Field(description="The tool that returned it")]


class Grounding(TypedDict):
    """What an answer rests on."""

    citations: Annotated[
        list[Citation], Field(description="The records and articles of this run that the answer rests on")
    ]
    unsupported: Annotated[
        list[str],
        Field(
            description="Numbers, dates and amounts of the answer that neither a source of this run nor the "
            "conversation or its background holds"
        ),
    ]


def no_grounding() -> Grounding:
    """Return the grounding of a text that states nothing."""
    return Grounding(citations=[], unsupported=[])


@dataclass(frozen=True)
class Source:
    """What one record, article or tool call says.

    Attributes:
        citations: What is cited for it: itself, or the sources of a consulted agent.
        texts: Its values.
        names: What it is called, as it may stand in an answer.
    """

    citations: tuple[Citation, ...]
    texts: tuple[str, ...]
    names: tuple[str, ...]

    @cached_property
    def quantities(self) -> set[str]:
        """What a quantity may read if the source holds it."""
        return set[str]().union(*map(index_quantities, self.texts))

    @cached_property
    def runs(self) -> set[str]:
        """Its runs of words."""
        return set[str]().union(*(_list_runs(_split_words(text)) for text in self.texts))


def collect_sources(results: Iterable[tuple[str, Any]]) -> list[Source]:
    """Return the sources among the results of tools.

    A dictionary with a number or an id is a record. What has none is cited under its tool's name.

    Args:
        results: Each tool's name and what it returned, as JSON values.
    """
    return [source for tool, result in results for source in _split_result(tool, result)]


def find_unknown_claims(claimed: Iterable[str], sources: Sequence[Source]) -> list[str]:
    """Return the claimed ids that no source has."""
    known = {_fold(citation["id"]) for source in sources for citation in source.citations}
    return [claim for claim in dict.fromkeys(claimed) if _fold(claim) not in known]


def find_citations(
    answer: str, sources: Sequence[Source], *, claimed: Iterable[str] = (), message: str = ""
) -> list[Citation]:
    """Return the sources that an answer rests on, in the order they were retrieved, each once.

    What several sources hold is attributed to one that is cited anyway, else to the one that shares most.

    Args:
        answer: The answer.
        sources: What was retrieved.
        claimed: Ids that the model says it rests on; those of no source are ignored.
        message: What the customer wrote: repeating its words and numbers is no evidence.
    """
    claims = set(map(_fold, claimed))
    words = _split_words(answer)
    spoken = f" {' '.join(words)} "
    cited = {
        position
        for position, source in enumerate(sources)
        if any(_fold(citation["id"]) in claims for citation in source.citations)
        or any(f" {name} " in spoken for name in _list_names(source))
    }
    holders = _find_holders(answer, words, sources, message)
    cited |= {next(iter(positions)) for positions in holders if len(positions) == 1}
    for positions in holders:
        if not positions & cited:
            cited.add(max(sorted(positions), key=lambda position: sum(position in each for each in holders)))
    found = [citation for position in sorted(cited) for citation in sources[position].citations]
    return merge_citations(found)


def find_unsupported(answer: str, sources: Sequence[Source], known: Iterable[str]) -> list[str]:
    """Return the numbers, dates, times and codes of an answer that nothing holds, as they are written.

    Small counts without a unit and list markers are none. A number written in words is not seen.

    Args:
        answer: The answer.
        sources: What was retrieved.
        known: Other texts that the answer may take them from: the message, the conversation, the background.
    """
    stated = [quantity for quantity in find_quantities(answer) if not quantity.is_count]
    if not stated:
        return []
    for index in chain((source.quantities for source in sources), map(index_quantities, known)):
        stated = [quantity for quantity in stated if not quantity.readings & index]
        if not stated:
            return []
    return list(dict.fromkeys(quantity.text for quantity in stated))[:_MOST_UNSUPPORTED]


def remove_unsupported(text: str, unsupported: Iterable[str]) -> str:
    """Return a text without its unsupported quantities, so that it supports no others with them."""
    for quantity in unsupported:
        text = re.sub(rf"(?<!\w){re.escape(quantity)}(?!\w)", " ", text)
    return text


def merge_citations(citations: Iterable[Citation]) -> list[Citation]:
    """Return the citations, each once."""
    return list({(citation["kind"], citation["id"]): citation for citation in citations}.values())


def merge_groundings(groundings: Iterable[Grounding]) -> Grounding:
    """Return what several texts together rest on."""
    groundings = list(groundings)
    return Grounding(
        citations=merge_citations(each for one in groundings for each in one["citations"]),
        unsupported=list(dict.fromkeys(each for one in groundings for each in one["unsupported"])),
    )


def _split_result(tool: str, result: Any) -> Iterator[Source]:
    entries = result if isinstance(result, list) else [result]
    if isinstance(result, Mapping) and isinstance(result.get("citations"), list):
        text = remove_unsupported(str(result.get("answer", "")), result.get("unsupported", ()))
        yield Source(citations=tuple(result["citations"]), texts=(text,), names=())
        return
    rest = []
    for entry in entries:
        if isinstance(entry, Mapping) and (record_id := _find_value(entry, _ID_KEYS)):
            yield _build_source(tool, entry, record_id, title=_find_value(entry, _TITLE_KEYS))
        elif entry:
            rest.append(entry)
    if rest:
        title = _find_value(rest[0], _TITLE_KEYS) if isinstance(rest[0], Mapping) and len(rest) == 1 else ""
        yield _build_source(tool, rest, tool, title=title)


def _build_source(tool: str, value: Any, source_id: str, *, title: str) -> Source:
    citation = Citation(id=source_id, kind=_KINDS.get(tool, "other"), title=title, tool=tool)
    names = list(_walk_names(value))
    if source_id != tool:
        names.append(source_id)
    return Source(citations=(citation,), texts=tuple(_walk_texts(value)), names=tuple(names))


def _find_value(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(record[key]) for key in keys if isinstance(record.get(key), str | int)), "")


def _walk_texts(value: Any) -> Iterator[str]:
    """Yield the values of a JSON value as texts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _walk_texts(each)
    elif isinstance(value, float):
        yield format(Decimal(repr(value)), "f")
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _walk_names(value: Any) -> Iterator[str]:
    """Yield titles and names, and the keys that are names and not fields."""
    if isinstance(value, list):
        for each in value:
            yield from _walk_names(each)
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in _NAME_KEYS and isinstance(each, str):
                yield each
            elif key != key.lower():
                yield key
            yield from _walk_names(each)


def _list_names(source: Source) -> Iterator[str]:
    """Yield the names of a source that are no common words, in normalised words."""
    ids = {citation["id"] for citation in source.citations}
    for name in source.names:
        words = _split_words(name)
        text = " ".join(words)
        is_code = name in ids and len(text) >= _CODE_CHARACTERS and any(map(str.isdigit, text))
        if len(words) > 1 or len(text) >= _NAME_CHARACTERS or is_code:
            yield text


def _find_holders(
    answer: str, words: Sequence[str], sources: Sequence[Source], message: str
) -> list[frozenset[int]]:
    """Return for each piece of evidence in the answer the positions of the sources that hold it."""
    in_message = index_quantities(message)
    stated = [
        quantity.readings
        for quantity in find_quantities(answer)
        if not quantity.is_count and not quantity.readings & in_message
    ]
    runs = _list_runs(words) - _list_runs(_split_words(message))
    holders = [
        *(
            frozenset(at for at, each in enumerate(sources) if readings & each.quantities)
            for readings in stated
        ),
        *(frozenset(at for at, each in enumerate(sources) if run in each.runs) for run in sorted(runs)),
    ]
    return [positions for positions in holders if positions]


def _list_runs(words: Sequence[str]) -> set[str]:
    starts = range(len(words) - _RUN_WORDS + 1)
    return {" ".join(words[start : start + _RUN_WORDS]) for start in starts}


def _split_words(text: str) -> list[str]:
    return _WORD.findall(normalise_text(text))


def _fold(text: str) -> str:
    return text.strip().casefold()
