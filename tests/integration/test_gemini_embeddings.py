"""Google's embeddings over a real socket: what is sent, and what a caller sees when things go wrong."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from core.embeddings import Embedder, Purpose, build_embedder
from core.errors import EmbeddingError
from core.settings import EmbeddingSettings, ModelSettings, Settings
from tests.support.gemini import Cut, Error, GeminiServer, Silence, Vectors, gemini_server

KEY = SecretStr("AIzaTestKeyOfNobody")
FOUR = Vectors([3.0, 0.0, 4.0, 0.0])


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with gemini_server() as server:
        yield server


def embedder(server: GeminiServer, purpose: Purpose = "similarity", *, timeout: float = 5) -> Embedder:
    settings = Settings.load(
        models=ModelSettings(google_api_key=KEY, google_base_url=server.url),
        embeddings=EmbeddingSettings(dimensions=4, timeout_seconds=timeout, max_attempts=2),
    )
    return replace(build_embedder(settings, purpose), first_pause=0.001)


async def test_vectors_come_back_at_unit_length(server: GeminiServer) -> None:
    server.enqueue(FOUR)
    ours = embedder(server)
    assert await ours.embed_documents(["one", "two"]) == [[0.6, 0.0, 0.8, 0.0]] * 2
    [request] = server.requests
    assert (request.model, request.method) == ("gemini-embedding-001", "batchEmbedContents")
    assert [each["outputDimensionality"] for each in request.body["requests"]] == [4, 4]
    assert ours.model == "google_genai:gemini-embedding-001"
    await ours.aclose()


@pytest.mark.parametrize(
    ("purpose", "tasks"),
    [
        ("similarity", ["SEMANTIC_SIMILARITY", "SEMANTIC_SIMILARITY"]),
        ("retrieval", ["RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"]),
    ],
)
async def test_the_purpose_is_sent_as_the_task_type(
    server: GeminiServer, purpose: Purpose, tasks: list[str]
) -> None:
    server.enqueue(FOUR, FOUR)
    ours = embedder(server, purpose)
    await ours.embed_documents(["a document"])
    await ours.embed_query("a question")
    assert [request.body["requests"][0]["taskType"] for request in server.requests] == tasks
    await ours.aclose()


async def test_a_long_list_is_sent_in_batches_without_empty_texts(server: GeminiServer) -> None:
    server.enqueue(FOUR, FOUR)
    ours = embedder(server)
    assert len(await ours.embed_documents(["", *map(str, range(70))])) == 71
    assert [len(request.body["requests"]) for request in server.requests] == [64, 7]
    assert server.requests[0].body["requests"][0]["content"]["parts"] == [{"text": "."}]
    await ours.aclose()


@pytest.mark.parametrize("fault", [Error.rate_limited(retry_seconds=None), Error.overloaded(), Cut()])
async def test_a_transient_error_is_retried(server: GeminiServer, fault: Error | Cut) -> None:
    server.enqueue(fault, FOUR)
    ours = embedder(server)
    assert await ours.embed_query("text") == [0.6, 0.0, 0.8, 0.0]
    await ours.aclose()


async def test_a_lasting_error_is_one_error_after_all_attempts(server: GeminiServer) -> None:
    server.enqueue(Error.overloaded(), Error.internal())
    ours = embedder(server)
    with pytest.raises(EmbeddingError, match="500 INTERNAL") as caught:
        await ours.embed_query("text")
    assert (caught.value.status, caught.value.details["attempts"]) == (503, 2)
    await ours.aclose()


async def test_a_silent_provider_costs_only_its_time_limit(server: GeminiServer) -> None:
    server.enqueue(Silence(), Silence())
    ours = embedder(server, timeout=0.2)
    with pytest.raises(EmbeddingError, match="no answer in time"):
        await ours.embed_query("text")
    await ours.aclose()


async def test_a_wrong_key_is_reported_at_once_and_not_retried(server: GeminiServer) -> None:
    server.enqueue(Error.invalid_key())
    ours = embedder(server)
    with pytest.raises(EmbeddingError, match="check the provider's API key"):
        await ours.embed_query("text")
    assert len(server.requests) == 1
    await ours.aclose()


async def test_vectors_of_another_length_are_refused(server: GeminiServer) -> None:
    server.enqueue(Vectors([1.0, 2.0]))
    ours = embedder(server)
    with pytest.raises(EmbeddingError, match="vectors of 2 dimensions instead of 4"):
        await ours.embed_query("text")
    await ours.aclose()
