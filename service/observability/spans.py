"""Record a run's nodes, model calls and tool calls as spans, from LangChain's callbacks."""

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

# LangGraph tags a node's own run with it, and not the chains inside the node.
_NODE_TAG: Final = "graph:step:"
# Provider names of LangChain that differ from those of OpenTelemetry's conventions.
_PROVIDERS: Final = {
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
}


@dataclass(frozen=True, slots=True)
class _RunSpan:
    """The span of a LangChain run: its own, or the span it runs in."""

    span: Span
    is_own: bool


class RunSpans(BaseCallbackHandler):
    """Callback handler that traces one run.

    Args:
        tracer: Starts spans.
        root: The run's span.
    """

    # Called in the event loop, in the order of events; by default, each call has a thread.
    run_inline = True

    def __init__(self, tracer: Tracer, root: Span) -> None:
        self._tracer = tracer
        self._root = root
        self._spans: dict[UUID, _RunSpan] = {}

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
        """Start a node's span; a chain inside a node has none."""
        if not any(tag.startswith(_NODE_TAG) for tag in tags or ()):
            self._spans[run_id] = _RunSpan(self._find_parent(parent_run_id), is_own=False)
            return
        values = metadata or {}
        name = str(values.get("langgraph_node", kwargs.get("name", "")))
        attributes: dict[str, AttributeValue] = {
            "ventros.node": name,
            "ventros.step": int(values.get("langgraph_step", 0)),
        }
        self._begin(f"node {name}", run_id, parent_run_id, attributes)

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a node."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a node that failed, or stopped to wait for a person."""
        self._end(run_id, error=error)

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
        """Start the span of a model call."""
        values = metadata or {}
        model = str(values.get("ls_model_name", "unknown"))
        provider = str(values.get("ls_provider", "unknown"))
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": model,
        }
        if (temperature := values.get("ls_temperature")) is not None:
            attributes["gen_ai.request.temperature"] = float(temperature)
        self._begin(f"chat {model}", run_id, parent_run_id, attributes, SpanKind.CLIENT)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a model call."""
        self._end(run_id, _read_reply(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a model call that failed."""
        self._end(run_id, error=error)

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
        """Start the span of a tool call."""
        name = str(kwargs.get("name") or (serialized or {}).get("name", "unknown"))
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
        }
        self._begin(f"execute_tool {name}", run_id, parent_run_id, attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a tool call."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """End the span of a tool call that failed."""
        self._end(run_id, error=error)

    def _find_parent(self, parent: UUID | None) -> Span:
        found = self._spans.get(parent) if parent else None
        return found.span if found else self._root

    def _begin(
        self,
        name: str,
        run_id: UUID,
        parent: UUID | None,
        attributes: Mapping[str, AttributeValue],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        context = set_span_in_context(self._find_parent(parent))
        span = self._tracer.start_span(name, context, kind, attributes)
        self._spans[run_id] = _RunSpan(span, is_own=True)

    def _end(
        self,
        run_id: UUID,
        attributes: Mapping[str, AttributeValue] | None = None,
        error: BaseException | None = None,
    ) -> None:
        ended = self._spans.pop(run_id, None)
        if ended is None or not ended.is_own:
            return
        ended.span.set_attributes(attributes or {})
        # Interrupts, drains and cancellations are not failures.
        if error and not isinstance(error, (GraphBubbleUp, asyncio.CancelledError)):
            ended.span.set_attribute("error.type", type(error).__qualname__)
            ended.span.set_status(StatusCode.ERROR)
        ended.span.end()


def _read_reply(response: LLMResult) -> dict[str, AttributeValue]:
    """Return the attributes of a model's reply: tokens, finish reason and model."""
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
