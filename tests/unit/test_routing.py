"""The router: where texts go, when it abstains, and what happens when its embedding model fails."""

import asyncio
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import deadline
from core.embeddings import Embedder
from core.errors import EmbeddingError, StartupError
from nodes.coordinator.classifier import Classifier, fit_classifier, load_arrays
from nodes.coordinator.router import MAX_CLAUSES, Router, _classifiers, split_clauses
from tests.support.embeddings import CountingEmbeddings, counting_embedder

THINGS = ("invoice", "payment", "refund", "receipt", "charge", "price")
EXAMPLES = {
    "billing": [f"I have a question about the {thing} on my account" for thing in THINGS],
    "technical": [
        f"the {thing} crashes with an error message" for thing in ("app", "page", "export", "login", "import")
    ],
    "scheduling": [
        f"please book a meeting on {day} morning" for day in ("monday", "tuesday", "wednesday", "thursday")
    ]
    + ["can we move our meeting to friday", "I need to cancel the meeting tomorrow"],
    "order": [
        f"where is my {thing} and when will it arrive" for thing in ("order", "parcel", "box", "delivery")
    ]
    + ["my order has not arrived yet", "track my parcel please"],
}
OUT_OF_SCOPE = [
    "who won the match last night",
    "tell me a joke",
    "what is the capital of France",
    "sing a song",
]


@pytest.fixture
def model() -> CountingEmbeddings:
    return CountingEmbeddings()


@pytest.fixture
def embedder(model: CountingEmbeddings) -> Embedder:
    return counting_embedder(model, f"test:{uuid.uuid4()}")


@pytest.fixture
def router(embedder: Embedder) -> Router:
    return Router(EXAMPLES, embedder, out_of_scope=OUT_OF_SCOPE)


async def test_a_text_is_routed_to_the_route_with_similar_examples(router: Router) -> None:
    answer = await router.route("the export page crashes with an error")
    assert (answer.route, answer.verdict) == ("technical", "sure")
    assert [each.route for each in answer.alternatives] != []
    assert "technical" not in [each.route for each in answer.alternatives]


async def test_a_text_that_resembles_no_example_is_unknown(router: Router) -> None:
    known = await router.route("book a meeting on friday morning")
    strange = await router.route("zebras graze quietly under bright stars")
    assert strange.verdict == "unknown"
    assert strange.confidence < known.confidence
    assert strange.familiarity < known.familiarity


@pytest.mark.parametrize("text", ["", " ", "\0", "👍", "???", "\ud800"])
async def test_a_text_without_words_is_unknown(router: Router, text: str) -> None:
    answer = await router.route(text)
    assert (answer.verdict, answer.confidence) == ("unknown", 0)


async def test_a_hostile_or_very_long_text_is_routed(router: Router, model: CountingEmbeddings) -> None:
    for text in ("x" * 20_000, "\ud800 book\0 a meeting", "and " * 5_000, "a. " * 5_000, "'; DROP TABLE"):
        assert (await router.route(text)).route in EXAMPLES
        assert (await router.route_parts(text))[0][0]
    assert max(map(len, model.texts)) <= 1_000


# Parts


async def test_a_message_about_two_things_has_two_parts(router: Router) -> None:
    text = "The export page crashes with an error message. Please book a meeting on tuesday morning."
    parts = await router.route_parts(text)
    assert [(part, answer.route) for part, answer in parts] == [
        ("The export page crashes with an error message.", "technical"),
        ("Please book a meeting on tuesday morning.", "scheduling"),
    ]


async def test_two_things_in_one_sentence_are_two_parts(router: Router) -> None:
    text = "the login crashes with an error message and please book a meeting on monday morning"
    assert [answer.route for _, answer in await router.route_parts(text)] == ["technical", "scheduling"]


@pytest.mark.parametrize(
    "text",
    [
        "the app crashes with an error message and the page crashes with an error",
        "please book a meeting on monday morning. Thanks a lot in advance!",
        "book a meeting",
        "",
    ],
)
async def test_a_message_about_one_thing_is_one_unchanged_part(router: Router, text: str) -> None:
    [(part, _)] = await router.route_parts(text)
    assert part == text


def test_clauses_are_few_and_none_is_a_single_word() -> None:
    assert split_clauses("Hi! My invoice is wrong, e quero remarcar a reunião; thanks") == [
        "Hi! My invoice is wrong",
        "e quero remarcar a reunião; thanks",
    ]
    assert len(split_clauses("one two three four. " * 100)) == MAX_CLAUSES


# Few examples


async def test_with_too_few_examples_the_verdict_is_left_to_the_model(embedder: Embedder) -> None:
    router = Router({"a": ["refund my invoice"], "b": ["book a meeting"]}, embedder)
    answer = await router.route("refund the invoice please")
    assert (answer.route, answer.verdict) == ("a", "close")


async def test_a_single_route_gets_everything_when_nothing_is_out_of_scope(embedder: Embedder) -> None:
    answer = await Router({"only": ["hello there"] * 3}, embedder).route("anything at all")
    assert (answer.route, answer.verdict, answer.alternatives) == ("only", "sure", ())


async def test_a_single_route_is_distinguished_from_what_is_out_of_scope(embedder: Embedder) -> None:
    texts = [f"book a meeting on day {number} with guest {number * 7}" for number in range(24)]
    router = Router({"only": texts}, embedder, out_of_scope=OUT_OF_SCOPE)
    inside = await router.route("book a meeting on day 30 with guest 4")
    assert inside.verdict == "sure"
    assert (await router.route("tell me a song about the capital")).confidence < inside.confidence


@pytest.mark.parametrize("examples", [{}, {"empty": []}, {"a": ["text"], "blank": [" "]}])
def test_a_route_without_an_example_is_a_startup_error(
    embedder: Embedder, examples: dict[str, list[str]]
) -> None:
    with pytest.raises(StartupError, match="example"):
        Router(examples, embedder)


# Fits


async def test_concurrent_callers_share_one_fit(router: Router, model: CountingEmbeddings) -> None:
    await asyncio.gather(*(router.prepare() for _ in range(20)))
    count = sum(map(len, EXAMPLES.values())) + len(OUT_OF_SCOPE)
    assert len(model.texts) == count


async def test_another_router_with_the_same_examples_shares_the_fit(
    router: Router, embedder: Embedder, model: CountingEmbeddings
) -> None:
    await router.prepare()
    before = len(model.texts)
    await Router(
        {name: EXAMPLES[name][::-1] for name in reversed(EXAMPLES)}, embedder, out_of_scope=OUT_OF_SCOPE
    ).prepare()
    assert len(model.texts) == before


async def test_a_cancelled_caller_does_not_cancel_the_fit_for_the_others(router: Router) -> None:
    first, second = asyncio.create_task(router.prepare()), asyncio.create_task(router.route("book a meeting"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).route == "scheduling"


async def test_a_failed_fit_is_retried_by_the_next_caller(router: Router, model: CountingEmbeddings) -> None:
    model.down = True
    with pytest.raises(EmbeddingError):
        await router.prepare()
    model.down = False
    assert (await router.route("book a meeting on friday")).route == "scheduling"


async def test_a_message_does_not_wait_until_the_router_has_learnt(
    router: Router, model: CountingEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free = threading.Event()

    def fit_when_free(*given: Any) -> Classifier:
        is_free.wait()
        return fit_classifier(*given)

    monkeypatch.setattr("nodes.coordinator.router.fit_classifier", fit_when_free)
    monkeypatch.setattr("nodes.coordinator.router._FIT_SECONDS", 0.0)
    try:
        with deadline.within(30), pytest.raises(EmbeddingError, match="still learning"):
            await router.route("book a meeting on friday")
        # The model has not failed, and whoever has the time waits for the same fit.
        assert router.fault == ""
    finally:
        is_free.set()
    assert (await router.route("book a meeting on friday")).route == "scheduling"
    assert model.texts.count("tell me a joke") == 1


def new_process() -> None:
    """Forget the fits that all routers of this process share."""
    _classifiers.clear()


def stored_files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_stored_fit_is_loaded_by_the_next_process_without_embedding_or_scikit_learn(
    embedder: Embedder, model: CountingEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Router(EXAMPLES, embedder, out_of_scope=OUT_OF_SCOPE, cache_dir=tmp_path / "new")
    before = await first.route("the export page crashes with an error")
    new_process()
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    model.texts.clear()
    second = Router(EXAMPLES, embedder, out_of_scope=OUT_OF_SCOPE, cache_dir=tmp_path / "new")
    assert await second.route("the export page crashes with an error") == before
    assert model.texts == ["the export page crashes with an error"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
async def test_a_damaged_stored_fit_is_replaced(
    embedder: Embedder, tmp_path: Path, content: bytes | None
) -> None:
    before = await Router(EXAMPLES, embedder, cache_dir=tmp_path).route("book a meeting")
    [path] = stored_files(tmp_path)
    if content is None:
        np.savez(path, mean=np.array([object()]))
    else:
        path.write_bytes(content)
    new_process()
    assert await Router(EXAMPLES, embedder, cache_dir=tmp_path).route("book a meeting") == before
    new_process()
    assert load_arrays(path, embedder.dimensions, len(EXAMPLES)) is not None


async def test_other_examples_do_not_use_the_stored_fit(embedder: Embedder, tmp_path: Path) -> None:
    await Router(EXAMPLES, embedder, cache_dir=tmp_path).prepare()
    await Router({**EXAMPLES, "other": ["something else"]}, embedder, cache_dir=tmp_path).prepare()
    assert len(stored_files(tmp_path)) == 2


async def test_a_folder_that_cannot_be_written_does_not_stop_the_router(
    embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    router = Router(EXAMPLES, embedder, cache_dir=tmp_path / "file")
    assert (await router.route("please book a meeting on monday morning")).route == "scheduling"


# Fallback


async def test_the_fallback_answers_while_the_embedding_model_fails(
    embedder: Embedder, model: CountingEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = CountingEmbeddings()
    router = Router(EXAMPLES, embedder, fallback=counting_embedder(spare, f"spare:{uuid.uuid4()}"))
    await router.prepare()
    assert spare.texts == []
    model.down = True
    assert (await router.route("book a meeting on friday")).route == "scheduling"
    asked = len(model.texts)
    model.down = False
    assert (await router.route("the app crashes with an error")).route == "technical"
    assert len(model.texts) == asked  # it is not called for a while
    monkeypatch.setattr("nodes.coordinator.router._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(router, "_paused_until", 0.0)
    await router.route("the app crashes with an error")
    assert len(model.texts) == asked + 1


async def test_without_a_fallback_the_error_is_raised(router: Router, model: CountingEmbeddings) -> None:
    await router.prepare()
    model.down = True
    with pytest.raises(EmbeddingError, match="does not answer"):
        await router.route("book a meeting")
