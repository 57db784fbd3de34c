"""Which kept results this service can go on from."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from langgraph.graph import StateGraph

from service.version import VERSION


def edition(graphs: Mapping[str, StateGraph[Any, Any, Any, Any]]) -> str:
    """The version, and the nodes and channels of the graphs.

    A result that goes on to a node that is there no more would end its run without a word, and between two
    versions a node may well be renamed.
    """
    shapes = {name: [sorted(graph.nodes), sorted(graph.channels)] for name, graph in graphs.items()}
    return f"{VERSION}-{sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:12]}"
