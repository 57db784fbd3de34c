"""``make example-vectors``: embed the agents' examples again after they have changed."""

import asyncio

from core.embeddings import build_local_embedder
from core.settings import Settings
from graphs.studio import build_deps
from nodes.coordinator.example_vectors import write_vectors


def main() -> None:
    """Write ``nodes/coordinator/example_vectors.npz``; a minute on two cores."""
    router = build_deps(Settings.load()).agents.router
    asyncio.run(write_vectors(build_local_embedder("similarity"), router.texts))


if __name__ == "__main__":
    main()
