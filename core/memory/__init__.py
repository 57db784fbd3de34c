"""The memory port: what a graph may ask of memory, whoever keeps it."""

from core.memory.absent import NoMemory
from core.memory.port import Memory
from core.memory.strategies import STRATEGIES, Strategy, StrategyName
from core.memory.values import (
    Edge,
    Fact,
    FactChange,
    Forgotten,
    Graph,
    Hit,
    Item,
    ItemType,
    LegRank,
    Message,
    NewFact,
    Node,
    Role,
    Scope,
    SearchResult,
)

__all__ = [
    "STRATEGIES",
    "Edge",
    "Fact",
    "FactChange",
    "Forgotten",
    "Graph",
    "Hit",
    "Item",
    "ItemType",
    "LegRank",
    "Memory",
    "Message",
    "NewFact",
    "NoMemory",
    "Node",
    "Role",
    "Scope",
    "SearchResult",
    "Strategy",
    "StrategyName",
]
