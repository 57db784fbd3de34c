"""Vote counting, a pure function: the same votes in any order give the same result."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

Rule: TypeAlias = Literal["majority", "unanimous", "weighted", "quorum"]
Outcome: TypeAlias = Literal["decided", "tie", "split", "no_quorum", "no_valid_votes"]


class WeightedVote(TypedDict):
    """One voter's part in the count; ``choice`` is empty when the vote is not valid."""

    choice: str
    weight: float


class OptionCount(TypedDict):
    """The votes for one option."""

    option: str
    votes: int
    weight: float


class Tally(TypedDict):
    """A count and its outcome."""

    rule: Rule
    outcome: Annotated[
        Outcome,
        Field(
            description="decided; tie: several options lead; split: the leading option lacks what the "
            "rule asks for; no_quorum: too few valid votes, or none of the options reached the quorum; "
            "no_valid_votes"
        ),
    ]
    winner: Annotated[str, Field(description="The option that won; empty when it is not decided")]
    leaders: Annotated[
        list[str], Field(description="The options with the most votes, in the order of the options")
    ]
    voters: Annotated[int, Field(description="Voters that were asked")]
    valid: Annotated[int, Field(description="Voters whose vote was valid")]
    counts: Annotated[list[OptionCount], Field(description="The votes for each option, in their order")]


def count_votes(votes: Sequence[WeightedVote], options: Sequence[str], *, rule: Rule, quorum: float) -> Tally:
    """Count votes.

    An option can only win when it leads alone and the valid votes are at least ``quorum`` of the voters.
    Beyond that, the rules ask for

    - ``majority``: more than half of the valid votes;
    - ``unanimous``: all valid votes;
    - ``weighted``: more than half of the weight of the valid votes;
    - ``quorum``: at least ``quorum`` of all voters, those without a valid vote included.

    Args:
        votes: One for each voter; a choice is an option or empty.
        options: What there is to choose from, each once.
        rule: As above.
        quorum: A fraction, 0 to 1.
    """
    valid = [vote for vote in votes if vote["choice"]]
    counts = [_count_option(valid, option) for option in options]
    scores = {option: _score(valid, option, rule) for option in options}
    leaders = [option for option, score in scores.items() if score and score == max(scores.values())]
    minimum = _to_fraction(quorum) * len(votes)
    outcome: Outcome
    if not valid:
        outcome = "no_valid_votes"
    elif len(valid) < minimum:
        outcome = "no_quorum"
    elif len(leaders) > 1:
        outcome = "tie"
    else:
        outcome = _judge_leader(scores[leaders[0]], sum(scores.values()), rule, minimum)
    return Tally(
        rule=rule,
        outcome=outcome,
        winner=leaders[0] if outcome == "decided" else "",
        leaders=leaders,
        voters=len(votes),
        valid=len(valid),
        counts=counts,
    )


def _judge_leader(score: Fraction, total: Fraction | int, rule: Rule, minimum: Fraction) -> Outcome:
    """Return the outcome by the rule for the option that leads alone."""
    if rule == "quorum":
        return "decided" if score >= minimum else "no_quorum"
    is_enough = score == total if rule == "unanimous" else score * 2 > total
    return "decided" if is_enough else "split"


def _count_option(valid: Sequence[WeightedVote], option: str) -> OptionCount:
    weight = _score(valid, option, "weighted")
    votes = sum(vote["choice"] == option for vote in valid)
    return OptionCount(option=option, votes=votes, weight=float(weight))


def _score(valid: Sequence[WeightedVote], option: str, rule: Rule) -> Fraction:
    weights = (_to_fraction(vote["weight"]) for vote in valid if vote["choice"] == option)
    return sum((weight if rule == "weighted" else Fraction(1) for weight in weights), Fraction(0))


def _to_fraction(number: float) -> Fraction:
    """Return the number as written: float sums depend on their order, and 0.1 + 0.2 would beat 0.3."""
    return Fraction(repr(number))
