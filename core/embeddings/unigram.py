"""Split texts into tokens as SentencePiece's unigram model does (Kudo 2018, arXiv:1804.10959)."""

import math
import re
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from core.embeddings.packed_model import PackedModel

# What pieces hold in place of a space.
_SPACE: Final = "\u2581"
_SPACES: Final = re.compile(" {2,}")
# How much less probable than every piece an unknown character is; SentencePiece's choice.
_UNKNOWN_PENALTY: Final = 10.0
# The base of the polynomials that texts are hashed with: odd and without a pattern.
_BASE: Final = np.uint64(0x9E37_79B9_7F4A_7C15)

Characters = npt.NDArray[np.uint32]
Integers = npt.NDArray[np.int64]


class Tokenizer:
    """Splits texts into the most probable pieces of a vocabulary.

    Pieces are looked up by 64-bit hashes, all parts of a text at once, in sorted arrays of 4 MB. A dictionary
    of the 250,000 pieces would take 30 MB in each process.

    Args:
        model: The model whose vocabulary it is.
    """

    def __init__(self, model: PackedModel) -> None:
        self._replacements: Mapping[int, str] = model.replacements
        self._scores = model.scores
        self._unknown = model.unknown
        self._unknown_score = float(model.scores.min()) - _UNKNOWN_PENALTY
        pieces, boundaries = model.read_vocabulary()
        characters = _read_characters(pieces)
        starts, lengths = boundaries[:-1], np.diff(boundaries)
        self._longest = int(lengths.max())
        hashes = np.zeros(len(starts), np.uint64)
        for position in range(self._longest):
            (longer,) = np.nonzero(lengths > position)
            hashes[longer] = hashes[longer] * _BASE + characters[starts[longer] + position]
        # A text is read as unknown characters, not as the piece that stands for them.
        tokens = np.delete(np.arange(len(hashes), dtype=np.int64), self._unknown)
        order = tokens[np.argsort(hashes[tokens])]
        self._hashes, self._tokens = hashes[order], order

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without those of its start and end."""
        text = _SPACES.sub(" ", text.translate(self._replacements))
        text = (text if text.startswith(" ") else f" {text}").replace(" ", _SPACE)
        characters = _read_characters(text)
        starts, lengths, tokens = self._find_pieces(characters)
        scores = np.where(tokens == self._unknown, self._unknown_score, self._scores[tokens])
        # The most probable way to each position (Viterbi): its score, the last piece and where that starts.
        best: list[tuple[float, int, int]] = [(-math.inf, 0, 0)] * (len(characters) + 1)
        best[0] = (0.0, 0, 0)
        pieces = (starts, starts + lengths, tokens, scores)
        for start, end, token, score in zip(*(each.tolist() for each in pieces), strict=True):
            total = best[start][0] + score
            if total > best[end][0]:
                best[end] = (total, token, start)
        split, position = [], len(characters)
        while position:
            _, token, position = best[position]
            split.append(token)
        return split[::-1]

    def _find_pieces(self, characters: Characters) -> tuple[Integers, Integers, Integers]:
        """Return the starts, lengths and tokens of pieces, by start; any character may be an unknown one."""
        count = len(characters)
        hashes = np.zeros(count, np.uint64)
        starts = [np.arange(count)]
        lengths = [np.ones(count, np.int64)]
        tokens = [np.full(count, self._unknown)]
        for length in range(1, min(self._longest, count) + 1):
            hashes = hashes[: count - length + 1] * _BASE + characters[length - 1 :]
            indices = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
            (found,) = np.nonzero(self._hashes[indices] == hashes)
            starts.append(found)
            lengths.append(np.full(len(found), length))
            tokens.append(self._tokens[indices[found]])
        order = np.argsort(np.concatenate(starts), kind="stable")
        return np.concatenate(starts)[order], np.concatenate(lengths)[order], np.concatenate(tokens)[order]


def _read_characters(text: str) -> Characters:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
