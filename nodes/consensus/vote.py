"""One voter's vote."""

import asyncio
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from pydantic import Field, create_model

from core.context import Context
from core.errors import ModelError
from nodes.consensus.state import Ballot, Vote, VoteInput, one_of
from nodes.deps import Deps, Node, get_run_context
from nodes.shared.prompts import add_locale, load_prompt
from nodes.shared.structured import ask_structured

# Voters differ by their lenses: chance would only add noise to the count.
TEMPERATURE = 0.2
# A little more than a model's attempts take together; below the step's own limit, which would end the run.
VOTE_TIMEOUT_SECONDS = 200.0


def vote(deps: Deps) -> Node[VoteInput, dict[str, Any]]:
    """Node: vote through the lens it is sent. A voter that cannot vote says why, and the others count."""
    system = load_prompt("consensus_voter")

    async def vote(state: VoteInput, *, runtime: Runtime[Context]) -> dict[str, Any]:
        context = get_run_context(runtime)
        voter = state["lens"]["name"]
        try:
            async with asyncio.timeout(VOTE_TIMEOUT_SECONDS):
                ballot = await ask_structured(
                    deps.models,
                    _messages(system, state, context.locale),
                    ballot_over(state["options"]),
                    temperature=TEMPERATURE,
                    model=context.model,
                )
        except ModelError as error:
            return {"votes": [_invalid(voter, error.message)]}
        except TimeoutError:
            return {"votes": [_invalid(voter, "The voter did not answer in time")]}
        if ballot is None:
            return {"votes": [_invalid(voter, "The voter's replies could not be read")]}
        return {"votes": [_valid(voter, ballot)]}

    return vote


def _messages(system: str, state: VoteInput, locale: str | None) -> list[AnyMessage]:
    lens = state["lens"]
    options = "\n".join(f"- {option}" for option in state["options"])
    told = system.format(name=lens["name"], instruction=lens["instruction"], options=options)
    return [
        SystemMessage(add_locale(told, locale)),
        HumanMessage(state["contact"]),
        HumanMessage(state["question"]),
    ]


def ballot_over(options: list[str]) -> type[Ballot]:
    """A ballot that takes no choice but these."""
    choice = (one_of(options), Field(description=Ballot.model_fields["choice"].description))
    return create_model("Ballot", __base__=Ballot, __doc__=Ballot.__doc__, choice=choice)


def _valid(voter: str, ballot: Ballot) -> Vote:
    return Vote(
        voter=voter,
        choice=ballot.choice,
        confidence=ballot.confidence,
        reasoning=ballot.reasoning,
        valid=True,
    )


def _invalid(voter: str, why: str) -> Vote:
    return Vote(voter=voter, choice="", confidence=0.0, reasoning=why, valid=False)
