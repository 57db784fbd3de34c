"""Refuse answers that do not fit the question they are for, and show what does."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from langgraph.errors import is_invalid_resume
from langgraph.types import Command, Interrupt
from pydantic import ValidationError

from core.errors import InvalidRequest
from core.offline.schema import fill
from service.errors import invalid_request
from service.runs.request import RunPart


async def refuse_wrong_answers(
    parts: AsyncGenerator[RunPart, None], graph_input: Any, pending: Sequence[Interrupt]
) -> AsyncGenerator[RunPart, None]:
    """Pass on a run's parts; name the question where LangGraph rejects an answer to it.

    LangGraph checks an answer before anything runs; the interrupt stays pending.

    Args:
        parts: Of the run, which is closed with this generator.
        graph_input: The run's input.
        pending: The interrupts with which the thread waited.

    Raises:
        InvalidRequest: The answer does not fit.
    """
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
    except ValidationError as error:
        if not is_invalid_resume(error):
            raise
        raise _describe_wrong_answer(error, graph_input, pending) from error


def _describe_wrong_answer(
    error: ValidationError, graph_input: Any, pending: Sequence[Interrupt]
) -> InvalidRequest:
    refused = invalid_request(error.errors(include_url=False, include_context=False), whole="answer")
    resume = graph_input.resume if isinstance(graph_input, Command) else None
    answered = [each for each in pending if isinstance(resume, Mapping) and each.id in resume]
    expected = [
        {"id": each.id, "response_schema": schema, "example": fill(schema, {})}
        for each in answered or pending
        if isinstance(schema := each.response_schema, dict)
    ]
    shown = "; ".join(
        f"interrupt {each['id']!r} takes an answer such as {json.dumps(each['example'], ensure_ascii=False)}"
        for each in expected
    )
    message = f"{refused.message} ({shown}; details.expected holds its schema)" if shown else refused.message
    return InvalidRequest(message, details={**refused.details, "expected": expected})
