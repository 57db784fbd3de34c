"""A run's nodes, model calls and tool calls as spans, from LangChain's callbacks."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.errors import GraphBubbleUp
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

# LangGraph's tag of a node's own run, among those of the chains inside it.
_NODE_TAG: Final = "graph:step:"
# LangChain's names of providers, where the conventions have others.
_PROVIDERS: Final = {
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a LangChain run stands in the trace: its own span, or the one it is inside of."""

    span: Span
    is_own: bool


class RunSpans(BaseCallbackHandler):
    """Follows one run. Lives as long as it does.

    Args:
        tracer: Begins spans.
        root: The run's span.
    """

    # On the event loop, in the order things happen; in a thread each by default.
    run_inline = True

    def __init__(self, tracer: Tracer, root: Span) -> None:
        self._tracer = tracer
        self._root = root
        self._places: dict[UUID, _Place] = {}

    # Nodes

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A node, or a chain inside one, which has no span."""
        if not any(tag.startswith(_NODE_TAG) for tag in tags or ()):
            self._places[run_id] = _Place(self._inside(parent_run_id), is_own=False)
            return
        known = metadata or {}
        name = str(known.get("langgraph_node", kwargs.get("name", "")))
        attributes: dict[str, AttributeValue] = {
            "ventros.node": name,
            "ventros.step": int(known.get("langgraph_step", 0)),
        }
        self._begin(f"node {name}", run_id, parent_run_id, attributes)

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """It ended."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed, or stopped to wait for a person."""
        self._end(run_id, error=error)

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is asked."""
        known = metadata or {}
        model = str(known.get("ls_model_name", "unknown"))
        provider = str(known.get("ls_provider", "unknown"))
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
        }
        if (temperature := known.get("ls_temperature")) is not None:
            attributes["gen_ai.request.temperature"] = float(temperature)
        self._begin(f"chat {model}", run_id, parent_run_id, attributes, SpanKind.CLIENT)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """It replied."""
        self._end(run_id, _of_reply(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed."""
        self._end(run_id, error=error)

    # Tools

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool is called."""
        name = str(kwargs.get("name") or (serialized or {}).get("name", "unknown"))
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
        }
        self._begin(f"execute_tool {name}", run_id, parent_run_id, attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """It answered."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It failed."""
        self._end(run_id, error=error)

    def _inside(self, parent: UUID | None) -> Span:
        place = self._places.get(parent) if parent else None
        return place.span if place else self._root

    def _begin(
        self,
        name: str,
        run_id: UUID,
        parent: UUID | None,
        attributes: Mapping[str, AttributeValue],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        around = set_span_in_context(self._inside(parent))
        span = self._tracer.start_span(name, around, kind, attributes)
        self._places[run_id] = _Place(span, is_own=True)

    def _end(
        self,
        run_id: UUID,
        attributes: Mapping[str, AttributeValue] | None = None,
        error: BaseException | None = None,
    ) -> None:
        place = self._places.pop(run_id, None)
        if place is None or not place.is_own:
            return
        place.span.set_attributes(attributes or {})
        # An interrupt, a drain and a cancellation are how runs stop, not how they fail.
        if error and not isinstance(error, (GraphBubbleUp, asyncio.CancelledError)):
            place.span.set_attribute("error.type", type(error).__qualname__)
            place.span.set_status(StatusCode.ERROR)
        place.span.end()


def _of_reply(response: LLMResult) -> dict[str, AttributeValue]:
    generations: Sequence[Any] = response.generations[0] if response.generations else ()
    message = generations[0].message if generations and isinstance(generations[0], ChatGeneration) else None
    if not isinstance(message, AIMessage):
        return {}
    attributes: dict[str, AttributeValue] = {}
    if usage := message.usage_metadata:
        attributes["gen_ai.usage.input_tokens"] = usage["input_tokens"]
        attributes["gen_ai.usage.output_tokens"] = usage["output_tokens"]
    if reason := message.response_metadata.get("finish_reason"):
        attributes["gen_ai.response.finish_reasons"] = [str(reason)]
    if model := message.response_metadata.get("model_name"):
        attributes["gen_ai.response.model"] = str(model)
    return attributes
