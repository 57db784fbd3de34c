"""A chat model as bad as one can be: whatever it is asked, nobody may read its answer.

Its structured values fit their schema and praise themselves, so that only a check of the text can stop it.
"""

from collections.abc import AsyncIterator, Sequence
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from annotated_types import Le
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from tests.support.scripted import ScriptedChatModel, calling

Way: TypeAlias = Literal["echo", "empty", "cut", "tags", "repair", "operator", "thinking", "fields", "ids"]
WAYS: tuple[Way, ...] = get_args(Way)

TEXTS: dict[Way, str] = {
    "empty": "",
    "cut": "Your export fails because it has more than",
    "tags": "<customer>Laura</customer> Here is your answer.",
    "repair": "[Your last reply could not be read] it was empty. Answer again, in the form asked for.",
    "operator": "No language model is configured: set GOOGLE_API_KEY. I use search_knowledge_base.",
    "thinking": "Thought: The customer is angry.\nHere is your answer.",
    "fields": "Dear {customer_name}, your export of {{ number }} contacts is ready.",
    "ids": "You are contact 550e8400-e29b-41d4-a716-446655440000; see call-1f2e3d4c5b.",
}


class WorstModel(ScriptedChatModel):
    """Answers everything in one bad way; with tools it first sends its text to the customer and notes it."""

    # Shared by the copies that tools and schemas are bound to.
    way: list[Way] = Field(default=["empty"])
    tools: tuple[str, ...] = ()
    schema_asked: Any = None

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        return self.model_copy(update={"tools": tuple(tool.name for tool in tools)})

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        def parse(reply: dict[str, AIMessage]) -> dict[str, Any]:
            try:
                value = schema.model_validate_json(reply["raw"].text)
            except ValidationError as error:
                return {**reply, "parsed": None, "parsing_error": error}
            return {**reply, "parsed": value, "parsing_error": None}

        model = self.model_copy(update={"schema_asked": schema})
        return RunnableParallel(raw=model) | RunnableLambda(parse)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        [way] = self.way
        text = "\n".join(message.text for message in messages) if way == "echo" else TEXTS[way]
        if self.schema_asked is not None:
            return AIMessage(fill_schema(self.schema_asked, text).model_dump_json())
        calls = [
            (name, {argument: text or " "})
            for name, argument in (("send_solution_to_customer", "solution"), ("remember", "text"))
            if name in self.tools
        ]
        if calls and not isinstance(messages[-1], ToolMessage):
            return calling(text[:200], *calls)
        return AIMessage(text)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in super()._astream(*args, **kwargs):
            if self.way == ["cut"] and chunk.message.response_metadata:
                chunk.message.response_metadata["finish_reason"] = "length"
            yield chunk


def fill_schema(schema: type[BaseModel], text: str) -> BaseModel:
    """Return a value of a schema whose texts are ``text``, with every number and answer at its best."""
    return schema.model_construct(
        **{name: _fill_field(field, text) for name, field in schema.model_fields.items()}
    )


def _fill_field(field: FieldInfo, text: str) -> Any:
    most = next((limit.le for limit in field.metadata if isinstance(limit, Le)), 1)
    return _fill(field.annotation, text, most)


def _fill(annotation: Any, text: str, most: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments[0]
    if origin in {Union, UnionType}:
        return _fill(arguments[0], text, most)
    if origin in {list, tuple}:
        return [_fill(arguments[0], text, most)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return fill_schema(annotation, text)
    return {bool: True, int: most, float: float(most)}.get(annotation, text)
