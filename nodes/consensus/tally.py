"""Counting votes. Pure: the same votes, in any order, give the same result."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

Rule: TypeAlias = Literal["majority", "unanimous", "weighted", "quorum"]
Outcome: TypeAlias = Literal["decided", "tie", "split", "no_quorum", "no_valid_votes"]


class Cast(TypedDict):
    """One voter's part in the count. ``choice`` is empty where the vote is not valid."""

    choice: str
    weight: float


class Count(TypedDict):
    """What one option got."""

    option: str
    votes: int
    weight: float


class Tally(TypedDict):
    """A count and what it means."""

    rule: Rule
    outcome: Annotated[
        Outcome,
        Field(
            description="decided; tie: several options lead; split: the leading option has not what the rule "
            "asks for; no_quorum: too few valid votes, or none of the options reached the quorum; "
            "no_valid_votes"
        ),
    ]
    winner: Annotated[str, Field(description="The option that won; empty when it is not decided")]
    leaders: Annotated[list[str], Field(description="The options with the most, in the order of the options")]
    voters: Annotated[int, Field(description="Voters that were asked")]
    valid: Annotated[int, Field(description="Voters whose vote was valid")]
    counts: Annotated[list[Count], Field(description="What each option got, in the order of the options")]


def tally(cast: Sequence[Cast], options: Sequence[str], *, rule: Rule, quorum: float) -> Tally:
    """Count votes.

    An option can only win when it leads alone and the valid votes are at least ``quorum`` of the voters.
    Beyond that, the rules ask for

    - ``majority``: more than half of the valid votes;
    - ``unanimous``: all valid votes;
    - ``weighted``: more than half of the weight of the valid votes;
    - ``quorum``: at least ``quorum`` of all voters, those without a valid vote included.

    Args:
        cast: The votes, one for each voter; a choice is an option or empty.
        options: What there is to choose from, each once.
        rule: As above.
        quorum: A fraction, 0 to 1.
    """
    valid = [vote for vote in cast if vote["choice"]]
    counts = [_count(valid, option) for option in options]
    scores = {option: _score(valid, option, rule) for option in options}
    leaders = [option for option, score in scores.items() if score and score == max(scores.values())]
    least = _exact(quorum) * len(cast)
    outcome: Outcome
    if not valid:
        outcome = "no_valid_votes"
    elif len(valid) < least:
        outcome = "no_quorum"
    elif len(leaders) > 1:
        outcome = "tie"
    else:
        outcome = _judged(scores[leaders[0]], sum(scores.values()), rule, least)
    return Tally(
        rule=rule,
        outcome=outcome,
        winner=leaders[0] if outcome == "decided" else "",
        leaders=leaders,
        voters=len(cast),
        valid=len(valid),
        counts=counts,
    )


def _judged(most: Fraction, total: Fraction | int, rule: Rule, least: Fraction) -> Outcome:
    """What the rule says of the option that leads alone."""
    if rule == "quorum":
        return "decided" if most >= least else "no_quorum"
    enough = most == total if rule == "unanimous" else most * 2 > total
    return "decided" if enough else "split"


def _count(valid: Sequence[Cast], option: str) -> Count:
    weight = _score(valid, option, "weighted")
    votes = sum(vote["choice"] == option for vote in valid)
    return Count(option=option, votes=votes, weight=float(weight))


def _score(valid: Sequence[Cast], option: str, rule: Rule) -> Fraction:
    weights = (_exact(vote["weight"]) for vote in valid if vote["choice"] == option)
    return sum((weight if rule == "weighted" else Fraction(1) for weight in weights), Fraction(0))


def _exact(number: float) -> Fraction:
    """The number as it is written: sums of floats depend on their order, and 0.1 + 0.2 would beat 0.3."""
    return Fraction(repr(number))
