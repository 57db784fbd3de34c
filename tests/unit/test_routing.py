"""The router: where texts go, when it does not know, and what happens when its model is away."""

import asyncio
import uuid

import pytest
from nodes.coordinator.router import MAX_CLAUSES, Router, split_clauses

from core.embeddings import Embedder
from core.errors import EmbeddingError, StartupError
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
OUTSIDE = ["who won the match last night", "tell me a joke", "what is the capital of France", "sing a song"]


@pytest.fixture
def model() -> CountingEmbeddings:
    return CountingEmbeddings()


@pytest.fixture
def embedder(model: CountingEmbeddings) -> Embedder:
    return counting_embedder(model, f"test:{uuid.uuid4()}")


@pytest.fixture
def router(embedder: Embedder) -> Router:
    return Router(EXAMPLES, embedder, outside=OUTSIDE)


async def test_a_text_goes_where_its_like_go(router: Router) -> None:
    answer = await router.route("the export page crashes with an error")
    assert (answer.route, answer.verdict) == ("technical", "sure")
    assert [each.route for each in answer.alternatives] != []
    assert "technical" not in [each.route for each in answer.alternatives]


async def test_what_is_like_no_example_is_unknown(router: Router) -> None:
    known = await router.route("book a meeting on friday morning")
    strange = await router.route("zebras graze quietly under bright stars")
    assert strange.verdict == "unknown"
    assert strange.confidence < known.confidence
    assert strange.familiarity < known.familiarity


@pytest.mark.parametrize("text", ["", " ", "\0", "👍", "???", "\ud800"])
async def test_a_text_that_says_nothing_is_unknown(router: Router, text: str) -> None:
    answer = await router.route(text)
    assert (answer.verdict, answer.confidence) == ("unknown", 0)


async def test_a_hostile_or_endless_text_is_answered(router: Router, model: CountingEmbeddings) -> None:
    for text in ("x" * 20_000, "\ud800 book\0 a meeting", "and " * 5_000, "a. " * 5_000, "'; DROP TABLE"):
        assert (await router.route(text)).route in EXAMPLES
        assert (await router.parts(text))[0][0]
    assert max(map(len, model.texts)) <= 1_000


# Parts


async def test_a_message_about_two_things_has_two_parts(router: Router) -> None:
    text = "The export page crashes with an error message. Please book a meeting on tuesday morning."
    parts = await router.parts(text)
    assert [(part, answer.route) for part, answer in parts] == [
        ("The export page crashes with an error message.", "technical"),
        ("Please book a meeting on tuesday morning.", "scheduling"),
    ]


async def test_two_things_in_one_sentence_are_told_apart(router: Router) -> None:
    text = "the login crashes with an error message and please book a meeting on monday morning"
    assert [answer.route for _, answer in await router.parts(text)] == ["technical", "scheduling"]


@pytest.mark.parametrize(
    "text",
    [
        "the app crashes with an error message and the page crashes with an error",
        "please book a meeting on monday morning. Thanks a lot in advance!",
        "book a meeting",
        "",
    ],
)
async def test_a_message_about_one_thing_is_one_part_word_for_word(router: Router, text: str) -> None:
    [(part, _)] = await router.parts(text)
    assert part == text


def test_clauses_are_few_and_none_is_a_mere_word() -> None:
    assert split_clauses("Hi! My invoice is wrong, e quero remarcar a reunião; thanks") == [
        "Hi! My invoice is wrong",
        "e quero remarcar a reunião; thanks",
    ]
    assert len(split_clauses("one two three four. " * 100)) == MAX_CLAUSES


# Few examples


async def test_with_too_few_examples_the_model_is_left_to_decide(embedder: Embedder) -> None:
    router = Router({"a": ["refund my invoice"], "b": ["book a meeting"]}, embedder)
    answer = await router.route("refund the invoice please")
    assert (answer.route, answer.verdict) == ("a", "close")


async def test_one_route_gets_everything_when_nothing_is_outside(embedder: Embedder) -> None:
    answer = await Router({"only": ["hello there"] * 3}, embedder).route("anything at all")
    assert (answer.route, answer.verdict, answer.alternatives) == ("only", "sure", ())


async def test_one_route_is_told_from_what_is_outside(embedder: Embedder) -> None:
    texts = [f"book a meeting on day {number} with guest {number * 7}" for number in range(24)]
    router = Router({"only": texts}, embedder, outside=OUTSIDE)
    inside = await router.route("book a meeting on day 30 with guest 4")
    assert inside.verdict == "sure"
    assert (await router.route("tell me a song about the capital")).confidence < inside.confidence


@pytest.mark.parametrize("examples", [{}, {"empty": []}, {"a": ["text"], "blank": [" "]}])
def test_a_route_without_an_example_stops_the_start(
    embedder: Embedder, examples: dict[str, list[str]]
) -> None:
    with pytest.raises(StartupError, match="example"):
        Router(examples, embedder)


# Fits


async def test_callers_at_the_same_time_share_one_fit(router: Router, model: CountingEmbeddings) -> None:
    await asyncio.gather(*(router.prepare() for _ in range(20)))
    count = sum(map(len, EXAMPLES.values())) + len(OUTSIDE)
    assert len(model.texts) == count


async def test_another_router_over_the_same_examples_need_not_fit(
    router: Router, embedder: Embedder, model: CountingEmbeddings
) -> None:
    await router.prepare()
    before = len(model.texts)
    await Router(
        {name: EXAMPLES[name][::-1] for name in reversed(EXAMPLES)}, embedder, outside=OUTSIDE
    ).ready()
    assert len(model.texts) == before


async def test_a_caller_that_goes_away_does_not_take_the_fit_from_the_others(router: Router) -> None:
    first, second = asyncio.create_task(router.prepare()), asyncio.create_task(router.route("book a meeting"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).route == "scheduling"


async def test_a_fit_that_failed_is_tried_again(router: Router, model: CountingEmbeddings) -> None:
    model.down = True
    with pytest.raises(EmbeddingError):
        await router.prepare()
    model.down = False
    assert (await router.route("book a meeting on friday")).route == "scheduling"


# Fallback


async def test_while_the_model_is_away_the_fallback_answers(
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
    assert len(model.texts) == asked  # it is left alone for a while
    monkeypatch.setattr("nodes.routing.router._REST_SECONDS", 0.0)
    monkeypatch.setattr(router, "_resting_until", 0.0)
    await router.route("the app crashes with an error")
    assert len(model.texts) == asked + 1


async def test_without_a_fallback_the_error_is_told(router: Router, model: CountingEmbeddings) -> None:
    await router.prepare()
    model.down = True
    with pytest.raises(EmbeddingError, match="does not answer"):
        await router.route("book a meeting")
