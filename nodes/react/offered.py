"""The tools a run may use."""

from collections.abc import Mapping, Sequence

from langchain_core.tools import BaseTool

from core.errors import InvalidRequest


def offered(tools: Mapping[str, BaseTool], names: Sequence[str]) -> Mapping[str, BaseTool]:
    """Those that are named, in their own order; all where none is named."""
    return {name: one for name, one in tools.items() if name in names} if names else tools


def require_known(tools: Mapping[str, BaseTool], names: Sequence[str]) -> None:
    """Let names pass that are all tools.

    Raises:
        InvalidRequest: Some are not; it says which there are.
    """
    unknown = [name for name in names if name not in tools]
    if unknown:
        raise InvalidRequest(
            f"tools: there is no {', '.join(map(repr, unknown))}; there are: {', '.join(tools)}",
            details={"unknown": unknown, "tools": list(tools)},
        )
