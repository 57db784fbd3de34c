"""The tools a run may use."""

from collections.abc import Mapping, Sequence

from langchain_core.tools import BaseTool


def offered(tools: Mapping[str, BaseTool], names: Sequence[str]) -> Mapping[str, BaseTool]:
    """Those that are named, in their own order; all where none is named."""
    return {name: one for name, one in tools.items() if name in names} if names else tools
