"""The vectors of the shipped agents' examples, so that the first start need not embed 2,000 texts.

``example_vectors.npz`` holds a digest and a vector for each text, for the default embedding model. Numbers
are rounded to a byte. A text that is not in the file, because an operator has added or changed an agent, is
embedded at the next start.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from core.embeddings import Embedder

FILE: Final = Path(__file__).with_name("example_vectors.npz")
_DIGEST_BYTES: Final = 8
_LARGEST: Final = 127


async def embed_examples(embedder: Embedder, texts: Sequence[str], path: Path = FILE) -> list[list[float]]:
    """Return the texts' vectors from the file, and embed those that are not in it.

    Raises:
        EmbeddingError: The embedding model fails.
    """
    model, stored = _load(path)
    known = stored if model == _describe(embedder) else {}
    missing = [text for text in dict.fromkeys(texts) if _digest(text) not in known]
    embedded = dict(zip(missing, await embedder.embed_documents(missing), strict=True))
    return [embedded[text] if text in embedded else known[_digest(text)] for text in texts]


def list_missing(embedder: Embedder, texts: Sequence[str], path: Path = FILE) -> list[str]:
    """Return the texts that the file has no vector for."""
    model, stored = _load(path)
    return [text for text in texts if model != _describe(embedder) or _digest(text) not in stored]


async def write_vectors(embedder: Embedder, texts: Sequence[str], path: Path = FILE) -> None:
    """Embed the texts that are not in the file yet, and write it for exactly these texts.

    Raises:
        EmbeddingError: The embedding model fails.
    """
    distinct = sorted(set(texts))
    vectors = np.asarray(await embed_examples(embedder, distinct, path))
    scaled = vectors / np.abs(vectors).max(axis=1, keepdims=True) * _LARGEST
    np.savez_compressed(
        path,
        model=_describe(embedder),
        digests=np.array([_digest(text) for text in distinct]),
        vectors=scaled.round().astype(np.int8),
    )
    _load.cache_clear()


@cache
def _load(path: Path) -> tuple[str, dict[str, list[float]]]:
    """Return the model of the file, and unit vectors by the digests of their texts."""
    if not path.exists():
        return "", {}
    with np.load(path, allow_pickle=False) as stored:
        vectors = stored["vectors"].astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return str(stored["model"]), dict(zip(stored["digests"].tolist(), vectors.tolist(), strict=True))


def _describe(embedder: Embedder) -> str:
    return f"{embedder.model} {embedder.dimensions} {embedder.purpose}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[: 2 * _DIGEST_BYTES]
