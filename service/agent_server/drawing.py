"""What clients show of a graph: its drawing, its schemas and those of its subgraphs."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from langchain_core.runnables.graph import Graph
from langgraph.graph.state import CompiledStateGraph
from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from core.context import RUN_CONTEXT, Context
from service.agent_server.run_builder import CONTEXT_FIELDS
from service.runs.graphs import AgentGraph
from service.runs.request import CompiledGraph

_UNKNOWN: Final = (PydanticUserError, TypeError, NameError)


async def draw(graph: AgentGraph, *, depth: int | bool) -> dict[str, Any]:
    """Return a graph's nodes and edges; each node says in a line what it does.

    Args:
        graph: The graph.
        depth: How many levels of subgraphs are drawn; ``True``: all.
    """
    compiled = await graph.open("assistants.read")
    # LangGraph prepares tasks without a state, and asks for the keys of cached ones. Outside of a run these
    # do not depend on the state.
    request = RUN_CONTEXT.set(None)
    try:
        drawn: Graph = await compiled.aget_graph(xray=depth)
    finally:
        RUN_CONTEXT.reset(request)
    described = drawn.to_json(with_schemas=False)
    texts = dict(_describe_nodes(compiled, ""))
    for node in described["nodes"]:
        if text := texts.get(str(node["id"])):
            node["metadata"] = {**node.get("metadata", {}), "description": text}
            node["data"] = {**node.get("data", {}), "description": text}
    return described


def _describe_nodes(graph: CompiledGraph, prefix: str) -> "list[tuple[str, str]]":
    """Return the first line of each node's docstring, by its id in the drawing."""
    found: list[tuple[str, str]] = []
    for name, node in graph.builder.nodes.items():
        runnable: Any = node.runnable
        if isinstance(runnable, CompiledStateGraph):
            found += _describe_nodes(runnable, f"{prefix}{name}:")
        function = getattr(runnable, "afunc", None) or getattr(runnable, "func", None)
        if text := inspect.getdoc(function) if function else None:
            found.append((f"{prefix}{name}", text.partition("\n")[0]))
    return found


async def describe_schemas(graph: AgentGraph) -> dict[str, Any]:
    """Return a graph's schemas; ``None`` where one has no JSON form."""
    compiled = await graph.open("assistants.read")
    schemas = _describe(compiled)
    if graph.spec:
        schemas["input_schema"] = graph.spec.input_schema.model_json_schema()
        schemas["context_schema"] = schemas["config_schema"] = describe_context()
    return {"graph_id": graph.name, **schemas}


async def describe_subgraphs(
    graph: AgentGraph, namespace: str | None, *, recurse: bool
) -> Mapping[str, dict[str, Any]]:
    """Return the schemas of a graph's subgraphs, by namespace."""
    compiled = await graph.open("assistants.read")
    return {
        name: {"graph_id": graph.name, **_describe(subgraph)}
        async for name, subgraph in compiled.aget_subgraphs(namespace=namespace, recurse=recurse)
    }


def describe_context() -> dict[str, Any]:
    """Return the schema of the context that a caller may set: the service sets the rest."""
    schema = TypeAdapter(Context).json_schema()
    schema["properties"] = {
        name: field for name, field in schema["properties"].items() if name in CONTEXT_FIELDS
    }
    schema["description"] = "The parameters of a run."
    return schema


def _describe(graph: Any) -> dict[str, Any]:
    context = getattr(graph, "context_schema", None)
    return {
        "input_schema": _try(graph.get_input_jsonschema),
        "output_schema": _try(graph.get_output_jsonschema),
        "state_schema": _describe_state(graph),
        "config_schema": _try(graph.get_context_jsonschema),
        "context_schema": _try(graph.get_context_jsonschema) if context else None,
    }


def _describe_state(graph: CompiledGraph) -> dict[str, Any]:
    """Return the schema of the state's fields; one whose type has no JSON form may be anything."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name in graph.stream_channels_list:
        channel: Any = graph.channels[name]
        schema = _try(lambda kind=channel.ValueType: TypeAdapter(kind).json_schema()) or {}
        definitions |= schema.pop("$defs", {})
        properties[name] = schema
    return {"title": "State", "type": "object", "properties": properties, "$defs": definitions}


def _try(make: Any) -> Any:
    try:
        return make()
    except _UNKNOWN:
        return None
