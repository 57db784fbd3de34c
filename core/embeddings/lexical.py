"""Embeddings without a model: hashed words and pieces of words.

Feature hashing (Weinberger et al. 2009, arXiv:0902.2206) of words and character n-grams (as in Bojanowski et
al. 2017, arXiv:1607.04606). It knows spelling and no meaning: it stands in where no model can run.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.texts import strip_accents

DIMENSIONS: Final = 512
_WORD: Final = re.compile(r"\w+")
_PIECES: Final = (3, 4)
_WHOLE_WORD: Final = 2.0  # weight of a word against one of its pieces


class HashedNgrams(Embeddings):
    """Signed counts of features, on a logarithmic scale."""

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    @override
    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSIONS
        counts: Counter[tuple[str, float]] = Counter(_features(text))
        for (feature, weight), count in counts.items():
            code = zlib.crc32(feature.encode())
            sign = 1.0 if code & 0x8000_0000 else -1.0
            vector[code % DIMENSIONS] += sign * weight * (1 + math.log(count))
        if not any(vector):
            vector[0] = 1.0
        return vector


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(strip_accents(text.lower())):
        framed = f"<{word}>"
        yield framed, _WHOLE_WORD
        for size in _PIECES:
            yield from ((framed[at : at + size], 1.0) for at in range(len(framed) - size + 1))
