"""Properties of fusion, age and local reranking."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from memory.ranking import age_factor, fuse_ranks, sort_by_score
from memory.rerankers import Candidate, LocalReranker
from memory.texts import UNIT_CHARACTERS, extract_identifiers, split_into_units, split_text

NOW = datetime(2026, 5, 7, tzinfo=UTC)
RETRIEVERS = ("keyword", "vector", "trigram", "graph", "recent")
rankings = st.dictionaries(
    st.sampled_from(RETRIEVERS),
    st.lists(st.integers(0, 30), unique=True, max_size=20).map(
        lambda ids: {identity: rank for rank, identity in enumerate(ids, start=1)}
    ),
)
weighings = st.fixed_dictionaries({name: st.floats(0, 2) for name in RETRIEVERS})


def order(ranks: dict[str, dict[int, int]], weights: dict[str, float]) -> list[int]:
    scores = fuse_ranks(ranks, weights)
    return list(sort_by_score(scores, {identity: identity for identity in scores}))


@given(rankings, weighings, st.randoms())
def test_the_order_of_retrievers_and_of_their_rows_changes_nothing(ranks, weights, random) -> None:  # type: ignore[no-untyped-def]
    names = list(ranks)
    random.shuffle(names)
    shuffled = {}
    for name in names:
        rows = list(ranks[name].items())
        random.shuffle(rows)
        shuffled[name] = dict(rows)
    assert fuse_ranks(shuffled, weights) == fuse_ranks(ranks, weights)
    assert order(shuffled, weights) == order(ranks, weights)


@given(rankings, weighings, st.sampled_from(RETRIEVERS), st.integers(0, 30))
def test_a_better_rank_never_lowers_a_score(
    ranks: dict[str, dict[int, int]], weights: dict[str, float], name: str, identity: int
) -> None:
    before = fuse_ranks(ranks, weights).get(identity, 0.0)
    better = {**ranks, name: {**ranks.get(name, {}), identity: 1}}
    assert fuse_ranks(better, weights).get(identity, 0.0) >= before


@given(rankings, weighings)
def test_only_retrievers_with_a_weight_count_and_ties_go_to_the_lower_id(
    ranks: dict[str, dict[int, int]], weights: dict[str, float]
) -> None:
    scores = fuse_ranks(ranks, weights)
    assert set(scores) == {identity for name, rows in ranks.items() if weights[name] > 0 for identity in rows}
    assert all(score > 0 for score in scores.values())
    placed = order(ranks, weights)
    for first, second in pairwise(placed):
        assert (-scores[first], first) < (-scores[second], second)


@given(st.floats(0, 10_000), st.floats(0, 10_000), st.floats(0.1, 1_000), st.floats(0, 1))
def test_an_older_memory_never_counts_more(days: float, more: float, half_life: float, share: float) -> None:
    newer = age_factor(NOW - timedelta(days=days), NOW, half_life, share)
    older = age_factor(NOW - timedelta(days=days + more), NOW, half_life, share)
    assert 1 >= newer >= older >= 1 - share - 1e-9
    assert age_factor(NOW + timedelta(days=1), NOW, half_life, share) == 1


async def test_at_its_half_life_a_memory_has_lost_half_of_what_it_can_lose() -> None:
    assert age_factor(NOW - timedelta(days=30), NOW, 30, 0.5) == 0.75


@given(st.lists(st.tuples(st.text(max_size=20), st.floats(0.01, 1)), min_size=1, max_size=12))
async def test_reranking_keeps_every_candidate_and_the_best_one_first(found: list[tuple[str, float]]) -> None:
    candidates = [Candidate(text=text, at=NOW, score=score) for text, score in found]
    places = await LocalReranker().rerank("question", candidates)
    assert sorted(place.index for place in places) == list(range(len(candidates)))
    assert candidates[places[0].index].score == max(candidate.score for candidate in candidates)


async def test_a_repetition_gives_way_to_something_new() -> None:
    texts = [("the red lamp is broken", 1.0), ("the red lamp is broken", 0.99), ("call me tomorrow", 0.97)]
    places = await LocalReranker().rerank("lamp", [Candidate(text=t, at=NOW, score=s) for t, s in texts])
    assert [place.index for place in places] == [0, 2, 1]


@given(st.text(max_size=6_000))
def test_splitting_a_text_loses_only_white_space(text: str) -> None:
    found = split_text(text)
    assert found
    assert all(len(part) <= UNIT_CHARACTERS for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert [unit.part for unit in split_into_units(text, NOW)] == list(
        range(len(split_into_units(text, NOW)))
    )


def test_names_addresses_and_numbers_are_identifiers() -> None:
    text = "Hello, I am Ana Souza. Mail ana.souza@exemplo.com.br about ORD-48213, v4.2.1 or Error 500! Thanks"
    assert list(extract_identifiers(text)) == [
        "Ana",
        "Souza",
        "ana.souza@exemplo.com.br",
        "ORD-48213",
        "v4.2.1",
        "Error",
        "500",
    ]
