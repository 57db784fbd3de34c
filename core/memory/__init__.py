"""The memory port: what a graph may ask of memory, whoever keeps it."""

from core.memory.absent import NoMemory
from core.memory.port import Memory
from core.memory.strategies import STRATEGIES, Strategy, StrategyName
from core.memory.values import (
    AssembledContext,
    ContextSection,
    Edge,
    Fact,
    FactChange,
    Forgotten,
    Graph,
    Hit,
    Item,
    ItemType,
    LeftOut,
    LegRank,
    Message,
    NewFact,
    Node,
    Role,
    Routed,
    Scope,
    SearchResult,
)

__all__ = [
    "STRATEGIES",
    "AssembledContext",
    "ContextSection",
    "Edge",
    "Fact",
    "FactChange",
    "Forgotten",
    "Graph",
    "Hit",
    "Item",
    "ItemType",
    "LeftOut",
    "LegRank",
    "Memory",
    "Message",
    "NewFact",
    "NoMemory",
    "Node",
    "Role",
    "Routed",
    "Scope",
    "SearchResult",
    "Strategy",
    "StrategyName",
]
