"""Whatever the schema and the words, the offline model's contents are valid, repeatable and stream whole."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks

from core.offline import OfflineChatModel
from tests.support.profiles import examples

NAMES = st.sampled_from(
    [
        "query", "title", "solution", "reasoning", "task_complete", "success", "next_action", "final_answer",
        "score", "confidence", "contact_id", "email", "date", "amount", "limit", "steps", "weaknesses",
        "severity", "tags", "city", "expression", "description", "x", "ação",
    ]
)  # fmt: skip
FORMATS = st.sampled_from(["date", "date-time", "email", "uri", "uuid", "ipv4"])


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["plain", "lengths", "format", "enum", "const"]))
    if kind == "lengths":
        least = draw(st.integers(0, 60))
        return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 60))}
    special: dict[str, dict[str, Any]] = {
        "plain": {"type": "string"},
        "format": {"type": "string", "format": draw(FORMATS)},
        "enum": {"enum": draw(st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True))},
        "const": {"const": draw(st.one_of(st.text(max_size=5), st.integers(), st.none(), st.booleans()))},
    }
    return special[kind]


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(-50, 50))
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(10, 60))
    if draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 4))
    return schema


LEAVES = st.one_of(strings(), numbers(), st.just({"type": "boolean"}), st.just({"type": ["string", "null"]}))


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(objects(inner), lists(inner), unions(inner))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=5))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    least = draw(st.integers(0, 3))
    return {
        "type": "array",
        "items": draw(inner),
        "minItems": least,
        "maxItems": least + draw(st.integers(0, 3)),
    }


@st.composite
def unions(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    branches = [draw(inner)]
    if draw(st.booleans()):
        branches.append({"type": "null"})
    return {"anyOf": branches}


SCHEMAS = objects(st.recursive(LEAVES, nested, max_leaves=6))
WORDS = st.one_of(
    st.text(max_size=120),
    st.sampled_from(
        [
            "Update deal D-42 to won, amount 1,500, and email ana@acme.com on 2026-12-03.",
            "O cliente não consegue exportar contatos: erro 500. Ajude a resolver, é urgente!",
            "What is 12 * (3 + 4)?",
        ]
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[BaseMessage]:
    messages: list[BaseMessage] = [HumanMessage(draw(WORDS))]
    for at in range(draw(st.integers(0, 2))):
        call = {
            "name": draw(st.sampled_from(["search_articles", "send_reply"])),
            "args": {},
            "id": f"call-{at}",
        }
        content = draw(
            st.one_of(WORDS, st.just('{"title": "Exports", "body": "Exports need the batch API."}'))
        )
        messages += [AIMessage("", tool_calls=[call]), ToolMessage(content, tool_call_id=f"call-{at}")]
    return messages


def tool(schema: dict[str, Any], name: str = "search_things") -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": "Search things.", "parameters": schema},
    }


@given(SCHEMAS, conversations())
@settings(max_examples=examples(150), deadline=None)
def test_arguments_of_a_call_are_valid_for_the_tools_schema(
    schema: dict[str, Any], messages: list[BaseMessage]
) -> None:
    model = OfflineChatModel().bind_tools([tool(schema)], tool_choice="search_things")
    jsonschema.validate(model.invoke(messages).tool_calls[0]["args"], schema)


@given(SCHEMAS, conversations())
@settings(max_examples=examples(40), deadline=None)
def test_the_same_conversation_gets_the_same_reply(
    schema: dict[str, Any], messages: list[BaseMessage]
) -> None:
    model = OfflineChatModel().bind_tools([tool(schema), tool({"type": "object"}, "send_reply")])
    one, other = model.invoke(messages), model.invoke(messages)
    assert (one.content, one.tool_calls) == (other.content, other.tool_calls)


async def collect(pieces: AsyncIterator[AIMessage]) -> list[AIMessage]:
    return [piece async for piece in pieces]


@given(SCHEMAS, conversations())
@settings(max_examples=examples(40), deadline=None)
def test_the_streamed_pieces_make_the_whole_reply(
    schema: dict[str, Any], messages: list[BaseMessage]
) -> None:
    model = OfflineChatModel().bind_tools([tool(schema)])
    whole = model.invoke(messages)
    pieces = asyncio.run(collect(model.astream(messages)))
    streamed = add_ai_message_chunks(*(piece for piece in pieces if isinstance(piece, AIMessageChunk)))
    assert streamed.text == whole.text
    assert streamed.tool_calls == whole.tool_calls
    assert streamed.response_metadata == whole.response_metadata
    assert streamed.usage_metadata == whole.usage_metadata
