"""Counting votes, whatever they are."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.consensus.tally import Rule, Tally, WeightedVote, count_votes

OPTIONS = ["approve", "reject", "later", "never"]
RULES: tuple[Rule, ...] = get_args(Rule)

# Two decimals, as people write weights: sums of such floats are not exact.
weights = st.integers(1, 100_000).map(lambda hundredths: hundredths / 100)
quorums = st.integers(0, 100).map(lambda percent: percent / 100)
rules = st.sampled_from(RULES)
casts = st.lists(st.builds(WeightedVote, choice=st.sampled_from(["", *OPTIONS]), weight=weights), max_size=12)


def counted(cast: list[WeightedVote], rule: Rule, quorum: float = 0.5) -> Tally:
    return count_votes(cast, OPTIONS, rule=rule, quorum=quorum)


def voted(*choices: str, weight: float = 1) -> list[WeightedVote]:
    return [WeightedVote(choice=choice, weight=weight) for choice in choices]


@given(st.data(), casts, rules, quorums)
def test_the_order_of_the_votes_does_not_matter(
    data: st.DataObject, cast: list[WeightedVote], rule: Rule, quorum: float
) -> None:
    shuffled = data.draw(st.permutations(cast))
    assert counted(shuffled, rule, quorum) == counted(cast, rule, quorum)


@given(st.permutations(OPTIONS), casts, rules, quorums)
def test_the_order_of_the_options_decides_nothing(
    options: list[str], cast: list[WeightedVote], rule: Rule, quorum: float
) -> None:
    one, other = counted(cast, rule, quorum), count_votes(cast, options, rule=rule, quorum=quorum)
    assert (one["winner"], one["outcome"]) == (other["winner"], other["outcome"])
    assert sorted(one["leaders"]) == sorted(other["leaders"])


@given(casts, quorums)
def test_a_unanimous_option_also_wins_by_majority_and_weight(cast: list[WeightedVote], quorum: float) -> None:
    unanimous = counted(cast, "unanimous", quorum)
    if unanimous["outcome"] == "decided":
        for rule in ("majority", "weighted"):
            assert counted(cast, rule, quorum)["winner"] == unanimous["winner"]


@given(casts, quorums, st.integers(1, 1_000))
def test_only_the_proportion_of_the_weights_matters(
    cast: list[WeightedVote], quorum: float, factor: int
) -> None:
    whole = [WeightedVote(choice=vote["choice"], weight=round(vote["weight"] * 100)) for vote in cast]
    scaled = [WeightedVote(choice=vote["choice"], weight=vote["weight"] * factor) for vote in whole]
    results = [counted(each, "weighted", quorum) for each in (cast, whole, scaled)]
    assert len({(result["winner"], result["outcome"], *result["leaders"]) for result in results}) == 1


@given(casts, quorums, weights)
def test_equal_weights_give_the_same_result_as_majority(
    cast: list[WeightedVote], quorum: float, weight: float
) -> None:
    equal = [WeightedVote(choice=vote["choice"], weight=weight) for vote in cast]
    by_weight, by_heads = counted(equal, "weighted", quorum), counted(equal, "majority", quorum)
    assert (by_weight["winner"], by_weight["outcome"]) == (by_heads["winner"], by_heads["outcome"])


@given(casts, rules, quorums)
def test_a_winner_leads_alone_and_a_tie_is_never_decided(
    cast: list[WeightedVote], rule: Rule, quorum: float
) -> None:
    result = counted(cast, rule, quorum)
    assert bool(result["winner"]) is (result["outcome"] == "decided")
    if result["winner"]:
        assert result["leaders"] == [result["winner"]]
    if len(result["leaders"]) > 1:
        assert result["outcome"] in {"tie", "no_quorum"}


@given(casts, rules, quorums)
def test_nothing_is_decided_without_enough_valid_votes(
    cast: list[WeightedVote], rule: Rule, quorum: float
) -> None:
    result = counted(cast, rule, quorum)
    valid = sum(bool(vote["choice"]) for vote in cast)
    assert result["valid"] == valid == sum(count["votes"] for count in result["counts"])
    assert result["voters"] == len(cast)
    if result["winner"]:
        assert valid * 100 >= round(quorum * 100) * len(cast)
    assert (result["outcome"] == "no_valid_votes") is (valid == 0)


@given(st.data(), casts, rules, quorums)
def test_another_vote_for_the_winner_does_not_unseat_it(
    data: st.DataObject, cast: list[WeightedVote], rule: Rule, quorum: float
) -> None:
    result = counted(cast, rule, quorum)
    if result["winner"]:
        at = data.draw(st.integers(0, len(cast) - 1))
        changed = [
            *cast[:at],
            WeightedVote(choice=result["winner"], weight=cast[at]["weight"]),
            *cast[at + 1 :],
        ]
        assert counted(changed, rule, quorum)["winner"] == result["winner"]


@given(casts, rules, quorums)
def test_an_invalid_vote_never_helps_anyone(cast: list[WeightedVote], rule: Rule, quorum: float) -> None:
    with_one_more = counted([*cast, *voted("", weight=1_000)], rule, quorum)
    assert with_one_more["counts"] == counted(cast, rule, quorum)["counts"]
    assert with_one_more["winner"] in {"", counted(cast, rule, quorum)["winner"]}


@pytest.mark.parametrize("rule", RULES)
def test_equal_votes_are_a_tie(rule: Rule) -> None:
    result = counted(voted("approve", "reject"), rule)
    assert (result["outcome"], result["winner"], result["leaders"]) == ("tie", "", ["approve", "reject"])


def test_weights_that_add_up_to_the_same_tie_exactly() -> None:
    cast = [*voted("approve", weight=0.1), *voted("approve", weight=0.2), *voted("reject", weight=0.3)]
    assert counted(cast, "weighted")["outcome"] == "tie"


def test_half_is_no_majority() -> None:
    cast = voted("approve", "approve", "reject", "later")
    assert counted(cast, "majority")["outcome"] == "split"
    assert counted(cast, "quorum", 0.5)["winner"] == "approve"


def test_a_quorum_is_of_all_voters_and_a_majority_of_those_who_voted() -> None:
    cast = voted("approve", "approve", "", "")
    assert counted(cast, "majority", 0.5)["winner"] == "approve"
    assert counted(cast, "quorum", 0.5)["winner"] == "approve"
    assert counted(cast, "quorum", 0.51)["outcome"] == "no_quorum"
    assert counted(cast, "unanimous", 1)["outcome"] == "no_quorum"


def test_a_fraction_is_taken_as_it_is_written() -> None:
    # 0.07 * 100 is a little more than 7 in floats.
    cast = [*voted(*["approve"] * 7), *voted(*[""] * 93)]
    assert counted(cast, "quorum", 0.07)["winner"] == "approve"
