"""How well the shipped examples route messages that they were not written from, with stored vectors."""

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.escalation import normalize_words
from agents.loader import load_out_of_scope_messages
from core.embeddings import Embedder, build_local_embedder
from core.embeddings.local import why_unavailable
from nodes.coordinator.classifier import Classifier, TrainingTexts, clean_training_texts, fit_classifier
from nodes.coordinator.example_vectors import embed_examples, list_missing
from nodes.coordinator.router import GENERAL
from tests.support.agents import load_shipped_specs
from tests.support.held_out import (
    VECTORS,
    read_held_out_texts,
    read_outside_messages,
    read_routed_messages,
)

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason="the local embedding model cannot run")

# Bare greetings, which nobody can word differently.
SHORT_WORDS = 2


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_local_embedder("similarity")


@pytest.fixture(scope="module")
def training() -> TrainingTexts:
    examples = {name: agent.utterances for name, agent in load_shipped_specs().items()}
    return clean_training_texts(examples, load_out_of_scope_messages())


@pytest.fixture(scope="module")
async def classifier(embedder: Embedder, training: TrainingTexts) -> Classifier:
    return fit_classifier(training, await embed_examples(embedder, training.texts))


async def embed_held_out(embedder: Embedder, texts: list[str]) -> list[list[float]]:
    return await embed_examples(embedder, texts, VECTORS)


def test_every_text_has_a_stored_vector(embedder: Embedder, training: TrainingTexts) -> None:
    """After a change: `make example-vectors`, and `python -m tests.support.held_out`."""
    assert list_missing(embedder, training.texts) == []
    assert list_missing(embedder, read_held_out_texts(), VECTORS) == []


async def test_a_stored_vector_is_what_the_model_returns(embedder: Embedder, training: TrainingTexts) -> None:
    texts = training.texts[::700]
    stored, fresh = await embed_examples(embedder, texts), await embedder.embed_documents(texts)
    assert [float(np.dot(*pair)) for pair in zip(stored, fresh, strict=True)] == pytest.approx(
        [1.0] * len(texts), abs=1e-3
    )


async def test_no_example_equals_or_nearly_equals_a_message_that_the_router_is_measured_on(
    embedder: Embedder, training: TrainingTexts
) -> None:
    held_out = [text for text in read_held_out_texts() if len(text.split()) > SHORT_WORDS]
    vectors: NDArray[np.float64] = np.array(await embed_held_out(embedder, held_out))
    examples: NDArray[np.float64] = np.array(await embed_examples(embedder, training.texts))
    near = examples @ vectors.T > 0.95
    words = [set(normalize_words(text).split()) for text in held_out]
    copies = [
        (example, held_out[place])
        for row, example in enumerate(training.texts)
        for place, other in enumerate(words)
        if near[row, place] or _overlap(set(normalize_words(example).split()), other) > 0.7
    ]
    assert copies == []


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


async def test_messages_reach_the_agent_that_serves_them(embedder: Embedder, classifier: Classifier) -> None:
    rows = read_routed_messages()
    texts = [row["text"] for row in rows]
    routings = classifier.classify(await embed_held_out(embedder, texts), texts)
    right = np.array([each.route == row["agent"] for each, row in zip(routings, rows, strict=True)])
    sure = np.array([each.verdict == "sure" for each in routings])
    assert right.mean() >= 0.86
    assert right[sure].mean() >= 0.96
    assert sure.mean() >= 0.6
    confidence = np.mean([each.confidence for each in routings])
    assert confidence == pytest.approx(right.mean(), abs=0.06)


async def test_messages_that_no_agent_serves_stay_off_the_specialists(
    embedder: Embedder, classifier: Classifier
) -> None:
    texts = read_outside_messages()
    routings = classifier.classify(await embed_held_out(embedder, texts), texts)
    kept_off = [each.verdict == "unknown" or each.route == GENERAL for each in routings]
    assert np.mean(kept_off) >= 0.8
    assert sum(each.verdict == "sure" and each.route != GENERAL for each in routings) <= 1
