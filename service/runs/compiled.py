"""What a compiled graph is, whatever its state."""

from typing import Any, TypeAlias

from langgraph.graph.state import CompiledStateGraph

CompiledGraph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
