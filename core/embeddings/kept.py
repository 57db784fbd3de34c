"""Vectors of texts that stay the same, kept on disk, so that a second start need not embed them again."""

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.embeddings.embedder import Embedder
from core.logging import get_logger

# Files of other texts and models that may stay beside the one in use.
_MOST_FILES: Final = 16

_log = get_logger(__name__)


class KeptVectors:
    """Embeds a list of texts once, and reads the vectors back the next time.

    A file for each list, named by what it depends on: model, dimensions, purpose and the texts. A folder that
    cannot be read or written, or a file that is not what it should be, costs the time to embed again.

    Args:
        folder: Where to keep them; ``None``: nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def embed_documents(self, embedder: Embedder, texts: Sequence[str]) -> list[list[float]]:
        """As :meth:`~core.embeddings.Embedder.embed_documents`.

        Raises:
            EmbeddingError: The vectors are not kept, and the model does not give them.
        """
        if self._folder is None:
            return await embedder.embed_documents(texts)
        path = self._folder / _name(embedder, texts)
        kept = await asyncio.to_thread(_read, path, (len(texts), embedder.dimensions))
        if kept is not None:
            return kept
        vectors = await embedder.embed_documents(texts)
        await asyncio.to_thread(_write, path, vectors)
        return vectors


def _name(embedder: Embedder, texts: Sequence[str]) -> str:
    of = json.dumps([embedder.model, embedder.dimensions, embedder.purpose, list(texts)])
    return f"{hashlib.sha256(of.encode()).hexdigest()[:32]}.npy"


def _read(path: Path, shape: tuple[int, int]) -> list[list[float]] | None:
    try:
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        _log.warning("kept_vectors_unreadable", path=str(path), reason=str(error))
        return None
    if kept.shape != shape or kept.dtype != np.float32 or not np.isfinite(kept).all():
        _log.warning("kept_vectors_unreadable", path=str(path), reason="they are of another shape or kind")
        return None
    vectors: list[list[float]] = kept.tolist()
    return vectors


def _write(path: Path, vectors: Sequence[Sequence[float]]) -> None:
    """Written aside and moved: who reads meanwhile finds a whole file or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.save(file, np.asarray(vectors, dtype=np.float32), allow_pickle=False)
        os.replace(file.name, path)  # noqa: PTH105 - its name is a text
        _keep_few(path)
    except OSError as error:
        _log.warning("vectors_not_kept", path=str(path), reason=str(error))


def _keep_few(newest: Path) -> None:
    others = [path for path in newest.parent.glob("*.npy") if path != newest]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[_MOST_FILES:]:
        path.unlink(missing_ok=True)
