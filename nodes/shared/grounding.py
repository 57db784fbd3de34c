"""Check answers against their sources, off the event loop."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from core.logging import get_logger
from nodes.shared.citations import (
    Grounding,
    collect_sources,
    find_citations,
    find_unknown_claims,
    find_unsupported,
)
from nodes.shared.prompts import describe_day

log = get_logger(__name__)


async def ground_answer(
    answer: str,
    *,
    message: str,
    known: Iterable[str],
    results: Sequence[tuple[str, Any]] = (),
    claimed: Sequence[str] = (),
    time_zone: str = "",
) -> Grounding:
    """Return what an answer rests on; a claimed id that was not retrieved is dropped and logged.

    Args:
        answer: The answer.
        message: What it answers.
        known: Other texts it may take its numbers from: the conversation, the background, the instruction.
        results: What the tools of this run returned, each with the tool's name.
        claimed: Ids that the model says it rests on.
        time_zone: The contact's time zone, by which prompts tell the day; empty: unknown.
    """
    today = describe_day(time_zone)
    # Reading the numbers of long texts is CPU-bound.
    return await asyncio.to_thread(
        _ground_answer, answer, message, [message, *known, today], results, claimed
    )


def _ground_answer(
    answer: str,
    message: str,
    known: Sequence[str],
    results: Sequence[tuple[str, Any]],
    claimed: Sequence[str],
) -> Grounding:
    sources = collect_sources(results)
    if unknown := find_unknown_claims(claimed, sources):
        log.warning("citations_dropped", ids=unknown, reason="they were not retrieved in this run")
    return Grounding(
        citations=find_citations(answer, sources, claimed=claimed, message=message),
        unsupported=find_unsupported(answer, sources, known),
    )
