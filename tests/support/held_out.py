"""Messages that the router is measured on, with their vectors: no example may equal or nearly equal one.

``python -m tests.support.held_out`` embeds them again after they have changed.
"""

import asyncio
import json
from pathlib import Path
from typing import Final, TypedDict

from ruamel.yaml import YAML

from core.embeddings import build_local_embedder
from nodes.coordinator.example_vectors import write_vectors

PROJECT: Final = Path(__file__).resolve().parents[2]
VECTORS: Final = PROJECT / "tests/data/held_out_vectors.npz"


class RoutedMessage(TypedDict):
    """A message and the agent that should answer it."""

    agent: str
    language: str
    text: str


def read_routed_messages() -> list[RoutedMessage]:
    """Return five messages per agent in English and five in Portuguese."""
    rows: list[RoutedMessage] = json.loads((PROJECT / "tests/data/routed_messages.json").read_text("utf-8"))
    return rows


def read_conversations() -> list[str]:
    """Return what customers say in the scripted conversations."""
    content = YAML(typ="safe").load(PROJECT / "benchmarks/answers.yaml")
    return [turn["say"] for conversation in content["conversations"] for turn in conversation["turns"]]


def read_outside_messages() -> list[str]:
    """Return messages that no agent serves."""
    rows = (PROJECT / "tests/data/outside_messages.txt").read_text("utf-8").splitlines()
    return [row for row in rows if row]


def read_held_out_texts() -> list[str]:
    """Return all texts that the router is measured on."""
    return [row["text"] for row in read_routed_messages()] + read_conversations() + read_outside_messages()


if __name__ == "__main__":
    asyncio.run(write_vectors(build_local_embedder("similarity"), read_held_out_texts(), VECTORS))
